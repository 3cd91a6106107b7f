import { assertRange, type Extent, type Filter } from '../block/block-source.ts'

/** Shows a disk as one of `bytes`: cut off there, or with a hole behind its end. */
export const sized =
  (bytes: number): Filter =>
  (next) => {
    /** How much of `[offset, offset + length)` the disk has. */
    const inside = (offset: number, length: number) => Math.max(0, Math.min(next.size - offset, length))
    return {
      size: bytes,
      async read(offset, length, into) {
        assertRange(offset, length, bytes)
        const count = inside(offset, length)
        if (count === length) return next.read(offset, length, into)
        const answer = into ?? Buffer.allocUnsafeSlow(length)
        if (count > 0) answer.set(await next.read(offset, count))
        return answer.fill(0, count)
      },
      async *extents(offset, length): AsyncGenerator<Extent> {
        assertRange(offset, length, bytes)
        const count = inside(offset, length)
        if (count > 0) yield* next.extents(offset, count)
        if (count < length) yield { offset: offset + count, length: length - count, kind: 'hole' }
      },
      close: () => next.close(),
    }
  }
