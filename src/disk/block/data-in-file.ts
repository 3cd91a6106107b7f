import type { BlockSource } from './block-source.ts'

/** Bytes that are asked for at once, whatever is wanted: a hole of 1 TiB is found in 65,536 steps, and a source that must read to tell reads so much. */
const WINDOW_BYTES = 16 * 2 ** 20

/** Tells where a file has data: who walks its tables need not read those that it has none for. Keeps the last run that it was told of. */
export class DataFinder {
  readonly #file: BlockSource
  #last = { from: 0, to: 0, isData: false }

  constructor(file: BlockSource) {
    this.#file = file
  }

  /** Whether there may be a byte other than zero in `[offset, offset + length)`. */
  async hasData(offset: number, length: number): Promise<boolean> {
    const end = offset + length
    for (let at = offset; at < end; at = this.#last.to) {
      if (at < this.#last.from || at >= this.#last.to) await this.#look(at, end - at)
      if (this.#last.isData) return true
    }
    return false
  }

  async #look(offset: number, length: number): Promise<void> {
    const window = Math.min(this.#file.size - offset, Math.max(length, WINDOW_BYTES))
    for await (const run of this.#file.extents(offset, window)) {
      this.#last = { from: run.offset, to: run.offset + run.length, isData: run.kind === 'data' }
      return
    }
  }
}

export interface TablePart {
  /** Whole entries. */
  readonly bytes: Uint8Array
  /** The index of the first of them. */
  readonly first: number
}

/**
 * A table from its beginning, without what the file has no data for, where all entries are zero.
 * @param bytes of the table: whole entries, all of them inside the file
 * @param partBytes of a part, at most: a multiple of `entryBytes`
 */
export async function* tableParts(
  file: BlockSource,
  { offset, bytes, entryBytes, partBytes }: { offset: number; bytes: number; entryBytes: number; partBytes: number },
): AsyncGenerator<TablePart> {
  if (bytes === 0) return
  let reached = 0
  for await (const run of file.extents(offset, bytes)) {
    if (run.kind !== 'data') continue
    /** Each entry once: a hole may begin and end inside one. */
    const start = run.offset - offset
    const from = Math.max(reached, start - (start % entryBytes))
    const to = Math.ceil((start + run.length) / entryBytes) * entryBytes
    for (let at = from; at < to; at += partBytes) {
      yield { bytes: await file.read(offset + at, Math.min(partBytes, to - at)), first: at / entryBytes }
    }
    reached = Math.max(reached, to)
  }
}
