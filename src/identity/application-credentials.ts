import { randomBytes } from 'node:crypto'
import { ServiceError } from '../base/errors.ts'
import type { AuthenticatedCaller } from './identity.ts'
import { MAX_PASSWORD_CHARACTERS } from './passwords.ts'
import { authorize } from './policy.ts'
import type { Ports } from './ports.ts'
import { type ApplicationCredentialRecord, newId } from './records.ts'
import { applicationCredentials, effectiveRoles, type Listed, roles, tokens } from './store.ts'
import { unauthenticated } from './tokens.ts'

export interface NewApplicationCredential {
  readonly name: string
  readonly description?: string | null
  /** Made up where absent. */
  readonly secret?: string | null
  /** Milliseconds since 1970. */
  readonly expiresAt?: number | null
  /** Some of the roles of the caller's token; all of them where absent. */
  readonly roles?: readonly ({ readonly id: string } | { readonly name: string })[]
  readonly unrestricted?: boolean
}

const MAX_OF_A_USER = 1000

/**
 * A second way to log in, for programs: to the project of the caller's token, with some of its roles, until it is deleted.
 * @returns the record and the secret, which is shown now and never again
 * @throws ServiceError `denied` for another user, or from a token of a restricted application credential; `conflict` where the
 *   name is taken; `invalid-request` for a role that the token lacks
 */
export async function createApplicationCredential(
  ports: Ports,
  caller: AuthenticatedCaller,
  userId: string,
  wanted: NewApplicationCredential,
): Promise<{ credential: ApplicationCredentialRecord; secret: string }> {
  authorize(caller, 'application-credential:create', { userId })
  await denyRestricted(ports, caller)
  const { projectId } = caller
  if (projectId === null) {
    throw new ServiceError(
      'invalid-request',
      'an application credential is for one project: log in with a project as scope first',
    )
  }
  const secret = wanted.secret ?? randomBytes(48).toString('base64url')
  if (secret.length === 0 || secret.length > MAX_PASSWORD_CHARACTERS) {
    throw new ServiceError(
      'invalid-request',
      `a secret has 1 to ${MAX_PASSWORD_CHARACTERS} characters: leave it out to have one made`,
    )
  }
  const now = ports.now()
  if (wanted.expiresAt != null && wanted.expiresAt <= now) {
    throw new ServiceError('invalid-request', 'expires_at lies in the past: give a time to come, or none')
  }
  const secretHash = await ports.passwords.hash(secret)
  const credential = await ports.catalog.write(async ({ documents }) => {
    const token = await tokens.get(documents, caller.tokenKey)
    if (!token) throw unauthenticated('the token was revoked in the meantime: log in again')
    const held = await effectiveRoles(documents, userId, { kind: 'project', projectId })
    const allowed = token.roles.filter(({ id }) => held.some((role) => role.id === id))
    const chosen = wanted.roles?.length ? wanted.roles.map((role) => pick(role, allowed)) : allowed.map(({ id }) => id)
    if (await applicationCredentials.byName(documents, userId, wanted.name)) {
      throw new ServiceError('conflict', `you have an application credential named "${wanted.name}": choose another name`)
    }
    const { items } = await applicationCredentials.ofUser(documents, userId)
    if (items.length >= MAX_OF_A_USER) {
      throw new ServiceError('over-quota', `a user may have ${MAX_OF_A_USER} application credentials: delete some first`)
    }
    const record: ApplicationCredentialRecord = {
      id: newId(),
      name: wanted.name,
      description: wanted.description ?? null,
      userId,
      projectId,
      roleIds: [...new Set(chosen)],
      secretHash,
      expiresAt: wanted.expiresAt ?? null,
      unrestricted: wanted.unrestricted ?? false,
      createdAt: now,
    }
    await applicationCredentials.put(documents, record)
    return record
  })
  return { credential, secret }
}

function pick(wanted: { id: string } | { name: string }, allowed: readonly { id: string; name: string }[]): string {
  const found = allowed.find(({ id, name }) => ('id' in wanted ? id === wanted.id : name === wanted.name))
  if (found) return found.id
  const what = 'id' in wanted ? wanted.id : wanted.name
  throw new ServiceError(
    'invalid-request',
    `role "${what}" is none of your token's roles: an application credential takes of those only`,
  )
}

export async function listApplicationCredentials(
  { catalog }: Ports,
  caller: AuthenticatedCaller,
  userId: string,
): Promise<Listed<ApplicationCredentialRecord>> {
  authorize(caller, 'application-credential:list', { userId })
  return applicationCredentials.ofUser(catalog.documents, userId)
}

/**
 * The owner is read from the credential, never from what the request says.
 * @param userId whose the request takes it to be: decides only whether one that is absent is `denied` or `not-found`
 */
export async function getApplicationCredential(
  { catalog }: Ports,
  caller: AuthenticatedCaller,
  userId: string,
  id: string,
): Promise<ApplicationCredentialRecord> {
  const credential = await applicationCredentials.get(catalog.documents, id)
  authorize(caller, 'application-credential:get', { userId: credential ? credential.userId : userId })
  return credential ?? absent(id)
}

/** Ends the tokens that were got with it. @param userId as for `getApplicationCredential` */
export async function deleteApplicationCredential(
  ports: Ports,
  caller: AuthenticatedCaller,
  userId: string,
  id: string,
): Promise<void> {
  await denyRestricted(ports, caller, id)
  await ports.catalog.write(async ({ documents }) => {
    const credential = await applicationCredentials.get(documents, id)
    authorize(caller, 'application-credential:delete', { userId: credential ? credential.userId : userId })
    if (!credential) absent(id)
    await tokens.revokeOfCredential(documents, id)
    await applicationCredentials.delete(documents, id)
  })
}

/** The roles of a credential as clients see them; one that was deleted since is left out. */
export async function rolesOfCredential({ catalog }: Ports, credential: ApplicationCredentialRecord) {
  const found = await Promise.all(credential.roleIds.map((id) => roles.get(catalog.documents, id)))
  return found.filter((role) => role !== undefined)
}

/** A stolen restricted credential must not make itself successors. The one thing it may manage is its own end: a log-out. */
async function denyRestricted({ catalog }: Ports, { tokenKey }: AuthenticatedCaller, ends?: string): Promise<void> {
  const own = (await tokens.get(catalog.documents, tokenKey))?.applicationCredential
  if (own && !own.unrestricted && own.id !== ends) {
    throw new ServiceError(
      'denied',
      'a restricted application credential cannot manage application credentials: log in with a password',
    )
  }
}

function absent(id: string): never {
  throw new ServiceError('not-found', `could not find application credential "${id}"`)
}
