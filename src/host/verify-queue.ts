import type { WorkerPool } from '../store/chunks/workers/worker-pool.ts'
import type { Haste } from './chunk-fetcher.ts'

/** Of one job: SHA-256 of four side by side costs a third less, and who is in a hurry waits a millisecond behind it. */
const CHUNKS_OF_A_JOB = 4

/** A chunk as it came or was kept, and what it must be. */
export interface StoredChunk {
  /** Alone in its buffer, which is given away. */
  readonly stored: Uint8Array
  readonly codec: number
  readonly plainBytes: number
  readonly digest: Uint8Array
}

interface Waiting {
  readonly chunk: StoredChunk
  readonly haste: Haste
  resolve(plain: Uint8Array | undefined): void
  reject(error: unknown): void
}

/** Has chunks unpacked and verified by threads: what comes while all are busy goes together, first what somebody waits for. */
export class VerifyQueue {
  readonly #workers: WorkerPool
  #waiting: Waiting[] = []
  #jobs = 0

  constructor(workers: WorkerPool) {
    this.#workers = workers
  }

  /** @returns the plain bytes; undefined where they do not match the digest */
  verify(chunk: StoredChunk, haste: Haste): Promise<Uint8Array | undefined> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ chunk, haste, resolve, reject })
      this.#hand()
    })
  }

  #hand(): void {
    while (this.#jobs < this.#workers.count && this.#waiting.length > 0) {
      const order = this.#waiting.toSorted((a, b) => Number(b.haste.isUrgent) - Number(a.haste.isUrgent))
      const share = Math.ceil(order.length / (this.#workers.count - this.#jobs))
      const taken = order.slice(0, Math.min(CHUNKS_OF_A_JOB, share))
      this.#waiting = order.slice(taken.length)
      this.#jobs += 1
      void this.#run(taken).finally(() => {
        this.#jobs -= 1
        this.#hand()
      })
    }
  }

  async #run(taken: readonly Waiting[]): Promise<void> {
    const inputs = taken.map(({ chunk }) => chunk.stored)
    let joinedBytes = 0
    const chunks = taken.map(({ chunk: { stored, codec, plainBytes, digest } }, input) => {
      joinedBytes += plainBytes
      return { input, at: 0, storedBytes: stored.length, plainBytes, codec, digest, to: joinedBytes - plainBytes }
    })
    try {
      const transfer = inputs.map(({ buffer }) => buffer as ArrayBuffer)
      const { joined, damaged } = await this.#workers.run({ kind: 'decode', inputs, chunks, joinedBytes }, transfer)
      for (const [index, { resolve }] of taken.entries()) {
        const { to, plainBytes } = chunks[index]!
        resolve(damaged.includes(index) ? undefined : joined.slice(to, to + plainBytes)) // each leaves the cache by itself
      }
    } catch (error) {
      for (const { reject } of taken) reject(error)
    }
  }
}
