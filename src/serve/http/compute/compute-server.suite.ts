import pino from 'pino'
import { ServiceError } from '../../../base/errors.ts'
import type { Authenticator } from '../../../identity/identity.ts'
import { instanceWorld, someone, type WorldOptions } from '../../../instances/instance-world.suite.ts'
import { createMetrics } from '../metrics.ts'
import { createServer, type ServerOptions } from '../server.ts'
import { computeApi, computeVersions } from './compute-api.ts'

export interface Asked {
  /** A token: `<project>:<role>`; null: none. */
  readonly as?: string | null
  readonly json?: unknown
  readonly text?: string
  /** `2.79`, `latest` … */
  readonly version?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** The compute API in the real server, over machines and images in memory: for tests. */
export async function computeServer(options: WorldOptions = {}, tls?: ServerOptions['tls']) {
  const world = await instanceWorld(options)
  const authenticator: Authenticator = {
    async authenticate(token, requestId) {
      const [project = '', role = ''] = token.split(':')
      if (!/^(none|reader|member|admin)$/.test(role))
        throw new ServiceError('unauthenticated', 'this token is not good: log in again')
      return { ...someone(project, role as 'member'), requestId, expiresAt: Number.MAX_SAFE_INTEGER, tokenKey: '' }
    },
  }
  const baseUrlOf = ({ host }: { readonly host: string }) => `${tls ? 'https' : 'http'}://${host}`
  const app = createServer({
    apis: [computeApi({ ports: world.ports, baseUrlOf })],
    authenticator,
    metrics: createMetrics(() => Promise.reject(new Error('there is no store'))),
    log: pino({ level: 'silent' }),
    ready: async () => {},
    versions: computeVersions,
    baseUrlOf,
    ...(tls ? { tls } : {}),
  })
  await app.ready()
  const ask = async (line: string, { as = 'mine:member', json, text, version, headers = {} }: Asked = {}) => {
    const [method = 'GET', path = ''] = line.split(' ')
    const payload = json === undefined ? text : JSON.stringify(json)
    const reply = await app.inject({
      method: method as 'GET',
      url: path.startsWith('^') ? path.slice(1) : `/compute/v2.1${path}`,
      headers: {
        ...(as === null ? {} : { 'x-auth-token': as }),
        ...(payload === undefined ? {} : { 'content-type': 'application/json' }),
        ...(version === undefined ? {} : { 'openstack-api-version': `compute ${version}` }),
        ...headers,
      },
      ...(payload === undefined ? {} : { payload }),
    })
    const isJson = String(reply.headers['content-type']).includes('json') && reply.body !== ''
    return {
      status: reply.statusCode,
      headers: reply.headers,
      // biome-ignore lint/suspicious/noExplicitAny: a test looks into what a client would read
      json: (isJson ? reply.json() : undefined) as any,
      text: reply.body,
    }
  }
  return {
    world,
    ask,
    /** Answers on a port. @returns its address */
    listen: () => app.listen({ host: '127.0.0.1', port: 0 }),
    /** A server that runs. */
    async boot(more: object = {}, asked: Asked = {}): Promise<string> {
      const server = { name: 'web', imageRef: world.image, flavorRef: '1', ...more }
      const { status, json, text } = await ask('POST /servers', { json: { server }, ...asked })
      if (status !== 202) throw new Error(text)
      await world.idle()
      return json.server.id
    },
    async close(): Promise<void> {
      await app.close()
      await world.close()
    },
  }
}
