import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import fc from 'fast-check'
import { digestOf, patterned } from '../../../../test/fixtures/disk/disks.ts'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import {
  batEntry,
  type LogEntryOptions,
  logEntry,
  VHDX_BAT,
  VHDX_DATA,
  VHDX_LOG,
  VHDX_METADATA,
  vhdxFile,
} from '../../../../test/fixtures/disk/vhdx.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { bytesSource } from '../../block/memory-source.ts'
import { Overlay } from './overlay.ts'
import { vhdx } from './vhdx.ts'

const KiB = 1024
const MiB = 1024 * KiB
const LOG_SECTORS = 256

/** A sector of the BAT with these entries first. */
const batSector = (...entries: readonly bigint[]): Uint8Array => {
  const sector = Buffer.alloc(4096)
  for (const [index, entry] of entries.entries()) sector.writeBigUInt64LE(entry, index * 8)
  return sector
}
/** A file of two blocks of data, 7s and 9s, that its BAT does not know: only its log does. */
const written = (log: readonly (readonly [sector: number, entry: LogEntryOptions])[], fileBytes = 6 * MiB): Buffer =>
  vhdxFile({
    fileBytes,
    data: [
      { at: VHDX_DATA, bytes: Buffer.alloc(MiB, 7) },
      { at: VHDX_DATA + MiB, bytes: Buffer.alloc(Math.min(MiB, fileBytes - VHDX_DATA - MiB), 9) },
    ],
    log: new Map(log.map(([sector, entry]) => [sector, logEntry({ flushed: fileBytes, ...entry })])),
  })
const first = batEntry(6, VHDX_DATA)
const second = batEntry(6, VHDX_DATA + MiB)
const toBat = (...entries: readonly bigint[]) => ({ at: VHDX_BAT, write: batSector(...entries) })

const opened = async (file: Uint8Array) => checked(await vhdx.open(checked(bytesSource(file), 'file')), 'vhdx')
/** The first bytes of the first three blocks. */
const blocks = async (file: Uint8Array): Promise<number[]> => {
  const disk = await opened(file)
  return Promise.all([0, 1, 2].map(async (block) => (await disk.read(block * MiB, 1))[0]!))
}

test('what the log holds is made, in order, and the audit says so', async () => {
  const file = written([
    [0, { sequence: 1, tail: 0, updates: [toBat(first)] }],
    [2, { sequence: 2, tail: 0, updates: [toBat(first, second)] }],
  ])
  assert.deepEqual(await blocks(file), [7, 9, 0])
  const whole = checked(bytesSource(file), 'file')
  assert.match((await vhdx.audit(whole)).join(), /log is replayed in memory/)
})

test('the file itself is not written', async () => {
  const file = written([[0, { sequence: 1, tail: 0, updates: [toBat(first)] }]])
  const before = Buffer.from(file)
  await blocks(file)
  assert.equal(Buffer.compare(file, before), 0)
})

test('what was read of the file is not written to: others may read the same memory', async () => {
  const file = written([[0, { sequence: 1, tail: 0, updates: [toBat(first)] }]])
  const before = Buffer.from(file)
  const views = { ...bytesSource(file), read: async (offset: number, length: number) => file.subarray(offset, offset + length) }
  await vhdx.open(views)
  assert.equal(Buffer.compare(file, before), 0)
})

test('the newest sequence is replayed, from its tail on and no other', async () => {
  const stale = { sequence: 40, tail: 0, updates: [toBat(0n, 0n, first)] }
  const tail = { sequence: 90, tail: 20, updates: [toBat(first)] }
  const head = { sequence: 91, tail: 20, updates: [{ at: VHDX_BAT + 4096, write: 4096 }] }
  assert.deepEqual(
    await blocks(
      written([
        [0, stale],
        [20, tail],
        [22, head],
      ]),
    ),
    [7, 0, 0],
  )
  /** An entry before the tail belongs to the sequence, and was flushed. */
  const flushed = { sequence: 89, tail: 18, updates: [{ at: VHDX_METADATA, write: 4096 }] }
  assert.deepEqual(
    await blocks(
      written([
        [0, stale],
        [19, flushed],
        [20, tail],
        [22, head],
      ]),
    ),
    [7, 0, 0],
  )
})

test('a sequence that goes on at the start of the ring is one', async () => {
  const tail = { sequence: 8, tail: LOG_SECTORS - 3, updates: [toBat(first)] }
  const around = { sequence: 9, tail: LOG_SECTORS - 3, updates: [toBat(first, second)] } // its descriptors end the ring, its data begin it
  assert.deepEqual(
    await blocks(
      written([
        [LOG_SECTORS - 3, tail],
        [LOG_SECTORS - 1, around],
      ]),
    ),
    [7, 9, 0],
  )
})

test('a sequence of which an entry begins the ring again is one, and is found once', async () => {
  for (const start of [LOG_SECTORS - 2, LOG_SECTORS - 4]) {
    const around = { tail: start, updates: [toBat(first, second)] }
    const file = written([
      [start, { sequence: 8, tail: start, updates: [toBat(first)] }],
      ...(start === LOG_SECTORS - 4 ? [[start + 2, { ...around, sequence: 9 }] as const] : []),
      [0, { ...around, sequence: start === LOG_SECTORS - 4 ? 10 : 9 }],
    ])
    assert.deepEqual(await blocks(file), [7, 9, 0], String(start))
  }
})

test('a log that makes the file longer than it could have been is not believed', async () => {
  const entry = { sequence: 1, tail: 0, updates: [toBat(first)], last: 120 * 1024 ** 4 }
  await assert.rejects(opened(written([[0, entry]])), { code: 'invalid-image', message: /LastFileOffset/ })
})

test('an entry that is torn, and what follows it, does not count', async () => {
  const entries = [
    [0, { sequence: 1, tail: 0, updates: [toBat(first)] }],
    [2, { sequence: 2, tail: 0, updates: [toBat(first, second)] }],
  ] as const
  for (const torn of [12, 16, 24, 28, 40, 70, 100, 4096 + 2, 4096 + 6, 4096 + 500, 4096 + 4094]) {
    const file = written(entries)
    file[VHDX_LOG + 2 * 4096 + torn]! ^= 0x55
    assert.deepEqual(await blocks(file), [7, 0, 0], `byte ${torn} of the entry`)
  }
})

test('zero descriptors write zeros, over what came before and of any length', async () => {
  const file = written([
    [0, { sequence: 1, tail: 0, updates: [toBat(first, second), { at: VHDX_BAT, write: MiB }, toBat(0n, second)] }],
  ])
  assert.deepEqual(await blocks(file), [0, 9, 0])
})

test('a file grows as the log says, by zeros', async () => {
  const third = batEntry(6, VHDX_DATA + 2 * MiB)
  const entry = { sequence: 1, tail: 0, updates: [toBat(first, third)], last: VHDX_DATA + 3 * MiB }
  assert.deepEqual(await blocks(written([[0, entry]])), [7, 0, 0])
  await assert.rejects(blocks(written([[0, { ...entry, last: VHDX_DATA }]])), {
    code: 'invalid-image',
    message: /beyond the end/,
  })
})

const one = (entry: Partial<LogEntryOptions>) => written([[0, { sequence: 1, tail: 0, updates: [toBat(first)], ...entry }]])
const tooFar = 2 ** 47 + 4096
const refused = [
  { name: 'no entry is whole', file: () => one({ guid: Buffer.alloc(16, 1) }), says: /no sequence of entries in it is whole/ },
  { name: 'the sequence number is 0', file: () => one({ sequence: 0 }), says: /no sequence/ },
  { name: 'the tail is in no sequence', file: () => one({ tail: 5 }), says: /no sequence/ },
  { name: 'the file is shorter than it was', file: () => one({ flushed: 7 * MiB }), says: /FlushedFileOffset/ },
  { name: 'it writes over the headers', file: () => one({ updates: [{ at: 64 * KiB, write: 4096 }] }), says: /over the headers/ },
  {
    name: 'it writes over itself',
    file: () => one({ updates: [{ at: VHDX_LOG - 4096, write: 8192 }] }),
    says: /or the log itself/,
  },
  { name: 'LastFileOffset is huge', file: () => one({ last: tooFar }), says: /LastFileOffset/ },
  { name: 'a FileOffset is huge', file: () => one({ updates: [{ at: tooFar, write: 4096 }] }), says: /FileOffset/ },
  { name: 'a ZeroLength is huge', file: () => one({ updates: [{ at: VHDX_BAT, write: tooFar }] }), says: /FileOffset/ },
  {
    name: 'the log has no length',
    file: () => vhdxFile({ logBytes: 0, log: new Map([[0, Buffer.alloc(0)]]) }),
    says: /LogGuid, but no log/,
  },
  {
    name: 'entries overlap',
    file: () => {
      /** Each begins in the next sector and claims the rest of the ring. */
      const heads = Array.from({ length: LOG_SECTORS }, (_, sector) => {
        const head = logEntry({ sequence: 1, tail: 0, updates: [] })
        head.writeUInt32LE(LOG_SECTORS * 4096, 8)
        return [sector, head] as const
      })
      return vhdxFile({ log: new Map(heads) })
    },
    says: /overlap one another/,
  },
]
for (const { name, file, says } of refused) {
  test(`a log is refused when ${name}`, async () => {
    await assert.rejects(opened(file()), { code: 'invalid-image', message: says })
    await assert.rejects(vhdx.audit(checked(bytesSource(file()), 'file')), { code: 'invalid-image', message: says })
  })
}

test('a log full of entries of which none ends a sequence is looked through once', async () => {
  const sectors = 4096
  const entries = Array.from({ length: sectors - 1 }, (_, sector) => {
    return [sector, logEntry({ sequence: sector + 1, tail: sectors - 1, updates: [] })] as const
  })
  const file = vhdxFile({ logBytes: 16 * MiB, fileBytes: 20 * MiB, log: new Map(entries) })
  await assert.rejects(opened(file), { code: 'invalid-image', message: /no sequence/ })
})

test('a log that asks for much memory or many steps is refused', async () => {
  const large = vhdxFile({
    logBytes: 17 * MiB,
    fileBytes: 20 * MiB,
    log: new Map([[0, logEntry({ sequence: 1, tail: 0, updates: [] })]]),
  })
  await assert.rejects(opened(large), { code: 'unsupported', message: /at most 16777216/ })
  const zeros = Array.from({ length: 20_000 }, () => ({ at: VHDX_BAT, write: 4096 }))
  await assert.rejects(opened(one({ updates: zeros })), { code: 'unsupported', message: /more than 16384 descriptors/ })
})

test('qemu-img makes the same of a log', { skip: lacking('qemu-img') }, async (t) => {
  const path = await scratch(t)
  const image = written([
    [0, { sequence: 7, tail: 0, updates: [toBat(first)] }],
    [2, { sequence: 8, tail: 0, updates: [{ at: VHDX_BAT, write: 4096 }, toBat(second, first)] }],
  ])
  await writeFile(path('vhdx'), image)
  const disk = await opened(image)
  await run('qemu-img', 'check', '-r', 'all', '-f', 'vhdx', path('vhdx'))
  await run('qemu-img', 'convert', '-f', 'vhdx', '-O', 'raw', path('vhdx'), path('raw'))
  const back = await openFileSource(path('raw'))
  assert.equal(await digestOf(disk), await digestOf(back))
  assert.equal((await disk.read(0, 1))[0], 9)
  await back.close()
})

test('a log that QEMU left behind, its writes to the BAT having failed, is replayed as QEMU does', {
  skip: lacking('qemu-img', 'qemu-io'),
}, async (t) => {
  const path = await scratch(t)
  await run('qemu-img', 'create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', path('vhdx'), '9G')
  await run('qemu-io', '-f', 'vhdx', '-c', 'write -P 5 10M 64k', '-c', 'write -P 6 8000M 64k', path('vhdx'))
  const created = await openFileSource(path('vhdx'))
  const batOffset = Buffer.from(await created.read(192 * KiB + 32, 8)).readBigUInt64LE()
  await created.close()
  const failing = {
    driver: 'vhdx',
    file: {
      driver: 'blkdebug',
      image: { driver: 'file', filename: path('vhdx') },
      'inject-error': [{ event: 'none', iotype: 'write', sector: Number(batOffset) / 512, errno: 5 }],
    },
  }
  await assert.rejects(run('qemu-io', '-c', 'write -P 7 1M 1M', `json:${JSON.stringify(failing)}`))

  const file = checked(await openFileSource(path('vhdx')), 'file')
  assert.match((await vhdx.audit(file)).join(), /log is replayed in memory/)
  const disk = checked(await vhdx.open(file), 'vhdx')
  await run('cp', '--sparse=always', path('vhdx'), path('replayed'))
  await run('qemu-img', 'check', '-r', 'all', '-f', 'vhdx', path('replayed'))
  const other = checked(await openFileSource(path('replayed')), 'file')
  assert.deepEqual(await vhdx.audit(other), [])
  const replayed = await vhdx.open(other)
  assert.deepEqual(await Array.fromAsync(disk.extents(0, disk.size)), await Array.fromAsync(replayed.extents(0, disk.size)))
  for (const [at, value] of [
    [1, 7],
    [10, 5],
    [8000, 6],
  ] as const) {
    assert.deepEqual(await disk.read(at * MiB, 64 * KiB), Buffer.alloc(64 * KiB, value))
  }
  await Promise.all([disk.close(), replayed.close()])
})

test('an overlay reads as a buffer that was written to in the same order', async () => {
  const updates = fc.array(fc.tuple(fc.nat(60), fc.integer({ min: 1, max: 30 }), fc.option(fc.nat(255))), { maxLength: 30 })
  const property = fc.asyncProperty(updates, fc.nat(90), fc.nat(90), async (writes, a, b) => {
    const base = patterned(40, 1)
    const size = Math.max(40, ...writes.map(([offset, length]) => offset + length))
    const expected = new Uint8Array(size)
    expected.set(base)
    const overlay = new Overlay(base.length)
    for (const [offset, length, value] of writes) {
      expected.fill(value ?? 0, offset, offset + length)
      overlay.write({ offset, length, ...(value !== null && { bytes: new Uint8Array(length).fill(value) }) })
    }
    const file = checked(overlay.over(bytesSource(base)), 'overlay')
    const [from, to] = [Math.min(a, b, size), Math.min(Math.max(a, b), size)]
    assert.deepEqual(await file.read(from, to - from), expected.subarray(from, to))
    for await (const { kind, offset, length } of file.extents(from, to - from)) {
      if (kind !== 'data') assert.ok(expected.subarray(offset, offset + length).every((byte) => byte === 0))
    }
  })
  await fc.assert(property, { numRuns: 300 })
})
