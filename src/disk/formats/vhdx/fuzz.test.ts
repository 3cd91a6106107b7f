import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../../test/fixtures/disk/disks.ts'
import {
  batEntry,
  logEntry,
  VHDX_BAT,
  VHDX_DATA,
  VHDX_HEADERS,
  VHDX_LOG,
  VHDX_METADATA,
  VHDX_REGION_TABLES,
  vhdxFile,
} from '../../../../test/fixtures/disk/vhdx.ts'
import { ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { bytesSource, memorySource } from '../../block/memory-source.ts'
import { checksumOf } from './header.ts'
import { vhdx } from './vhdx.ts'
import { wrapDynamic } from './wrap.ts'

const KiB = 1024
const MiB = 1024 * KiB
/** More than any of these files can honestly need; a loop without end meets it. */
const MAX_READS = 20_000
const MAX_EXTENTS = 20_000
const MAX_BYTES = 512 * MiB

const bat = Buffer.alloc(4096)
bat.writeBigUInt64LE(batEntry(6, VHDX_DATA), 8)
const entries = [
  logEntry({
    sequence: 1,
    tail: 0,
    flushed: 5 * MiB,
    updates: [
      { at: VHDX_BAT, write: bat },
      { at: VHDX_BAT + 4096, write: 8192 },
    ],
  }),
  logEntry({ sequence: 2, tail: 0, flushed: 5 * MiB, updates: [{ at: VHDX_METADATA + 128 * KiB, write: 4096 }] }),
]
const log = new Map([
  [0, entries[0]!],
  [2, entries[1]!],
])
const chunk = Array.from({ length: 17 }, (_, index) =>
  index === 16 ? batEntry(6, VHDX_DATA) : index === 0 ? batEntry(7, VHDX_DATA + MiB) : 0n,
)
const wrapped = await wrapDynamic(randomDisk(20 * MiB, 3, 1))
const bases = [
  { bytes: vhdxFile({ fileBytes: 6 * MiB, bat: [batEntry(6, VHDX_DATA), 0n, batEntry(2), batEntry(6, VHDX_DATA + MiB)] }) },
  { bytes: vhdxFile({ fileBytes: 6 * MiB, log }), hasLog: true },
  {
    bytes: vhdxFile({ fileBytes: 6 * MiB, blockBytes: 256 * MiB, virtualBytes: 512, hasParent: true, bat: chunk }),
    isDifference: true,
  },
  { bytes: Buffer.from(await wrapped.read(0, wrapped.size)) },
] as const satisfies readonly Base[]
interface Base {
  readonly bytes: Buffer
  readonly hasLog?: boolean
  readonly isDifference?: boolean
}

/** The parts of a file that have structures: copied for the mutants that change them; the rest is shared. */
const parts = [
  [0, 4 * KiB],
  ...VHDX_HEADERS.map((at) => [at, 4 * KiB] as const),
  ...VHDX_REGION_TABLES.map((at) => [at, 64 * KiB] as const),
  [VHDX_LOG, 5 * 4096],
  [VHDX_METADATA, 65 * KiB],
  [VHDX_BAT, 4 * KiB],
] as const
/** Fields, as offset and width. */
const fields = [
  ...VHDX_HEADERS.flatMap((at) =>
    (
      [
        [8, 8],
        [48, 8],
        [64, 2],
        [66, 2],
        [68, 4],
        [72, 8],
      ] as const
    ).map(([field, width]) => [at + field, width] as const),
  ),
  ...VHDX_REGION_TABLES.flatMap((at) =>
    (
      [
        [8, 4],
        [16, 4],
        [32, 8],
        [40, 4],
        [44, 4],
        [64, 8],
        [72, 4],
      ] as const
    ).map(([field, width]) => [at + field, width] as const),
  ),
  ...[8, 12, 24].map((field) => [VHDX_LOG + field, 4] as const),
  ...[16, 48, 56, 64, 72, 80, 88, 96 + 8, 96 + 16, 8192 + 16, 8192 + 56].map((field) => [VHDX_LOG + field, 8] as const),
  [VHDX_METADATA + 10, 2] as const,
  ...[0, 1, 2, 3, 4, 5].flatMap((item) => [16, 20, 24].map((field) => [VHDX_METADATA + 32 + item * 32 + field, 4] as const)),
  ...[0, 4, 32, 36].map((item) => [VHDX_METADATA + 64 * KiB + item, 4] as const),
  [VHDX_METADATA + 64 * KiB + 8, 8] as const,
  ...[0, 1, 2, 3, 16].map((entry) => [VHDX_BAT + entry * 8, 8] as const),
]
const interesting = [
  0n,
  1n,
  2n,
  3n,
  6n,
  7n,
  32n,
  512n,
  4096n,
  65536n,
  ...[1, 2, 3, 4, 5, 6].map((at) => BigInt(at * MiB)),
  256n << 20n,
  1n << 31n,
  (1n << 32n) - 1n,
  1n << 46n,
  1n << 53n,
  1n << 63n,
  (1n << 64n) - 1n,
]
const value = fc.oneof(
  fc.constantFrom(...interesting),
  fc.tuple(fc.constantFrom(...interesting), fc.constantFrom(...interesting)).map(([a, b]) => a | b),
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
)
const poke = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.tuple(fc.constantFrom(...fields), value).map(([[offset, width], wanted]) => ({ offset, width, wanted })),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom(...parts), fc.nat(700), fc.constantFrom(1, 4, 8), value)
      .map(([[start], at, width, wanted]) => ({ offset: start + at, width, wanted })),
  },
)

/** @param sums whether checksums are made right again, without which few mutants get far */
function mutated(
  base: Base,
  pokes: readonly { offset: number; width: number; wanted: bigint }[],
  sums: boolean,
  cut: number,
): BlockSource {
  const { bytes } = base
  const copies = new Map<number, Buffer>()
  for (const { offset, width, wanted } of pokes) {
    const [start, length] = parts.findLast(([each]) => each <= offset)!
    const copy = copies.get(start) ?? Buffer.from(bytes.subarray(start, start + length))
    copies.set(start, copy)
    for (let index = 0; index < width; index += 1) {
      copy[offset - start + index] = Number((wanted >> BigInt(8 * index)) & 0xffn)
    }
  }
  for (const [start, copy] of sums ? copies : []) {
    if (start >= VHDX_HEADERS[0] && start < VHDX_LOG) sum(copy)
    if (start !== VHDX_LOG || !base.hasLog) continue
    for (const [sector, { length }] of log) sum(copy.subarray(sector * 4096, sector * 4096 + length))
  }
  return view(bytes.subarray(0, cut === 0 ? bytes.length : Math.floor((bytes.length * cut) / 64)), copies)
}

const sum = (structure: Buffer) => structure.writeUInt32LE(checksumOf(structure), 4)

/** Bytes with some of their parts replaced. What lies inside one of them is not copied: most of the time of a mutant would go there. */
function view(bytes: Buffer, replaced: ReadonlyMap<number, Buffer>): BlockSource {
  const pieces = [...replaced].map(([offset, copy]) => ({ offset, copy }))
  return {
    ...bytesSource(bytes),
    async read(offset, length) {
      const end = offset + length
      const touched = pieces.filter((piece) => piece.offset < end && piece.offset + piece.copy.length > offset)
      const [only] = touched
      if (!only) return bytes.subarray(offset, end)
      if (touched.length === 1 && only.offset <= offset && end <= only.offset + only.copy.length) {
        return only.copy.subarray(offset - only.offset, end - only.offset)
      }
      const answer = Buffer.from(bytes.subarray(offset, end))
      for (const piece of touched) {
        const from = Math.max(offset, piece.offset)
        answer.set(piece.copy.subarray(from - piece.offset, end - piece.offset), from - offset)
      }
      return answer
    },
  }
}

/** Throws a plain Error, which the property does not forgive, when a limit is passed. */
function bounded(file: BlockSource): BlockSource {
  let reads = 0
  let bytes = 0
  return {
    ...file,
    read(offset, length) {
      reads += 1
      bytes += length
      if (reads > MAX_READS || bytes > MAX_BYTES) throw new Error(`no end: ${reads} reads, ${bytes} bytes`)
      return file.read(offset, length)
    },
  }
}

async function use(file: BlockSource, given: { parent?: BlockSource }): Promise<void> {
  const disk = checked(await vhdx.open(file, given), 'vhdx')
  let extents = 0
  for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
    extents += 1
    if (extents > MAX_EXTENTS) throw new Error('no end of extents')
    if (kind === 'data' && extents < 50) await disk.read(offset, Math.min(length, 5000))
  }
}

test('vhdx answers or refuses any damaged file, within bounds, and never crashes', async () => {
  let accepted = 0
  const property = fc.asyncProperty(
    fc.constantFrom(...bases),
    fc.array(poke, { maxLength: 4 }),
    fc.oneof({ weight: 15, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
    fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(64) }),
    async (base: Base, pokes, sums, cut) => {
      const file = mutated(base, pokes, sums, cut)
      const given = base.isDifference ? { parent: memorySource(512, []) } : {}
      for (const step of [(source: BlockSource) => vhdx.audit(source, given), (source: BlockSource) => use(source, given)]) {
        try {
          await step(checked(bounded(file), 'file'))
          accepted += 1
        } catch (error) {
          assert.ok(error instanceof ServiceError, `leaked ${error instanceof Error ? error.stack : error}`)
          assert.ok(error.code === 'invalid-image' || error.code === 'unsupported', `${error.code}: ${error.message}`)
        }
      }
    },
  )
  const numRuns = Number(process.env.FUZZ_RUNS ?? 1000)
  await fc.assert(property, { numRuns })
  assert.ok(
    accepted > numRuns / 4,
    `the mutants that get through are what a fuzz test is for: ${accepted} steps of ${numRuns * 2}`,
  )
})
