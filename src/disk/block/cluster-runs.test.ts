import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ClusterRuns } from './cluster-runs.ts'

const CLUSTERS = 200
const TABLE_CLUSTERS = 16

/** The same by a plain list of members. */
function model(spans: readonly (readonly [number, number])[], grain: number): number[] {
  const members = new Set<number>()
  for (const [start, end] of spans) {
    const to = Math.min(CLUSTERS, Math.ceil(end / grain) * grain)
    for (let cluster = Math.floor(start / grain) * grain; cluster < to; cluster += 1) members.add(cluster)
  }
  return [...members].sort((a, b) => a - b)
}
const runsIn = (members: readonly number[]) => members.filter((cluster, index) => members[index - 1] !== cluster - 1).length

test('runs answer as a plain list of clusters would, as fine as the number of runs allows', () => {
  const cut = fc.tuple(fc.nat(CLUSTERS - 1), fc.integer({ min: 1, max: 30 }))
  const property = fc.property(fc.array(cut, { maxLength: 30 }), fc.integer({ min: 1, max: 12 }), (cuts, maxRuns) => {
    const spans = cuts.map(([start, length]) => [start, Math.min(CLUSTERS, start + length)] as const).sort((a, b) => a[0] - b[0])
    const ascending = spans.filter(([start], index) => index === 0 || start >= spans[index - 1]![1] - 1)
    const runs = new ClusterRuns(CLUSTERS, maxRuns, TABLE_CLUSTERS)
    for (const [start, end] of ascending) runs.add(start, end)
    runs.seal()

    let grain = 1
    while (runsIn(model(ascending, grain)) > maxRuns) grain *= 2
    const members = model(ascending, grain)
    const tables = [...new Set(members.map((cluster) => Math.floor(cluster / TABLE_CLUSTERS)))]
    assert.equal(runs.clusters, members.length)
    assert.equal(runs.tables, tables.length)
    for (let cluster = 0; cluster < CLUSTERS; cluster += 1) assert.equal(runs.rank(cluster), members.indexOf(cluster))
    for (let index = 0; index < CLUSTERS / TABLE_CLUSTERS; index += 1) assert.equal(runs.tableRank(index), tables.indexOf(index))
    for (const [rank, cluster] of members.entries()) {
      const at = runs.clusterAt(rank)
      assert.equal(at.cluster, cluster)
      assert.ok(members.includes(at.runEnd - 1) && !members.includes(at.runEnd))
    }
    for (const [start, end] of [
      [0, CLUSTERS],
      [5, CLUSTERS - 7],
      [CLUSTERS / 2, CLUSTERS / 2 + 1],
    ] as const) {
      const between = [...runs.between(start, end)].flatMap(([from, to]) =>
        Array.from({ length: to - from }, (_, at) => from + at),
      )
      assert.deepEqual(
        between,
        members.filter((cluster) => cluster >= start && cluster < end),
      )
    }
    for (const [rank, table] of tables.entries()) assert.equal(runs.tableAt(rank), table)
  })
  fc.assert(property, { numRuns: 500 })
})
