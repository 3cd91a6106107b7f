import type { BlockSource } from '../../block/block-source.ts'
import { mappedDisk, type Segment } from '../../block/mapped-disk.ts'

/** What is written over a file. */
export interface Update {
  /** In the file, as `length`. */
  readonly offset: number
  readonly length: number
  /** `length` of them; absent: zeros. */
  readonly bytes?: Uint8Array
}

/** Writes to a file, kept in memory. The file may grow by them; what is new is zeros. */
export class Overlay {
  /** Ascending, apart. */
  readonly #updates: Update[] = []
  #size: number

  /** @param size at least, in bytes, of the file with everything written */
  constructor(size: number) {
    this.#size = size
  }

  /** The later of two that overlap is what is read. */
  write(update: Update): void {
    const { offset, length } = update
    const end = offset + length
    this.#size = Math.max(this.#size, end)
    if (length === 0) return
    const first = this.#firstEndingAfter(offset)
    let last = first
    while (last < this.#updates.length && this.#updates[last]!.offset < end) last += 1
    const kept: Update[] = []
    const [before, after] = [this.#updates[first], this.#updates[last - 1]]
    if (first < last && before!.offset < offset) kept.push(cut(before!, before!.offset, offset))
    kept.push(update)
    if (first < last && after!.offset + after!.length > end) kept.push(cut(after!, end, after!.offset + after!.length))
    this.#updates.splice(first, last - first, ...kept)
  }

  /** The file with everything written so far. Closing it closes `file`. */
  over(file: BlockSource): BlockSource {
    return mappedDisk(file, { size: this.#size, segments: (offset, length) => this.#segments(file.size, offset, length) })
  }

  *#segments(fileBytes: number, offset: number, length: number): Generator<Segment> {
    const end = offset + length
    let at = offset
    for (let index = this.#firstEndingAfter(offset); at < end; index += 1) {
      const update = this.#updates[index]
      const stop = Math.max(at, Math.min(end, update?.offset ?? end))
      const inFile = Math.min(stop, Math.max(at, fileBytes))
      if (inFile > at) yield { kind: 'data', offset: at, length: inFile - at, hostOffset: at }
      if (stop > inFile) yield { kind: 'zero', offset: inFile, length: stop - inFile }
      at = stop
      if (!update || at >= end) return
      const to = Math.min(end, update.offset + update.length)
      const { bytes, offset: from } = update
      const [start, until] = [at - from, to - from]
      if (bytes) yield { kind: 'packed', offset: at, length: to - at, load: async () => bytes.subarray(start, until) }
      else yield { kind: 'zero', offset: at, length: to - at }
      at = to
    }
  }

  #firstEndingAfter(offset: number): number {
    let [low, high] = [0, this.#updates.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      const update = this.#updates[middle]!
      if (update.offset + update.length > offset) high = middle
      else low = middle + 1
    }
    return low
  }
}

const cut = ({ offset, bytes }: Update, from: number, to: number): Update => ({
  offset: from,
  length: to - from,
  ...(bytes && { bytes: bytes.subarray(from - offset, to - offset) }),
})
