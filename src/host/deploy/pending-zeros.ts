import type { Stretch } from './patched-disk.ts'

/** Ranges that are to become zeros, neighbours as one: what is found piece by piece is asked of the medium at once. */
export class PendingZeros {
  /** By their beginnings, and by their ends: no two of them touch. */
  readonly #byOffset = new Map<number, Stretch>()
  readonly #byEnd = new Map<number, Stretch>()

  #bytes = 0

  get count(): number {
    return this.#byOffset.size
  }
  /** Of all of them. */
  get bytes(): number {
    return this.#bytes
  }

  /** @param added overlaps none of those that are there */
  add(added: Stretch): void {
    const before = this.#byEnd.get(added.offset)
    const after = this.#byOffset.get(added.offset + added.length)
    for (const one of [before, after]) if (one) this.#remove(one)
    const offset = before?.offset ?? added.offset
    const end = after ? after.offset + after.length : added.offset + added.length
    const whole = { offset, length: end - offset }
    this.#byOffset.set(offset, whole)
    this.#byEnd.set(end, whole)
    this.#bytes += added.length
  }

  overlaps({ offset, length }: Stretch): boolean {
    for (const one of this.#byOffset.values()) {
      if (one.offset < offset + length && offset < one.offset + one.length) return true
    }
    return false
  }

  /** In order; none of them is pending any more. */
  take(): readonly Stretch[] {
    const all = [...this.#byOffset.values()].sort((a, b) => a.offset - b.offset)
    this.#byOffset.clear()
    this.#byEnd.clear()
    this.#bytes = 0
    return all
  }

  #remove({ offset, length }: Stretch): void {
    this.#byOffset.delete(offset)
    this.#byEnd.delete(offset + length)
  }
}
