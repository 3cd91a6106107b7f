import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../../test/fixtures/disk/disks.ts'
import { smallVdi, VDI_BASE, VDI_CHILD, VDI_MAP } from '../../../../test/fixtures/disk/vdi.ts'
import { ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { bytesSource } from '../../block/memory-source.ts'
import { vdi } from './vdi.ts'

/** More than any of these small files can honestly need; a loop without end meets it. */
const MAX_READS = 1_000
const MAX_BYTES = 16 * 1024 * 1024

const parent = randomDisk(10_000, 2, 3)
const child = smallVdi(...VDI_BASE, ...VDI_CHILD)
const bases = [smallVdi(...VDI_BASE), smallVdi([0, 1, 2], 3, [0x4c, 4, 2]), smallVdi([3, 0xffffffff, 0, 1, 2], 4), child]

/** Fields of the header and the map, as offset and width. */
const fields = [
  ...[0x40, 0x44, 0x48, 0x4c, 0x154, 0x158, 0x168, 0x170, 0x174, 0x178, 0x17c, 0x180, 0x184, 0x1a8, 0x1b8].map(
    (offset) => [offset, 4] as const,
  ),
  ...[VDI_MAP, VDI_MAP + 4, VDI_MAP + 8, VDI_MAP + 12].map((offset) => [offset, 4] as const),
]
const interesting = [0, 1, 2, 3, 4, 5, 511, 512, 513, 1024, 4096, 8192, 65536, 2 ** 20, 2 ** 26, 2 ** 29, 2 ** 31]
const value = fc.oneof(fc.constantFrom(...interesting, 0xfffffffd, 0xfffffffe, 0xffffffff), fc.nat(0xffffffff))
const poke = fc.oneof(
  fc.tuple(fc.constantFrom(...fields), value).map(([[offset, width], wanted]) => ({ offset, width, wanted })),
  fc.record({ offset: fc.nat(1100), width: fc.constantFrom(1, 4), wanted: value }),
)

function mutated(base: Uint8Array, pokes: readonly { offset: number; width: number; wanted: number }[], cut: number) {
  const copy = Uint8Array.from(base)
  const view = new DataView(copy.buffer)
  for (const { offset, width, wanted } of pokes) {
    if (width === 4) view.setUint32(offset, wanted, true)
    else view.setUint8(offset, wanted)
  }
  return copy.subarray(0, Math.max(0, copy.length - cut))
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
  const disk = checked(await vdi.open(file, given), 'vdi')
  await disk.read(0, Math.min(disk.size, 30_000))
  await disk.read(Math.max(0, disk.size - 5000), Math.min(disk.size, 5000))
  let extents = 0
  for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
    extents += 1
    if (extents > 1000) throw new Error('no end of extents')
    if (kind === 'data') await disk.read(offset, Math.min(length, 30_000))
  }
}

test('vdi answers or refuses any damaged file, within bounds, and never crashes', async () => {
  const property = fc.asyncProperty(
    fc.constantFrom(...bases),
    fc.array(poke, { maxLength: 4 }),
    fc.oneof({ weight: 6, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(20_000) }),
    async (base, pokes, cut) => {
      const bytes = mutated(base, pokes, cut)
      for (const step of [vdi.audit, use]) {
        try {
          await step(checked(bounded(bytesSource(bytes)), 'file'), base === child ? { parent } : {})
        } catch (error) {
          assert.ok(error instanceof ServiceError, `leaked ${error instanceof Error ? error.stack : error}`)
          assert.ok(error.code === 'invalid-image' || error.code === 'unsupported', `${error.code}: ${error.message}`)
        }
      }
    },
  )
  await fc.assert(property, { numRuns: Number(process.env.FUZZ_RUNS ?? 1000) })
})
