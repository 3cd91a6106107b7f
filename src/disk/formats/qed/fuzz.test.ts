import { test } from 'node:test'
import { fuzzDriver } from '../../../../test/fixtures/disk/driver-fuzz.ts'
import { QED_CLUSTER, smallQed } from '../../../../test/fixtures/disk/qed.ts'
import { qed } from './qed.ts'

const bases = [
  smallQed(),
  smallQed([4 * QED_CLUSTER, new Uint8Array(3 * QED_CLUSTER)], [2 * QED_CLUSTER + 8, 8, 5 * QED_CLUSTER]),
]
const words = [4, 8, 12, 16, 20, 56, 60].map((offset) => [offset, 4] as const)
const longs = [40, 48, QED_CLUSTER, QED_CLUSTER + 8, 2 * QED_CLUSTER, 2 * QED_CLUSTER + 8].map((offset) => [offset, 8] as const)

test('qed answers or refuses any damaged file, within bounds, and never crashes', () =>
  fuzzDriver(qed, bases, [...words, ...longs]))
