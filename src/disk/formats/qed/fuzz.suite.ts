import { QED_CLUSTER, smallQed } from '../../../../test/fixtures/disk/qed.ts'
import { driverTarget } from '../../../../test/fixtures/fuzz/driver-target.ts'
import type { Field } from '../../../../test/fixtures/fuzz/target.ts'
import { qed } from './qed.ts'

const fields: readonly Field[] = [
  ...[4, 8, 12, 56, 60].map((at): Field => [at, 4]),
  ...[16, 24, 32, 40, 48].map((at): Field => [at, 8]),
  ...[1, 2].flatMap((cluster) => [0, 8, 16].map((at): Field => [cluster * QED_CLUSTER + at, 8])),
]
const regions = [
  [0, 72],
  [QED_CLUSTER, 64],
  [2 * QED_CLUSTER, 64],
] as const
const files = [
  smallQed(),
  smallQed([4 * QED_CLUSTER, new Uint8Array(3 * QED_CLUSTER)], [2 * QED_CLUSTER + 8, 8, 5 * QED_CLUSTER]),
]

export const targets = [
  driverTarget(
    qed,
    files.map((bytes) => ({ bytes, isLittleEndian: true, fields, regions })),
    { values: [1, 2, 3, 4, 5, 6, 7].map((cluster) => cluster * QED_CLUSTER), leastTaken: 5 },
  ),
]
