import { randomDisk } from '../../../../test/fixtures/disk/disks.ts'
import { smallVdi, VDI_BASE, VDI_BLOCK, VDI_CHILD, VDI_DATA, VDI_MAP } from '../../../../test/fixtures/disk/vdi.ts'
import { type DiskBase, driverTarget } from '../../../../test/fixtures/fuzz/driver-target.ts'
import type { Field } from '../../../../test/fixtures/fuzz/target.ts'
import { vdi } from './vdi.ts'

const fields: readonly Field[] = [
  ...[0x40, 0x44, 0x48, 0x4c, 0x50, 0x154, 0x158, 0x168, 0x174, 0x178, 0x17c, 0x180, 0x184, 0x1a8, 0x1b8].map(
    (at): Field => [at, 4],
  ),
  [0x170, 8],
  ...[0, 4, 8, 12, 16].map((at): Field => [VDI_MAP + at, 4]),
]
const regions = [
  [0x40, 0x190],
  [VDI_MAP, 32],
] as const
const base = (bytes: Uint8Array, more: Partial<DiskBase> = {}): DiskBase => ({
  bytes,
  isLittleEndian: true,
  fields,
  regions,
  ...more,
})

export const targets = [
  driverTarget(
    vdi,
    [
      base(smallVdi(...VDI_BASE)),
      base(smallVdi([0, 1, 2], 3, [0x4c, 4, 2])),
      base(smallVdi([3, 0xffffffff, 0, 1, 2], 4)),
      base(smallVdi(...VDI_BASE, ...VDI_CHILD), { given: { parent: randomDisk(10_000, 2, 3) } }),
    ],
    { values: [5, 400, VDI_MAP, VDI_DATA, VDI_BLOCK, 2 * VDI_BLOCK, 3 * VDI_BLOCK, 2 ** 32 - 3], leastTaken: 5 },
  ),
]
