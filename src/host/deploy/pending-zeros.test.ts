import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { PendingZeros } from './pending-zeros.ts'

test('neighbours are one, in whatever order they come; what overlaps is seen', () => {
  const pending = new PendingZeros()
  for (const offset of [8, 0, 4, 20]) pending.add({ offset, length: 4 })
  assert.deepEqual([pending.count, pending.bytes], [2, 16])
  assert.deepEqual(
    [11, 12, 19, 20, 23, 24].map((offset) => pending.overlaps({ offset, length: 1 })),
    [true, false, false, true, true, false],
  )
  assert.ok(pending.overlaps({ offset: 12, length: 9 }))
  assert.deepEqual(pending.take(), [
    { offset: 0, length: 12 },
    { offset: 20, length: 4 },
  ])
  assert.deepEqual([pending.count, pending.bytes, pending.take()], [0, 0, []])
})

test('what is taken covers what was added, and nothing else', () => {
  const pieces = fc.uniqueArray(fc.nat(60), { maxLength: 40 })
  fc.assert(
    fc.property(pieces, (numbers) => {
      const pending = new PendingZeros()
      for (const number of numbers) pending.add({ offset: number * 3, length: 3 })
      const ranges = pending.take()
      const covered = ranges.flatMap(({ offset, length }) => Array.from({ length: length / 3 }, (_, n) => offset / 3 + n))
      assert.deepEqual(
        covered,
        numbers.toSorted((a, b) => a - b),
      )
      assert.ok(ranges.every(({ offset, length }, n) => n + 1 === ranges.length || offset + length < ranges[n + 1]!.offset))
    }),
  )
})
