import { randomDisk } from '../../../../test/fixtures/disk/disks.ts'
import { poked } from '../../../../test/fixtures/disk/poked.ts'
import { SMALL_BASE, smallVhd, VHD_BLOCKS, VHD_TABLE, vhdFooter, vhdSummed } from '../../../../test/fixtures/disk/vhd.ts'
import { type DiskBase, driverTarget } from '../../../../test/fixtures/fuzz/driver-target.ts'
import type { Field } from '../../../../test/fixtures/fuzz/target.ts'
import { vhd } from './vhd.ts'

const FOOTER = 512
const footerFields = [
  ...[8, 12, 20, 24, 28, 36, 56, 60].map((at): Field => [at, 4]),
  ...[16, 40, 48].map((at): Field => [at, 8]),
  [56, 2],
] as const
const tableFields = [
  ...[528, 520].map((at): Field => [at, 8]),
  ...[528, 536, 540, 544, ...[0, 4, 8, 12, 16].map((at) => VHD_TABLE + at), VHD_BLOCKS].map((at): Field => [at, 4]),
] as const

function base(bytes: Uint8Array, more: Partial<DiskBase> = {}): DiskBase {
  const end = bytes.length - FOOTER
  const isDynamic = bytes.length > VHD_BLOCKS + FOOTER
  return {
    bytes,
    fields: [
      ...footerFields.map(([at, width]): Field => [end + at, width]),
      ...(isDynamic ? [...footerFields, ...tableFields] : []),
    ],
    regions: [
      [end, 100],
      ...(isDynamic
        ? ([
            [0, 100],
            [512, 200],
            [VHD_TABLE, 24],
            [VHD_BLOCKS, 16],
          ] as const)
        : []),
    ],
    seal({ bytes: mutant, keep }) {
      for (const at of [64, 512 + 36, mutant.length - FOOTER + 64]) if (at >= 0) keep(at, 4)
      vhdSummed(mutant)
    },
    ...more,
  }
}

export const targets = [
  driverTarget(
    vhd,
    [
      base(smallVhd(SMALL_BASE)),
      base(smallVhd({ places: [0, 2, null, 1, null], bitmaps: [0x0f, 0xaa, 0x81] })),
      base(smallVhd({ type: 4, places: [null, 0, null], bitmaps: [0x3c] }), { given: { parent: randomDisk(10_000, 2, 3) } }),
      base(poked(new Uint8Array(2048), false, [2048, vhdFooter(2048)])),
    ],
    {
      values: [
        5,
        13,
        1536,
        VHD_BLOCKS,
        12288,
        0xff000000,
        ...[0, 1, 2].map((block) => VHD_BLOCKS / 512 + block * 9),
        ...['vpc ', 'qemu', 'win ', 'vs  ', 'tap\0'].map((name) => Buffer.from(name).readUInt32BE()),
      ],
      leastTaken: 5,
    },
  ),
]
