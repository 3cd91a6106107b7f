/**
 * Collects what an ingest has to wait for before it may answer. Tells of a failure as soon as somebody asks, so that an ingest
 * ends early instead of filling a store that does not take its bytes; a failure is told once.
 */
export class Durability {
  readonly #waiting = new Set<Promise<void>>()
  #failure: { readonly error: unknown } | undefined

  add(promises: readonly Promise<void>[]): void {
    for (const promise of promises) {
      if (this.#waiting.has(promise)) continue
      this.#waiting.add(promise)
      promise
        .catch((error) => {
          this.#failure ??= { error }
        })
        .finally(() => this.#waiting.delete(promise))
    }
  }

  /** Throws the first failure since it was last asked. */
  assert(): void {
    if (!this.#failure) return
    const { error } = this.#failure
    this.#failure = undefined
    throw error
  }

  /** Resolves when all that was added is durable. */
  async all(): Promise<void> {
    const results = await Promise.allSettled(this.#waiting)
    this.assert()
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }
}
