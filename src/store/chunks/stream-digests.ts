import type { StreamDigest } from './chunk-store.ts'
import type { WorkerPool } from './workers/worker-pool.ts'

/** Digests of one whole stream, computed on worker threads from the slots that its bytes pass through, in order. */
export class StreamDigests {
  readonly #workers: WorkerPool
  readonly #streams: readonly { readonly algorithm: StreamDigest; readonly stream: number }[]

  constructor(workers: WorkerPool, algorithms: readonly StreamDigest[]) {
    this.#workers = workers
    this.#streams = [...new Set(algorithms)].map((algorithm) => ({ algorithm, stream: workers.openStream() }))
  }

  /** Calls must follow the order of the stream. The slot is in use until it resolves. */
  async update(slot: number, bytes: number): Promise<void> {
    await Promise.all(
      this.#streams.map(({ algorithm, stream }) => this.#workers.runInStream({ kind: 'digest', stream, algorithm, slot, bytes })),
    )
  }

  /**
   * @param empty a slot that no other job uses: a stream of no bytes still has a digest
   * @returns lower-case hex by algorithm
   */
  async finish(empty: number): Promise<Partial<Record<StreamDigest, string>>> {
    await this.update(empty, 0)
    const digests: Partial<Record<StreamDigest, string>> = {}
    for (const { algorithm, stream } of this.#streams)
      digests[algorithm] = await this.#workers.runInStream({ kind: 'digest-end', stream })
    return digests
  }

  /** Forgets a stream that ended early. */
  abandon(): void {
    for (const { stream } of this.#streams) void this.#workers.runInStream({ kind: 'digest-end', stream }).catch(() => undefined)
  }
}
