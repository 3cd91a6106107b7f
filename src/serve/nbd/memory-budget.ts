/** Memory that all connections share: a number that is taken from, given back to, and waited for in the order of coming. */
export class MemoryBudget {
  readonly #maxBytes: number
  readonly #waiting = new Set<() => void>()
  #usedBytes = 0
  #isWaking = false
  #waitsAgain = false

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  get usedBytes(): number {
    return this.#usedBytes
  }
  /** Somebody could go on if others gave memory back. */
  get isWaitedFor(): boolean {
    return this.#waiting.size > 0
  }

  /** Whoever takes more than there is at all gets it when nobody else has any. Nobody overtakes those who wait. */
  take(bytes: number): boolean {
    if (this.#waiting.size > 0 && !this.#isWaking) return false
    if (this.#usedBytes > 0 && this.#usedBytes + bytes > this.#maxBytes) return false
    this.#usedBytes += bytes
    return true
  }

  give(bytes: number): void {
    this.#usedBytes -= bytes
    if (this.#isWaking) return
    // One after the other: who still finds too little stays the first, and those behind wait with it.
    for (const wake of this.#waiting) {
      if (this.#usedBytes >= this.#maxBytes) return
      this.#isWaking = true
      this.#waitsAgain = false
      wake()
      this.#isWaking = false
      if (this.#waitsAgain) return
      this.#waiting.delete(wake)
    }
  }

  wait(wake: () => void): void {
    this.#waiting.add(wake)
    this.#waitsAgain = true
  }
  forget(wake: () => void): void {
    this.#waiting.delete(wake)
  }
}
