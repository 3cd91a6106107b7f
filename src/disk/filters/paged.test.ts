import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../test/fixtures/disk/disks.ts'
import { checked } from '../block/checked.ts'
import { paged } from './paged.ts'

const SIZE = 100_000

test('pages read as the source, whatever is kept', async () => {
  const disk = randomDisk(SIZE, 8, 5)
  const whole = await disk.read(0, SIZE)
  const seen = checked(paged({ pageBytes: 4096, maxBytes: 20_000 })(disk), 'paged')
  await fc.assert(
    fc.asyncProperty(fc.nat(SIZE), fc.oneof(fc.nat(100), fc.nat(SIZE)), async (offset, length) => {
      const count = Math.min(length, SIZE - offset)
      assert.deepEqual(new Uint8Array(await seen.read(offset, count)), new Uint8Array(whole.slice(offset, offset + count)))
    }),
  )
})

test('a page that is kept is not read again', async () => {
  const disk = randomDisk(SIZE, 8, 5)
  const reads: number[] = []
  const counted = {
    ...disk,
    read(offset: number, length: number) {
      reads.push(offset)
      return disk.read(offset, length)
    },
  }
  const seen = paged({ pageBytes: 4096, maxBytes: SIZE * 2 })(counted)
  for (const offset of [0, 100, 4000, 4090, 8191, 50]) await seen.read(offset, 10)
  assert.deepEqual(reads, [0, 4096, 8192])
})
