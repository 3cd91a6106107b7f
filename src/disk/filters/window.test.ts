import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../test/fixtures/disk/disks.ts'
import { type Extent, stack } from '../block/block-source.ts'
import { checked } from '../block/checked.ts'
import { window } from './window.ts'

const SIZE = 1024 * 1024

test('a window reads as the part of the disk that it shows, extents too', async () => {
  const disk = randomDisk(SIZE, 8, 5)
  const whole = await disk.read(0, SIZE)
  const property = fc.asyncProperty(
    fc.nat(SIZE),
    fc.nat(SIZE),
    fc.nat(SIZE),
    fc.nat(SIZE),
    async (start, length, from, count) => {
      const shown = Math.min(length, SIZE - start)
      const seen = checked(stack(disk, [window(start, shown)]), 'window')
      assert.equal(seen.size, shown)
      const offset = Math.min(from, shown)
      const bytes = Math.min(count, shown - offset)
      assert.deepEqual(await seen.read(offset, bytes), whole.slice(start + offset, start + offset + bytes))
      const extents: Extent[] = await Array.fromAsync(seen.extents(offset, bytes))
      for (const extent of extents) {
        if (extent.kind === 'data') continue
        assert.ok(whole.subarray(start + extent.offset, start + extent.offset + extent.length).every((byte) => byte === 0))
      }
    },
  )
  await fc.assert(property, { numRuns: 50 })
})

test('a window that is not inside the disk is refused', () => {
  const disk = randomDisk(SIZE, 1, 5)
  for (const [start, length] of [[SIZE, 1] as const, [-1, 5] as const, [0, SIZE + 1] as const, [0.5, 1] as const]) {
    assert.throws(() => window(start, length)(disk), { code: 'invalid-request' })
  }
})
