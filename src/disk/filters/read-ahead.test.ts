import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../test/fixtures/disk/disks.ts'
import { type BlockSource, stack } from '../block/block-source.ts'
import { checked } from '../block/checked.ts'
import { memorySource } from '../block/memory-source.ts'
import { readAhead } from './read-ahead.ts'

const UNIT = 64 * 1024
const SIZE = 1024 * UNIT

/** What is fetched for these reads, each settled before the next read. */
async function fetchedFor(reads: readonly (readonly [offset: number, length: number])[]) {
  const fetched: [number, number][] = []
  const prefetch = async (offset: number, length: number) => void fetched.push([offset, length])
  const disk = stack(memorySource(SIZE, []), [readAhead({ prefetch, unitBytes: UNIT })])
  for (const [offset, length] of reads) {
    await disk.read(offset, length)
    await new Promise(setImmediate)
  }
  return fetched
}
const unitsOf = (fetched: readonly (readonly [number, number])[]) => fetched.map(([offset]) => offset / UNIT)

test('a reader that goes from end to end is kept ahead of, and nothing is fetched twice or behind it', async () => {
  const reads = Array.from({ length: 512 }, (_, index) => [index * 4096, 4096] as const)
  const units = unitsOf(await fetchedFor(reads))
  assert.deepEqual(
    units,
    Array.from(units.keys(), (index) => index + 1),
  )
  assert.ok(
    units.length >= 31 + 16 && units.length <= 31 + 32,
    `${units.length}: the 32 that were read, and half of the distance at least`,
  )
})

test('reads of a megabyte in a row fetch what comes after them', async () => {
  const units = unitsOf(await fetchedFor([0, 1, 2, 3].map((index) => [index * 16 * UNIT, 16 * UNIT] as const)))
  assert.equal(units[0], 48)
  assert.deepEqual(
    units,
    Array.from(units.keys(), (index) => index + 48),
  )
})

test('a reader that leaves gaps is followed in its steps, and the gaps are left out', async () => {
  const step = 260 * 1024
  const fetched = await fetchedFor(Array.from({ length: 40 }, (_, index) => [index * step, 4096] as const))
  assert.ok(fetched.length >= 38)
  assert.ok(fetched.every(([offset, length]) => offset % step === 0 && length === 4096))
  assert.equal(new Set(fetched.map(([offset]) => offset)).size, fetched.length)
})

test('two readers and a random one between them are told apart', async () => {
  const reads = Array.from({ length: 24 }, (_, index) => [
    [index * UNIT, 4096] as const,
    [600 * UNIT + index * UNIT, 4096] as const,
    [((index * 389) % 1000) * UNIT + 777, 512] as const,
  ]).flat()
  const units = new Set(unitsOf(await fetchedFor(reads)))
  for (let unit = 3; unit < 24; unit += 1) {
    assert.ok(units.has(unit), `unit ${unit} of the first`)
    assert.ok(units.has(600 + unit), `unit ${600 + unit} of the second`)
  }
})

test('random reads fetch nothing', async () => {
  const places = [900, 17, 512, 3, 770, 222, 641, 88, 401, 1000, 130, 555]
  assert.deepEqual(await fetchedFor(places.map((place) => [place * UNIT + 512, 4096] as const)), [])
})

test('nothing is fetched beyond the end, and no more than 32 fetches are under way', async () => {
  const underWay: number[] = []
  const never = (offset: number, length: number) => {
    assert.ok(offset < SIZE && offset + length <= SIZE)
    underWay.push(offset)
    return new Promise<void>(() => {})
  }
  const disk = stack(memorySource(SIZE, []), [readAhead({ prefetch: never, unitBytes: UNIT })])
  for (let offset = 0; offset < SIZE; offset += 4096) await disk.read(offset, 4096)
  assert.equal(underWay.length, 32)
})

test('a fetch that fails is for the read that follows to meet', async () => {
  const failing = async () => Promise.reject(new Error('the disk is gone'))
  const disk = stack(memorySource(SIZE, []), [readAhead({ prefetch: failing, unitBytes: UNIT })])
  for (let index = 0; index < 20; index += 1) assert.equal((await disk.read(index * UNIT, UNIT)).length, UNIT)
})

test('it reads as the disk below it, extents too', async () => {
  const disk: BlockSource = randomDisk(SIZE / 16, 8, 3)
  const whole = await disk.read(0, disk.size)
  const ahead = checked(stack(disk, [readAhead({ prefetch: async () => undefined, unitBytes: UNIT })]), 'read-ahead')
  await fc.assert(
    fc.asyncProperty(fc.nat(disk.size), fc.nat(disk.size), async (from, count) => {
      const length = Math.min(count, disk.size - from)
      assert.deepEqual(await ahead.read(from, length), whole.slice(from, from + length))
      assert.deepEqual(await Array.fromAsync(ahead.extents(from, length)), await Array.fromAsync(disk.extents(from, length)))
    }),
    { numRuns: 50 },
  )
})
