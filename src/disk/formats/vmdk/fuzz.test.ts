import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../../test/fixtures/disk/disks.ts'
import { smallVmdk } from '../../../../test/fixtures/disk/hostile.ts'
import { poked } from '../../../../test/fixtures/disk/poked.ts'
import { ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { bytesSource } from '../../block/memory-source.ts'
import type { OpenOptions } from '../format-driver.ts'
import { packDisk } from './pack.ts'
import { vmdk } from './vmdk.ts'
import { wrapDisk } from './wrap.ts'

/** More than any of these small files can honestly need; a loop without end meets it. */
const MAX_READS = 20_000
const MAX_EXTENTS = 20_000
const MAX_BYTES = 512 * 1024 * 1024

const SECTOR = 512
const DIRECTORY = 30
const descriptor = (extents: string, createType: string, more = ''): string =>
  `# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="${createType}"\n${more}\n${extents}\n`

const disk = randomDisk(96 * 1024, 3, 1)
const wrapped = await wrapDisk(disk)
const sparse = await wrapped.read(0, wrapped.size)
const stream = Buffer.concat(await Array.fromAsync(packDisk(disk)))
/** Grains of 4 KiB, one of them of zeros. */
const fine = smallVmdk(
  descriptor('RW 2048 SPARSE "disk.vmdk"', 'monolithicSparse'),
  [8, 4, 5],
  [20, 8, 8],
  [64, 8, 40],
  [DIRECTORY * SECTOR, 4, 31],
  [31 * SECTOR, 4, 40],
  [31 * SECTOR + 4, 4, 1],
  [31 * SECTOR + 12, 4, 48],
)
const parts = new Map([
  ['a.vmdk', bytesSource(fine)],
  ['b.vmdk', bytesSource(new Uint8Array(8192))],
])
const bases: readonly { readonly bytes: Uint8Array; readonly tables: number; readonly given?: OpenOptions }[] = [
  { bytes: sparse, tables: 21 * SECTOR },
  { bytes: stream, tables: stream.length - 2 * SECTOR },
  { bytes: fine, tables: DIRECTORY * SECTOR },
  {
    bytes: poked(fine, true, [512, descriptor('RW 2048 SPARSE "disk.vmdk"', 'monolithicSparse').replace('ffffffff', '00000001')]),
    tables: 0,
    given: { parent: disk },
  },
  { bytes: Buffer.from(descriptor('RW 2048 SPARSE "a.vmdk"\nRW 9 ZERO', 'twoGbMaxExtentSparse')), tables: 0, given: { parts } },
  {
    bytes: Buffer.from(descriptor('RW 9 FLAT "b.vmdk" 2\nRW 9 ZERO', 'monolithicFlat', 'encoding="UTF-8"')),
    tables: 0,
    given: { parts },
  },
]

/** Fields of the header, as offset and width; the first entries of directory, tables and footer lie behind `tables`. */
const fields = [
  ...[4, 8, 44, 73].map((offset) => [offset, 4] as const),
  ...[12, 20, 28, 36, 48, 56, 64].map((offset) => [offset, 8] as const),
  [72, 1] as const,
  [77, 2] as const,
]
const interesting = [
  0n,
  1n,
  2n,
  3n,
  8n,
  20n,
  21n,
  30n,
  31n,
  40n,
  128n,
  511n,
  512n,
  513n,
  2048n,
  65536n,
  1n << 31n,
  1n << 32n,
  1n << 53n,
  1n << 63n,
  (1n << 64n) - 1n,
]
const value = fc.oneof(
  fc.constantFrom(...interesting),
  fc.tuple(fc.constantFrom(...interesting), fc.constantFrom(...interesting)).map(([a, b]) => a | b),
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
)
interface Poke {
  readonly near: 'start' | 'tables'
  readonly offset: number
  readonly width: number
  readonly wanted: bigint
}
const poke: fc.Arbitrary<Poke> = fc.oneof(
  fc
    .tuple(fc.constantFrom('start', 'tables'), fc.constantFrom(...fields), value)
    .map(([near, [offset, width], wanted]) => ({ near, offset, width, wanted }) as const),
  fc
    .tuple(fc.constantFrom('start', 'tables'), fc.nat(1200), fc.constantFrom(1, 4, 8), value)
    .map(([near, offset, width, wanted]) => ({ near, offset, width, wanted }) as const),
)

function mutated({ bytes, tables }: (typeof bases)[number], pokes: readonly Poke[], cut: number): Uint8Array {
  const copy = new Uint8Array(bytes)
  for (const { near, offset, width, wanted } of pokes) {
    const at = (near === 'start' ? 0 : tables) + offset
    for (let index = 0; index < width; index += 1) copy[at + index] = Number((wanted >> BigInt(8 * index)) & 0xffn)
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

async function use(file: BlockSource, given: OpenOptions | undefined): Promise<void> {
  const opened = checked(await vmdk.open(file, given), 'vmdk')
  let extents = 0
  for await (const { kind, offset, length } of opened.extents(0, opened.size)) {
    extents += 1
    if (extents > MAX_EXTENTS) throw new Error('no end of extents')
    if (kind === 'data') await opened.read(offset, Math.min(length, 100_000))
  }
}

test('vmdk answers or refuses any damaged file, within bounds, and never crashes', async () => {
  let used = 0
  const property = fc.asyncProperty(
    fc.constantFrom(...bases),
    fc.array(poke, { maxLength: 4 }),
    fc.oneof({ weight: 6, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(64) }),
    async (base, pokes, cut) => {
      const bytes = mutated(base, pokes, cut)
      for (const step of [(file: BlockSource) => vmdk.audit(file, base.given), (file: BlockSource) => use(file, base.given)]) {
        try {
          await step(checked(bounded(bytesSource(bytes)), 'file'))
          used += 1
        } catch (error) {
          assert.ok(error instanceof ServiceError, `leaked ${error instanceof Error ? error.stack : error}`)
          assert.ok(error.code === 'invalid-image' || error.code === 'unsupported', `${error.code}: ${error.message}`)
        }
      }
    },
  )
  const numRuns = Number(process.env.FUZZ_RUNS ?? 1000)
  await fc.assert(property, { numRuns })
  assert.ok(used > numRuns / 10, `only ${used} steps went through: the mutants are all alike`)
})
