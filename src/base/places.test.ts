import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type PlaceLimits, Places } from './places.ts'

const settled = () => new Promise((done) => setImmediate(done))

/** Who begins, in order, and how what has begun is ended. */
function watched(limits: PlaceLimits) {
  const places = new Places(limits)
  const begun: string[] = []
  const ends = new Map<string, () => void>()
  const ask = (owner: string, name: string, signal?: AbortSignal) =>
    void places.take(owner, signal ? [signal] : []).then((leave) => {
      if (!leave) return
      begun.push(name)
      ends.set(name, leave)
    })
  const end = async (name: string) => {
    ends.get(name)!()
    ends.delete(name)
    await settled()
  }
  return { begun, ends, ask, end }
}

test('a place that becomes free goes to the owner who has the fewest', async () => {
  const { begun, ask, end } = watched({ places: 2, share: 2 })
  for (const name of ['a1', 'a2', 'a3', 'a4']) ask('a', name)
  ask('b', 'b1')
  ask('c', 'c1')
  await settled()
  assert.deepEqual(begun, ['a1', 'a2'])
  await end('a1')
  assert.deepEqual(begun.slice(2), ['b1'], 'which has none, while a has one')
  await end('a2')
  assert.deepEqual(begun.slice(3), ['a3'], 'which has waited longer than c1, whose owner has none either')
  await end('b1')
  await end('a3')
  assert.deepEqual(begun.slice(4), ['c1', 'a4'])
})

test('an owner has no more than the share, also while nobody else is there', async () => {
  const { begun, ask, end } = watched({ places: 3, share: 2 })
  for (const name of ['a1', 'a2', 'a3']) ask('a', name)
  await settled()
  assert.deepEqual(begun, ['a1', 'a2'])
  ask('b', 'b1')
  await settled()
  assert.deepEqual(begun, ['a1', 'a2', 'b1'])
  await end('a2')
  assert.deepEqual(begun, ['a1', 'a2', 'b1', 'a3'])
})

test('who is no longer wanted leaves the queue at once, and takes no place', async () => {
  const { begun, ask, end } = watched({ places: 1, share: 1 })
  const unwanted = new AbortController()
  ask('a', 'a1')
  ask('b', 'b1', unwanted.signal)
  ask('c', 'c1')
  await settled()
  unwanted.abort()
  await end('a1')
  assert.deepEqual(begun, ['a1', 'c1'])
  assert.equal(await new Places({ places: 1, share: 1 }).take('a', [AbortSignal.abort()]), null)
})

test('whatever is asked for, the limits hold, and all of it begins', async () => {
  const asked = fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 30 })
  const limits = fc.record({ places: fc.integer({ min: 1, max: 5 }), share: fc.integer({ min: 1, max: 5 }) })
  await fc.assert(
    fc.asyncProperty(asked, limits, async (owners, { places, share }) => {
      const { begun, ends, ask, end } = watched({ places, share })
      for (const [index, owner] of owners.entries()) ask(owner, `${owner}${index}`)
      await settled()
      while (ends.size > 0) {
        assert.ok(ends.size <= places)
        for (const owner of ['a', 'b', 'c']) {
          assert.ok([...ends.keys()].filter((name) => name.startsWith(owner)).length <= share)
        }
        await end([...ends.keys()][0]!)
      }
      assert.equal(begun.length, owners.length)
    }),
  )
})
