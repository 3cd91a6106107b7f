/** A set of chunk ids: a bit for each, 2 MiB for a TiB of chunks. Grows as it must. */
export class Marks {
  #bits = new Uint8Array(1024)
  #count = 0

  get count(): number {
    return this.#count
  }

  /** @returns whether it is new */
  add(id: number): boolean {
    const at = Math.floor(id / 8)
    if (at >= this.#bits.length) {
      const longer = new Uint8Array(Math.max(at + 1, this.#bits.length * 2))
      longer.set(this.#bits)
      this.#bits = longer
    }
    const bit = 1 << (id % 8)
    if ((this.#bits[at]! & bit) !== 0) return false
    this.#bits[at]! |= bit
    this.#count += 1
    return true
  }

  has(id: number): boolean {
    return ((this.#bits[Math.floor(id / 8)] ?? 0) & (1 << (id % 8))) !== 0
  }
}
