import assert from 'node:assert/strict'
import { test } from 'node:test'
import { patterned } from '../../../test/fixtures/disk/disks.ts'
import { checked } from './checked.ts'
import { mappedDisk, type Segment } from './mapped-disk.ts'
import { bytesSource } from './memory-source.ts'

const file = patterned(1000, 1)
const other = patterned(1000, 2)
const below = patterned(450, 3)
/** Of a hundred bytes each: here, in another file, packed, zeros, a hole over the parent, one where it ends, one behind it. */
const whole: readonly ((offset: number, length: number) => Segment)[] = [
  (offset, length) => ({ kind: 'data', offset, length, hostOffset: 300 + offset }),
  (offset, length) => ({ kind: 'data', offset, length, hostOffset: offset, file: bytesSource(other) }),
  (offset, length) => ({ kind: 'packed', offset, length, load: async () => new Uint8Array(length).fill(7) }),
  (offset, length) => ({ kind: 'zero', offset, length }),
  (offset, length) => ({ kind: 'hole', offset, length }),
  (offset, length) => ({ kind: 'hole', offset, length }),
]
function* segments(offset: number, length: number): Generator<Segment> {
  for (let at = offset; at < offset + length; ) {
    const to = Math.min(offset + length, (Math.floor(at / 100) + 1) * 100)
    yield whole[Math.floor(at / 100)]!(at, to - at)
    at = to
  }
}
async function* later(offset: number, length: number): AsyncGenerator<Segment> {
  yield* segments(offset, length)
}

for (const [how, map] of [
  ['at once', segments],
  ['in time', later],
] as const) {
  for (const parent of [undefined, bytesSource(below)]) {
    test(`a map that is known ${how} shows its disk ${parent ? 'over a parent' : 'alone'}`, async () => {
      const disk = checked(mappedDisk(bytesSource(file), { size: 600, segments: map, parent }), 'disk')
      const expected = new Uint8Array(600)
      expected.set(file.subarray(300, 400), 0)
      expected.set(other.subarray(100, 200), 100)
      expected.fill(7, 200, 300)
      if (parent) expected.set(below.subarray(400), 400)
      for (const [from, to] of [
        [0, 600],
        [0, 100],
        [50, 150],
        [210, 220],
        [399, 460],
        [500, 600],
        [7, 7],
      ] as const) {
        assert.deepEqual(await disk.read(from, to - from), expected.subarray(from, to), `${from} to ${to}`)
      }
      const extents = (await Array.fromAsync(disk.extents(0, 600))).map(({ offset, kind }) => [offset, kind])
      const head = [
        [0, 'data'],
        [300, 'zero'],
      ]
      const tail = parent
        ? [
            [400, 'data'],
            [450, 'hole'],
          ]
        : [[400, 'hole']]
      assert.deepEqual(extents, [...head, ...tail])
    })
  }
}
