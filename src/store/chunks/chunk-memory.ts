import { ChunkCache } from '../content/chunk-cache.ts'

/**
 * The memory of chunks that were read: places of one chunk each, which the worker threads fill, so that nothing is allocated or
 * handed over for a chunk, and no more is ever used than was planned. A place is free, being filled, or in the cache. What is in the
 * cache may be driven out at any turn of the event loop: who finds a chunk copies what it wants of it at once.
 */
export class ChunkMemory {
  readonly memory: SharedArrayBuffer
  readonly #chunkBytes: number
  readonly #cache: ChunkCache
  readonly #free: number[]
  readonly #waiting: { readonly count: number; readonly take: (places: number[]) => void }[] = []

  /** @param count at least of what is ever taken by one call */
  constructor(count: number, chunkBytes: number) {
    this.memory = new SharedArrayBuffer(count * chunkBytes) // costs nothing until it is used
    this.#chunkBytes = chunkBytes
    this.#cache = new ChunkCache(count * chunkBytes, (bytes) => this.#free.push(bytes.byteOffset / chunkBytes))
    this.#free = Array.from({ length: count }, (_, index) => count - 1 - index)
  }

  /** To be read before the next `await`. */
  find(key: string): Uint8Array | undefined {
    return this.#cache.get(key)
  }

  /** Places to be filled; waits, in turn, while others are filling too many. */
  take(count: number): Promise<number[]> {
    return new Promise((take) => {
      this.#waiting.push({ count, take })
      this.#serve()
    })
  }

  /** Where a place begins in `memory`. */
  offsetOf(place: number): number {
    return place * this.#chunkBytes
  }

  /** A place that was filled. @returns the chunk, to be read before the next `await` */
  keep(key: string, place: number, bytes: number): Uint8Array {
    const chunk = new Uint8Array(this.memory, place * this.#chunkBytes, bytes)
    this.#cache.set(key, chunk)
    this.#serve()
    return chunk
  }

  /** Places that were not filled. */
  giveBack(places: readonly number[]): void {
    this.#free.push(...places)
    this.#serve()
  }

  #serve(): void {
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      while (this.#free.length < next.count && this.#cache.drop());
      if (this.#free.length < next.count) return
      this.#waiting.shift()
      next.take(this.#free.splice(-next.count))
    }
  }
}
