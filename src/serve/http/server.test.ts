import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import { Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import pino from 'pino'
import { type ErrorCode, ServiceError } from '../../base/errors.ts'
import type { AuthenticatedCaller } from '../../identity/identity.ts'
import type { StoreStats } from '../../store/chunks/chunk-store.ts'
import { type Api, callerOf, statusOf } from './api.ts'
import { createMetrics } from './metrics.ts'
import { createServer } from './server.ts'

const caller: AuthenticatedCaller = {
  userId: 'u1',
  userName: 'user',
  projectId: 'p1',
  projectName: 'project',
  roles: new Set(['member']),
  isAdmin: false,
  systemScope: false,
  requestId: 'req-1',
  expiresAt: Number.MAX_SAFE_INTEGER,
  tokenKey: 'k',
}
const counters = {
  chunksNew: 1,
  chunksKnown: 2,
  chunksZero: 3,
  bytesIngested: 4,
  bytesRead: 5,
  cacheHits: 6,
  cacheMisses: 7,
  queueDepth: 8,
  collections: 9,
  bytesFreed: 10,
}
const stats: StoreStats = { chunkBytes: 65536, chunks: 1, packs: 1, manifests: 1, storedBytes: 1, chunkDataBytes: 1, counters }

const api: Api = {
  name: 'sample',
  prefix: '/sample',
  register(app) {
    app.get('/who', async (request) => ({ user: callerOf(request).userId }))
    app.get('/open', { config: { auth: 'none' } }, async () => ({ open: true }))
    app.get('/fails/:code', { config: { auth: 'none' } }, async (request) => {
      const { code } = request.params as { code: ErrorCode }
      throw new ServiceError(code, 'as asked')
    })
    app.get('/bug', { config: { auth: 'none' } }, async () => {
      throw new RangeError('secret detail')
    })
    app.post('/body', { config: { auth: 'none' } }, async (request) => request.body)
  },
  renderError: (error, status) => ({
    contentType: 'application/json',
    body: JSON.stringify({ code: error.code, status, message: error.message }),
  }),
}

function serve(ready = async () => {}) {
  const lines: string[] = []
  const log = pino(
    {},
    new Writable({
      write: (chunk, _, done) => {
        lines.push(String(chunk))
        done()
      },
    }),
  )
  const app = createServer({
    apis: [api],
    authenticator: {
      async authenticate(token) {
        if (token !== 'good') throw new ServiceError('unauthenticated', 'unknown token')
        return caller
      },
    },
    metrics: createMetrics(async () => stats),
    log,
    ready,
    versions: (base) => ({ versions: [base] }),
    baseUrlOf: (request) => `http://${request.host}`,
  })
  return { app, lines }
}

test('every answer carries its request id, and the log has the same one', async () => {
  const { app, lines } = serve()
  const answer = await app.inject({ url: '/sample/open' })
  assert.match(String(answer.headers['x-openstack-request-id']), /^req-[0-9a-f-]{36}$/)
  assert.ok(lines.some((line) => line.includes(String(answer.headers['x-openstack-request-id']))))
})

test('a route asks for a token unless it says otherwise, and so does a path that is not there', async () => {
  const { app } = serve()
  assert.equal((await app.inject({ url: '/sample/who' })).statusCode, 401)
  assert.equal((await app.inject({ url: '/sample/who', headers: { 'x-auth-token': 'bad' } })).statusCode, 401)
  assert.deepEqual((await app.inject({ url: '/sample/who', headers: { 'x-auth-token': 'good' } })).json(), { user: 'u1' })
  assert.equal((await app.inject({ url: '/sample/nowhere' })).statusCode, 401)
  assert.equal((await app.inject({ url: '/sample/nowhere', headers: { 'x-auth-token': 'good' } })).statusCode, 404)
})

for (const [code, status] of Object.entries(statusOf)) {
  test(`${code} is answered with ${status}, in the body of the API that was asked`, async () => {
    const answer = await serve().app.inject({ url: `/sample/fails/${code}` })
    assert.equal(answer.statusCode, status)
    assert.deepEqual(answer.json(), { code, status, message: 'as asked' })
    assert.equal(answer.headers['x-imprint-error'], code)
  })
}

test('a bug is answered with 500 and its request id, and only the log tells more', async () => {
  const { app, lines } = serve()
  const answer = await app.inject({ url: '/sample/bug' })
  assert.equal(answer.statusCode, 500)
  assert.doesNotMatch(answer.body, /secret/)
  assert.ok(lines.some((line) => line.includes('secret detail')))
})

const badBodies: readonly [string, string, string, number][] = [
  ['half a JSON body', 'application/json', '{"a":', 400],
  ['a body that sets a prototype', 'application/json', '{"__proto__": {"admin": true}}', 400],
  ['a body beyond the limit', 'application/json', JSON.stringify('x'.repeat(2 ** 20)), 413],
  ['an unknown media type', 'application/x-unknown', 'x', 415],
]
for (const [name, type, payload, status] of badBodies) {
  test(`${name} is refused with ${status}`, async () => {
    const answer = await serve().app.inject({ method: 'POST', url: '/sample/body', headers: { 'content-type': type }, payload })
    assert.equal(answer.statusCode, status)
  })
}

test('health, readiness and metrics answer without a token on loopback', async () => {
  const { app } = serve()
  assert.equal((await app.inject({ url: '/healthz' })).statusCode, 200)
  assert.equal((await app.inject({ url: '/readyz' })).statusCode, 200)
  await app.inject({ url: '/sample/open' })
  const metrics = await app.inject({ url: '/metrics' })
  assert.match(metrics.body, /imprint_http_requests_total\{api="sample",method="GET",status="200"\} 1/)
  assert.match(metrics.body, /imprint_chunks_known_total 2/)
  assert.match(metrics.body, /imprint_worker_queue_depth 8/)
})

test('metrics are not for strangers', async () => {
  assert.equal((await serve().app.inject({ url: '/metrics', remoteAddress: '192.0.2.7' })).statusCode, 401)
  for (const name of ['forwarded', 'x-forwarded-for', 'via']) {
    assert.equal((await serve().app.inject({ url: '/metrics', headers: { [name]: '192.0.2.7' } })).statusCode, 401, name)
  }
})

test('a service that cannot work says why it is not ready', async () => {
  const { app } = serve(async () => {
    throw new ServiceError('unavailable', 'the disk is gone')
  })
  const answer = await app.inject({ url: '/readyz' })
  assert.equal(answer.statusCode, 503)
  assert.match(answer.body, /the disk is gone/)
})

const unreadable: readonly [string, string, RegExp][] = [
  ['no HTTP at all', 'HELLO\r\n\r\n', /^HTTP\/1\.1 400/],
  [
    'both lengths',
    'POST /sample/body HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    /^HTTP\/1\.1 400/,
  ],
  [
    'a length twice',
    'POST /sample/body HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx',
    /^HTTP\/1\.1 400/,
  ],
  ['a signed length', 'POST /sample/body HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\nx', /^HTTP\/1\.1 400/],
  ['a folded header', 'GET /healthz HTTP/1.1\r\nHost: x\r\nA: 1\r\n 2\r\n\r\n', /^HTTP\/1\.1 400/],
  ['headers without end', `GET /healthz HTTP/1.1\r\nHost: x\r\nA: ${'x'.repeat(40_000)}\r\n\r\n`, /^HTTP\/1\.1 431/],
]
for (const [name, bytes, says] of unreadable) {
  test(`a request with ${name} is refused in words`, async () => {
    const { app } = serve()
    await app.listen({ host: '127.0.0.1', port: 0 })
    const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
    socket.end(bytes)
    assert.match(await text(socket), says)
    await app.close()
  })
}

test('closing lets a running request finish and takes no new one', async () => {
  const { app } = serve()
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const socket = connect(port, '127.0.0.1')
  const heard = text(socket)
  socket.write('POST /sample/body HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{')
  await once(app.server, 'request')
  const closed = app.close()
  socket.write('}')
  assert.match(await heard, /^HTTP\/1\.1 200/)
  await closed
})
