import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../test/fixtures/disk/disks.ts'
import { stack } from '../block/block-source.ts'
import { checked } from '../block/checked.ts'
import { memorySource } from '../block/memory-source.ts'
import { recordReads } from './record-reads.ts'
import { replayReads } from './replay-reads.ts'

const UNIT = 65_536
const UNITS = 1000
const disk = () => memorySource(UNITS * UNIT, [])

test('a record holds each unit once, in the order of first reads, with their times', async () => {
  let clock = 100
  const { filter, ended } = recordReads({ unitBytes: UNIT, maxUnits: 100, maxMs: 1000, now: () => clock })
  const recorded = stack(disk(), [filter])
  await recorded.read(5 * UNIT + 7, 10)
  clock = 150
  await recorded.read(4 * UNIT, 3 * UNIT)
  await recorded.read(5 * UNIT, 0)
  await recorded.close()
  assert.deepEqual(await ended, [
    { unit: 5, afterMs: 0 },
    { unit: 4, afterMs: 50 },
    { unit: 6, afterMs: 50 },
  ])
})

test('a record ends after its time, its number of units, or when it is told to', async () => {
  let clock = 0
  const make = (maxUnits: number, maxMs: number) => {
    const recorder = recordReads({ unitBytes: UNIT, maxUnits, maxMs, now: () => clock })
    return { ...recorder, disk: stack(disk(), [recorder.filter]) }
  }
  const few = make(3, 1000)
  await few.disk.read(0, 10 * UNIT)
  assert.equal((await few.ended).length, 3)
  const short = make(100, 1000)
  await short.disk.read(0, UNIT)
  clock = 1001
  await short.disk.read(UNIT, UNIT)
  assert.equal((await short.ended).length, 1)
  const told = make(100, 1000)
  told.end()
  await told.disk.read(0, UNIT)
  assert.deepEqual(await told.ended, [])
})

/** Reads `order` one after the other, and tells what was fetched before each read. */
async function replay(units: readonly number[], order: readonly number[], distance: number) {
  const fetched: number[] = []
  const before: number[] = []
  const prefetch = async (batch: readonly number[]) => void fetched.push(...batch)
  const source = stack(disk(), [replayReads({ units, unitBytes: UNIT, prefetch, distance })])
  for (const unit of order) {
    before.push(fetched.length)
    await source.read(unit * UNIT + 5, 100)
  }
  return { fetched, before }
}
const shuffled = fc.shuffledSubarray(
  Array.from({ length: UNITS }, (_, unit) => unit),
  { minLength: 1 },
)

test('who reads as recorded is kept ahead of from the first read on, and nothing is fetched twice', () =>
  fc.assert(
    fc.asyncProperty(shuffled, fc.integer({ min: 4, max: 300 }), async (units, distance) => {
      const { fetched, before } = await replay(units, units, distance)
      assert.deepEqual(fetched, units.slice(1))
      for (const [index, count] of before.entries()) {
        if (index > 0) assert.ok(count >= Math.min(units.length - 1, index), `at ${index}: ${count}`)
        assert.ok(count - Math.max(0, index - 1) <= distance, `at ${index}: ${count} are ahead of it`)
      }
    }),
    { numRuns: 50 },
  ))

test('whatever is read, what is fetched in vain is bounded', () =>
  fc.assert(
    fc.asyncProperty(shuffled, shuffled, fc.integer({ min: 4, max: 100 }), async (units, order, distance) => {
      const { fetched } = await replay(units, order, distance)
      const wanted = order.filter((unit) => units.includes(unit)).length
      assert.equal(new Set(fetched).size, fetched.length)
      assert.ok(fetched.length <= distance + wanted + (distance * wanted) / (2 * distance), `${fetched.length} for ${wanted}`)
    }),
    { numRuns: 50 },
  ))

test('a reader of other things costs the distance; one who differs a little is kept ahead of to the end', async () => {
  const units = Array.from({ length: 500 }, (_, index) => 2 * index)
  const stranger = await replay(
    units,
    units.map((unit) => unit + 1),
    64,
  )
  assert.equal(stranger.fetched.length, 64)
  const other = units.filter((_, index) => index % 5 !== 0)
  const { fetched } = await replay(units, other, 64)
  assert.ok(fetched.length > 480, `${fetched.length}`)
})

test('both read as the disk below them, extents too, and a prefetch that fails harms nobody', async () => {
  const below = randomDisk(UNITS * 100, 8, 3)
  const whole = await below.read(0, below.size)
  const { filter } = recordReads({ unitBytes: 512, maxUnits: 20, maxMs: 1000 })
  const failing = replayReads({ units: [1, 2, 3], unitBytes: 512, prefetch: () => Promise.reject(new Error('no')), distance: 4 })
  const both = checked(stack(below, [filter, failing]), 'both')
  await fc.assert(
    fc.asyncProperty(fc.nat(below.size), fc.nat(below.size), async (from, count) => {
      const length = Math.min(count, below.size - from)
      assert.deepEqual(await both.read(from, length), whole.slice(from, from + length))
      assert.deepEqual(await Array.fromAsync(both.extents(from, length)), await Array.fromAsync(below.extents(from, length)))
    }),
    { numRuns: 50 },
  )
})
