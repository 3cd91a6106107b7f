import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { LinkedClusters, type LinkTable } from './linked-clusters.ts'

const FIRST = 2

/** A table in pieces of `span`, as it would be read. */
const tableOf = (next: readonly (number | null)[], span: number): LinkTable => ({
  firstCluster: FIRST,
  clusters: next.length,
  bad: (problem) => new Error(problem),
  async window(cluster) {
    const first = Math.floor(cluster / span) * span
    return { first, last: first + span - 1, next: (each) => next[each - FIRST]! }
  },
})

/** The clusters of a chain, asked for in any order. */
async function clustersOf(chain: LinkedClusters, indexes: readonly number[], wanted: number): Promise<(number | undefined)[]> {
  const found: (number | undefined)[] = []
  for (const index of indexes) {
    const run = await chain.runAt(index, wanted)
    assert.ok(run === undefined || (run.index === index && run.count > 0))
    found.push(run?.cluster)
  }
  return found
}

/** A table whose chain from the first of `order` goes through all of them. */
function linked(order: readonly number[]): (number | null)[] {
  const next = new Array<number | null>(order.length).fill(null)
  for (let at = 0; at + 1 < order.length; at += 1) next[order[at]! - FIRST] = order[at + 1]!
  return next
}

test('a chain is what its links say, wherever one begins to ask', async () => {
  const chains = fc
    .array(fc.boolean(), { minLength: 1, maxLength: 40 })
    .chain((cuts) =>
      fc.shuffledSubarray([...cuts.keys()], { minLength: cuts.length }).map((order) => order.map((at) => at + FIRST)),
    )
  await fc.assert(
    fc.asyncProperty(
      chains,
      fc.array(fc.nat(45), { maxLength: 20 }),
      fc.integer({ min: 1, max: 9 }),
      async (order, indexes, span) => {
        const chain = new LinkedClusters(tableOf(linked(order), span), order[0]!)
        assert.deepEqual(
          await clustersOf(chain, indexes, span),
          indexes.map((index) => order[index]),
        )
      },
    ),
  )
})

test('one in more pieces than are remembered is walked again where it is not', async () => {
  const count = 50_000
  const order = Array.from({ length: count }, (_, index) => FIRST + ((index * 7) % count))
  const chain = new LinkedClusters(tableOf(linked(order), 512), FIRST)
  const indexes = [count - 1, 0, 1, 2, 3, 24_999, 25_000, 40_001, 40_002, count]
  assert.deepEqual(
    await clustersOf(chain, indexes, 1),
    indexes.map((index) => order[index]),
  )
})

test('one that returns is an error, however long the way there', async () => {
  for (const [before, round] of [
    [0, 1],
    [5, 1],
    [3, 2],
    [100, 37],
    [0, 1000],
  ] as const) {
    const next = Array.from({ length: before + round }, (_, index) => FIRST + index + 1)
    next[before + round - 1] = FIRST + before
    const chain = new LinkedClusters(tableOf(next, 64), FIRST)
    await assert.rejects(chain.runAt(before + round * 4, 1), /returns to cluster/)
    assert.equal((await chain.runAt(0, 1))?.cluster, FIRST)
  }
})

test('readers at the same time get the same answers', async () => {
  const order = [7, 3, 4, 2, 5, 6]
  const chain = new LinkedClusters(tableOf(linked(order), 2), 7)
  const answers = await Promise.all([5, 0, 3, 4, 2, 1].map((index) => chain.runAt(index, 2)))
  assert.deepEqual(
    answers.map((run) => run?.cluster),
    [5, 0, 3, 4, 2, 1].map((index) => order[index]),
  )
})
