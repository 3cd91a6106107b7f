import type { BlockSource, Extent } from './block-source.ts'

/** One stretch of bytes of a sparse source. */
export interface Piece {
  readonly offset: number // bytes from the start of the source
  readonly bytes: Uint8Array
}

/**
 * A source made of pieces held in memory; between them are holes. It may claim any size at no cost.
 * The pieces are used as they are, not copied; a read copies.
 *
 * @param pieces ascending, not overlapping, inside `size`
 */
export function memorySource(size: number, pieces: readonly Piece[]): BlockSource {
  let end = 0
  for (const piece of pieces) {
    if (piece.offset < end) throw new Error('memorySource: pieces overlap or do not ascend')
    end = piece.offset + piece.bytes.length
  }
  if (end > size) throw new Error('memorySource: a piece ends beyond the size')

  /** The first piece that ends after `offset`. */
  const firstAt = (offset: number): number => {
    let [low, high] = [0, pieces.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      const piece = pieces[middle]!
      if (piece.offset + piece.bytes.length > offset) high = middle
      else low = middle + 1
    }
    return low
  }

  return {
    size,
    async read(offset, length) {
      const answer = new Uint8Array(length)
      for (let index = firstAt(offset); index < pieces.length; index += 1) {
        const piece = pieces[index]!
        if (piece.offset >= offset + length) break
        const from = Math.max(offset, piece.offset)
        const to = Math.min(offset + length, piece.offset + piece.bytes.length)
        answer.set(piece.bytes.subarray(from - piece.offset, to - piece.offset), from - offset)
      }
      return answer
    },
    async *extents(offset, length): AsyncGenerator<Extent> {
      let at = offset
      const end = offset + length
      for (let index = firstAt(offset); index < pieces.length && at < end; index += 1) {
        const piece = pieces[index]!
        if (piece.bytes.length === 0) continue
        if (piece.offset > at) {
          const to = Math.min(end, piece.offset)
          yield { offset: at, length: to - at, kind: 'hole' }
          at = to
        }
        const to = Math.min(end, piece.offset + piece.bytes.length)
        if (to > at) yield { offset: at, length: to - at, kind: 'data' }
        at = Math.max(at, to)
      }
      if (at < end) yield { offset: at, length: end - at, kind: 'hole' }
    },
    async close() {},
  }
}

/** Bytes as a source of one data run. */
export const bytesSource = (bytes: Uint8Array): BlockSource => memorySource(bytes.length, [{ offset: 0, bytes }])
