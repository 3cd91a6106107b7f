/** Which units of a file are in use: one bit each, of which memory is used where some are set. */
export class UsedUnits {
  readonly #units: number
  readonly #bits: Uint8Array

  /** @param units of the file: 2^33 at most, which are 1 GiB of bits */
  constructor(units: number) {
    this.#units = units
    this.#bits = new Uint8Array(Math.ceil(units / 8))
  }

  /** Takes `count` units from `first` on, as far as the file has them. @returns the first of them that was taken, or −1 */
  take(first: number, count: number): number {
    const end = Math.min(first + count, this.#units)
    for (let unit = first; unit < end; unit += 1) {
      const at = Math.floor(unit / 8)
      const bit = 1 << (unit % 8)
      if (this.#bits[at]! & bit) return unit
      this.#bits[at]! |= bit
    }
    return -1
  }
}
