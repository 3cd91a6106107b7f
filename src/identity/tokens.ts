import { hash, randomBytes } from 'node:crypto'
import { ServiceError } from '../base/errors.ts'
import type { DocumentReader, DocumentWriter } from '../store/catalog/catalog.ts'
import type { AuthenticatedCaller, Authenticator } from './identity.ts'
import { authorize } from './policy.ts'
import type { Ports } from './ports.ts'
import { DOMAIN, type ProjectRecord, type RoleReference, type Scope, type TokenRecord, type UserRecord } from './records.ts'
import { effectiveRoles, projects, tokens } from './store.ts'

/**
 * Tokens are opaque: `imp_` and 256 random bits. Whoever reads the database finds only their SHA-256, from which the token
 * cannot be had; as the bits are random, a plain hash is enough, and looking it up tells an attacker's clock nothing.
 * A right that is taken away is gone with the next request, because taking it away deletes the tokens that carry it in the
 * same transaction, and issuing one reads the rights in the transaction that stores it.
 */
const TOKEN = /^imp_[A-Za-z0-9_-]{43}$/
const TOKEN_BYTES = 32

export const tokenKeyOf = (token: string): string | undefined => (TOKEN.test(token) ? hash('sha256', token) : undefined)

export const unauthenticated = (message: string): ServiceError => new ServiceError('unauthenticated', message)

/** The one read that every request to every API costs. */
export const createAuthenticator = ({ catalog, now }: Pick<Ports, 'catalog' | 'now'>): Authenticator => ({
  async authenticate(token: string, requestId: string): Promise<AuthenticatedCaller> {
    const key = tokenKeyOf(token)
    const record = key && (await tokens.get(catalog.documents, key))
    if (!key || !record) throw unauthenticated('this token is unknown or revoked: log in again')
    if (record.expiresAt <= now()) throw unauthenticated('this token has expired: log in again')
    return callerOfToken(key, record, requestId)
  },
})

function callerOfToken(tokenKey: string, record: TokenRecord, requestId: string): AuthenticatedCaller {
  const roles = new Set(record.roles.map(({ name }) => name))
  return {
    userId: record.userId,
    userName: record.userName,
    projectId: record.scope.kind === 'project' ? record.scope.projectId : null,
    projectName: record.projectName,
    roles,
    isAdmin: roles.has('admin'),
    systemScope: record.scope.kind === 'system',
    requestId,
    expiresAt: record.expiresAt,
    tokenKey,
    ...(record.scope.kind === 'domain' ? { domainId: DOMAIN.id } : {}),
  }
}

// ---------------------------------------------------------------- issuing

/** The scope that a login asks for; absent: the user's default project where they have a role in it, else none. */
export type ScopeRequest =
  | { readonly kind: 'project'; readonly id?: string; readonly name?: string }
  | { readonly kind: 'domain' | 'system' | 'none' }

export interface IssueRequest {
  readonly user: UserRecord
  readonly scope: ScopeRequest | undefined
  readonly methods: readonly string[]
  readonly expiresAt: number
  readonly parentAuditId?: string
  readonly applicationCredential?: TokenRecord['applicationCredential']
  /** Only these of the roles, where given. */
  readonly onlyRoleIds?: ReadonlySet<string>
}
export interface IssuedToken {
  readonly token: string
  readonly record: TokenRecord
}

/**
 * Stores a new token in the transaction `docs`.
 * @throws ServiceError `unauthenticated` where the scope is not one in which the user has a role
 */
export async function issueToken(
  docs: DocumentReader & DocumentWriter,
  request: IssueRequest,
  now: number,
): Promise<IssuedToken> {
  const { user, applicationCredential = null, onlyRoleIds } = request
  const { scope, project, roles } = await resolveScope(docs, user, request.scope)
  const token = `imp_${randomBytes(TOKEN_BYTES).toString('base64url')}`
  const auditId = randomBytes(16).toString('base64url')
  const kept = onlyRoleIds ? roles.filter(({ id }) => onlyRoleIds.has(id)) : roles
  if (onlyRoleIds && kept.length === 0) throw noRole()
  const record: TokenRecord = {
    userId: user.id,
    userName: user.name,
    scope,
    projectName: project?.name ?? null,
    roles: kept,
    methods: request.methods,
    auditIds: request.parentAuditId ? [auditId, request.parentAuditId] : [auditId],
    issuedAt: now,
    expiresAt: request.expiresAt,
    applicationCredential,
  }
  await tokens.put(docs, tokenKeyOf(token) as string, record)
  return { token, record }
}

/** The same words whether the scope is absent, disabled or closed to the user: no one learns names by asking. */
const noRole = (): ServiceError => unauthenticated('this user has no role in the scope that was asked for, or it is disabled')

interface ResolvedScope {
  readonly scope: Scope
  readonly project?: ProjectRecord
  readonly roles: readonly RoleReference[]
}

async function resolveScope(docs: DocumentReader, user: UserRecord, wanted: ScopeRequest | undefined): Promise<ResolvedScope> {
  const unscoped: ResolvedScope = { scope: { kind: 'none' }, roles: [] }
  if (!wanted) {
    const project = user.defaultProjectId ? await projects.get(docs, user.defaultProjectId) : undefined
    return (project && (await inProject(docs, user, project))) ?? unscoped
  }
  if (wanted.kind === 'none') return unscoped
  if (wanted.kind === 'project') {
    const { id, name } = wanted
    const project = id !== undefined ? await projects.get(docs, id) : name !== undefined && (await projects.byName(docs, name))
    const found = project ? await inProject(docs, user, project) : undefined
    if (!found) throw noRole()
    return found
  }
  const scope: Scope = { kind: wanted.kind }
  const roles = await effectiveRoles(docs, user.id, scope)
  if (roles.length === 0) throw noRole()
  return { scope, roles }
}

async function inProject(docs: DocumentReader, user: UserRecord, project: ProjectRecord): Promise<ResolvedScope | undefined> {
  if (!project.enabled) return undefined
  const scope: Scope = { kind: 'project', projectId: project.id }
  const roles = await effectiveRoles(docs, user.id, scope)
  return roles.length > 0 ? { scope, project, roles } : undefined
}

// ---------------------------------------------------------------- asking about tokens, and ending them

/** @throws ServiceError `not-found` for a token that is unknown, revoked or expired; `denied` for somebody else's */
export async function inspectToken({ catalog, now }: Ports, caller: AuthenticatedCaller, token: string): Promise<TokenRecord> {
  const found = await liveToken(catalog.documents, token, now())
  if (!found) throw noSuchToken() // to anybody: nobody guesses a token
  authorize(caller, 'token:inspect', { userId: found.record.userId })
  return found.record
}

/** @throws ServiceError as `inspectToken` */
export async function revokeToken({ catalog, now }: Ports, caller: AuthenticatedCaller, token: string): Promise<void> {
  await catalog.write(async ({ documents }) => {
    const found = await liveToken(documents, token, now())
    if (!found) throw noSuchToken()
    authorize(caller, 'token:revoke', { userId: found.record.userId })
    await tokens.revoke(documents, found.key)
  })
}

const noSuchToken = (): ServiceError =>
  new ServiceError('not-found', 'could not find this token: it is unknown, revoked or expired')

export async function liveToken(
  docs: DocumentReader,
  token: string,
  now: number,
): Promise<{ key: string; record: TokenRecord } | undefined> {
  const key = tokenKeyOf(token)
  const record = key ? await tokens.get(docs, key) : undefined
  return key && record && record.expiresAt > now ? { key, record } : undefined
}

/** Forgets what has expired; returns how many. */
export const sweepTokens = ({ catalog, now }: Ports): Promise<number> =>
  catalog.write(({ documents }) => tokens.deleteExpired(documents, now()))
