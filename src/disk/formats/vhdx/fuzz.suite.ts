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
import { type DiskBase, driverTarget } from '../../../../test/fixtures/fuzz/driver-target.ts'
import type { Field } from '../../../../test/fixtures/fuzz/target.ts'
import { memorySource } from '../../block/memory-source.ts'
import { checksumOf } from './header.ts'
import { vhdx } from './vhdx.ts'
import { wrapDynamic } from './wrap.ts'

const KiB = 1024
const MiB = 1024 * KiB
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
/** The parts of a file that have structures. */
const regions = [
  [0, 4 * KiB],
  ...VHDX_HEADERS.map((at) => [at, 4 * KiB] as const),
  ...VHDX_REGION_TABLES.map((at) => [at, 64 * KiB] as const),
  [VHDX_LOG, 5 * 4096],
  [VHDX_METADATA, 65 * KiB],
  [VHDX_BAT, 4 * KiB],
] as const
/** Fields, as offset and width. */
const fields: readonly Field[] = [
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

const structures = [
  ...VHDX_HEADERS.map((at) => [at, 4 * KiB] as const),
  ...VHDX_REGION_TABLES.map((at) => [at, 64 * KiB] as const),
]
const logged = [...log].map(([sector, { length }]) => [VHDX_LOG + sector * 4096, length] as const)

function base(bytes: Buffer, { hasLog = false, ...more }: Partial<DiskBase> & { readonly hasLog?: boolean } = {}): DiskBase {
  return {
    bytes,
    isLittleEndian: true,
    fields,
    regions,
    seal({ bytes: mutant, keep, isChanged }) {
      for (const [at, length] of [...structures, ...(hasLog ? logged : [])]) {
        if (!isChanged(at, length) || at + length > mutant.length) continue
        keep(at + 4, 4)
        const structure = Buffer.from(mutant.buffer, mutant.byteOffset + at, length)
        structure.writeUInt32LE(checksumOf(structure), 4)
      }
    },
    ...more,
  }
}

export const targets = [
  driverTarget(
    vhdx,
    [
      base(vhdxFile({ fileBytes: 6 * MiB, bat: [batEntry(6, VHDX_DATA), 0n, batEntry(2), batEntry(6, VHDX_DATA + MiB)] })),
      base(vhdxFile({ fileBytes: 6 * MiB, log }), { hasLog: true }),
      base(vhdxFile({ fileBytes: 6 * MiB, blockBytes: 256 * MiB, virtualBytes: 512, hasParent: true, bat: chunk }), {
        given: { parent: memorySource(512, []) },
      }),
      base(Buffer.from(await wrapped.read(0, wrapped.size))),
    ],
    { values: [5, 6, 32, ...[1, 2, 3, 4, 5, 6, 256].map((at) => at * MiB)], leastTaken: 25 },
  ),
]
