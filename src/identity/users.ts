import { ServiceError } from '../base/errors.ts'
import type { DocumentReader, DocumentWriter } from '../store/catalog/catalog.ts'
import type { AuthenticatedCaller } from './identity.ts'
import { guarded } from './login.ts'
import { MAX_PASSWORD_CHARACTERS } from './passwords.ts'
import { authorize } from './policy.ts'
import type { Ports } from './ports.ts'
import { newId, type ProjectRecord, type UserRecord } from './records.ts'
import { applicationCredentials, assignments, type Listed, projects, tokens, users } from './store.ts'

export interface UserFields {
  readonly name?: string
  readonly enabled?: boolean
  readonly description?: string | null
  readonly defaultProjectId?: string | null
  /** null: no login by password. */
  readonly password?: string | null
  /** Merged into what is there; null removes an attribute. */
  readonly extra?: Readonly<Record<string, unknown>>
}

export async function getUser({ catalog }: Ports, caller: AuthenticatedCaller, id: string): Promise<UserRecord> {
  const user = await users.get(catalog.documents, id)
  authorize(caller, 'user:get', { userId: user?.id })
  return user ?? absent(id)
}

export async function listUsers({ catalog }: Ports, caller: AuthenticatedCaller, name?: string): Promise<Listed<UserRecord>> {
  authorize(caller, 'user:list')
  if (name === undefined) return users.list(catalog.documents)
  const found = await users.byName(catalog.documents, name)
  return { items: found ? [found] : [], truncated: false }
}

/** @throws ServiceError `conflict` where the name is taken */
export async function createUser(
  ports: Ports,
  caller: AuthenticatedCaller,
  fields: UserFields & { readonly name: string },
): Promise<UserRecord> {
  authorize(caller, 'user:create')
  const passwordHash = typeof fields.password === 'string' ? await hashed(ports, fields.password) : null
  const user: UserRecord = {
    id: newId(),
    name: fields.name,
    enabled: fields.enabled ?? true,
    description: fields.description ?? null,
    defaultProjectId: fields.defaultProjectId ?? null,
    passwordHash,
    createdAt: ports.now(),
    extra: mergeExtra({}, fields.extra),
  }
  await ports.catalog.write(({ documents }) => putUser(documents, user))
  return user
}

/** A password that changes and an account that is disabled end all of the user's tokens. */
export async function updateUser(ports: Ports, caller: AuthenticatedCaller, id: string, fields: UserFields): Promise<UserRecord> {
  authorize(caller, 'user:update')
  const passwordHash = typeof fields.password === 'string' ? await hashed(ports, fields.password) : fields.password
  return ports.catalog.write(async ({ documents }) => {
    const user = (await users.get(documents, id)) ?? absent(id)
    const { name = user.name, enabled = user.enabled, description = user.description } = fields
    const { defaultProjectId = user.defaultProjectId } = fields
    const changed: UserRecord = {
      ...user,
      name,
      enabled,
      description,
      defaultProjectId,
      passwordHash: passwordHash === undefined ? user.passwordHash : passwordHash,
      extra: mergeExtra(user.extra, fields.extra),
    }
    await putUser(documents, changed)
    if (passwordHash !== undefined || !enabled) await tokens.revokeOfUser(documents, id)
    return changed
  })
}

export async function deleteUser({ catalog }: Ports, caller: AuthenticatedCaller, id: string): Promise<void> {
  authorize(caller, 'user:delete')
  await catalog.write(async ({ documents }) => {
    if (!(await users.get(documents, id))) absent(id)
    await tokens.revokeOfUser(documents, id)
    await applicationCredentials.deleteOfUser(documents, id)
    await assignments.deleteOfUser(documents, id)
    await users.delete(documents, id)
  })
}

/** By the users themselves, who prove it by the old password and need no token. Ends all of their tokens. */
export async function changePassword(ports: Ports, id: string, original: string, next: string, address: string): Promise<void> {
  const user = await users.get(ports.catalog.documents, id)
  await guarded(ports, user?.id ?? `id:${id.slice(0, 64)}`, address, async () => {
    const matches = await ports.passwords.verify(original, user?.passwordHash, address)
    return matches && user?.enabled === true
  })
  const passwordHash = await hashed(ports, next, address)
  await ports.catalog.write(async ({ documents }) => {
    const current = (await users.get(documents, id)) ?? absent(id)
    if (current.passwordHash !== user?.passwordHash) {
      throw new ServiceError('conflict', 'the password was changed by another request in the meantime: log in with the new one')
    }
    await putUser(documents, { ...current, passwordHash })
    await tokens.revokeOfUser(documents, id)
  })
}

/** The projects in which a user has a role, enabled or not, by name. */
export async function projectsOfUser(
  { catalog }: Ports,
  caller: AuthenticatedCaller,
  userId: string,
): Promise<readonly ProjectRecord[]> {
  const user = await users.get(catalog.documents, userId)
  authorize(caller, 'user:projects', { userId: user?.id })
  if (!user) absent(userId)
  const { items } = await assignments.ofUser(catalog.documents, userId)
  const ids = new Set(items.flatMap(({ scope }) => (scope.kind === 'project' ? [scope.projectId] : [])))
  const found = await Promise.all([...ids].map((id) => projects.get(catalog.documents, id)))
  return found.filter((project) => project !== undefined).sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** What a user has a role in besides projects. */
export async function scopesOfUser({ catalog }: Ports, userId: string): Promise<{ domain: boolean; system: boolean }> {
  const { items } = await assignments.ofUser(catalog.documents, userId)
  return {
    domain: items.some(({ scope }) => scope.kind === 'domain'),
    system: items.some(({ scope }) => scope.kind === 'system'),
  }
}

async function hashed(ports: Ports, password: string, address?: string): Promise<string> {
  if (password.length > MAX_PASSWORD_CHARACTERS) {
    throw new ServiceError(
      'invalid-request',
      `a password may have at most ${MAX_PASSWORD_CHARACTERS} characters: take a shorter one`,
    )
  }
  if (password.length === 0) throw new ServiceError('invalid-request', 'a password cannot be empty: give one, or null for none')
  return ports.passwords.hash(password, address)
}

async function putUser(docs: DocumentReader & DocumentWriter, user: UserRecord): Promise<void> {
  const holder = await users.byName(docs, user.name)
  if (holder && holder.id !== user.id) {
    throw new ServiceError('conflict', `there is a user named "${user.name}" in this domain: choose another name`)
  }
  await users.put(docs, user)
}

function absent(id: string): never {
  throw new ServiceError('not-found', `could not find user "${id}"`)
}

/** Room for what clients add to a user or project; the rest of the record is bounded by its fields. */
const MAX_EXTRA_CHARACTERS = 16 * 1024

export function mergeExtra(
  before: Readonly<Record<string, unknown>>,
  changes: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, unknown>> {
  const merged = Object.fromEntries(Object.entries({ ...before, ...changes }).filter(([, value]) => value !== null))
  if (JSON.stringify(merged).length > MAX_EXTRA_CHARACTERS) {
    throw new ServiceError(
      'invalid-request',
      `further attributes may take at most ${MAX_EXTRA_CHARACTERS} characters of JSON: send fewer`,
    )
  }
  return merged
}
