import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../test/fixtures/disk/disks.ts'
import { checked } from '../block/checked.ts'
import { lengthened } from './lengthened.ts'

const SIZE = 200_000

test('a disk that is lengthened reads as itself, and as zeros behind its end', async () => {
  const disk = randomDisk(SIZE, 5, 5)
  const whole = await disk.read(0, SIZE)
  const property = fc.asyncProperty(fc.nat(SIZE), fc.nat(2 * SIZE), fc.nat(2 * SIZE), async (more, from, count) => {
    const longer = checked(lengthened(SIZE + more)(disk), 'lengthened')
    const expected = Buffer.concat([whole, Buffer.alloc(more)])
    const offset = Math.min(from, longer.size)
    const length = Math.min(count, longer.size - offset)
    for (const into of [undefined, Buffer.alloc(length, 9)]) {
      assert.ok(expected.subarray(offset, offset + length).equals(await longer.read(offset, length, into)))
    }
    for await (const { kind, ...run } of longer.extents(offset, length)) {
      if (kind !== 'data') assert.ok(expected.subarray(run.offset, run.offset + run.length).every((byte) => byte === 0))
    }
  })
  await fc.assert(property, { numRuns: 100 })
  assert.throws(() => lengthened(SIZE - 1)(disk), { code: 'invalid-request' })
})
