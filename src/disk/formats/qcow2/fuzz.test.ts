import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../../test/fixtures/disk/disks.ts'
import { QCOW2_DATA, QCOW2_L1, QCOW2_L2, smallQcow2 } from '../../../../test/fixtures/disk/hostile.ts'
import { ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { bytesSource, memorySource } from '../../block/memory-source.ts'
import type { OpenOptions } from '../format-driver.ts'
import { qcow2 } from './qcow2.ts'
import { wrapDisk } from './wrap.ts'

/** More than any of these small files can honestly need; a loop without end meets it. */
const MAX_READS = 20_000
const MAX_EXTENTS = 20_000
const MAX_BYTES = 512 * 1024 * 1024

const wrapped = await wrapDisk(randomDisk(2 * 1024 * 1024, 5, 1))
const withSnapshot = smallQcow2(
  [60, 4, 1],
  [64, 8, QCOW2_DATA],
  [QCOW2_L2, 8, 0],
  [QCOW2_DATA, new Uint8Array(64)],
  [QCOW2_DATA, 8, QCOW2_DATA + 65536],
  [QCOW2_DATA + 8, 4, 1],
  [QCOW2_DATA + 12, 2, 1],
  [QCOW2_DATA + 36, 4, 16],
  [QCOW2_DATA + 48, 8, 1024 * 1024],
  [QCOW2_DATA + 56, '1'],
  [QCOW2_DATA + 65536, 8, QCOW2_L2],
  [QCOW2_DATA + 131071, 1, 0],
)
const withBacking = smallQcow2([8, 8, 0x200], [16, 4, 4], [0x200, 'base'])
const bases = [
  smallQcow2(),
  smallQcow2([4, 4, 2]),
  smallQcow2([76, 4, 16]),
  withSnapshot,
  withBacking,
  Buffer.from(await wrapped.read(0, wrapped.size)),
]

/** Fields of header, L1 and L2, as offset and width. */
const fields = [
  ...[4, 16, 20, 32, 36, 56, 60, 72, 76, 80, 84, 88, 92, 96, 100, 104, 112, 116].map((offset) => [offset, 4] as const),
  ...[8, 24, 40, 48, 64, QCOW2_L1, QCOW2_L2, QCOW2_L2 + 8, QCOW2_L2 + 16, QCOW2_DATA, QCOW2_DATA + 48].map(
    (offset) => [offset, 8] as const,
  ),
  ...[8, 12, 36, 65536, 65540].map((offset) => [QCOW2_DATA + offset, 4] as const),
]
const interesting = [
  0n,
  1n,
  2n,
  9n,
  14n,
  21n,
  512n,
  65535n,
  65536n,
  0x20000n,
  0x30000n,
  0x40000n,
  0x50000n,
  0x60000n,
  1n << 31n,
  1n << 32n,
  1n << 53n,
  1n << 62n,
  1n << 63n,
  (1n << 64n) - 1n,
]
const value = fc.oneof(
  fc.constantFrom(...interesting),
  fc.tuple(fc.constantFrom(...interesting), fc.constantFrom(...interesting)).map(([a, b]) => a | b),
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
)
const poke = fc.oneof(
  fc.tuple(fc.constantFrom(...fields), value).map(([[offset, width], wanted]) => ({ offset, width, wanted })),
  fc
    .tuple(fc.nat(QCOW2_DATA + 512), fc.constantFrom(1, 4, 8), value)
    .map(([offset, width, wanted]) => ({ offset, width, wanted })),
)

function mutated(base: Uint8Array, pokes: readonly { offset: number; width: number; wanted: bigint }[], cut: number): Uint8Array {
  const copy = Uint8Array.from(base)
  for (const { offset, width, wanted } of pokes) {
    for (let index = 0; index < width; index += 1) {
      copy[offset + index] = Number((wanted >> BigInt(8 * (width - 1 - index))) & 0xffn)
    }
  }
  return cut === 0 ? copy : copy.subarray(0, Math.floor((copy.length * cut) / 64))
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

async function use(file: BlockSource, given: OpenOptions): Promise<void> {
  const disk = checked(await qcow2.open(file, given), 'qcow2')
  let extents = 0
  for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
    extents += 1
    if (extents > MAX_EXTENTS) throw new Error('no end of extents')
    if (kind === 'data') await disk.read(offset, Math.min(length, 100_000))
  }
}

async function useSnapshots(file: BlockSource): Promise<void> {
  for (const { id } of (await qcow2.snapshots!(file)).slice(0, 5)) await use(file, { snapshot: id })
}

test('qcow2 answers or refuses any damaged file, within bounds, and never crashes', async () => {
  const property = fc.asyncProperty(
    fc.constantFrom(...bases),
    fc.array(poke, { maxLength: 6 }),
    fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(64) }),
    async (base, pokes, cut) => {
      const bytes = mutated(base, pokes, cut)
      const given = base === withBacking ? { parent: memorySource(700_000, []) } : {}
      const ways = [
        (file: BlockSource) => qcow2.audit(file, given),
        (file: BlockSource) => use(file, given),
        ...(base === withSnapshot ? [useSnapshots] : []),
      ]
      for (const way of ways) {
        try {
          await way(checked(bounded(bytesSource(bytes)), 'file'))
        } catch (error) {
          assert.ok(error instanceof ServiceError, `leaked ${error instanceof Error ? error.stack : error}`)
          assert.ok(error.code === 'invalid-image' || error.code === 'unsupported', `${error.code}: ${error.message}`)
        }
      }
    },
  )
  await fc.assert(property, { numRuns: Number(process.env.FUZZ_RUNS ?? 1000) })
})
