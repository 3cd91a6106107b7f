import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import fc from 'fast-check'
import { createDialer, type Dialer } from './dialer.ts'
import { fetchFile } from './fetch-file.ts'
import { type HostileServer, hostileServer, ok, reply } from './hostile-server.suite.ts'

const dialerFor = ({ port }: HostileServer): Dialer =>
  createDialer({
    allowedHosts: [],
    allowedNetworks: ['127.0.0.1/32'],
    allowedPorts: [port],
    limits: { stallMs: 60, stallBytes: 1 },
  })
const retry = { firstPauseMs: 0, maxPauseMs: 0 }
const fetchAll = (server: HostileServer, maxBytes = 2 ** 20) =>
  buffer(fetchFile(dialerFor(server), `http://127.0.0.1:${server.port}/file`, { maxBytes, retry }))

/** A source that breaks each connection after so many bytes of body. */
function breaking(file: Buffer, cuts: readonly number[], validator = 'etag: "v1"', ranges = true) {
  let connection = 0
  return hostileServer((socket, head) => {
    const cut = cuts[connection] ?? Number.POSITIVE_INFINITY
    connection += 1
    const from = ranges ? Number(/range: bytes=(\d+)-/i.exec(head)?.[1] ?? 0) : 0
    const body = file.subarray(from)
    const start =
      from > 0 ? `HTTP/1.1 206 P\r\ncontent-range: bytes ${from}-${file.length - 1}/${file.length}` : 'HTTP/1.1 200 OK'
    socket.write(`${start}\r\ncontent-length: ${body.length}\r\n${validator}\r\n\r\n`)
    socket.end(body.subarray(0, Math.min(cut, body.length)))
  })
}

test('a file comes whole however often the connection breaks', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: 50_000 }),
      fc.array(fc.nat(20_000), { maxLength: 4 }),
      fc.boolean(),
      async (bytes, cuts, ranges) => {
        const file = randomBytes(bytes)
        const server = await breaking(file, cuts, 'etag: "v1"', ranges)
        assert.ok(file.equals(await fetchAll(server)))
        await server.close()
      },
    ),
    { numRuns: 25 },
  )
})

test('a continuation asks for the rest of the very same file', async () => {
  const server = await breaking(Buffer.alloc(100, 7), [40])
  await fetchAll(server)
  assert.match(server.requests[1] ?? '', /range: bytes=40-\r\nif-range: "v1"/i)
  await server.close()
})

test('a date of last change serves where there is no ETag, and a weak ETag does not', async () => {
  const dated = await breaking(Buffer.alloc(100, 7), [40], 'last-modified: Sat, 21 Nov 2026 09:00:00 GMT')
  assert.equal((await fetchAll(dated)).length, 100)
  await dated.close()
  const weak = await breaking(Buffer.alloc(100, 7), [40], 'etag: W/"v1"')
  await assert.rejects(fetchAll(weak), { code: 'unavailable', message: /cannot be gone on with/ })
  await weak.close()
})

const liars: readonly { name: string; second: string; code: string; says: RegExp }[] = [
  {
    name: 'has another ETag',
    second: 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\netag: "v2"',
    code: 'unavailable',
    says: /has changed/,
  },
  {
    name: 'answers with another range',
    second: 'HTTP/1.1 206 P\r\ncontent-range: bytes 0-99/100\r\ncontent-length: 100',
    code: 'unavailable',
    says: /another range/,
  },
  {
    name: 'has another length',
    second: 'HTTP/1.1 206 P\r\ncontent-range: bytes 40-299/300\r\ncontent-length: 260',
    code: 'unavailable',
    says: /another range/,
  },
  {
    name: 'sends more than it announced',
    second: 'HTTP/1.1 206 P\r\ncontent-range: bytes 40-99/100\r\ncontent-length: 100',
    code: 'unavailable',
    says: /more bytes than it announced/,
  },
  { name: 'is gone', second: 'HTTP/1.1 404 N\r\ncontent-length: 0', code: 'invalid-request', says: /answers 404/ },
]
for (const { name, second, code, says } of liars) {
  test(`a source that, when it is gone on with, ${name} ends the import`, async () => {
    const server = await hostileServer((socket, _, count) => {
      if (count === 1) reply(socket, 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\netag: "v1"', Buffer.alloc(40))
      else reply(socket, second, Buffer.alloc(100))
    })
    await assert.rejects(fetchAll(server), { code, message: says })
    await server.close()
  })
}

test('a source that is down for good is given up, and one that is busy is asked again', async () => {
  const down = await hostileServer((socket) => reply(socket, 'HTTP/1.1 503 S\r\ncontent-length: 0'))
  await assert.rejects(fetchAll(down), { code: 'unavailable', message: /gave up after 3 connections/ })
  assert.equal(down.connections(), 3)
  await down.close()
  const busy = await hostileServer((socket, _, count) =>
    count < 3 ? reply(socket, 'HTTP/1.1 429 T\r\ncontent-length: 0') : reply(socket, ok(Buffer.from('x')), 'x'),
  )
  assert.equal((await fetchAll(busy)).toString(), 'x')
  await busy.close()
})

test('a file that is too large is refused by what is announced, and by what comes', async () => {
  const announced = await hostileServer((socket) => reply(socket, 'HTTP/1.1 200 OK\r\ncontent-length: 1001'))
  await assert.rejects(fetchAll(announced, 1000), { code: 'too-large' })
  await announced.close()
  const endless = await hostileServer((socket) => {
    socket.write('HTTP/1.1 200 OK\r\n\r\n')
    const more = (): void => {
      while (socket.writable && socket.write(Buffer.alloc(10_000)));
    }
    socket.on('drain', more)
    more()
  })
  await assert.rejects(fetchAll(endless, 100_000), { code: 'too-large' })
  await endless.close()
})

test('a cancelled fetch ends, also while it waits to try again', async () => {
  const down = await hostileServer((socket) => reply(socket, 'HTTP/1.1 503 S\r\ncontent-length: 0'))
  const abort = new AbortController()
  const slow = { firstPauseMs: 60_000, maxPauseMs: 60_000 }
  const fetching = buffer(
    fetchFile(dialerFor(down), `http://127.0.0.1:${down.port}/`, { maxBytes: 1, signal: abort.signal, retry: slow }),
  )
  setImmediate(() => abort.abort())
  await assert.rejects(fetching, { code: 'cancelled' })
  await down.close()
})
