/** A disk over the real service, and over servers that are not what they should be. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type RequestListener, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { ServiceError } from '../base/errors.ts'
import { HttpClient } from '../cli/client/http-client.ts'
import { IdentityClient } from '../cli/client/identity-client.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../cli/real-service.suite.ts'
import type { BlockSource } from '../disk/block/block-source.ts'
import { memorySource } from '../disk/block/memory-source.ts'
import { wrapDisk } from '../disk/formats/index.ts'
import { encodeBootRecord } from '../store/content/boot-record.ts'
import { sha256, sha256Hex } from '../store/content/digests.ts'
import { encodeChunks, type WireChunk } from '../store/content/encode-chunks.ts'
import { encodePage, encodeRoot } from '../store/content/manifest-format.ts'
import { ChunkPool } from './chunk-pool.ts'
import { DiskCache, LEAST_CACHE_BYTES } from './disk-cache/disk-cache.ts'
import { httpOrigin } from './http-origin.ts'
import { openRemoteDisk } from './open-remote-disk.ts'
import type { ChunkOrigin } from './origin.ts'
import { RemoteFile } from './remote-file.ts'

const CHUNK = 65_536
const file = Buffer.alloc(1100 * CHUNK + 777)
for (let chunk = 0; chunk <= 1100; chunk += 1) {
  const at = file.subarray(chunk * CHUNK, (chunk + 1) * CHUNK)
  if (chunk % 11 === 0) at.set(randomBytes(at.length))
  else if (chunk % 3 !== 0) at.fill(`chunk ${chunk} `)
}

let service: RealService
let http: HttpClient
before(async () => {
  service = await startService()
  http = new HttpClient(service.url)
  const credential = { kind: 'password', user: 'admin', password: ADMIN_PASSWORD } as const
  http.token = (await new IdentityClient(http).authenticate(credential, 'admin')).token
})
after(async () => {
  http.close()
  await service.close()
})

async function newExport(bytes: Buffer, format = 'raw'): Promise<string> {
  const made = (await http.json('POST', '/image/v2/images', { disk_format: format, container_format: 'bare' })) as { id: string }
  const headers = { 'content-type': 'application/octet-stream' }
  await http.bytes({ method: 'PUT', path: `/image/v2/images/${made.id}/file`, headers, body: bytes }, 1000)
  return ((await http.json('POST', '/v1/exports', { image: made.id })) as { id: string }).id
}
const noSignIn = () => Promise.reject(new Error('nobody signs in here'))
const origin = (id: string) => httpOrigin(http, id, noSignIn)

interface World {
  readonly pool: ChunkPool
  readonly disk: BlockSource
  finish(): Promise<void>
  close(): Promise<void>
}
async function world(
  of: ChunkOrigin,
  cache?: DiskCache,
  options: { patienceMs?: number; memoryBytes?: number } = {},
): Promise<World> {
  const pool = new ChunkPool({ ...(cache ? { disk: cache } : {}), ...options })
  try {
    const { disk, finish } = await openRemoteDisk({ origin: of, pool, ...options })
    const close = async () => {
      await disk.close()
      await pool.close()
    }
    return { pool, disk, finish, close }
  } catch (error) {
    await pool.close()
    throw error
  }
}
async function cacheIn(t: TestContext): Promise<() => Promise<DiskCache>> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-host-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  return () => DiskCache.open(folder, LEAST_CACHE_BYTES)
}

test('the opening is ended while the service is away, and what is left to say to it does not keep the disk open', async () => {
  const real = origin(await newExport(file))
  const away: ChunkOrigin = { ...real, describe: () => Promise.reject(new ServiceError('unavailable', 'it is away')) }
  const interrupted = new AbortController()
  const pool = new ChunkPool({})
  const opening = openRemoteDisk({ origin: away, pool, signal: interrupted.signal })
  interrupted.abort()
  await assert.rejects(opening, { code: 'cancelled' })

  const silent: ChunkOrigin = { ...real, putBootRecord: () => new Promise(() => {}), page: () => new Promise(() => {}) }
  const { disk, finish } = await openRemoteDisk({ origin: silent, pool, farewellMs: 1 })
  disk.read(0, 100).catch(() => undefined) // it never comes, and is recorded
  await finish()
  await disk.close()
  await pool.close()
})

test('a remote disk reads as the disk that it is, extents too', async () => {
  const { disk, close } = await world(origin(await newExport(file)), undefined, { memoryBytes: 4 * CHUNK })
  assert.equal(disk.size, file.length)
  await fc.assert(
    fc.asyncProperty(fc.nat(file.length), fc.nat(3 * 2 ** 20), async (from, count) => {
      const length = Math.min(count, file.length - from)
      assert.ok(file.subarray(from, from + length).equals(await disk.read(from, length)))
    }),
    { numRuns: 40 },
  )
  let at = 0
  for await (const { offset, length, kind } of disk.extents(0, disk.size)) {
    assert.equal(offset, at)
    at += length
    assert.equal(
      kind !== 'data',
      file.subarray(offset, offset + length).every((byte) => byte === 0),
    )
  }
  assert.equal(at, file.length)
  await close()
})

test('of a qcow2 its disk is read', async () => {
  const bytes = file.subarray(0, 300 * CHUNK)
  const qcow2 = await wrapDisk('qcow2', memorySource(bytes.length, [{ offset: 0, bytes }]))
  const { disk, close } = await world(origin(await newExport(Buffer.from(await qcow2.read(0, qcow2.size)), 'qcow2')))
  assert.ok(bytes.equals(await disk.read(0, disk.size)))
  await close()
})

test('each chunk is fetched once however many ask for it, and those that are near in time together', async () => {
  const { pool, disk, close } = await world(origin(await newExport(file.subarray(0, 200 * CHUNK))))
  const reads = Array.from({ length: 400 }, (_, at) => disk.read(((at * 7) % 200) * CHUNK + at, 100))
  await Promise.all(reads)
  const data = Array.from({ length: 200 }, (_, chunk) => chunk).filter((chunk) => chunk % 11 === 0 || chunk % 3 !== 0).length
  assert.equal(pool.counters.chunksFetched, data)
  await close()
})

test('what was kept on disk is not fetched again: after a new start, by another image, and by two at once', async (t) => {
  const open = await cacheIn(t)
  const id = await newExport(file)
  const first = await open()
  const before = await world(origin(id), first)
  await before.disk.read(0, file.length)
  assert.ok(before.pool.counters.chunksFetched > 700)
  await before.close()
  await first.close()
  const [one, two] = [await open(), await open()]
  const like = await newExport(Buffer.concat([Buffer.alloc(CHUNK, 'another beginning'), file.subarray(CHUNK)]))
  const again = await world(origin(id), one, { memoryBytes: 4 * CHUNK })
  const alike = await world(origin(like), two, { memoryBytes: 4 * CHUNK })
  const [bytes] = await Promise.all([again.disk.read(0, file.length), alike.disk.read(0, file.length)])
  assert.ok(file.equals(bytes))
  assert.equal(again.pool.counters.chunksFetched, 0)
  assert.equal(alike.pool.counters.chunksFetched, 1)
  for (const each of [again, alike]) await each.close()
  for (const each of [one, two]) await each.close()
})

test('the first start is recorded for all hosts, and the next one fetches by it in few requests', async () => {
  const id = await newExport(randomBytes(300 * CHUNK)) // like no other image, so that it has no record
  const order = [0, 1, 270, 2, 44, 45, 299, 46, 101, 22]
  const first = await world(origin(id))
  for (const chunk of order) await first.disk.read(chunk * CHUNK, 100)
  await first.finish()
  await first.close()
  const second = await world(origin(id))
  await second.disk.read(0, 100)
  while (second.pool.counters.chunksFetched < order.length) await new Promise(setImmediate)
  await second.finish()
  await second.close()
  assert.equal(second.pool.counters.chunksFetched, order.length)
})

test('an export that ends, or a disk that is closed, ends its reads', async () => {
  const id = await newExport(randomBytes(100 * CHUNK))
  const { disk, close } = await world(origin(id))
  await disk.read(0, 100)
  await http.json('DELETE', `/v1/exports/${id}`)
  await assert.rejects(disk.read(50 * CHUNK, CHUNK), { code: 'not-found' })
  await close()
  await assert.rejects(disk.read(0, 100), { code: 'invalid-request' })
})

// ---------------------------------------------------------------- servers that are not what they should be

const CHUNKS = 64
const plain = Array.from({ length: CHUNKS }, () => new Uint8Array(randomBytes(CHUNK)))
const digests = plain.map((bytes) => sha256(bytes))
const page = encodePage(Buffer.concat(digests))
const root = encodeRoot({ chunkBytes: CHUNK, fileBytes: CHUNKS * CHUNK, allocatedBytes: CHUNKS * CHUNK, pages: sha256(page) })
const facts = { manifest: sha256Hex(root), diskFormat: 'raw', fileBytes: CHUNKS * CHUNK, chunkBytes: CHUNK }
const frame = (number: number): WireChunk => ({ digest: digests[number]!, codec: 'plain', bytes: plain[number]! })

interface Asked {
  readonly numbers: readonly number[]
  readonly isVerified: boolean
  /** How many requests for chunks came before. */
  readonly before: number
}
/** An export as `answer` has it: honest but for what `answer` does to requests for chunks. */
async function server(
  t: TestContext,
  answer: (asked: Asked, response: ServerResponse) => void,
  more: { facts?: object; root?: Uint8Array; page?: Uint8Array; record?: Uint8Array } = {},
): Promise<{ readonly origin: ChunkOrigin; readonly asked: Asked[] }> {
  const asked: Asked[] = []
  const listener: RequestListener = async (request, response) => {
    const url = request.url!
    const body = Buffer.concat(await request.toArray())
    if (url.endsWith('/file'))
      response.setHeader('content-type', 'application/json').end(JSON.stringify({ ...facts, ...more.facts }))
    else if (url.endsWith('/layout')) response.end(more.root ?? root)
    else if (url.includes('/layout/')) response.end(more.page ?? page)
    else if (url.endsWith('/boot-record')) response.writeHead(more.record ? 200 : 404).end(more.record)
    else {
      const numbers = Array.from({ length: body.length / 4 }, (_, at) => body.readUInt32BE(4 * at))
      const one = { numbers, isVerified: url.endsWith('verified=true'), before: asked.length }
      asked.push(one)
      answer(one, response)
    }
  }
  const listening = createServer(listener)
  await new Promise<void>((done) => listening.listen(0, '127.0.0.1', done))
  const client = new HttpClient(`http://127.0.0.1:${(listening.address() as AddressInfo).port}`)
  t.after(() => {
    client.close()
    listening.closeAllConnections()
    listening.close()
  })
  return { origin: httpOrigin(client, 'x', noSignIn), asked }
}
const honest = ({ numbers }: Asked, response: ServerResponse) => void response.end(encodeChunks(numbers.map(frame)))
const whole = Buffer.concat(plain)

test('an answer that breaks off is gone on with where it stopped', async (t) => {
  const { origin, asked } = await server(t, (one, response) => {
    if (one.before >= 3) return honest(one, response)
    const frames = encodeChunks(one.numbers.map(frame))
    response.write(frames.subarray(0, Math.floor(frames.length / 2)), () => response.destroy())
  })
  const { pool, disk, close } = await world(origin)
  assert.ok(whole.equals(await disk.read(0, disk.size)))
  assert.equal(pool.counters.chunksFetched, CHUNKS)
  assert.ok(asked.length > 3 && pool.counters.retries === 3)
  await close()
})

test('chunks that do not match their digest are asked for again, verified, and nobody ever sees them', async (t) => {
  const { origin, asked } = await server(t, (one, response) => {
    const lie = (number: number) => (number % 5 === 0 && !one.isVerified ? { ...frame(number), bytes: plain[1]! } : frame(number))
    response.end(encodeChunks(one.numbers.map(lie)))
  })
  const { disk, close } = await world(origin)
  assert.ok(whole.equals(await disk.read(0, disk.size)))
  assert.deepEqual(
    asked
      .filter(({ isVerified }) => isVerified)
      .flatMap(({ numbers }) => numbers)
      .sort((a, b) => a - b),
    [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60],
  )
  await close()
})

const liars: readonly [string, (asked: Asked, response: ServerResponse) => void, RegExp, string][] = [
  [
    'other bytes for ever',
    ({ numbers }, to) => to.end(encodeChunks(numbers.map(() => frame(63)))),
    /other bytes than its digest/,
    'corrupt',
  ],
  [
    'a zstd frame that unpacks to 4 GiB',
    ({ numbers }, to) =>
      to.end(encodeChunks(numbers.map((number) => ({ ...frame(number), codec: 'zstd' as const, bytes: bomb })))),
    /other bytes/,
    'corrupt',
  ],
  ['garbage', (_, to) => to.end(randomBytes(100_000)), /not the chunks/, 'unsupported'],
  ['frames without end', ({ numbers }, to) => void endless(to, encodeChunks(numbers.map(frame))), /more|larger/, 'unsupported'],
  [
    'too few frames, again and again',
    ({ numbers }, to) => to.end(encodeChunks(numbers.slice(0, -1).map(frame))),
    /ended after/,
    'unavailable',
  ],
  ['nothing', (_, to) => to.end(), /ended after 0/, 'unavailable'],
  ['an error of its own', (_, to) => to.writeHead(500).end('<h1>Oops</h1>'), /500/, 'unavailable'],
  [
    'a way to elsewhere',
    (_, to) => to.writeHead(302, { location: 'http://169.254.169.254/' }).end(),
    /sent us elsewhere/,
    'unsupported',
  ],
]
const bomb = Buffer.from('28b52ffda40000000101000054000010000001fbff39c002', 'hex')
function endless(to: ServerResponse, frames: Uint8Array): void {
  const more = () => {
    while (!to.destroyed && to.write(frames));
    if (!to.destroyed) to.once('drain', more)
  }
  more()
}
for (const [what, answer, message, code] of liars) {
  test(`a server that answers ${what} fails the read, and only that`, async (t) => {
    let lies = true
    const { origin } = await server(t, (asked, response) => (lies ? answer(asked, response) : honest(asked, response)))
    const { disk, close } = await world(origin, undefined, { patienceMs: 0 })
    await assert.rejects(disk.read(3 * CHUNK, 100), { code, message })
    lies = false
    assert.ok(whole.subarray(3 * CHUNK, 5 * CHUNK).equals(await disk.read(3 * CHUNK, 2 * CHUNK)))
    await close()
  })
}

test('one chunk that cannot be had keeps no other away', async (t) => {
  const { origin } = await server(t, (one, response) => {
    if (!one.numbers.includes(7)) return honest(one, response)
    response.writeHead(500, { 'content-type': 'application/json' }).end(JSON.stringify({ code: 'corrupt', message: 'damaged' }))
  })
  const { disk, close } = await world(origin)
  const reads = await Promise.allSettled(Array.from({ length: 20 }, (_, chunk) => disk.read(chunk * CHUNK, 100)))
  assert.deepEqual(
    reads.flatMap(({ status }, chunk) => (status === 'rejected' ? [chunk] : [])),
    [7],
  )
  await close()
})

const layouts: readonly [string, Parameters<typeof server>[2], string][] = [
  [
    'a root that is not the one it names',
    { root: encodeRoot({ chunkBytes: CHUNK, fileBytes: 1, allocatedBytes: 1, pages: sha256(page) }) },
    'corrupt',
  ],
  ['a page that is not the one it names', { page: encodePage(Buffer.concat(digests.toReversed())) }, 'corrupt'],
  ['a file of 2^60 bytes', { facts: { fileBytes: 2 ** 60 } }, 'unsupported'],
  ['another size than the root', { facts: { fileBytes: 5 } }, 'corrupt'],
  ['chunks of 3 bytes', { facts: { chunkBytes: 3 } }, 'unsupported'],
  ['chunks of a GiB', { facts: { chunkBytes: 2 ** 30 } }, 'unsupported'],
  ['a manifest that is a path', { facts: { manifest: '../../etc/passwd' } }, 'unsupported'],
  ['a format that we do not open', { facts: { diskFormat: 'qcow' } }, 'unsupported'],
]
for (const [what, more, code] of layouts) {
  test(`a server that tells of ${what} is refused`, async (t) => {
    const { origin } = await server(t, honest, more)
    const reading = async () => {
      const { disk, close } = await world(origin)
      await disk.read(0, 100).finally(close)
    }
    await assert.rejects(reading(), { code })
  })
}

for (const [what, record] of [
  ['garbage', randomBytes(500)],
  [
    'chunks beyond the file',
    encodeBootRecord([1e9, 3, 2 ** 32 - 1].map((chunk) => ({ chunk, afterMs: 0, prefix: new Uint8Array(4) }))),
  ],
  ['more than it may have', new Uint8Array(10 * 2 ** 20)],
] as const) {
  test(`a boot record of ${what} keeps nobody from the disk`, async (t) => {
    const { origin } = await server(t, honest, { record })
    const { disk, close } = await world(origin)
    assert.ok(whole.equals(await disk.read(0, disk.size)))
    await close()
  })
}

test('a disk that is closed takes nothing from another that waits for the same chunk', async (t) => {
  const silent = await server(t, () => undefined)
  const good = await server(t, honest)
  const pool = new ChunkPool()
  const [one, two] = [
    await RemoteFile.open({ origin: silent.origin, pool }),
    await RemoteFile.open({ origin: good.origin, pool }),
  ]
  const first = assert.rejects(one.read(5 * CHUNK, 10), { code: 'cancelled' })
  while (silent.asked.length === 0) await new Promise(setImmediate)
  const second = two.read(5 * CHUNK, 10)
  await one.close()
  await first
  assert.ok(whole.subarray(5 * CHUNK, 5 * CHUNK + 10).equals(await second))
  await two.close()
  await pool.close()
})

test('what is fetched ahead and does not match is asked for again, verified', async (t) => {
  const { origin, asked } = await server(t, (one, response) => {
    const lie = (number: number) => (number % 5 === 0 && !one.isVerified ? { ...frame(number), bytes: plain[1]! } : frame(number))
    response.end(encodeChunks(one.numbers.map(lie)))
  })
  const pool = new ChunkPool()
  const remote = await RemoteFile.open({ origin, pool })
  await remote.prefetchChunks(Array.from({ length: CHUNKS }, (_, chunk) => chunk))
  assert.equal(asked.filter(({ isVerified }) => isVerified).length, 13)
  assert.ok(asked.every(({ isVerified, numbers }) => !isVerified || numbers.length === 1))
  const before = asked.length
  assert.ok(whole.equals(await remote.read(0, remote.size)))
  assert.equal(asked.length, before)
  await remote.close()
  await pool.close()
})

test('what somebody waits for goes before what is fetched ahead', async (t) => {
  const held: (() => void)[] = []
  const { origin, asked } = await server(t, (one, response) => void held.push(() => honest(one, response)))
  const pool = new ChunkPool()
  const remote = await RemoteFile.open({ origin, pool })
  const ahead = remote.prefetchChunks(Array.from({ length: CHUNKS }, (_, chunk) => chunk))
  while (asked.length < 2) await new Promise(setImmediate)
  const read = remote.read(60 * CHUNK, 10)
  while (asked.length < 3) await new Promise(setImmediate)
  assert.deepEqual(asked[2]!.numbers, [60], 'it was waiting behind others, and passed them')
  held[2]!()
  assert.ok(whole.subarray(60 * CHUNK, 60 * CHUNK + 10).equals(await read))
  let done = false
  void ahead.then(() => {
    done = true
  })
  for (let next = 0; !done; ) {
    if (next !== 2 && held[next]) held[next]!()
    if (held[next]) next += 1
    await new Promise(setImmediate)
  }
  assert.equal(pool.counters.chunksFetched, CHUNKS)
  await remote.close()
  await pool.close()
})
