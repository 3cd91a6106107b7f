import type { FastifyInstance, InjectOptions, LightMyRequestResponse } from 'fastify'
import pino from 'pino'
import { createIdentity, type Identity, type IdentitySettings } from '../../../identity/service.ts'
import { SqliteCatalog } from '../../../store/catalog/sqlite/sqlite-catalog.ts'
import type { StoreStats } from '../../../store/chunks/chunk-store.ts'
import { createMetrics } from '../metrics.ts'
import { createServer } from '../server.ts'
import { identityApi } from './identity-api.ts'

/** The identity API in the real server over a SQLite catalog in memory: what every test of this folder drives. */

/** A thousandth of the real cost: the tests log in some hundred times. */
export const cheapPasswords = { cost: { cost: 16, blockSize: 8, parallel: 1 } }
export const ADMIN_PASSWORD = 'correct horse battery staple'

export interface Service {
  readonly app: FastifyInstance
  readonly identity: Identity
  readonly catalog: SqliteCatalog
  readonly adminToken: string
  readonly adminProjectId: string
  readonly adminId: string
  /** Sends JSON with a token (the administrator's unless another is named; null: none). */
  send(method: Method, path: string, options?: SendOptions): Promise<Reply>
  /** A user of its own project with `role` there. */
  makeUser(name: string, role?: string): Promise<Person>
  close(): Promise<void>
}
export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
export interface SendOptions {
  readonly body?: unknown
  readonly token?: string | null
  readonly headers?: Readonly<Record<string, string>>
}
export interface Reply {
  readonly status: number
  readonly headers: LightMyRequestResponse['headers']
  // biome-ignore lint/suspicious/noExplicitAny: tests look into every shape there is
  readonly json: any
  readonly text: string
}
export interface Person {
  readonly id: string
  readonly name: string
  readonly password: string
  readonly projectId: string
  readonly token: string
}

const emptyStats: StoreStats = {
  chunkBytes: 65536,
  chunks: 0,
  packs: 0,
  manifests: 0,
  storedBytes: 0,
  chunkDataBytes: 0,
  counters: {
    chunksNew: 0,
    chunksKnown: 0,
    chunksZero: 0,
    bytesIngested: 0,
    bytesRead: 0,
    cacheHits: 0,
    cacheMisses: 0,
    queueDepth: 0,
    collections: 0,
    bytesFreed: 0,
  },
}

export async function openService(settings: IdentitySettings = {}): Promise<Service> {
  const catalog = await SqliteCatalog.open({ path: ':memory:' })
  const identity = createIdentity(catalog, { passwords: cheapPasswords, ...settings })
  await identity.bootstrap({
    password: ADMIN_PASSWORD,
    defaultLimits: { image: { image_count_total: 50, image_size_total: -1 } },
  })
  const baseUrlOf = (request: { headers: { host?: string | undefined } }) => `http://${request.headers.host ?? 'localhost'}`
  const app = createServer({
    apis: [identityApi({ identity, baseUrlOf })],
    authenticator: identity.authenticator,
    metrics: createMetrics(async () => emptyStats),
    log: pino({ level: 'silent' }),
    ready: async () => {},
    versions: () => ({ versions: [] }),
    baseUrlOf,
  })
  await app.ready()

  const raw = async (method: Method, path: string, { body, token, headers }: SendOptions): Promise<Reply> => {
    const request: InjectOptions = {
      method,
      url: path.startsWith('^') ? path.slice(1) : `/identity/v3${path}`,
      headers: { ...(token ? { 'x-auth-token': token } : {}), ...headers },
    }
    if (body !== undefined) {
      request.payload = typeof body === 'string' ? body : JSON.stringify(body)
      request.headers = { 'content-type': 'application/json', ...request.headers }
    }
    const reply = await app.inject(request)
    const isJson = String(reply.headers['content-type']).includes('json') && reply.body !== ''
    return { status: reply.statusCode, headers: reply.headers, json: isJson ? reply.json() : undefined, text: reply.body }
  }
  const first = await raw('POST', '/auth/tokens', { body: passwordLogin('admin', ADMIN_PASSWORD, { name: 'admin' }) })
  const adminToken = String(first.headers['x-subject-token'])
  const send: Service['send'] = (method, path, options = {}) =>
    raw(method, path, { ...options, token: options.token === undefined ? adminToken : options.token })

  return {
    app,
    identity,
    catalog,
    adminToken,
    adminProjectId: first.json.token.project.id,
    adminId: first.json.token.user.id,
    send,
    async makeUser(name, role = 'member') {
      const password = `password of ${name}`
      const project = (await send('POST', '/projects', { body: { project: { name } } })).json.project
      const user = (await send('POST', '/users', { body: { user: { name, password } } })).json.user
      const roleId = (await send('GET', `/roles?name=${role}`)).json.roles[0].id
      await send('PUT', `/projects/${project.id}/users/${user.id}/roles/${roleId}`)
      const login = await send('POST', '/auth/tokens', { body: passwordLogin(name, password, { id: project.id }), token: null })
      return { id: user.id, name, password, projectId: project.id, token: String(login.headers['x-subject-token']) }
    },
    async close() {
      await app.close()
      await catalog.close()
    },
  }
}

const domain = { id: 'default' }

export function passwordLogin(name: string, password: string, project?: { id: string } | { name: string }, scope?: unknown) {
  const wanted = scope ?? (project && { project: 'name' in project ? { ...project, domain } : project })
  return {
    auth: {
      identity: { methods: ['password'], password: { user: { name, domain, password } } },
      ...(wanted === undefined ? {} : { scope: wanted }),
    },
  }
}
