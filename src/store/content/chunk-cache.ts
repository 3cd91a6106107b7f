/**
 * Chunks by digest, for all readers together, up to a number of bytes. A chunk that is wanted once more after it had to leave has
 * shown that it will be wanted again, and stays before those that came but once: so a copy of a whole image does not drive out
 * what every machine boots from.
 *
 * @see Johnson and Shasha, "2Q: A Low Overhead High Performance Buffer Management Replacement Algorithm", VLDB 1994, the full
 *   version: A1in, A1out and Am are `#once`, `#left` and `#proven` here, with its proposed sizes
 */
export class ChunkCache {
  readonly #maxBytes: number
  readonly #onDrop: (bytes: Uint8Array) => void
  /** In the order of coming. */
  readonly #once = new Map<string, Uint8Array>()
  /** In the order of use. */
  readonly #proven = new Map<string, Uint8Array>()
  /** Of those that left `#once`: their bytes only in number. */
  readonly #left = new Map<string, number>()
  #onceBytes = 0
  #provenBytes = 0
  #leftBytes = 0

  /** @param onDrop told of each chunk that leaves, or was not taken */
  constructor(maxBytes: number, onDrop: (bytes: Uint8Array) => void = () => undefined) {
    this.#maxBytes = maxBytes
    this.#onDrop = onDrop
  }

  /** The caller must not change it. */
  get(key: string): Uint8Array | undefined {
    const proven = this.#proven.get(key)
    if (!proven) return this.#once.get(key)
    this.#proven.delete(key)
    this.#proven.set(key, proven) // youngest
    return proven
  }

  set(key: string, bytes: Uint8Array): void {
    if (this.#once.has(key) || this.#proven.has(key) || bytes.length > this.#maxBytes) {
      this.#onDrop(bytes)
      return
    }
    const leftBytes = this.#left.get(key)
    if (leftBytes === undefined) {
      this.#once.set(key, bytes)
      this.#onceBytes += bytes.length
    } else {
      this.#left.delete(key)
      this.#leftBytes -= leftBytes
      this.#proven.set(key, bytes)
      this.#provenBytes += bytes.length
    }
    while (this.bytes > this.#maxBytes) this.drop()
  }

  get bytes(): number {
    return this.#onceBytes + this.#provenBytes
  }

  /** Lets go of the chunk that is the least likely to be wanted. @returns whether there was one */
  drop(): boolean {
    if (this.bytes === 0) return false
    const isOnce = this.#onceBytes > this.#maxBytes / 4 || this.#proven.size === 0
    const [key, bytes] = (isOnce ? this.#once : this.#proven).entries().next().value!
    if (isOnce) {
      this.#once.delete(key)
      this.#onceBytes -= bytes.length
      this.#remember(key, bytes.length)
    } else {
      this.#proven.delete(key)
      this.#provenBytes -= bytes.length
    }
    this.#onDrop(bytes)
    return true
  }

  #remember(key: string, bytes: number): void {
    this.#left.set(key, bytes)
    this.#leftBytes += bytes
    for (const [oldest, length] of this.#left) {
      if (this.#leftBytes <= this.#maxBytes / 2) return
      this.#left.delete(oldest)
      this.#leftBytes -= length
    }
  }
}
