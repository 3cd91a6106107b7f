import { ServiceError } from '../../base/errors.ts'
import type { HttpClient } from './http-client.ts'
import { Shape } from './shape.ts'

/** How a user proves who it is. */
export type Credential =
  | { readonly kind: 'password'; readonly user: string; readonly password: string; readonly domain?: string }
  | { readonly kind: 'application'; readonly id: string; readonly secret: string }
  | { readonly kind: 'token'; readonly token: string }

/** Who a token speaks for. */
export interface Identity {
  readonly token: string
  /** Milliseconds since 1970. */
  readonly expiresAt: number
  readonly userId: string
  readonly userName: string
  readonly projectId: string | null
  readonly projectName: string | null
  readonly roles: readonly string[]
  /** URL of the image service in the catalog, if it names one. */
  readonly imageUrl: string | null
}
export interface Named {
  readonly id: string
  readonly name: string
  readonly enabled: boolean
}

/** What the command line needs of the identity API (Keystone v3). */
export class IdentityClient {
  readonly #http: HttpClient
  readonly #prefix: string

  constructor(http: HttpClient, prefix = '/identity/v3') {
    this.#http = http
    this.#prefix = prefix
  }

  /** @param project name or id; absent: no scope @throws ServiceError `unauthenticated` */
  async authenticate(credential: Credential, project?: string, domain = 'default'): Promise<Identity> {
    const scoped = project !== undefined && credential.kind !== 'application'
    const byId = scoped && /^[0-9a-f]{32}$/.test(project)
    const scope = byId ? { project: { id: project } } : { project: { name: project, domain: { id: domain } } }
    const body = { auth: { identity: identityOf(credential), ...(scoped ? { scope } : {}) } }
    const answer = await this.#http.ask({
      method: 'POST',
      path: `${this.#prefix}/auth/tokens`,
      headers: { 'content-type': 'application/json' },
      body: Buffer.from(JSON.stringify(body)),
    })
    const token = answer.headers['x-subject-token']
    const parts: Buffer[] = []
    for await (const part of answer.body as AsyncIterable<Buffer>) {
      parts.push(part)
      if (parts.length > 4096) throw new ServiceError('unsupported', 'the answer to the login has no end')
    }
    if (!token) throw new ServiceError('unsupported', 'the answer to the login holds no token; is this an Imprint service?')
    return identityFrom(token, JSON.parse(Buffer.concat(parts).toString('utf8')))
  }

  async whoAmI(token: string): Promise<Identity> {
    const headers = { 'x-subject-token': token }
    return identityFrom(token, await this.#http.json('GET', `${this.#prefix}/auth/tokens`, undefined, { headers }))
  }

  async revoke(token: string): Promise<void> {
    await this.#http.json('DELETE', `${this.#prefix}/auth/tokens`, undefined, { headers: { 'x-subject-token': token } })
  }

  /** Projects that the token's user may work in. */
  async myProjects(): Promise<readonly Named[]> {
    return namedList(await this.#http.json('GET', `${this.#prefix}/auth/projects`), 'projects')
  }

  /** A secret that stands for the user in the token's project, until it is deleted. */
  async createApplicationCredential(userId: string, name: string): Promise<{ readonly id: string; readonly secret: string }> {
    const path = `${this.#prefix}/users/${encodeURIComponent(userId)}/application_credentials`
    const body = { application_credential: { name, description: 'made by imprint login' } }
    const made = new Shape(await this.#http.json('POST', path, body), 'answer').shape('application_credential')
    return { id: made.text('id'), secret: made.text('secret') }
  }

  async deleteApplicationCredential(userId: string, id: string): Promise<void> {
    const path = `${this.#prefix}/users/${encodeURIComponent(userId)}/application_credentials/${encodeURIComponent(id)}`
    await this.#http.json('DELETE', path)
  }

  async list(kind: 'users' | 'projects' | 'roles', name?: string): Promise<readonly Named[]> {
    const query = name === undefined ? '' : `?name=${encodeURIComponent(name)}`
    return namedList(await this.#http.json('GET', `${this.#prefix}/${kind}${query}`), kind)
  }

  async createUser(name: string, password: string, defaultProjectId: string | null): Promise<Named> {
    const user = { name, password, ...(defaultProjectId ? { default_project_id: defaultProjectId } : {}) }
    return named(new Shape(await this.#http.json('POST', `${this.#prefix}/users`, { user }), 'answer').shape('user'))
  }

  async setPassword(userId: string, password: string): Promise<void> {
    await this.#http.json('PATCH', `${this.#prefix}/users/${encodeURIComponent(userId)}`, { user: { password } })
  }

  async createProject(name: string, description: string): Promise<Named> {
    const body = { project: { name, description } }
    return named(new Shape(await this.#http.json('POST', `${this.#prefix}/projects`, body), 'answer').shape('project'))
  }

  async remove(kind: 'users' | 'projects', id: string): Promise<void> {
    await this.#http.json('DELETE', `${this.#prefix}/${kind}/${encodeURIComponent(id)}`)
  }

  async grant(method: 'PUT' | 'DELETE', projectId: string, userId: string, roleId: string): Promise<void> {
    const [project, user, role] = [projectId, userId, roleId].map(encodeURIComponent)
    await this.#http.json(method, `${this.#prefix}/projects/${project}/users/${user}/roles/${role}`)
  }
}

function identityOf(credential: Credential): object {
  if (credential.kind === 'token') return { methods: ['token'], token: { id: credential.token } }
  if (credential.kind === 'application') {
    const { id, secret } = credential
    return { methods: ['application_credential'], application_credential: { id, secret } }
  }
  const { user, password, domain = 'default' } = credential
  return { methods: ['password'], password: { user: { name: user, domain: { id: domain }, password } } }
}

function identityFrom(token: string, answer: unknown): Identity {
  const body = new Shape(answer, 'answer').shape('token')
  const user = body.shape('user')
  const project = body.has('project') ? body.shape('project') : null
  const expires = Date.parse(body.textOrNull('expires_at') ?? '')
  return {
    token,
    expiresAt: Number.isNaN(expires) ? 0 : expires,
    userId: user.text('id'),
    userName: user.text('name'),
    projectId: project?.text('id') ?? null,
    projectName: project?.text('name') ?? null,
    roles: body.has('roles') ? body.shapes('roles').map((role) => role.text('name')) : [],
    imageUrl: imageUrlOf(body),
  }
}

function imageUrlOf(body: Shape): string | null {
  if (!body.has('catalog')) return null
  const image = body.shapes('catalog').find((entry) => entry.textOrNull('type') === 'image')
  const open = image?.shapes('endpoints').find((endpoint) => endpoint.textOrNull('interface') === 'public')
  return open?.textOrNull('url') ?? null
}

const named = (shape: Shape): Named => ({
  id: shape.text('id'),
  name: shape.text('name'),
  enabled: !shape.has('enabled') || shape.flag('enabled'),
})
const namedList = (answer: unknown, kind: string): readonly Named[] => new Shape(answer, 'answer').shapes(kind).map(named)
