import type { BlockSource, Extent } from '../../disk/block/block-source.ts'

interface Held {
  readonly source: BlockSource
  readers: number
  /** Called when nobody reads it any more. */
  onLeft: (() => void) | undefined
}

/** A source in whose place another that reads the same may come while it is being read. */
export class ExchangeableSource implements BlockSource {
  readonly size: number
  #now: Held

  constructor(source: BlockSource) {
    this.size = source.size
    this.#now = { source, readers: 0, onLeft: undefined }
  }

  async read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    const held = enter(this.#now)
    try {
      return await held.source.read(offset, length, into)
    } finally {
      leave(held)
    }
  }

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    const held = enter(this.#now)
    try {
      yield* held.source.extents(offset, length)
    } finally {
      leave(held)
    }
  }

  /**
   * From now on the other one is read.
   * @returns the one before, when nobody reads it any more: it is the caller's to close
   */
  async exchange(source: BlockSource): Promise<BlockSource> {
    if (source.size !== this.size) throw new Error(`a source of ${source.size} bytes cannot stand for one of ${this.size}`)
    const before = this.#now
    this.#now = { source, readers: 0, onLeft: undefined }
    if (before.readers > 0) {
      await new Promise<void>((left) => {
        before.onLeft = left
      })
    }
    return before.source
  }

  close(): Promise<void> {
    return this.#now.source.close()
  }
}

function enter(held: Held): Held {
  held.readers += 1
  return held
}

function leave(held: Held): void {
  held.readers -= 1
  if (held.readers === 0) held.onLeft?.()
}
