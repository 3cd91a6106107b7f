/** What a layer of a disk knows of a block: nothing, so that the layer below speaks; its bytes; or that it is zeros. */
export const BLOCK = { absent: 0, data: 1, zero: 2 } as const
export type BlockState = (typeof BLOCK)[keyof typeof BLOCK]

/** A piece of the map as it is stored: 16,384 blocks. */
export const MAP_PAGE_BYTES = 4096
export const BLOCKS_A_BYTE = 4 // two bits each, the first block in the lowest

/**
 * The states of all blocks of a disk, two bits each: 4 MiB of memory for a disk of 1 TiB in blocks of 64 KiB, of which the system
 * gives only what is touched. Keeps in mind which pages changed.
 */
export class BlockMap {
  readonly blocks: number
  readonly #states: Uint8Array
  readonly #changed = new Set<number>()

  /** @param states of an earlier map, whole pages; it becomes the map's own */
  constructor(blocks: number, states = new Uint8Array(mapBytes(blocks))) {
    if (states.length !== mapBytes(blocks)) throw new Error(`a map of ${blocks} blocks has not ${states.length} bytes`)
    this.blocks = blocks
    this.#states = states
  }

  get(block: number): BlockState {
    return ((this.#states[block >>> 2]! >>> ((block & 3) * 2)) & 3) as BlockState
  }

  /** Of the blocks `[first, end)`. @returns whether any was in another state */
  set(first: number, end: number, state: BlockState): boolean {
    let hasChanged = false
    for (let block = first; block < end; block += 1) {
      const [at, shift] = [block >>> 2, (block & 3) * 2]
      const before = this.#states[at]!
      const after = (before & ~(3 << shift)) | (state << shift)
      if (after === before) continue
      this.#states[at] = after
      this.#changed.add(Math.floor(at / MAP_PAGE_BYTES))
      hasChanged = true
    }
    return hasChanged
  }

  /** Pages that hold the blocks `[first, end)`. */
  *pagesOf(first: number, end: number): Generator<number> {
    const last = Math.floor((end - 1) / BLOCKS_A_BYTE / MAP_PAGE_BYTES)
    for (let page = Math.floor(first / BLOCKS_A_BYTE / MAP_PAGE_BYTES); page <= last; page += 1) yield page
  }

  /** A copy of it. */
  page(page: number): Uint8Array {
    return this.#states.slice(page * MAP_PAGE_BYTES, (page + 1) * MAP_PAGE_BYTES)
  }

  /** As they are now; not to be changed. */
  get states(): Uint8Array {
    return this.#states
  }

  /** Says what those say; where that is something else, the page counts as changed. */
  takeOver(states: Uint8Array): void {
    for (let at = 0; at < this.#states.length; at += 1) {
      if (this.#states[at] === states[at]) continue
      this.#states[at] = states[at]!
      this.#changed.add(Math.floor(at / MAP_PAGE_BYTES))
    }
  }

  /** Where the run of blocks in the state of `block` ends, at most `end`. */
  runEnd(block: number, end: number): number {
    const state = this.get(block)
    let at = block + 1
    while (at < end && this.get(at) === state) at += 1
    return at
  }

  /** Copies of the pages that changed since the last call. */
  takeChanged(): readonly { readonly page: number; readonly bytes: Uint8Array }[] {
    const pages = [...this.#changed].sort((a, b) => a - b)
    this.#changed.clear()
    return pages.map((page) => ({ page, bytes: this.page(page) }))
  }
}

/** Whole pages. */
export const mapBytes = (blocks: number): number => Math.ceil(blocks / BLOCKS_A_BYTE / MAP_PAGE_BYTES) * MAP_PAGE_BYTES

/** Whether every state of a map that was read is one that there is. */
export const isBlockMap = (states: Uint8Array): boolean => states.every((four) => (four & (four >>> 1) & 0x55) === 0)
