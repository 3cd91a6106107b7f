import type { AddressInfo } from 'node:net'
import pino from 'pino'
import { ServiceError } from '../../../base/errors.ts'
import type { Authenticator } from '../../../identity/identity.ts'
import { imageWorld, someone } from '../../../images/image-world.suite.ts'
import { createMetrics } from '../metrics.ts'
import { createServer } from '../server.ts'
import { imageApi, imageVersions } from './image-api.ts'

type Body = string | Uint8Array | ReadableStream

/** The image API behind the real server, on a port of its own; a token is `<project>:<role>`. For tests. */
export async function imageServer(options: Parameters<typeof imageWorld>[0] = {}) {
  const world = await imageWorld(options)
  const expired = new Set<string>()
  const authenticator: Authenticator = {
    async authenticate(token, requestId) {
      const [project = '', role = ''] = token.split(':')
      if (expired.has(token) || !/^(none|reader|member|admin)$/.test(role))
        throw new ServiceError('unauthenticated', 'this token is not good: log in again')
      return { ...someone(project, role as 'member'), requestId, expiresAt: Number.MAX_SAFE_INTEGER, tokenKey: '' }
    },
  }
  const baseUrlOf = ({ host }: { readonly host: string }) => `http://${host}`
  const app = createServer({
    apis: [imageApi({ ports: world.ports, baseUrlOf })],
    authenticator,
    metrics: createMetrics(() => world.chunks.stats()),
    log: pino({ level: 'silent' }),
    ready: async () => {},
    versions: imageVersions,
    baseUrlOf,
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const base = `http://127.0.0.1:${port}/image`

  const ask = async (
    method: string,
    path: string,
    {
      as = 'mine:member',
      json,
      body,
      headers = {},
    }: { as?: string | null; json?: unknown; body?: Body; headers?: Record<string, string> } = {},
  ) => {
    const content = json === undefined ? body : JSON.stringify(json)
    const response = await fetch(`${base}${path}`, {
      method,
      headers: {
        accept: 'application/json',
        ...(as === null ? {} : { 'x-auth-token': as }),
        ...(json === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(content === undefined ? {} : { body: content, duplex: 'half' }),
    } as RequestInit)
    const bytes = Buffer.from(await response.arrayBuffer())
    return {
      status: response.status,
      headers: response.headers,
      bytes,
      text: bytes.toString(),
      json: () => JSON.parse(bytes.toString()),
    }
  }
  const create = async (members: Record<string, unknown> = {}, as = 'mine:member'): Promise<string> => {
    const { json } = await ask('POST', '/v2/images', { as, json: { disk_format: 'raw', container_format: 'bare', ...members } })
    return (json() as { id: string }).id
  }
  const put = (id: string, body: Body, as = 'mine:member') =>
    ask('PUT', `/v2/images/${id}/file`, { as, body, headers: { 'content-type': 'application/octet-stream' } })
  const patch = (id: string, operations: unknown, mediaType = 'application/openstack-images-v2.1-json-patch') =>
    ask('PATCH', `/v2/images/${id}`, { json: operations, headers: { 'content-type': mediaType } })
  return {
    world,
    port,
    base,
    expired,
    ask,
    create,
    put,
    patch,
    async close(): Promise<void> {
      await app.close()
      await world.close()
    },
  }
}
export type ImageServer = Awaited<ReturnType<typeof imageServer>>
