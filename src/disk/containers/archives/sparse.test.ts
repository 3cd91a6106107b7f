/** Files with holes as GNU tar writes them, in all its forms, and maps that no tar writes. */
import assert from 'node:assert/strict'
import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { patterned } from '../../../../test/fixtures/disk/disks.ts'
import { missingTool, must } from '../../../../test/peers/command.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { bytesSource } from '../../block/memory-source.ts'
import { recognise } from '../../formats/index.ts'
import { lookInside } from '../inside/look-inside.ts'
import { oldSparse, paxSparse, type Run, sparseRecord } from './small-archives.suite.ts'
import { listTar } from './tar.ts'

const KiB = 1024
const MiB = 1024 * KiB
let folder = ''
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sparse-'))
})
after(() => rm(folder, { recursive: true, force: true }))

const forms: Readonly<Record<string, readonly string[]>> = {
  'old GNU': ['--format=gnu'],
  'pax 0.0': ['--format=posix', '--sparse-version=0.0'],
  'pax 0.1': ['--format=posix', '--sparse-version=0.1'],
  'pax 1.0': ['--format=posix', '--sparse-version=1.0'],
}
/** 4 KiB of data at each of these; the file ends in a hole, in data, or is one hole. */
const layouts: Readonly<Record<string, { readonly bytes: number; readonly at: readonly number[] }>> = {
  'a few runs and a hole at the end': { bytes: 3 * MiB + 77, at: [0, 64 * KiB, 2 * MiB] },
  'no data': { bytes: MiB, at: [] },
  'data at the end': { bytes: MiB, at: [8 * KiB, MiB - 4 * KiB] },
  '90 runs': { bytes: 16 * MiB, at: Array.from({ length: 90 }, (_, run) => run * 128 * KiB + 4 * KiB) },
  'data beyond 8 GiB': { bytes: 20 * 1024 * MiB, at: [4 * KiB, 12 * 1024 * MiB] },
}
async function makeFile(path: string, { bytes, at }: { readonly bytes: number; readonly at: readonly number[] }): Promise<void> {
  const file = await open(path, 'w')
  await file.truncate(bytes)
  for (const offset of at) await file.write(patterned(4 * KiB, offset + 1), 0, 4 * KiB, offset)
  await file.close()
}

for (const [form, options] of Object.entries(forms)) {
  for (const [what, layout] of Object.entries(layouts)) {
    test(`${form}: ${what}, read where it lies`, { skip: missingTool('tar') }, async () => {
      const name = `${'a-long-name-'.repeat(10)}.raw`
      const [path, packed] = [join(folder, name), join(folder, 'packed.tar')]
      await makeFile(path, layout)
      await must(['tar', '-S', ...options, '-cf', packed, '-C', folder, name])
      await using kept = new AsyncDisposableStack()
      const file = await openFileSource(packed)
      kept.defer(() => file.close())
      const [member, ...others] = (await listTar(file)).members
      assert.deepEqual([member?.name, member?.bytes, others.length], [name, layout.bytes, 0])
      assert.equal(member?.storedBytes, layout.at.length * 4 * KiB)
      const disk = checked(member.open(), 'sparse')
      const data: number[] = []
      for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
        if (kind === 'hole') continue
        assert.deepEqual([kind, length], ['data', 4 * KiB])
        data.push(offset)
      }
      assert.deepEqual(data, layout.at)
      for (const offset of layout.at) {
        const from = Math.max(0, offset - 100)
        const around = await disk.read(from, Math.min(5000, disk.size - from))
        const wanted = Buffer.alloc(around.length)
        wanted.set(patterned(4 * KiB, offset + 1).subarray(0, around.length - (offset - from)), offset - from)
        assert.ok(wanted.equals(around), `at ${offset}`)
      }
      const end = await disk.read(disk.size - 5000, 5000)
      assert.equal(end.length, 5000)
    })
  }
}

test('a sparse disk.raw of 10 GiB in a tar.gz, as clouds take it, is found with its holes', {
  skip: missingTool('tar'),
}, async () => {
  const [path, packed] = [join(folder, 'disk.raw'), join(folder, 'disk.tar.gz')]
  const table = Buffer.alloc(512)
  table.set([0x80, 0, 2, 0, 0x83, 0, 9, 0, 8, 0, 0, 0, 0, 0, 16, 0], 446)
  table.set([0x55, 0xaa], 510)
  const file = await open(path, 'w')
  await file.truncate(10 * 1024 * MiB)
  await file.write(table, 0, 512, 0)
  await file.write(patterned(MiB, 3), 0, MiB, 5 * 1024 * MiB)
  await file.close()
  await must(['tar', '-S', '--format=oldgnu', '-czf', packed, '-C', folder, 'disk.raw'])
  const inside = await lookInside(await openFileSource(packed), {
    recognise,
    keep: async (bytes) => bytesSource(await buffer(bytes)),
    maxBytes: 8 * MiB,
    choosing: '--member NAME',
  })
  assert.deepEqual(inside.layers, [{ kind: 'gzip' }, { kind: 'tar', member: 'disk.raw' }])
  assert.equal(inside.file.size, 10 * 1024 * MiB)
  const data = []
  for await (const extent of inside.file.extents(0, inside.file.size)) if (extent.kind === 'data') data.push(extent)
  assert.deepEqual(data.at(-1), { offset: 5 * 1024 * MiB, length: MiB, kind: 'data' })
  assert.ok(Buffer.from(patterned(MiB, 3)).equals(await inside.file.read(5 * 1024 * MiB, MiB)))
  await inside.file.close()
})

const writers: Readonly<Record<string, (bytes: number, runs: readonly Run[], data: Uint8Array) => Buffer>> = {
  'old GNU': oldSparse,
  'pax 0.0': (...given) => paxSparse('0.0', ...given),
  'pax 0.1': (...given) => paxSparse('0.1', ...given),
  'pax 1.0': (...given) => paxSparse('1.0', ...given),
}
for (const [form, write] of Object.entries(writers)) {
  test(`${form}: any range of any map reads as a plain model does`, async () => {
    const gaps = fc.array(fc.tuple(fc.nat(40), fc.integer({ min: 1, max: 40 })), { maxLength: 60 })
    await fc.assert(
      fc.asyncProperty(gaps, fc.nat(50), fc.nat(5000), fc.nat(500), async (each, tail, from, count) => {
        let at = 0
        const runs = each.map(([gap, length]): Run => {
          at += gap + length
          return [at - length, length]
        })
        const model = Buffer.alloc(at + tail)
        for (const [offset, length] of runs) model.fill(patterned(length, offset + 1), offset, offset + length)
        const data = Buffer.concat(runs.map(([offset, length]) => model.subarray(offset, offset + length)))
        const [member] = (await listTar(bytesSource(write(model.length, runs, data)))).members
        const disk = checked(member!.open(), 'sparse')
        const start = Math.min(from, model.length)
        const length = Math.min(count, model.length - start)
        assert.ok(model.subarray(start, start + length).equals(await disk.read(start, length)))
        assert.ok(model.equals(await buffer(member!.stream())))
        let covered = 0
        for await (const extent of disk.extents(start, length)) {
          if (extent.kind === 'hole')
            assert.ok(model.subarray(extent.offset, extent.offset + extent.length).every((byte) => byte === 0))
          covered += extent.length
        }
        assert.equal(covered, length)
      }),
      { numRuns: 40 },
    )
  })

  const many = Array.from({ length: 10 ** 6 }, (_, at): Run => [at * 2, 1])
  const refused: readonly { name: string; bytes: number; runs: readonly Run[]; data: number; says: RegExp; reason?: string }[] = [
    {
      name: 'runs that overlap',
      bytes: 100,
      runs: [
        [0, 10],
        [9, 10],
      ],
      data: 20,
      says: /begins before 10/,
      reason: 'overlap',
    },
    {
      name: 'runs that descend',
      bytes: 100,
      runs: [
        [50, 10],
        [0, 10],
      ],
      data: 20,
      says: /begins before 60/,
      reason: 'overlap',
    },
    { name: 'a run beyond the end', bytes: 100, runs: [[95, 10]], data: 10, says: /beyond the file's 100 bytes/ },
    { name: 'a run that begins beyond the end', bytes: 100, runs: [[101, 0]], data: 0, says: /beyond the file's 100 bytes/ },
    {
      name: 'more data than stored',
      bytes: 2 ** 40,
      runs: [[0, 2 ** 33]],
      data: 10,
      says: /8589934592 bytes of data, where 10 are stored/,
    },
    { name: 'less data than stored', bytes: 100, runs: [[0, 5]], data: 10, says: /5 bytes of data, where 10 are stored/ },
    { name: '10^6 runs', bytes: 2 ** 40, runs: many, data: 0, says: /262144 is the limit|4194304 are the limits/ },
  ]
  for (const { name, bytes, runs, data, says, reason = 'malformed' } of refused) {
    test(`${form}: refused are ${name}`, async () => {
      await assert.rejects(
        listTar(bytesSource(write(bytes, runs, Buffer.alloc(data)))),
        (error: Error & { details?: object }) => {
          assert.match(error.message, says)
          assert.deepEqual({ ...error.details, offset: 0 }, { ...error.details, format: 'tar', reason, offset: 0 })
          return true
        },
      )
    })
  }
}

test('old GNU: a map that goes on behind its end, or in a header of POSIX, is refused', async () => {
  const whole = oldSparse(100, [[0, 10]], Buffer.alloc(10))
  const resealed = (change: (header: Buffer) => void) => {
    const copy = Buffer.from(whole)
    change(copy)
    copy.fill(' ', 148, 156)
    const sum = copy.subarray(0, 512).reduce((total, byte) => total + byte, 0)
    copy.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
    return bytesSource(copy)
  }
  const third = resealed((header) => header.write('00000000020\x0000000000001\0', 386 + 48))
  await assert.rejects(listTar(third), { code: 'invalid-image', message: /goes on behind its end/ })
  await assert.rejects(listTar(resealed((header) => header.fill(1, 482, 483))), { message: /has a block with nothing in it/ })
  await assert.rejects(listTar(resealed((header) => header.write('ustar\x0000', 257))), { message: /no header of GNU tar/ })
})

const defects: readonly {
  name: string
  records: readonly (readonly [string, string | number])[]
  says: RegExp
  code?: string
}[] = [
  {
    name: 'an odd map',
    records: [
      ['size', 9],
      ['numblocks', 1],
      ['map', '0,1,2'],
    ],
    says: /no length/,
  },
  { name: 'a map of words', records: [['map', '0,abc']], says: /other things than numbers/ },
  { name: 'a map with a gap', records: [['map', '0,,1']], says: /other things than numbers/ },
  { name: 'a map of one endless number', records: [['map', '9'.repeat(1000)]], says: /other things than numbers/ },
  {
    name: 'two maps',
    records: [
      ['map', '0,1'],
      ['map', '0,1'],
    ],
    says: /second map/,
  },
  {
    name: 'a map and runs',
    records: [
      ['map', '0,1'],
      ['offset', 2],
    ],
    says: /that has a map/,
  },
  {
    name: 'two lengths in turn',
    records: [
      ['offset', 0],
      ['numbytes', 1],
      ['numbytes', 1],
    ],
    says: /in turn/,
  },
  {
    name: 'a number of runs that they are not',
    records: [
      ['size', 9],
      ['numblocks', 3],
      ['map', '0,1'],
    ],
    says: /numblocks is 3/,
  },
  {
    name: 'half a run',
    records: [
      ['size', 9],
      ['numblocks', 1],
      ['offset', 0],
    ],
    says: /map of 0.5 runs/,
  },
  { name: 'no map', records: [['size', 9]], says: /no map/ },
  {
    name: 'no size',
    records: [
      ['numblocks', 1],
      ['map', '0,1'],
    ],
    says: /has no size/,
  },
  {
    name: 'two sizes',
    records: [
      ['size', 9],
      ['realsize', 8],
    ],
    says: /size of a sparse file again/,
  },
  {
    name: 'version 2.0',
    records: [
      ['size', 9],
      ['major', 2],
      ['minor', 0],
    ],
    says: /version 2\.0/,
    code: 'unsupported',
  },
  {
    name: 'a map of version 1.0 that is no text',
    records: [
      ['size', 9],
      ['major', 1],
      ['minor', 0],
    ],
    says: /no number below 2\^53 before its byte 1/,
  },
  {
    name: 'a map in each place',
    records: [
      ['size', 9],
      ['major', 1],
      ['minor', 0],
      ['numblocks', 0],
    ],
    says: /in its header as well/,
  },
  { name: 'an unknown key', records: [['what', 9]], says: /unknown key/ },
  { name: 'a size of 2^60', records: [['realsize', '1152921504606846976']], says: /realsize that is no number below 2\^53/ },
]
for (const { name, records, says, code = 'invalid-image' } of defects) {
  test(`pax: refused is ${name}`, async () => {
    const text = records.map((each) => sparseRecord(...each)).join('')
    const bytes = paxSparse('records', 9, [], Buffer.alloc(1), text)
    await assert.rejects(listTar(bytesSource(bytes)), { code, message: says })
  })
}

test('a map for all members is refused', async () => {
  const bytes = paxSparse('records', 9, [], Buffer.alloc(1), sparseRecord('size', 9), 'g')
  await assert.rejects(listTar(bytesSource(bytes)), { message: /for all members/ })
})

test('a small gzip of a tar with the largest hole costs nothing', async () => {
  const bytes = oldSparse(2 ** 52, [[2 ** 52 - 512, 512]], patterned(512, 1))
  const inside = await lookInside(bytesSource(gzipSync(bytes)), {
    recognise,
    keep: async (kept) => bytesSource(await buffer(kept)),
    maxBytes: MiB,
    choosing: '--member NAME',
  })
  assert.equal(inside.file.size, 2 ** 52)
  assert.ok(Buffer.from(patterned(512, 1)).equals(await inside.file.read(2 ** 52 - 512, 512)))
})
