/** Changes to the same blocks take turns, in the order of coming; those to others go on side by side. */
export class BlockTurns {
  /** The last change that was let in line, by block. */
  readonly #last = new Map<number, Promise<void>>()

  /** Waits until every earlier change to a block of `[first, end)` is over. @returns ends the turn */
  async take(first: number, end: number): Promise<() => void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const earlier = new Set<Promise<void>>()
    for (let block = first; block < end; block += 1) {
      const before = this.#last.get(block)
      if (before) earlier.add(before)
      this.#last.set(block, promise)
    }
    // each waits for those that came before it and for no other, so no two wait for each other
    if (earlier.size > 0) await Promise.all(earlier)
    return () => {
      for (let block = first; block < end; block += 1) if (this.#last.get(block) === promise) this.#last.delete(block)
      resolve()
    }
  }
}
