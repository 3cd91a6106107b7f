import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'

/** Chunks in shared memory: to hash, or, where `digests` are given (32 bytes each), to compress into frames. */
export interface ChunkJob {
  readonly memory: SharedArrayBuffer
  readonly chunks: readonly (readonly [offset: number, length: number])[]
  readonly digests?: Uint8Array
}
export interface ChunkJobAnswer {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly failure?: string
}

/** More threads than this read slower than they hash. */
const MAX_THREADS = 8

interface Waiting {
  readonly job: ChunkJob
  readonly resolve: (bytes: Uint8Array) => void
  readonly reject: (error: Error) => void
}

/** Threads that hash and compress, one job each at a time. */
export class ChunkWorkers {
  readonly #idle: Worker[] = []
  readonly #all: Worker[] = []
  readonly #queue: Waiting[] = []
  readonly #running = new Map<Worker, Waiting>()

  constructor(threads = Math.min(MAX_THREADS, availableParallelism())) {
    for (let index = 0; index < threads; index += 1) {
      const worker = new Worker(new URL('./chunk-worker.ts', import.meta.url))
      worker.on('message', (answer: ChunkJobAnswer) => this.#settle(worker, answer))
      worker.on('error', (error) => this.#fail(worker, error as Error))
      this.#all.push(worker)
      this.#idle.push(worker)
    }
  }

  /** @returns for each chunk 1 byte (1 zeros, 2 data) and its digest (32 bytes, meaningless for zeros) */
  hash(memory: SharedArrayBuffer, chunks: ChunkJob['chunks']): Promise<Uint8Array> {
    return this.#run({ memory, chunks })
  }

  /** @returns frames, ready to be sent */
  compress(memory: SharedArrayBuffer, chunks: ChunkJob['chunks'], digests: Uint8Array): Promise<Uint8Array> {
    return this.#run({ memory, chunks, digests })
  }

  async close(): Promise<void> {
    await Promise.all(this.#all.map((worker) => worker.terminate()))
  }

  #run(job: ChunkJob): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, resolve, reject })
      this.#next()
    })
  }

  #next(): void {
    const worker = this.#idle.pop()
    if (!worker) return
    const waiting = this.#queue.shift()
    if (!waiting) {
      this.#idle.push(worker)
      return
    }
    this.#running.set(worker, waiting)
    worker.postMessage(waiting.job)
  }

  #settle(worker: Worker, { bytes, failure }: ChunkJobAnswer): void {
    const waiting = this.#running.get(worker)
    this.#running.delete(worker)
    this.#idle.push(worker)
    if (failure === undefined) waiting?.resolve(bytes)
    else waiting?.reject(new Error(failure))
    this.#next()
  }

  #fail(worker: Worker, error: Error): void {
    this.#running.get(worker)?.reject(error)
    this.#running.delete(worker)
  }
}
