import { deflateRawSync } from 'node:zlib'
import { randomDisk } from '../../../../test/fixtures/disk/disks.ts'
import { QCOW2_DATA, QCOW2_L1, QCOW2_L2, smallQcow2 } from '../../../../test/fixtures/disk/hostile.ts'
import { type DiskBase, driverTarget } from '../../../../test/fixtures/fuzz/driver-target.ts'
import type { Field } from '../../../../test/fixtures/fuzz/target.ts'
import { memorySource } from '../../block/memory-source.ts'
import { qcow2 } from './qcow2.ts'
import { wrapDisk } from './wrap.ts'

const wrapped = await wrapDisk(randomDisk(512 * 1024, 3, 1))
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
const packed = deflateRawSync(Buffer.from('a cluster of text, '.repeat(3450)), { windowBits: 12 })
const withCompressed = smallQcow2([QCOW2_DATA, packed], [QCOW2_L2, 8, (1n << 62n) | BigInt(QCOW2_DATA)])

/** Of header, L1, L2, refcounts and what lies in the first cluster of data: snapshots. */
const fields: readonly Field[] = [
  ...[4, 16, 20, 32, 36, 56, 60, 96, 100, 112, 116].map((at): Field => [at, 4]),
  ...[72, 80, 88].flatMap((at): Field[] => [
    [at, 8],
    [at + 4, 4],
  ]),
  ...[8, 24, 40, 48, 64, 120, 128, 0x10000].map((at): Field => [at, 8]),
  [104, 1],
  ...[0, 2, 4, 6, 8, 10].map((at): Field => [0x20000 + at, 2]),
  ...[QCOW2_L1, QCOW2_L1 + 8, ...[0, 8, 16, 24].map((at) => QCOW2_L2 + at)].map((at): Field => [at, 8]),
]
const snapshotFields: readonly Field[] = [
  ...[0, 16, 24, 40, 48, 65536].map((at): Field => [QCOW2_DATA + at, 8]),
  ...[8, 12, 32, 36].map((at): Field => [QCOW2_DATA + at, 4]),
  ...[12, 14].map((at): Field => [QCOW2_DATA + at, 2]),
]
const regions = [
  [0, 160],
  [0x10000, 16],
  [0x20000, 24],
  [QCOW2_L1, 32],
  [QCOW2_L2, 128],
  [QCOW2_DATA, 512],
] as const
const base = (bytes: Uint8Array, more: Partial<DiskBase> = {}): DiskBase => ({ bytes, fields, regions, ...more })

export const targets = [
  driverTarget(
    qcow2,
    [
      base(smallQcow2()),
      base(smallQcow2([4, 4, 2])),
      base(smallQcow2([76, 4, 16])),
      base(withCompressed),
      base(withSnapshot, { fields: [...fields, ...snapshotFields] }),
      base(withBacking, { given: { parent: memorySource(700_000, []) } }),
      base(Buffer.from(await wrapped.read(0, wrapped.size))),
    ],
    {
      values: [9, 14, 21, 104, 112, 0x23852875, 0x6803f857, ...[1, 2, 3, 4, 5, 6].map((cluster) => cluster * 0x10000)],
      leastTaken: 5,
    },
  ),
]
