/** What an entry costs beside its bytes: a million of four bytes each would take hundreds of MiB. */
const MIN_CHARGED_BYTES = 1024

/**
 * Keeps recently used buffers up to a number of bytes. Those who ask for one that is on its way wait for the same load.
 * A load that fails is forgotten, so that the next asker tries again.
 */
export class ByteLru {
  readonly #maxBytes: number
  /** In order of use, the oldest first: a Map keeps the order of insertion. */
  readonly #entries = new Map<number, { readonly value: Promise<Uint8Array>; bytes: number }>()
  #bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  get(key: number, load: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const known = this.#entries.get(key)
    if (known) {
      this.#entries.delete(key)
      this.#entries.set(key, known)
      return known.value
    }
    const entry = { value: load(), bytes: 0 }
    this.#entries.set(key, entry)
    entry.value.then(
      (buffer) => this.#loaded(key, entry, buffer.length),
      () => this.#forget(key, entry),
    )
    return entry.value
  }

  #loaded(key: number, entry: { bytes: number }, bytes: number): void {
    if (this.#entries.get(key) !== entry) return
    entry.bytes = Math.max(bytes, MIN_CHARGED_BYTES)
    this.#bytes += entry.bytes
    for (const [oldest, { bytes: freed }] of this.#entries) {
      if (this.#bytes <= this.#maxBytes) break
      if (freed === 0) continue // still loading: nothing to free yet
      this.#entries.delete(oldest)
      this.#bytes -= freed
    }
  }

  #forget(key: number, entry: object): void {
    if (this.#entries.get(key) === entry) this.#entries.delete(key)
  }
}
