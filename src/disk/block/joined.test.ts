import assert from 'node:assert/strict'
import { test } from 'node:test'
import { joined } from './joined.ts'
import type { Segment } from './mapped-disk.ts'
import { bytesSource } from './memory-source.ts'
import { UsedUnits } from './used-units.ts'

const part = (offset: number, rest: object): Segment => ({ offset, length: 10, ...rest }) as Segment
const data = (offset: number, hostOffset: number, rest = {}) => part(offset, { kind: 'data', hostOffset, ...rest })

test('segments join that touch on the disk and in the file', () => {
  const other = bytesSource(new Uint8Array(1))
  const packed = { kind: 'packed', load: async () => new Uint8Array(10) }
  const found = [
    ...[data(0, 50), data(10, 60), data(20, 80)],
    ...[data(30, 90, { file: other }), data(40, 100, { file: other })],
    ...[part(50, { kind: 'hole' }), part(60, { kind: 'hole' }), part(70, { kind: 'zero' }), part(80, { kind: 'zero' })],
    ...[part(90, packed), part(100, packed), part(120, { kind: 'zero' })],
  ]
  assert.deepEqual(
    [...joined(found)].map(({ offset, length, kind }) => [offset, length, kind]),
    [
      [0, 20, 'data'],
      [20, 10, 'data'],
      [30, 20, 'data'],
      [50, 20, 'hole'],
      [70, 20, 'zero'],
      [90, 10, 'packed'],
      [100, 10, 'packed'],
      [120, 10, 'zero'],
    ],
  )
})

test('units are taken once, and those that the file does not have are not', () => {
  const used = new UsedUnits(20)
  assert.equal(used.take(3, 6), -1)
  assert.equal(used.take(0, 5), 3)
  assert.equal(used.take(17, 100), -1)
  assert.equal(used.take(16, 100), 17)
  assert.equal(used.take(40, 2), -1)
})
