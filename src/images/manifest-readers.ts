/**
 * Which manifests are being read right now. A deleted image's bytes go with the next collection; whoever is in the middle of a
 * download keeps them until it ends: the collector spares what is `held`.
 */
export class ManifestReaders {
  readonly #readers = new Map<string, number>()

  /** @returns ends the hold; calling it again does nothing */
  hold(manifest: string): () => void {
    this.#readers.set(manifest, (this.#readers.get(manifest) ?? 0) + 1)
    let holding = true
    return () => {
      if (!holding) return
      holding = false
      const left = (this.#readers.get(manifest) ?? 1) - 1
      if (left > 0) this.#readers.set(manifest, left)
      else this.#readers.delete(manifest)
    }
  }

  held(): IterableIterator<string> {
    return this.#readers.keys()
  }
}
