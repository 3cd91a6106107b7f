import { joinDigests } from '../../content/digests.ts'
import type { SlotChunk } from './jobs.ts'
import type { WorkerPool } from './worker-pool.ts'

/** Of one job: a millisecond or two of work, which a reader in a hurry waits behind. */
const CHUNKS_OF_A_JOB = 8

/** A chunk in the staging memory, and where it goes. */
export interface StagedChunk extends SlotChunk {
  readonly digest: Uint8Array
}

/** Whether somebody waits; may become so while the chunks are on their way. */
export interface Haste {
  isUrgent: boolean
}

interface Waiting {
  readonly chunks: readonly StagedChunk[]
  readonly haste: Haste
  resolve(damaged: number | undefined): void
  reject(error: unknown): void
}

/**
 * Has chunks unpacked and verified by the workers. What comes while all of them are busy waits, and goes to the next that is free in
 * one job: SHA-256 of several chunks side by side costs a third less, and so do the messages. Who waits for chunks goes before who
 * reads ahead.
 */
export class LoadQueue {
  readonly #workers: WorkerPool
  #waiting: Waiting[] = []
  #jobs = 0

  constructor(workers: WorkerPool) {
    this.#workers = workers
  }

  /** @returns the first of the chunks that does not match its digest; undefined: all of them do */
  load(chunks: readonly StagedChunk[], haste: Haste): Promise<number | undefined> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ chunks, haste, resolve, reject })
      this.#hand()
    })
  }

  #hand(): void {
    while (this.#jobs < this.#workers.count && this.#waiting.length > 0) {
      const taken = this.#take()
      this.#jobs += 1
      void this.#run(taken).finally(() => {
        this.#jobs -= 1
        this.#hand()
      })
    }
  }

  /** An equal share of what waits for each worker that is free, so that none of them idles while another has all of it. */
  #take(): Waiting[] {
    const waiting = this.#waiting.reduce((sum, { chunks }) => sum + chunks.length, 0)
    const share = Math.min(CHUNKS_OF_A_JOB, Math.ceil(waiting / (this.#workers.count - this.#jobs)))
    const order = [
      ...this.#waiting.filter(({ haste }) => haste.isUrgent),
      ...this.#waiting.filter(({ haste }) => !haste.isUrgent),
    ]
    let count = 0
    for (let chunks = 0; chunks < share && count < order.length; count += 1) chunks += order[count]!.chunks.length
    this.#waiting = order.slice(count)
    return order.slice(0, count)
  }

  async #run(taken: readonly Waiting[]): Promise<void> {
    const all = taken.flatMap(({ chunks }) => chunks)
    const chunks = all.map(({ digest: _, ...chunk }) => chunk)
    try {
      const damaged = await this.#workers.run({ kind: 'load', chunks, digests: joinDigests(all.map(({ digest }) => digest)) })
      let from = 0
      for (const { chunks, resolve } of taken) {
        const end = from + chunks.length
        const bad = damaged.find((place) => place >= from && place < end)
        resolve(bad === undefined ? undefined : bad - from)
        from = end
      }
    } catch (error) {
      for (const { reject } of taken) reject(error)
    }
  }
}
