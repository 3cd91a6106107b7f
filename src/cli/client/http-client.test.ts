import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { HttpClient, persist } from './http-client.ts'
import { ImageClient } from './image-client.ts'
import { ImprintClient } from './imprint-client.ts'

/** A service that answers as a hostile or broken one would. */
async function serviceOf(t: TestContext, answer: RequestListener): Promise<HttpClient> {
  const server = createServer(answer)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = new HttpClient(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  t.after(() => {
    client.close()
    server.closeAllConnections()
    server.close()
  })
  return client
}
const says =
  (status: number, body: string, headers: Record<string, string> = {}): RequestListener =>
  (_, response) =>
    void response.writeHead(status, headers).end(body)

const hostile: readonly [string, RequestListener, { readonly code: string; readonly message?: RegExp }][] = [
  ['no JSON', says(200, '<html>'), { code: 'unsupported' }],
  ['a list where an image was asked for', says(200, '[]'), { code: 'unsupported', message: /holds no image/ }],
  ['an image without an id', says(200, '{"status":"active"}'), { code: 'unsupported', message: /no proper "id"/ }],
  ['a number for a name', says(200, '{"id":"x","status":"a","visibility":"b","name":5}'), { code: 'unsupported' }],
  ['a redirect', says(302, '', { location: 'http://169.254.169.254/' }), { code: 'unsupported', message: /sent us elsewhere/ }],
  ['our own error', says(409, '{"code":"conflict","message":"two at once"}'), { code: 'conflict', message: /two at once/ }],
  ['a Keystone error', says(401, '{"error":{"code":401,"message":"who?"}}'), { code: 'unauthenticated', message: /who\?/ }],
  [
    'a Glance error',
    says(
      404,
      '<html><head><title>404 Not Found</title></head><body><h1>404 Not Found</h1>No image &lt;x&gt;<br /></body></html>',
    ),
    { code: 'not-found', message: /^No image <x>$/ },
  ],
  ['a code that we do not know', says(418, '{"code":"__proto__","message":"tea"}'), { code: 'invalid-request' }],
  ['an empty error', says(503, ''), { code: 'unavailable', message: /answered 503/ }],
  [
    'an answer that breaks off',
    (_, response) => void response.writeHead(200, { 'content-length': '100' }).write('{', () => response.destroy()),
    { code: 'unavailable' },
  ],
]
for (const [name, answer, expected] of hostile) {
  test(`the client makes one ServiceError of ${name}`, async (t) => {
    const client = await serviceOf(t, answer)
    await assert.rejects(new ImageClient(client).show('x'), expected)
  })
}

test('an answer without end is cut off', async (t) => {
  const client = await serviceOf(t, (_, response) => {
    const block = Buffer.alloc(1024 * 1024, 32)
    const more = (): void => void (response.destroyed || response.write(block, more))
    more()
  })
  await assert.rejects(client.json('GET', '/x'), { code: 'unsupported', message: /larger than/ })
})

test('nothing at the address says how to start a service there', async () => {
  const client = new HttpClient('http://127.0.0.1:1')
  await assert.rejects(client.json('GET', '/x'), { code: 'unavailable', message: /imprint serve/ })
})

test('a wrong number of answers to "which chunks do you lack?" is refused', async (t) => {
  const client = await serviceOf(t, says(200, '\u0001\u0001\u0001'))
  const imprint = new ImprintClient(client)
  await assert.rejects(imprint.lacks('u', new Uint8Array(64), new AbortController().signal), { code: 'unsupported' })
  await assert.rejects(imprint.lacks('u', new Uint8Array(128), new AbortController().signal), { code: 'unsupported' })
})

test('a chunk size that could exhaust memory is refused', async (t) => {
  const client = await serviceOf(t, says(201, '{"id":"u","imageId":"i","chunkBytes":1099511627776}'))
  await assert.rejects(new ImprintClient(client).beginUpload({}), { code: 'unsupported', message: /chunk size/ })
})

test('the token goes to the service as a header, and addresses that hold a password are refused', async (t) => {
  let seen: unknown
  const client = await serviceOf(t, (request, response) => {
    seen = request.headers['x-auth-token']
    response.end('{}')
  })
  client.token = 'secret'
  await client.json('GET', '/x')
  assert.equal(seen, 'secret')
  assert.throws(() => new HttpClient('http://a:b@localhost'), { code: 'invalid-request' })
})

test('what passes is tried again, what does not is not', async (t) => {
  let asked = 0
  const client = await serviceOf(t, (_, response) => {
    asked += 1
    response.writeHead(asked < 3 ? 503 : 200).end('{}')
  })
  const { signal } = new AbortController()
  await persist(5, signal, () => client.json('GET', '/x'))
  assert.equal(asked, 3)
})

test('an abort while waiting ends in cancelled', async (t) => {
  const stop = new AbortController()
  const client = await serviceOf(t, () => stop.abort())
  await assert.rejects(client.json('GET', '/x', undefined, { signal: stop.signal }), { code: 'cancelled' })
})
