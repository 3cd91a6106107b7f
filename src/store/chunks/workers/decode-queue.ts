import type { StoredChunk } from './jobs.ts'
import type { WorkerPool } from './worker-pool.ts'

/** Of one job: eight lanes of SHA-256 twice over, and a millisecond or two of work, which a reader in a hurry waits behind. */
const CHUNKS_OF_A_JOB = 8

/** What was read from a pack, and the chunks in it. */
export interface StoredRun {
  /** Alone in its buffer, which is given away. */
  readonly input: Uint8Array
  readonly chunks: readonly Omit<StoredChunk, 'input' | 'to'>[]
}

/** Whether somebody waits; may become so while the chunks are on their way. */
export interface Haste {
  isUrgent: boolean
}

interface Waiting {
  readonly run: StoredRun
  readonly haste: Haste
  resolve(chunks: readonly (Uint8Array | undefined)[]): void
  reject(error: unknown): void
}

/**
 * Has chunks unpacked and verified by the workers. What comes while all of them are busy waits, and goes to the next that is free in
 * one job: SHA-256 of several chunks side by side costs a third less, and so do the messages. Who waits for chunks goes before who
 * reads ahead.
 */
export class DecodeQueue {
  readonly #workers: WorkerPool
  #waiting: Waiting[] = []
  #jobs = 0

  constructor(workers: WorkerPool) {
    this.#workers = workers
  }

  /** @returns the plain bytes of each chunk; undefined for one that does not match its digest */
  decode(run: StoredRun, haste: Haste): Promise<readonly (Uint8Array | undefined)[]> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ run, haste, resolve, reject })
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
    const chunksOf = (all: readonly Waiting[]) => all.reduce((sum, { run }) => sum + run.chunks.length, 0)
    const share = Math.min(CHUNKS_OF_A_JOB, Math.ceil(chunksOf(this.#waiting) / (this.#workers.count - this.#jobs)))
    const order = [
      ...this.#waiting.filter(({ haste }) => haste.isUrgent),
      ...this.#waiting.filter(({ haste }) => !haste.isUrgent),
    ]
    let count = 0
    for (let chunks = 0; chunks < share && count < order.length; count += 1) chunks += order[count]!.run.chunks.length
    this.#waiting = order.slice(count)
    return order.slice(0, count)
  }

  async #run(taken: readonly Waiting[]): Promise<void> {
    const inputs = taken.map(({ run }) => run.input)
    const chunks = taken.flatMap(({ run }, input) => run.chunks.map((chunk) => ({ ...chunk, input, to: 0 })))
    try {
      const job = { kind: 'decode', inputs, chunks } as const
      const transfer = inputs.map(({ buffer }) => buffer as ArrayBuffer)
      const { outputs, damaged } = await this.#workers.run(job, transfer)
      const bad = new Set(damaged)
      let at = 0
      for (const { run, resolve } of taken) {
        const from = at
        at += run.chunks.length
        resolve(run.chunks.map((_, index) => (bad.has(from + index) ? undefined : outputs[from + index])))
      }
    } catch (error) {
      for (const { reject } of taken) reject(error)
    }
  }
}
