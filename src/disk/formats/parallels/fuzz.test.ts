import { test } from 'node:test'
import { fuzzDriver } from '../../../../test/fixtures/disk/driver-fuzz.ts'
import { smallParallels } from '../../../../test/fixtures/disk/parallels.ts'
import { parallels } from './parallels.ts'

const bases = [smallParallels(), smallParallels([0, 'WithoutFreeSpace'], [48, 4, 0], [64, 4, 8], [72, 4, 16])]
const words = [16, 28, 32, 44, 48, 64, 68, 72, 76].map((offset) => [offset, 4] as const)

test('ploop answers or refuses any damaged file, within bounds, and never crashes', () =>
  fuzzDriver(parallels, bases, [...words, [36, 8]]))
