import { PLOOP_DATA, smallParallels } from '../../../../test/fixtures/disk/parallels.ts'
import { driverTarget } from '../../../../test/fixtures/fuzz/driver-target.ts'
import type { Field } from '../../../../test/fixtures/fuzz/target.ts'
import { parallels } from './parallels.ts'

const fields: readonly Field[] = [...[16, 28, 32, 44, 48, 52, 64, 68, 72, 76].map((at): Field => [at, 4]), [36, 8], [56, 8]]
const files = [smallParallels(), smallParallels([0, 'WithoutFreeSpace'], [48, 4, 0], [64, 4, 8], [72, 4, 16])]

export const targets = [
  driverTarget(
    parallels,
    files.map((bytes) => ({ bytes, isLittleEndian: true, fields, regions: [[0, 96]] })),
    { values: [16, 24, 32, PLOOP_DATA, 2 * PLOOP_DATA, 0x312e3276, 0x746f6e59], leastTaken: 5 },
  ),
]
