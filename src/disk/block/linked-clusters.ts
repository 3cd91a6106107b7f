/** A stretch of a chain whose clusters follow one another on the volume. */
export interface ClusterRun {
  /** Which cluster of the chain the first is, from 0. */
  readonly index: number
  readonly cluster: number
  readonly count: number
}

/** What a table says of the clusters from `first` to `last`: a part of it that is at hand. */
export interface LinkWindow {
  readonly first: number
  readonly last: number
  /** What follows a cluster of the window; null: nothing does. @throws ServiceError `invalid-image` where it says neither */
  next(cluster: number): number | null
}

export interface LinkTable {
  /** Those that hold files are `firstCluster` and the `clusters − 1` after it. */
  readonly firstCluster: number
  readonly clusters: number
  /** The part around one of those. */
  window(cluster: number): Promise<LinkWindow>
  /** The error for a chain that is not one. */
  bad(problem: string): Error
}

/** Of runs that are remembered of one chain. One in more pieces is remembered in part, and walked again where it is not. */
const MAX_RUNS = 16_384

interface MutableRun {
  index: number
  cluster: number
  count: number
}

/**
 * A chain of clusters, each of which a table links to the next: as FAT and exFAT keep files. It is walked as far as it is asked for, once;
 * one that returns to where it was is an error as soon as it has, and none is walked further than there are clusters.
 * Memory is bounded, however many pieces it is in.
 */
export class LinkedClusters {
  readonly #table: LinkTable
  /** Ascending; gaps only where runs were forgotten. The last one is where the walk is. */
  #runs: MutableRun[]
  #hasEnded = false
  /** Brent: a cluster that was passed, and how many steps until the next is taken. */
  #passed: number
  #steps = 0
  #power = 1
  #walk: Promise<void> = Promise.resolve()

  /** @throws where `first` is no cluster */
  constructor(table: LinkTable, first: number) {
    assertCluster(table, first)
    this.#table = table
    this.#runs = [{ index: 0, cluster: first, count: 1 }]
    this.#passed = first
  }

  /**
   * The run in which the cluster at `index` of the chain is, from that cluster on.
   * @param wanted  how far the caller goes: clusters from `index` on
   * @returns undefined where the chain ends before it
   */
  async runAt(index: number, wanted: number): Promise<ClusterRun | undefined> {
    const goal = Math.min(index + wanted, this.#table.clusters + 1)
    const walk = this.#walk.then(() => this.#advance(goal))
    this.#walk = walk.catch(() => {}) // whoever comes next meets the same error for itself
    await walk
    const at = this.#lastNotAbove(index)
    const run = this.#runs[at]!
    if (index < run.index + run.count) return from(run, index)
    return at === this.#runs.length - 1 ? undefined : this.#forgotten(run, index)
  }

  async #advance(goal: number): Promise<void> {
    let run = this.#runs.at(-1)!
    while (!this.#hasEnded && run.index + run.count < goal) {
      const window = await this.#table.window(run.cluster + run.count - 1)
      while (run.index + run.count < goal) {
        const here = run.cluster + run.count - 1
        if (here < window.first || here > window.last) break
        const next = window.next(here)
        if (next === null) {
          this.#hasEnded = true
          return
        }
        assertCluster(this.#table, next)
        this.#assertNoCircle(next, run.index + run.count)
        if (next === here + 1) run.count += 1
        else {
          run = { index: run.index + run.count, cluster: next, count: 1 }
          if (this.#runs.length >= MAX_RUNS) this.#runs = this.#runs.filter((_, at) => at % 2 === 0)
          this.#runs.push(run)
        }
      }
    }
  }

  #assertNoCircle(next: number, length: number): void {
    if (next === this.#passed || length >= this.#table.clusters) {
      throw this.#table.bad(`it returns to cluster ${next} after ${length} clusters`)
    }
    this.#steps += 1
    if (this.#steps < this.#power) return
    this.#passed = next
    this.#power *= 2
    this.#steps = 0
  }

  /** One that was walked, but is not remembered. */
  async #forgotten(known: MutableRun, wanted: number): Promise<ClusterRun> {
    let cluster = known.cluster + known.count - 1
    let index = known.index + known.count - 1
    for (;;) {
      const window = await this.#table.window(cluster)
      while (cluster >= window.first && cluster <= window.last) {
        if (index === wanted) return { index, cluster, count: 1 }
        const next = window.next(cluster)
        if (next === null) throw this.#table.bad('it changes')
        assertCluster(this.#table, next)
        cluster = next
        index += 1
      }
    }
  }

  #lastNotAbove(index: number): number {
    let [low, high] = [0, this.#runs.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#runs[middle]!.index <= index) low = middle + 1
      else high = middle
    }
    return low - 1
  }
}

const from = ({ index, cluster, count }: ClusterRun, start: number): ClusterRun => ({
  index: start,
  cluster: cluster + start - index,
  count: count - (start - index),
})

function assertCluster({ firstCluster, clusters, bad }: LinkTable, cluster: number): void {
  if (cluster < firstCluster || cluster >= firstCluster + clusters) {
    throw bad(`it has cluster ${cluster}, and those of files are ${firstCluster} to ${firstCluster + clusters - 1}`)
  }
}
