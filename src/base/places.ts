/** Somebody who waits for a place. */
interface Waiting {
  readonly owner: string
  readonly begin: () => void
}

/** So many may be at work at once, and so many of one owner. */
export interface PlaceLimits {
  readonly places: number
  /** At most `places`. What is left of them is for others, also while there are none. */
  readonly share: number
}

/**
 * Places for work that would be too much for a machine if all of it ran at once. A place that becomes free goes to the owner who has
 * the fewest, and among those who have as many to who has waited longest: so nobody waits for all that another one has asked for.
 */
export class Places {
  readonly #limits: PlaceLimits
  readonly #waiting = new Set<Waiting>()
  readonly #taken = new Map<string, number>()

  constructor(limits: PlaceLimits) {
    this.#limits = limits
  }

  /**
   * @param signals where one of them aborts, the queue is left at once, without a place
   * @returns gives the place back, once; null: there is none
   */
  async take(owner: string, signals: readonly AbortSignal[] = []): Promise<(() => void) | null> {
    const given = AbortSignal.any([...signals])
    if (given.aborted) return null
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const waiting: Waiting = { owner, begin: () => resolve(true) }
    const leave = () => {
      this.#waiting.delete(waiting)
      resolve(false)
    }
    this.#waiting.add(waiting)
    given.addEventListener('abort', leave, { once: true })
    this.#fill()
    const hasBegun = await promise
    given.removeEventListener('abort', leave)
    return hasBegun ? () => this.#giveBack(owner) : null
  }

  #fill(): void {
    for (let next = this.#next(); next; next = this.#next()) {
      this.#waiting.delete(next)
      this.#taken.set(next.owner, this.#takenBy(next.owner) + 1)
      next.begin()
    }
  }

  #next(): Waiting | undefined {
    const taken = [...this.#taken.values()].reduce((sum, count) => sum + count, 0)
    if (taken >= this.#limits.places) return undefined
    let first: Waiting | undefined
    for (const each of this.#waiting) {
      const count = this.#takenBy(each.owner)
      if (count < this.#limits.share && (!first || count < this.#takenBy(first.owner))) first = each
    }
    return first
  }

  #giveBack(owner: string): void {
    const left = this.#takenBy(owner) - 1
    if (left > 0) this.#taken.set(owner, left)
    else this.#taken.delete(owner)
    this.#fill()
  }

  #takenBy(owner: string): number {
    return this.#taken.get(owner) ?? 0
  }
}
