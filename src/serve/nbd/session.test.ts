import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { memoryDisk } from '../../../test/fixtures/nbd/memory-disk.ts'
import { contextData, goData, NbdClient, optionBytes, type Reply, requestBytes } from '../../../test/fixtures/nbd/nbd-client.ts'
import { type ExportedDisk, nbdService } from '../../../test/fixtures/nbd/nbd-service.ts'
import { ServiceError } from '../../base/errors.ts'
import { KiB, MiB } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { CHUNK, COMMAND, COMMAND_FLAG, ERRNO, OPTION, STATE_HOLE, STATE_ZERO } from './protocol.ts'

const { READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, DISC } = COMMAND
const SIZE = 3 * MiB + 512
const BLOCK = 64 * KiB

interface Step {
  readonly command: number
  readonly offset: number
  readonly length: number
  readonly flags: number
  readonly fill: number
}
const step = fc
  .record({
    command: fc.constantFrom(READ, READ, WRITE, WRITE, WRITE_ZEROES, TRIM, FLUSH, BLOCK_STATUS),
    offset: fc.oneof(
      fc.integer({ min: 0, max: SIZE - 1 }),
      fc.integer({ min: 0, max: 47 }).map((block) => block * BLOCK),
    ),
    length: fc.oneof(fc.integer({ min: 1, max: 5000 }), fc.constantFrom(BLOCK, 3 * BLOCK), fc.integer({ min: 1, max: MiB })),
    flags: fc.constantFrom(0, 0, COMMAND_FLAG.FUA),
    fill: fc.integer({ min: 0, max: 255 }),
  })
  .map((made): Step => ({ ...made, length: Math.min(made.length, SIZE - made.offset) }))

/** Applies a step to a plain array of bytes, and holds the server's reply against it. */
function compare(model: Buffer, { command, offset, length, fill }: Step, reply: Reply): void {
  assert.equal(reply.errno, 0)
  const end = offset + length
  if (command === READ) assert.ok(reply.data!.equals(model.subarray(offset, end)), `READ ${offset} ${length}`)
  if (command === WRITE) model.fill(fill, offset, end)
  if (command === WRITE_ZEROES || command === TRIM) model.fill(0, offset, end)
  if (command !== BLOCK_STATUS) return
  let at = offset
  for (let index = 4; index < reply.chunks[0]!.data.length; index += 8) {
    const [bytes, state] = [reply.chunks[0]!.data.readUInt32BE(index), reply.chunks[0]!.data.readUInt32BE(index + 4)]
    if (state & STATE_ZERO)
      assert.ok(
        model.subarray(at, at + bytes).every((byte) => byte === 0),
        'zeros that are none',
      )
    at += bytes
  }
  assert.ok(at > offset && at <= end)
}

for (const structured of [true, false]) {
  test(`whatever is written, zeroed, trimmed and read agrees with a model, ${structured ? 'structured' : 'simple'} replies`, async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const disk = memoryDisk(SIZE)
        const { path } = await nbdService(t, { disk })
        const client = await NbdClient.open(path, 'disk', { structured, status: structured })
        const model = Buffer.alloc(SIZE)
        for (const each of steps) {
          const { command, offset, length, flags, fill } = each
          if (command === BLOCK_STATUS && !structured) continue
          const fields = command === FLUSH ? { flags } : { flags, offset, length }
          compare(
            model,
            each,
            await client.request(command, command === WRITE ? { ...fields, data: Buffer.alloc(length, fill) } : fields),
          )
        }
        client.socket.destroy()
      }),
      { numRuns: 50 },
    )
  })
}

test('reads under way at once are answered as they are ready, each with its own bytes', async (t) => {
  const gates: (() => void)[] = []
  const source = {
    ...memoryDisk(MiB).source,
    async read(offset: number, length: number) {
      await new Promise<void>((open) => gates.push(open))
      return new Uint8Array(length).fill(offset / 512)
    },
  }
  const { path } = await nbdService(t, { disk: { source } })
  const client = await NbdClient.open(path, 'disk', { structured: true })
  const order: number[] = []
  const replies = Array.from({ length: 100 }, async (_, index) => {
    const { data } = await client.request(READ, { offset: index * 512, length: 512 })
    order.push(index)
    assert.ok(data!.equals(Buffer.alloc(512, index)))
  })
  while (gates.length < 100) await new Promise(setImmediate)
  for (const open of gates.reverse()) open()
  await Promise.all(replies)
  assert.deepEqual(
    order,
    Array.from({ length: 100 }, (_, index) => 99 - index),
  )
})

test('zeros become holes in a structured reply, and bytes where the client wants one piece', async (t) => {
  const disk = memoryDisk(4 * MiB)
  await disk.writer.write(MiB, Buffer.alloc(BLOCK, 1))
  const { path } = await nbdService(t, { disk })
  const client = await NbdClient.open(path, 'disk', { structured: true })
  const typesOf = ({ chunks }: Reply) => chunks.map(({ type }) => type)
  const { OFFSET_HOLE, OFFSET_DATA } = CHUNK
  assert.deepEqual(typesOf(await client.request(READ, { length: 4096 })), [OFFSET_HOLE])
  assert.deepEqual(typesOf(await client.request(READ, { length: 3 * MiB })), [OFFSET_HOLE, OFFSET_DATA, OFFSET_HOLE])
  assert.deepEqual(typesOf(await client.request(READ, { offset: MiB, length: 100 })), [OFFSET_DATA])
  const whole = await client.request(READ, { length: 4 * MiB, flags: COMMAND_FLAG.DF })
  assert.deepEqual(typesOf(whole), [OFFSET_DATA])
  assert.equal(whole.data!.indexOf(1), MiB)
})

test('block status joins neighbours, gives one run when one is asked for, and stops at its limit', async (t) => {
  const disk = memoryDisk(64 * MiB, 4096)
  for (let at = 8192; at < 40 * MiB; at += 8192) await disk.writer.write(at, Buffer.of(1))
  const { path } = await nbdService(t, { disk })
  const client = await NbdClient.open(path, 'disk', { structured: true, status: true })
  const status = async (offset: number, length: number, flags = 0) => {
    const { chunks } = await client.request(BLOCK_STATUS, { offset, length, flags })
    const { data } = chunks[0]!
    assert.equal(data.readUInt32BE(0), client.contexts.get('base:allocation'))
    return Array.from({ length: (data.length - 4) / 8 }, (_, index) => [
      data.readUInt32BE(4 + index * 8),
      data.readUInt32BE(8 + index * 8),
    ])
  }
  const hole = STATE_HOLE | STATE_ZERO
  assert.deepEqual(await status(0, 16_384), [
    [8192, hole],
    [4096, 0],
    [4096, hole],
  ])
  assert.deepEqual(await status(100, 16_000, COMMAND_FLAG.REQ_ONE), [[8092, hole]])
  assert.equal((await status(0, 64 * MiB)).length, 2048)
  assert.deepEqual(await status(41 * MiB, 23 * MiB), [[23 * MiB, hole]])
})

test('what is outside the disk, too long, or not offered is refused by its number, and the connection goes on', async (t) => {
  const disk = memoryDisk(64 * MiB)
  const { path, server } = await nbdService(t, { disk, fixed: { source: disk.source } })
  const client = await NbdClient.open(path, 'disk', { structured: true, status: true })
  const end = 64 * MiB
  const data = Buffer.alloc(512, 7)
  const { EINVAL, ENOSPC, EPERM, EOVERFLOW, ENOTSUP } = ERRNO
  const cases: readonly [string, number, object, number][] = [
    ['READ of nothing', READ, { length: 0 }, EINVAL],
    ['READ past the end', READ, { offset: end - 1, length: 2 }, EINVAL],
    ['READ far past the end', READ, { offset: end + 1, length: 1 }, EINVAL],
    ['READ at 2^64 - 1', READ, { offset: 2n ** 64n - 1n, length: 2 }, EINVAL],
    ['READ at 2^53 + 1', READ, { offset: 2n ** 53n + 1n, length: 1 }, EINVAL],
    ['READ of 33 MiB', READ, { length: 33 * MiB }, EINVAL],
    ['READ of 33 MiB in one piece', READ, { length: 33 * MiB, flags: COMMAND_FLAG.DF }, EOVERFLOW],
    ['READ of 4 GiB', READ, { length: 2 ** 32 - 1 }, EINVAL],
    ['READ with flags of others', READ, { length: 512, flags: COMMAND_FLAG.REQ_ONE }, EINVAL],
    ['READ with unknown flags', READ, { length: 512, flags: 0x8000 }, EINVAL],
    ['WRITE past the end', WRITE, { offset: end - 511, data }, ENOSPC],
    ['WRITE at 2^64 - 512', WRITE, { offset: 2n ** 64n - 512n, data }, ENOSPC],
    ['WRITE of 33 MiB', WRITE, { data: Buffer.alloc(33 * MiB) }, EINVAL],
    ['WRITE_ZEROES past the end', WRITE_ZEROES, { offset: 1, length: end }, ENOSPC],
    ['WRITE_ZEROES of 4 GiB', WRITE_ZEROES, { length: 2 ** 32 - 1 }, ENOSPC],
    [
      'fast zeros that stay allocated',
      WRITE_ZEROES,
      { length: 512, flags: COMMAND_FLAG.FAST_ZERO | COMMAND_FLAG.NO_HOLE },
      ENOTSUP,
    ],
    ['TRIM past the end', TRIM, { offset: end, length: 1 }, EINVAL],
    ['TRIM of 4 GiB', TRIM, { length: 2 ** 32 - 1 }, EINVAL],
    ['CACHE that is not offered', CACHE, { length: 512 }, EINVAL],
    ['BLOCK_STATUS of 4 GiB', BLOCK_STATUS, { length: 2 ** 32 - 1 }, EINVAL],
    ['BLOCK_STATUS of nothing', BLOCK_STATUS, { length: 0 }, EINVAL],
    ['FLUSH of a range', FLUSH, { length: 512 }, EINVAL],
    ['a command that nobody knows', 99, { length: 512 }, EINVAL],
  ]
  for (const [what, command, fields, errno] of cases) assert.equal((await client.request(command, fields)).errno, errno, what)
  assert.equal((await client.request(WRITE_ZEROES, { length: 512, flags: COMMAND_FLAG.FAST_ZERO })).errno, 0)
  assert.equal((await client.request(READ, { length: 32 * MiB })).errno, 0)
  const reader = await NbdClient.open(path, 'fixed')
  assert.equal((await reader.request(WRITE, { data })).errno, EPERM)
  assert.equal((await reader.request(TRIM, { length: 512 })).errno, EPERM)
  assert.equal((await reader.request(WRITE_ZEROES, { length: 512 })).errno, EPERM)
  assert.equal((await reader.request(FLUSH)).errno, EINVAL)
  assert.equal((await reader.request(READ, { length: 512, flags: COMMAND_FLAG.FUA })).errno, EINVAL)
  assert.equal((await reader.request(BLOCK_STATUS, { length: 512 })).errno, EINVAL)
  assert.ok((await reader.request(READ, { length: 512 })).data!.equals(Buffer.alloc(512)))
  assert.equal(server.sharedBytesUsed, 0)
})

test('FUA and FLUSH make durable before they are answered, other writes do not wait', async (t) => {
  const disk = memoryDisk(MiB)
  const { path } = await nbdService(t, { disk })
  const client = await NbdClient.open(path, 'disk')
  const data = Buffer.alloc(100_000, 5)
  await client.request(WRITE, { data })
  assert.equal(disk.flushes(), 0)
  await client.request(WRITE, { data, flags: COMMAND_FLAG.FUA })
  assert.equal(disk.flushes(), 1)
  await client.request(WRITE_ZEROES, { length: 512, flags: COMMAND_FLAG.FUA })
  await client.request(TRIM, { length: 512, flags: COMMAND_FLAG.FUA })
  await client.request(FLUSH)
  assert.equal(disk.flushes(), 4)
  await client.request(READ, { length: 512, flags: COMMAND_FLAG.FUA })
  assert.equal(disk.flushes(), 4)
})

test('CACHE asks the export to fetch ahead', async (t) => {
  const asked: number[][] = []
  const prefetch = async (offset: number, length: number) => void asked.push([offset, length])
  const { path } = await nbdService(t, { disk: { source: memoryDisk(2 ** 33).source, prefetch } })
  const client = await NbdClient.open(path, 'disk')
  assert.equal((await client.request(CACHE, { offset: 2 ** 32, length: 2 ** 31 })).errno, 0)
  assert.deepEqual(asked, [[2 ** 32, 2 ** 31]])
})

const failures: readonly [string, () => Promise<never>, number][] = [
  ['no-space', async () => Promise.reject(new ServiceError('no-space', 'full')), ERRNO.ENOSPC],
  ['over-quota', async () => Promise.reject(new ServiceError('over-quota', 'full')), ERRNO.ENOSPC],
  ['corrupt', async () => Promise.reject(new ServiceError('corrupt', 'chunk /srv/secret is damaged')), ERRNO.EIO],
  ['denied', async () => Promise.reject(new ServiceError('denied', 'no')), ERRNO.EPERM],
  ['EDQUOT of the system', async () => Promise.reject(Object.assign(new Error('x'), { code: 'EDQUOT' })), ERRNO.ENOSPC],
  ['a bug', async () => Promise.reject(new TypeError('undefined is not a function')), ERRNO.EIO],
  [
    'a bug that does not even reject',
    () => {
      throw new TypeError('undefined is not a function')
    },
    ERRNO.EIO,
  ],
]
for (const [what, fail, errno] of failures) {
  test(`a disk that fails with ${what} fails one request by its number and says nothing else to the client`, async (t) => {
    const disk = memoryDisk(MiB)
    const broken: ExportedDisk = {
      source: { ...disk.source, read: fail, extents: () => ({ [Symbol.asyncIterator]: () => ({ next: fail }) }) } as BlockSource,
      writer: { ...disk.writer, write: fail, flush: fail },
    }
    const { path, logged, open } = await nbdService(t, { broken })
    const client = await NbdClient.open(path, 'broken', { structured: true, status: true })
    const replies = [
      await client.request(READ, { length: 512 }),
      await client.request(WRITE, { data: Buffer.alloc(512) }),
      await client.request(TRIM, { length: 512, flags: COMMAND_FLAG.FUA }),
      await client.request(BLOCK_STATUS, { length: 512 }),
    ]
    for (const reply of replies) {
      assert.equal(reply.errno, errno)
      assert.ok(!reply.chunks.some(({ data }) => /secret|undefined/.test(data.toString('latin1'))))
    }
    assert.equal(logged.filter(({ level }) => level !== 'info').length, 4)
    assert.equal((await client.request(WRITE_ZEROES, { length: 512 })).errno, 0)
    for (let tries = 0; tries < 20; tries += 1) await client.request(READ, { length: 512 })
    assert.equal(logged.filter(({ level }) => level !== 'info').length, 10, 'the log does not grow with the failures')
    client.socket.destroy()
    while (open() > 0) await new Promise(setImmediate)
  })
}

test('the memory of a read that failed is not used for another: a part of it may still be written to', async (t) => {
  const offered: ArrayBufferLike[] = []
  const source: BlockSource = {
    ...memoryDisk(MiB).source,
    async read(offset, length, into) {
      offered.push(into!.buffer)
      if (offset === 0) throw new ServiceError('unavailable', 'one of two stores did not answer')
      return into!.fill(1, 0, length)
    },
  }
  const { path } = await nbdService(t, { disk: { source } })
  const client = await NbdClient.open(path, 'disk')
  for (const offset of [0, 512, 1024]) await client.request(READ, { offset, length: 512 })
  assert.notEqual(offered[1], offered[0])
  assert.equal(offered[2], offered[1], 'that of one that succeeded is')
})

/** A disk whose reads and writes wait for a word. */
function slowDisk(size: number) {
  const disk = memoryDisk(size)
  const waiting: (() => void)[] = []
  const word = () => new Promise<void>((go) => waiting.push(go))
  return {
    waiting,
    goOn: () => {
      for (const go of waiting.splice(0)) go()
    },
    source: {
      ...disk.source,
      read: async (offset: number, length: number) => word().then(() => disk.source.read(offset, length)),
    },
    writer: {
      ...disk.writer,
      write: async (offset: number, bytes: Uint8Array) => word().then(() => disk.writer.write(offset, bytes)),
    },
  }
}
const until = async (holds: () => boolean) => {
  while (!holds()) await new Promise(setImmediate)
}

test('DISC lets requests under way finish, then the connection ends and the export is released', async (t) => {
  const disk = slowDisk(MiB)
  const { path, open } = await nbdService(t, { disk })
  const client = await NbdClient.open(path, 'disk')
  const replies = Promise.all([client.request(READ, { length: 512 }), client.request(WRITE, { data: Buffer.alloc(70_000, 1) })])
  client.socket.write(requestBytes(DISC, {}))
  client.socket.write(requestBytes(READ, { length: 512, cookie: 99n })) // not answered: nothing comes after DISC
  await until(() => disk.waiting.length === 2)
  assert.equal(open(), 1)
  disk.goOn()
  assert.deepEqual(
    (await replies).map(({ errno }) => errno),
    [0, 0],
  )
  await client.closed()
  await until(() => open() === 0)
})

test('a client that closes its side still gets its replies', async (t) => {
  const disk = slowDisk(MiB)
  const { path, open } = await nbdService(t, { disk })
  const client = await NbdClient.open(path, 'disk')
  const reply = client.request(READ, { length: 512 })
  client.socket.end()
  await until(() => disk.waiting.length === 1)
  disk.goOn()
  assert.equal((await reply).errno, 0)
  await client.closed()
  await until(() => open() === 0)
})

test('a client that goes away leaves nothing behind, at whatever point', async (t) => {
  const disk = slowDisk(64 * MiB)
  const { path, open, server } = await nbdService(t, { disk })
  const parts = [
    requestBytes(READ, { length: 32 * MiB }),
    requestBytes(READ, { length: 32 * MiB }).subarray(0, 11),
    Buffer.concat([requestBytes(WRITE, { length: 20 * MiB }), Buffer.alloc(MiB)]),
    Buffer.concat(Array(600).fill(requestBytes(READ, { length: MiB }))),
  ]
  for (const part of parts) {
    const client = await NbdClient.open(path, 'disk')
    await new Promise((done) => client.socket.write(part, done))
    await new Promise(setImmediate)
    client.socket.destroy()
  }
  await until(() => {
    disk.goOn()
    return open() === 0
  })
  assert.equal(server.sharedBytesUsed, 0)
  assert.equal(server.counters.connections, 0)
})

test('a revoked export ends its connections at once, and its name is unknown from then on', async (t) => {
  const disk = slowDisk(MiB)
  const { path, revoke, open } = await nbdService(t, { disk, other: memoryDisk(MiB) })
  const client = await NbdClient.open(path, 'disk')
  const other = await NbdClient.open(path, 'other')
  const reply = assert.rejects(client.request(READ, { length: 512 }), /ended/)
  await until(() => disk.waiting.length === 1)
  revoke('disk')
  await reply
  assert.equal(open(), 2, 'a read is still under way')
  disk.goOn()
  await until(() => open() === 1)
  await assert.rejects(NbdClient.open(path, 'disk'), /80000006/)
  assert.equal((await other.request(READ, { length: 512 })).errno, 0)
})

test('closing: what is under way finishes, later requests are told, then the connection ends', async (t) => {
  const disk = slowDisk(MiB)
  const { path, server, open } = await nbdService(t, { disk })
  const client = await NbdClient.open(path, 'disk')
  const first = client.request(READ, { length: 512 })
  await until(() => disk.waiting.length === 1)
  const closing = server.close(60_000)
  const later = await Promise.all([client.request(READ, { length: 512 }), client.request(WRITE, { data: Buffer.alloc(100_000) })])
  assert.deepEqual(
    later.map(({ errno }) => errno),
    [ERRNO.ESHUTDOWN, ERRNO.ESHUTDOWN],
  )
  disk.goOn()
  assert.equal((await first).errno, 0)
  await client.closed()
  await closing
  assert.equal(open(), 0)
})

test('closing cuts off who does not take its replies', async (t) => {
  const { path, server, open } = await nbdService(t, { disk: memoryDisk(64 * MiB) })
  const client = await NbdClient.open(path, 'disk')
  client.socket.pause()
  client.socket.write(requestBytes(READ, { length: 32 * MiB }))
  await until(() => server.counters.bytesRead > 0)
  await server.close(0)
  assert.equal(open(), 0)
})

test('requests may come in any pieces, and right behind the handshake', async (t) => {
  const disk = memoryDisk(MiB)
  const { path } = await nbdService(t, { disk })
  const client = await NbdClient.connect(path)
  await client.take(18)
  const payload = Buffer.alloc(300, 9)
  const bytes = Buffer.concat([
    Buffer.of(0, 0, 0, 3),
    optionBytes(OPTION.SET_META_CONTEXT, contextData('disk', [])),
    optionBytes(OPTION.GO, goData('disk', [])),
    requestBytes(WRITE, { offset: 1000, length: 300, cookie: 1n }),
    payload,
    requestBytes(READ, { offset: 900, length: 500, cookie: 2n }),
  ])
  client.socket.setNoDelay(true)
  for (let at = 0; at < bytes.length; at += 7) await new Promise((done) => client.socket.write(bytes.subarray(at, at + 7), done))
  await client.optionReplies()
  await client.optionReplies()
  await client.take(16)
  const reply = await client.take(16 + 500)
  assert.equal(reply.readBigUInt64BE(8), 2n)
  assert.deepEqual(reply.subarray(16), Buffer.concat([Buffer.alloc(100), payload, Buffer.alloc(100)]))
})

test('two connections to one export see what the other wrote', async (t: TestContext) => {
  const { path, server } = await nbdService(t, { disk: memoryDisk(MiB) })
  const [one, two] = [await NbdClient.open(path, 'disk'), await NbdClient.open(path, 'disk')]
  await one.request(WRITE, { offset: 77, data: Buffer.from('hello') })
  assert.equal((await two.request(READ, { offset: 77, length: 5 })).data!.toString(), 'hello')
  assert.equal(server.counters.connections, 2)
  assert.deepEqual([server.counters.requests.WRITE, server.counters.requests.READ, server.counters.bytesWritten], [1, 1, 5])
})
