import { randomDisk } from '../../../../test/fixtures/disk/disks.ts'
import { smallVmdk } from '../../../../test/fixtures/disk/hostile.ts'
import { poked } from '../../../../test/fixtures/disk/poked.ts'
import { type DiskBase, driverTarget } from '../../../../test/fixtures/fuzz/driver-target.ts'
import type { Field } from '../../../../test/fixtures/fuzz/target.ts'
import { bytesSource } from '../../block/memory-source.ts'
import type { OpenOptions } from '../format-driver.ts'
import { packDisk } from './pack.ts'
import { vmdk } from './vmdk.ts'
import { wrapDisk } from './wrap.ts'

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
const text = (lines: string, given: OpenOptions = { parts }): DiskBase => ({ bytes: Buffer.from(lines), words, given })
/** What a descriptor is made of, and what does not belong into one. */
const words = [
  ...[
    'RW 9 ',
    'RDONLY 9 ',
    'NOACCESS 1 ',
    'ZERO\n',
    'FLAT "b.vmdk" ',
    'SPARSE "a.vmdk"\n',
    '\n',
    '\r\n',
    '\r',
    '"',
    '=',
    ' ',
    '#',
    '\0',
  ],
  ...['createType="custom"', 'parentCID=00000001', 'parentFileNameHint="/etc/passwd"', 'encoding="UTF-16"', 'CID=ffffffff'],
  ...[
    'RW 9 FLAT "/etc/passwd" 0\n',
    'RW 9 FLAT "../b.vmdk" 0\n',
    '99999999999999999999',
    '4503599627370497',
    '-1',
    '0',
    '\u00e9',
  ],
]

/** Of the header. */
const headerFields: readonly Field[] = [
  ...[4, 8, 44, 73].map((at): Field => [at, 4]),
  ...[12, 20, 28, 36, 48, 56, 64].map((at): Field => [at, 8]),
  [72, 1],
  [77, 2],
]
/** @param tables where the directory is, or the footer of a stream */
function binary(bytes: Uint8Array, tables: number, more: Partial<DiskBase> = {}): DiskBase {
  const entries = [0, 1, 2, 3, 4, 5, 128, 129, 130, 131].map((entry): Field => [tables + entry * 4, 4])
  const footer = headerFields.map(([at, width]): Field => [tables + at, width])
  return {
    bytes,
    isLittleEndian: true,
    fields: [...headerFields, ...entries, ...footer].filter(([at, width]) => at + width <= bytes.length),
    regions: [
      [0, 1200],
      [tables, 1200],
    ],
    ...more,
  }
}
const childLines = descriptor('RW 2048 SPARSE "disk.vmdk"', 'monolithicSparse').replace('ffffffff', '00000001')

export const targets = [
  driverTarget(
    vmdk,
    [
      binary(sparse, 21 * SECTOR),
      binary(stream, stream.length - 2 * SECTOR),
      binary(stream, stream.length - 6 * SECTOR),
      binary(fine, DIRECTORY * SECTOR),
      binary(poked(fine, true, [512, childLines]), DIRECTORY * SECTOR, { given: { parent: disk } }),
      text(descriptor('RW 2048 SPARSE "a.vmdk"\nRW 9 ZERO', 'twoGbMaxExtentSparse')),
      text(descriptor('RW 9 FLAT "b.vmdk" 2\nRW 9 ZERO', 'monolithicFlat', 'encoding="UTF-8"')),
    ],
    { values: [20, 21, 22, 30, 31, 32, 40, 48, 56, 128, 2048], leastTaken: 5 },
  ),
]
