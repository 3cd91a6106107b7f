import { ServiceError } from '../base/errors.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import type { Ports } from './ports.ts'
import type { ApplicationCredentialRecord, UserRecord } from './records.ts'
import { nameKey } from './records.ts'
import { applicationCredentials, users } from './store.ts'
import { type IssuedToken, issueToken, liveToken, type ScopeRequest, unauthenticated } from './tokens.ts'

export type UserReference = { readonly id: string } | { readonly name: string }

export type Credentials =
  | { readonly method: 'password'; readonly user: UserReference; readonly password: string }
  | { readonly method: 'token'; readonly token: string }
  | {
      readonly method: 'application_credential'
      readonly credential: { readonly id: string } | { readonly name: string; readonly user: UserReference }
      readonly secret: string
    }

export interface LoginRequest {
  readonly credentials: Credentials
  readonly scope: ScopeRequest | undefined
  /** The client's network address. */
  readonly address: string
}

/**
 * Checks the credentials and issues a token.
 * @throws ServiceError `unauthenticated`, in the same words and after the same time whichever part was wrong;
 *   `too-many-requests` for a guesser; `denied` where this kind of token may not be exchanged
 */
export function login(ports: Ports, request: LoginRequest): Promise<IssuedToken> {
  const { credentials, scope, address } = request
  switch (credentials.method) {
    case 'password':
      return byPassword(ports, credentials, scope, address)
    case 'token':
      return byToken(ports, credentials.token, scope)
    case 'application_credential':
      if (scope) throw unauthenticated('an application credential has its own scope: ask for none')
      return byApplicationCredential(ports, credentials, address)
  }
}

const wrong = (): ServiceError => unauthenticated('the user, the password or the secret is wrong, or the account is disabled')

async function byPassword(
  ports: Ports,
  { user: reference, password }: Extract<Credentials, { method: 'password' }>,
  scope: ScopeRequest | undefined,
  address: string,
): Promise<IssuedToken> {
  const user = await findUser(ports.catalog.documents, reference)
  const account = user?.id ?? accountName(reference)
  await guarded(ports, account, address, async () => {
    const matches = await ports.passwords.verify(password, user?.passwordHash, address)
    return matches && user?.enabled === true
  })
  return ports.catalog.write(async ({ documents }) => {
    const current = user && (await users.get(documents, user.id))
    // Disabled, deleted or given another password while the hash was computed.
    if (!current?.enabled || current.passwordHash !== user?.passwordHash) throw wrong()
    ports.logins.take(current.id)
    const now = ports.now()
    const expiresAt = now + ports.tokenLifetimeMs
    return issueToken(documents, { user: current, scope, methods: ['password'], expiresAt }, now)
  })
}

async function byApplicationCredential(
  ports: Ports,
  { credential: reference, secret }: Extract<Credentials, { method: 'application_credential' }>,
  address: string,
): Promise<IssuedToken> {
  const docs = ports.catalog.documents
  const credential = await findCredential(docs, reference)
  const account = credential?.id ?? ('id' in reference ? `credential:${reference.id}` : `credential:${reference.name}`)
  await guarded(ports, account, address, async () => {
    const matches = await ports.passwords.verify(secret, credential?.secretHash, address)
    return matches && credential !== undefined && (credential.expiresAt ?? Number.POSITIVE_INFINITY) > ports.now()
  })
  return ports.catalog.write(async ({ documents }) => {
    const current = credential && (await applicationCredentials.get(documents, credential.id))
    const user = current && (await users.get(documents, current.userId))
    if (!current || !user?.enabled) throw wrong()
    ports.logins.take(user.id)
    const now = ports.now()
    const { id, name, unrestricted, projectId, roleIds } = current
    const request = {
      user,
      scope: { kind: 'project', id: projectId } as const,
      methods: ['application_credential'],
      expiresAt: Math.min(now + ports.tokenLifetimeMs, current.expiresAt ?? Number.POSITIVE_INFINITY),
      applicationCredential: { id, name, unrestricted },
      onlyRoleIds: new Set(roleIds),
    }
    return issueToken(documents, request, now)
  })
}

/** A token for another scope, good for as long as the first: nobody stays logged in for ever by exchanging tokens. */
function byToken(ports: Ports, token: string, scope: ScopeRequest | undefined): Promise<IssuedToken> {
  return ports.catalog.write(async ({ documents }) => {
    const now = ports.now()
    const found = await liveToken(documents, token, now)
    const user = found && (await users.get(documents, found.record.userId))
    if (!found || !user?.enabled) throw unauthenticated('the token to exchange is unknown, revoked or expired: log in again')
    const { record } = found
    if (record.applicationCredential) {
      throw new ServiceError('denied', 'a token of an application credential cannot be exchanged for another')
    }
    if (record.scope.kind === 'system' && (scope?.kind === 'project' || scope?.kind === 'domain')) {
      throw new ServiceError('denied', 'a token for the system cannot be exchanged for one of a project or domain')
    }
    ports.logins.take(user.id)
    const methods = ['token', ...record.methods.filter((method) => method !== 'token')]
    const parentAuditId = record.auditIds.at(-1) as string
    return issueToken(documents, { user, scope, methods, expiresAt: record.expiresAt, parentAuditId }, now)
  })
}

/** Runs `check` unless this account has been guessed at too often, and remembers how it went. */
export async function guarded(ports: Ports, account: string, address: string, check: () => Promise<boolean>): Promise<void> {
  const here = `${account}|${address}`
  ports.guesses.check(here)
  ports.accountGuesses.check(account)
  if (await check()) {
    ports.guesses.succeeded(here)
    return
  }
  ports.guesses.failed(here)
  ports.accountGuesses.failed(account)
  throw wrong()
}

const accountName = (reference: UserReference): string =>
  'id' in reference ? `id:${reference.id.slice(0, 255)}` : `name:${nameKey(reference.name.slice(0, 255))}`

export const findUser = (docs: DocumentReader, reference: UserReference): Promise<UserRecord | undefined> =>
  'id' in reference ? users.get(docs, reference.id) : users.byName(docs, reference.name)

async function findCredential(
  docs: DocumentReader,
  reference: Extract<Credentials, { method: 'application_credential' }>['credential'],
): Promise<ApplicationCredentialRecord | undefined> {
  if ('id' in reference) return applicationCredentials.get(docs, reference.id)
  const user = await findUser(docs, reference.user)
  return user && applicationCredentials.byName(docs, user.id, reference.name)
}
