import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../../test/fixtures/disk/disks.ts'
import { poked } from '../../../../test/fixtures/disk/poked.ts'
import { SMALL_BASE, smallVhd, VHD_BLOCKS, VHD_TABLE, vhdFooter, vhdSummed } from '../../../../test/fixtures/disk/vhd.ts'
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

/** Fields of footer, header and table, in words; negative: from the end. */
const fields = [
  ...[8, 12, 16, 20, 24, 28, 36, 48, 52, 56, 60].flatMap((at) => [at, at - 512]),
  ...[512, 528, 532, 536, 540, 544, VHD_TABLE, VHD_TABLE + 4, VHD_TABLE + 8, VHD_BLOCKS],
]
const interesting = [0, 1, 2, 3, 4, 5, 13, 511, 512, 1536, 2048, 4096, 12288, 65536, 2 ** 21, 2 ** 28, 2 ** 31, 0xff000000]
const creators = ['vpc ', 'qemu', 'win '].map((name) => Buffer.from(name).readUInt32BE())
const value = fc.oneof(fc.constantFrom(...interesting, ...creators, 0xfffffffe, 0xffffffff), fc.nat(0xffffffff))
const poke = fc.oneof(
  fc.record({ offset: fc.constantFrom(...fields), width: fc.constant(4), wanted: value }),
  fc.record({ offset: fc.integer({ min: -512, max: 2556 }), width: fc.constantFrom(1, 4), wanted: value }),
)

/** `isSummed`: with checksums that are right again, so that what they hide is met. */
function mutated(
  base: Uint8Array,
  pokes: readonly { offset: number; width: number; wanted: number }[],
  isSummed: boolean,
  cut: number,
) {
  const copy = Uint8Array.from(base)
  const view = new DataView(copy.buffer)
  for (const { offset, width, wanted } of pokes) {
    const at = Math.min(offset < 0 ? copy.length + offset : offset, copy.length - width)
    if (width === 4) view.setUint32(at, wanted)
    else view.setUint8(at, wanted)
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
  await disk.read(0, Math.min(disk.size, 30_000))
  await disk.read(Math.max(0, disk.size - 5000), Math.min(disk.size, 5000))
  let extents = 0
  for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
    extents += 1
    if (extents > 1000) throw new Error('no end of extents')
    if (kind === 'data') await disk.read(offset, Math.min(length, 30_000))
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
