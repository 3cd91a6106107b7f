/**
 * The set of clusters of a disk that hold data, as runs, with the four questions that a table's layout asks: the rank of a
 * cluster among them, the cluster at a rank, and both again for the groups of clusters that share an L2 table.
 * Each answer costs a binary search.
 *
 * A disk in very many pieces is planned more coarsely: the grain doubles, and runs grow outward to it, until no more than
 * `maxRuns` are left. The result depends on the set of clusters alone, not on how it was told.
 */
export class ClusterRuns {
  readonly #clusters: number
  readonly #maxRuns: number
  readonly #tableClusters: number
  #grain = 1
  #starts: number[] = []
  #ends: number[] = []
  /** Clusters in the runs before this one. */
  #ranks: Float64Array = new Float64Array(0)
  /** Runs of L1 indices that have a table; the same scheme one level up. */
  #tableStarts: number[] = []
  #tableEnds: number[] = []
  #tableRanks: Float64Array = new Float64Array(0)

  /** @param tableClusters  clusters that one L2 table maps */
  constructor(clusters: number, maxRuns: number, tableClusters: number) {
    this.#clusters = clusters
    this.#maxRuns = maxRuns
    this.#tableClusters = tableClusters
  }

  /** Adds `[start, end)`. Calls must ascend; they may touch or share a cluster. */
  add(start: number, end: number): void {
    this.#append(start, end)
    while (this.#starts.length > this.#maxRuns) {
      this.#grain *= 2
      const [starts, ends] = [this.#starts, this.#ends]
      this.#starts = []
      this.#ends = []
      for (const [index, from] of starts.entries()) this.#append(from, ends[index]!)
    }
  }

  #append(start: number, end: number): void {
    const from = Math.floor(start / this.#grain) * this.#grain
    const to = Math.min(this.#clusters, Math.ceil(end / this.#grain) * this.#grain)
    const last = this.#starts.length - 1
    if (last >= 0 && from <= this.#ends[last]!) this.#ends[last] = Math.max(this.#ends[last]!, to)
    else {
      this.#starts.push(from)
      this.#ends.push(to)
    }
  }

  /** Ends the adding. Every question needs it. */
  seal(): void {
    for (const [index, start] of this.#starts.entries()) {
      const from = Math.floor(start / this.#tableClusters)
      const to = Math.ceil(this.#ends[index]! / this.#tableClusters)
      const last = this.#tableStarts.length - 1
      if (last >= 0 && from <= this.#tableEnds[last]!) this.#tableEnds[last] = to
      else {
        this.#tableStarts.push(from)
        this.#tableEnds.push(to)
      }
    }
    this.#ranks = ranksOf(this.#starts, this.#ends)
    this.#tableRanks = ranksOf(this.#tableStarts, this.#tableEnds)
  }

  /** How many clusters, and how many L2 tables they need. */
  get clusters(): number {
    return this.#ranks[this.#starts.length] ?? 0
  }
  get tables(): number {
    return this.#tableRanks[this.#tableStarts.length] ?? 0
  }

  /** How many members come before `cluster`, or −1 when it is no member. */
  rank(cluster: number): number {
    return rankIn(this.#starts, this.#ends, this.#ranks, cluster)
  }
  tableRank(l1Index: number): number {
    return rankIn(this.#tableStarts, this.#tableEnds, this.#tableRanks, l1Index)
  }

  /** The member with this rank, and where its run ends. @param rank below `clusters` */
  clusterAt(rank: number): { readonly cluster: number; readonly runEnd: number } {
    const run = lastNotAbove(this.#ranks, this.#starts.length, rank)
    return { cluster: this.#starts[run]! + rank - this.#ranks[run]!, runEnd: this.#ends[run]! }
  }
  /** The runs of members from `start` up to `end`, clipped: `[start, end)` each, ascending. */
  *between(start: number, end: number): Generator<readonly [start: number, end: number]> {
    let run = Math.max(0, lastNotAbove(this.#starts, this.#starts.length, start))
    for (; run < this.#starts.length && this.#starts[run]! < end; run += 1) {
      const [from, to] = [Math.max(start, this.#starts[run]!), Math.min(end, this.#ends[run]!)]
      if (from < to) yield [from, to]
    }
  }

  /** The L1 index of the table with this rank. @param rank below `tables` */
  tableAt(rank: number): number {
    const run = lastNotAbove(this.#tableRanks, this.#tableStarts.length, rank)
    return this.#tableStarts[run]! + rank - this.#tableRanks[run]!
  }
}

function ranksOf(starts: readonly number[], ends: readonly number[]): Float64Array {
  const ranks = new Float64Array(starts.length + 1)
  for (const [index, start] of starts.entries()) ranks[index + 1] = ranks[index]! + ends[index]! - start
  return ranks
}

function rankIn(starts: readonly number[], ends: readonly number[], ranks: Float64Array, member: number): number {
  const run = lastNotAbove(starts, starts.length, member)
  if (run < 0 || member >= ends[run]!) return -1
  return ranks[run]! + member - starts[run]!
}

/** The last of the first `count` values that is not above `wanted`, or −1. The values ascend. */
function lastNotAbove(values: ArrayLike<number>, count: number, wanted: number): number {
  let [low, high] = [0, count]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (values[middle]! <= wanted) low = middle + 1
    else high = middle
  }
  return low - 1
}
