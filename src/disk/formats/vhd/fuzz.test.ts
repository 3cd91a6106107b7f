import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../../test/fixtures/disk/disks.ts'
import { poked, vhdFooter } from '../../../../test/fixtures/disk/hostile.ts'
import { SMALL_BASE, smallVhd, VHD_BLOCKS, VHD_TABLE, vhdSummed } from '../../../../test/fixtures/disk/vhd.ts'
import { ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { bytesSource } from '../../block/memory-source.ts'
import { vhd } from './vhd.ts'

/** More than any of these small files can honestly need; a loop without end meets it. */
const MAX_READS = 5_000
const MAX_BYTES = 64 * 1024 * 1024

const parent = randomDisk(10_000, 2, 3)
const bases = [
  smallVhd(SMALL_BASE),
  smallVhd({ places: [0, 2, null, 1, null], bitmaps: [0x0f, 0xaa, 0x81] }),
  smallVhd({ type: 4, places: [null, 0, null], bitmaps: [0x3c] }),
  poked(new Uint8Array(2048), false, [2048, vhdFooter(2048)]),
]

/** Fields of footer, header and table, as offset and width; negative: from the end. */
const fields = [
  ...[8, 12, 24, 28, 36, 56, 60].flatMap((at) => [at, at - 512].map((offset) => [offset, 4] as const)),
  ...[0, 16, 40, 48].flatMap((at) => [at, at - 512].map((offset) => [offset, 8] as const)),
  ...[536, 540, 544, VHD_TABLE, VHD_TABLE + 4, VHD_TABLE + 8, VHD_BLOCKS].map((offset) => [offset, 4] as const),
  ...[512, 520, 528].map((offset) => [offset, 8] as const),
]
const interesting = [0n, 1n, 2n, 3n, 4n, 5n, 13n, 511n, 512n, 1536n, 2048n, 4096n, 65536n, 1n << 21n, 1n << 28n, 1n << 31n]
const large = [1n << 32n, 0xff000000n * 512n, 1n << 53n, 1n << 63n, (1n << 64n) - 1n, (1n << 32n) - 1n]
const value = fc.oneof(fc.constantFrom(...interesting, ...large), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }))
const poke = fc.oneof(
  fc.tuple(fc.constantFrom(...fields), value).map(([[offset, width], wanted]) => ({ offset, width, wanted })),
  fc.record({ offset: fc.integer({ min: -512, max: 2600 }), width: fc.constantFrom(1, 4), wanted: value }),
)

/** `isSummed`: with checksums that are right again, so that what they hide is met. */
function mutated(
  base: Uint8Array,
  pokes: readonly { offset: number; width: number; wanted: bigint }[],
  isSummed: boolean,
  cut: number,
) {
  const copy = Uint8Array.from(base)
  for (const { offset, width, wanted } of pokes) {
    const at = offset < 0 ? copy.length + offset : offset
    for (let index = 0; index < width; index += 1) copy[at + index] = Number((wanted >> BigInt(8 * (width - 1 - index))) & 0xffn)
  }
  if (isSummed) vhdSummed(copy)
  return copy.subarray(0, copy.length - cut)
}

/** Throws a plain Error, which the property does not forgive, when a limit is passed. */
function bounded(file: BlockSource): BlockSource {
  let [reads, bytes] = [0, 0]
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
  const disk = checked(await vhd.open(file, given), 'vhd')
  await disk.read(0, Math.min(disk.size, 100_000))
  await disk.read(Math.max(0, disk.size - 5000), Math.min(disk.size, 5000))
  let extents = 0
  for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
    extents += 1
    if (extents > 1000) throw new Error('no end of extents')
    if (kind === 'data') await disk.read(offset, Math.min(length, 100_000))
  }
}

test('vhd answers or refuses any damaged file, within bounds, and never crashes', async () => {
  const property = fc.asyncProperty(
    fc.constantFrom(...bases),
    fc.array(poke, { maxLength: 4 }),
    fc.boolean(),
    fc.oneof({ weight: 6, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(2500) }),
    async (base, pokes, isSummed, cut) => {
      const bytes = mutated(base, pokes, isSummed, cut)
      const given = base === bases[2] ? { parent } : {}
      for (const step of [vhd.audit, use]) {
        try {
          await step(checked(bounded(bytesSource(bytes)), 'file'), given)
        } catch (error) {
          assert.ok(error instanceof ServiceError, `leaked ${error instanceof Error ? error.stack : error}`)
          assert.ok(error.code === 'invalid-image' || error.code === 'unsupported', `${error.code}: ${error.message}`)
        }
      }
    },
  )
  await fc.assert(property, { numRuns: Number(process.env.FUZZ_RUNS ?? 1000) })
})
