import type { DocumentReader, DocumentWriter, PutOptions, StoredDocument } from '../store/catalog/catalog.ts'
import {
  type ApplicationCredentialRecord,
  type AssignmentRecord,
  isId,
  nameKey,
  type ProjectRecord,
  type RoleRecord,
  type RoleReference,
  type Scope,
  scopeKey,
  type TokenRecord,
  type UserRecord,
} from './records.ts'

/** How the records of identity lie among the catalog's documents: kinds, keys and indexes are named in this file only. */

/** A list is read by pages of this many, and never further than `MAX_LISTED`: the answer then says that it is cut. */
const PAGE = 500
export const MAX_LISTED = 10_000

export interface Listed<T> {
  readonly items: readonly T[]
  readonly truncated: boolean
}

async function all<T>(
  docs: DocumentReader,
  kind: string,
  query: { index?: { name: string; value: string }; prefix?: string } = {},
): Promise<Listed<T>> {
  const items: T[] = []
  let after: string | undefined
  while (items.length < MAX_LISTED) {
    const page: readonly StoredDocument<T>[] = await docs.list<T>(kind, { ...query, ...(after ? { after } : {}), limit: PAGE })
    for (const { body } of page) items.push(body)
    if (page.length < PAGE) return { items, truncated: false }
    after = page.at(-1)?.key
  }
  return { items, truncated: true }
}

async function byUnique<T>(docs: DocumentReader, kind: string, name: string, value: string): Promise<T | undefined> {
  const [found] = await docs.list<T>(kind, { index: { name, value }, limit: 1 })
  return found?.body
}

interface Named {
  readonly id: string
  readonly name: string
}
/** A kind whose documents have an id and a unique name. */
const named = <T extends Named>(kind: string) => ({
  get: async (docs: DocumentReader, id: string): Promise<T | undefined> =>
    isId(id) ? (await docs.get<T>(kind, id))?.body : undefined,
  byName: (docs: DocumentReader, name: string): Promise<T | undefined> => byUnique<T>(docs, kind, 'name', nameKey(name)),
  list: (docs: DocumentReader): Promise<Listed<T>> => all<T>(docs, kind),
  /** @throws ServiceError `conflict` where another one has the name */
  put: async (docs: DocumentWriter, record: T): Promise<void> => {
    await docs.put(kind, record.id, record, { unique: { name: nameKey(record.name) } })
  },
  delete: (docs: DocumentWriter, id: string): Promise<boolean> => docs.delete(kind, id),
})

export const users = named<UserRecord>('user')
export const projects = named<ProjectRecord>('project')
export const roles = named<RoleRecord>('role')

const grantKey = (userId: string, scope: Scope): string => `${userId}|${scopeKey(scope)}|`

export const assignments = {
  has: async (docs: DocumentReader, { userId, scope, roleId }: AssignmentRecord): Promise<boolean> =>
    (await docs.get('assignment', grantKey(userId, scope) + roleId)) !== undefined,
  list: (docs: DocumentReader) => all<AssignmentRecord>(docs, 'assignment'),
  ofUser: (docs: DocumentReader, userId: string) => all<AssignmentRecord>(docs, 'assignment', { prefix: `${userId}|` }),
  ofGrant: (docs: DocumentReader, userId: string, scope: Scope) =>
    all<AssignmentRecord>(docs, 'assignment', { prefix: grantKey(userId, scope) }),
  ofScope: (docs: DocumentReader, scope: Scope) =>
    all<AssignmentRecord>(docs, 'assignment', { index: { name: 'scope', value: scopeKey(scope) } }),
  ofRole: (docs: DocumentReader, roleId: string) =>
    all<AssignmentRecord>(docs, 'assignment', { index: { name: 'role', value: roleId } }),
  put: async (docs: DocumentWriter, record: AssignmentRecord): Promise<void> => {
    const { userId, scope, roleId } = record
    const indexes = { user: userId, scope: scopeKey(scope), role: roleId }
    await docs.put('assignment', grantKey(userId, scope) + roleId, record, { indexes })
  },
  delete: (docs: DocumentWriter, { userId, scope, roleId }: AssignmentRecord): Promise<boolean> =>
    docs.delete('assignment', grantKey(userId, scope) + roleId),
  deleteOfUser: (docs: DocumentWriter, userId: string) => docs.deleteWhere('assignment', { name: 'user', value: userId }),
  deleteOfScope: (docs: DocumentWriter, scope: Scope) =>
    docs.deleteWhere('assignment', { name: 'scope', value: scopeKey(scope) }),
  deleteOfRole: (docs: DocumentWriter, roleId: string) => docs.deleteWhere('assignment', { name: 'role', value: roleId }),
}

export const applicationCredentials = {
  get: async (docs: DocumentReader, id: string): Promise<ApplicationCredentialRecord | undefined> =>
    isId(id) ? (await docs.get<ApplicationCredentialRecord>('application-credential', id))?.body : undefined,
  byName: (docs: DocumentReader, userId: string, name: string) =>
    byUnique<ApplicationCredentialRecord>(docs, 'application-credential', 'name', `${userId}|${nameKey(name)}`),
  ofUser: (docs: DocumentReader, userId: string) =>
    all<ApplicationCredentialRecord>(docs, 'application-credential', { index: { name: 'user', value: userId } }),
  /** @throws ServiceError `conflict` where the user has one of that name */
  put: async (docs: DocumentWriter, record: ApplicationCredentialRecord): Promise<void> => {
    await docs.put('application-credential', record.id, record, {
      indexes: { user: record.userId, project: record.projectId },
      unique: { name: `${record.userId}|${nameKey(record.name)}` },
      expect: 0,
    })
  },
  delete: (docs: DocumentWriter, id: string): Promise<boolean> => docs.delete('application-credential', id),
  deleteOfUser: (docs: DocumentWriter, userId: string) =>
    docs.deleteWhere('application-credential', { name: 'user', value: userId }),
  deleteOfProject: (docs: DocumentWriter, projectId: string) =>
    docs.deleteWhere('application-credential', { name: 'project', value: projectId }),
}

const MAX_REFRESHED = 500

function tokenOptions({ userId, scope, applicationCredential, expiresAt }: TokenRecord, expect: number): PutOptions {
  const indexes = {
    user: userId,
    scope: scopeKey(scope),
    grant: grantKey(userId, scope),
    ...(applicationCredential ? { credential: applicationCredential.id } : {}),
  }
  return { indexes, expiresAt, expect }
}

/** Deleting a token revokes it: nothing else remembers it. */
export const tokens = {
  get: async (docs: DocumentReader, key: string): Promise<TokenRecord | undefined> =>
    (await docs.get<TokenRecord>('token', key))?.body,
  put: async (docs: DocumentWriter, key: string, record: TokenRecord): Promise<void> => {
    await docs.put('token', key, record, tokenOptions(record, 0))
  },
  /** At most `MAX_REFRESHED` of them, lest one grant hold up the catalog; the rest has the old roles until the next login. */
  setRolesOfGrant: async (
    docs: DocumentReader & DocumentWriter,
    userId: string,
    scope: Scope,
    roles: readonly RoleReference[],
  ): Promise<void> => {
    const index = { name: 'grant', value: grantKey(userId, scope) }
    for (const { key, body, version } of await docs.list<TokenRecord>('token', { index, limit: MAX_REFRESHED })) {
      if (body.applicationCredential) continue // has a choice of roles of its own
      await docs.put('token', key, { ...body, roles }, tokenOptions(body, version))
    }
  },
  revoke: (docs: DocumentWriter, key: string): Promise<boolean> => docs.delete('token', key),
  revokeOfUser: (docs: DocumentWriter, userId: string) => docs.deleteWhere('token', { name: 'user', value: userId }),
  revokeOfScope: (docs: DocumentWriter, scope: Scope) => docs.deleteWhere('token', { name: 'scope', value: scopeKey(scope) }),
  revokeOfGrant: (docs: DocumentWriter, userId: string, scope: Scope) =>
    docs.deleteWhere('token', { name: 'grant', value: grantKey(userId, scope) }),
  revokeOfCredential: (docs: DocumentWriter, id: string) => docs.deleteWhere('token', { name: 'credential', value: id }),
  deleteExpired: (docs: DocumentWriter, now: number) => docs.deleteExpired('token', now),
}

// ---------------------------------------------------------------- limits

/** What a project may have of a resource unless a limit of its own says otherwise. −1: as much as it likes. */
export interface RegisteredLimitRecord {
  readonly id: string
  readonly serviceId: string
  readonly regionId: string | null
  readonly resourceName: string
  readonly defaultLimit: number
  readonly description: string | null
}
export interface LimitRecord {
  readonly id: string
  readonly projectId: string
  readonly serviceId: string
  readonly regionId: string | null
  readonly resourceName: string
  readonly resourceLimit: number
  readonly description: string | null
}

export const limitSubject = (of: { serviceId: string; regionId: string | null; resourceName: string }): string =>
  JSON.stringify([of.serviceId, of.regionId, of.resourceName])

export const registeredLimits = {
  get: async (docs: DocumentReader, id: string): Promise<RegisteredLimitRecord | undefined> =>
    isId(id) ? (await docs.get<RegisteredLimitRecord>('registered-limit', id))?.body : undefined,
  bySubject: (docs: DocumentReader, subject: string) =>
    byUnique<RegisteredLimitRecord>(docs, 'registered-limit', 'subject', subject),
  list: (docs: DocumentReader) => all<RegisteredLimitRecord>(docs, 'registered-limit'),
  put: async (docs: DocumentWriter, record: RegisteredLimitRecord): Promise<void> => {
    await docs.put('registered-limit', record.id, record, { unique: { subject: limitSubject(record) } })
  },
  delete: (docs: DocumentWriter, id: string): Promise<boolean> => docs.delete('registered-limit', id),
}

export const limits = {
  get: async (docs: DocumentReader, id: string): Promise<LimitRecord | undefined> =>
    isId(id) ? (await docs.get<LimitRecord>('limit', id))?.body : undefined,
  bySubject: (docs: DocumentReader, projectId: string, subject: string) =>
    byUnique<LimitRecord>(docs, 'limit', 'subject', `${projectId}|${subject}`),
  list: (docs: DocumentReader) => all<LimitRecord>(docs, 'limit'),
  ofProject: (docs: DocumentReader, projectId: string) =>
    all<LimitRecord>(docs, 'limit', { index: { name: 'project', value: projectId } }),
  ofSubject: (docs: DocumentReader, subject: string) =>
    docs.list<LimitRecord>('limit', { index: { name: 'registered', value: subject }, limit: 1 }),
  put: async (docs: DocumentWriter, record: LimitRecord): Promise<void> => {
    const subject = limitSubject(record)
    await docs.put('limit', record.id, record, {
      indexes: { project: record.projectId, registered: subject },
      unique: { subject: `${record.projectId}|${subject}` },
    })
  },
  delete: (docs: DocumentWriter, id: string): Promise<boolean> => docs.delete('limit', id),
  deleteOfProject: (docs: DocumentWriter, projectId: string) => docs.deleteWhere('limit', { name: 'project', value: projectId }),
}

// ---------------------------------------------------------------- roles of a user

/** The three roles that every installation has, each with those it implies. Their ids are the same everywhere. */
export const builtInRoles = [
  { id: 'b1c1f7a0d6c84f0f9d0e6a1f5b7c0a01', name: 'admin', implies: ['member', 'reader'] },
  { id: 'b1c1f7a0d6c84f0f9d0e6a1f5b7c0a02', name: 'member', implies: ['reader'] },
  { id: 'b1c1f7a0d6c84f0f9d0e6a1f5b7c0a03', name: 'reader', implies: [] },
] as const satisfies readonly { id: string; name: string; implies: readonly string[] }[]

/** What the role with this id brings: itself and the built-in ones that it implies. */
export function impliedBy(roleId: string): readonly RoleReference[] {
  const own = builtInRoles.find(({ id }) => id === roleId)
  if (!own) return []
  const implied: readonly string[] = own.implies
  return builtInRoles.filter(({ name }) => implied.includes(name)).map(({ id, name }) => ({ id, name }))
}

/** The roles that `userId` has in `scope`, implied ones included, by name. */
export async function effectiveRoles(docs: DocumentReader, userId: string, scope: Scope): Promise<readonly RoleReference[]> {
  const { items } = await assignments.ofGrant(docs, userId, scope)
  const found = new Map<string, RoleReference>()
  for (const { roleId } of items) {
    const role = await roles.get(docs, roleId)
    if (!role) continue
    for (const { id, name } of [role, ...impliedBy(roleId)]) found.set(id, { id, name })
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}
