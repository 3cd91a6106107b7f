import { isServiceError, ServiceError } from '../base/errors.ts'
import { ComputeClient } from './client/compute-client.ts'
import { HttpClient } from './client/http-client.ts'
import { type Credential, type Identity, IdentityClient } from './client/identity-client.ts'
import { ImageClient } from './client/image-client.ts'
import { ImprintClient } from './client/imprint-client.ts'
import { type Login, readLogin, writeLogin } from './login-file.ts'
import type { Environment } from './output.ts'

/** A user at a service: all that a command asks of the network. */
export interface Session {
  readonly url: string
  readonly userId: string
  readonly userName: string
  readonly projectId: string | null
  readonly projectName: string | null
  readonly http: HttpClient
  readonly images: ImageClient
  readonly imprint: ImprintClient
  readonly compute: ComputeClient
  readonly identity: IdentityClient
  readonly token: string
  close(): void
}

export const DEFAULT_URL = 'http://127.0.0.1:9797'
/** A token with less than this left is not begun with. */
const SPARE_MS = 120_000

/**
 * Who asks, from the environment where it names someone (`OS_AUTH_URL` and others, as the OpenStack clients read it), else from
 * the last `imprint login`.
 * @throws ServiceError `unauthenticated` with the command that logs in
 */
export async function openSession(environment: Environment): Promise<Session> {
  const fromEnvironment = credentialOf(environment)
  if (fromEnvironment) return sessionFromEnvironment(environment, fromEnvironment)
  const login = await readLogin(environment)
  if (!login) {
    const url = environment.IMPRINT_URL ?? DEFAULT_URL
    throw new ServiceError('unauthenticated', `you are not logged in; do it with: imprint login ${url}`)
  }
  const http = new HttpClient(login.url)
  const fresh = login.expiresAt - Date.now() > SPARE_MS ? login : await renew(environment, http, login)
  return sessionOf(http, fresh)
}

async function renew(environment: Environment, http: HttpClient, login: Login): Promise<Login> {
  const again = `your login at ${login.url} has expired; log in again with: imprint login ${login.url}`
  if (!login.credential) throw new ServiceError('unauthenticated', again)
  try {
    const { token, expiresAt } = await new IdentityClient(http).authenticate({ kind: 'application', ...login.credential })
    const renewed = { ...login, token, expiresAt }
    await writeLogin(environment, renewed)
    return renewed
  } catch (error) {
    throw isServiceError(error, 'unauthenticated') ? new ServiceError('unauthenticated', again, {}, { cause: error }) : error
  }
}

async function sessionFromEnvironment(environment: Environment, credential: Credential): Promise<Session> {
  const authUrl = environment.OS_AUTH_URL
  if (!authUrl)
    throw new ServiceError('invalid-request', 'OS_AUTH_URL is missing from the environment, beside the other OS_… names')
  const [base, prefix] = splitAuthUrl(authUrl)
  const http = new HttpClient(base)
  const identity = await new IdentityClient(http, prefix).authenticate(
    credential,
    environment.OS_PROJECT_ID ?? environment.OS_PROJECT_NAME ?? environment.OS_TENANT_NAME,
    environment.OS_PROJECT_DOMAIN_ID ?? 'default',
  )
  return sessionOf(http, identity, prefix)
}

function credentialOf(environment: Environment): Credential | undefined {
  const { OS_TOKEN, OS_USERNAME, OS_PASSWORD, OS_APPLICATION_CREDENTIAL_ID, OS_APPLICATION_CREDENTIAL_SECRET } = environment
  if (OS_TOKEN) return { kind: 'token', token: OS_TOKEN }
  if (OS_APPLICATION_CREDENTIAL_ID && OS_APPLICATION_CREDENTIAL_SECRET) {
    return { kind: 'application', id: OS_APPLICATION_CREDENTIAL_ID, secret: OS_APPLICATION_CREDENTIAL_SECRET }
  }
  if (!OS_USERNAME || !OS_PASSWORD) return undefined
  return { kind: 'password', user: OS_USERNAME, password: OS_PASSWORD, domain: environment.OS_USER_DOMAIN_ID ?? 'default' }
}

/** `http://host:9797/identity/v3` → the service's address, and where under it the identity API stands. */
export function splitAuthUrl(authUrl: string): [base: string, prefix: string] {
  const trimmed = authUrl.replace(/\/+$/, '')
  const own = /^(.*?)\/identity(\/v3)?$/.exec(trimmed)
  return own ? [own[1]!, '/identity/v3'] : [trimmed.replace(/\/v3$/, ''), '/identity/v3']
}

type Who = Pick<Identity, 'userId' | 'userName' | 'projectId' | 'projectName' | 'token'>

export function sessionOf(http: HttpClient, who: Who, prefix?: string): Session {
  http.token = who.token
  return {
    url: http.baseUrl,
    userId: who.userId,
    userName: who.userName,
    projectId: who.projectId,
    projectName: who.projectName,
    token: who.token,
    http,
    images: new ImageClient(http),
    imprint: new ImprintClient(http),
    compute: new ComputeClient(http),
    identity: new IdentityClient(http, prefix),
    close: () => http.close(),
  }
}
