import { assertRange, type Filter } from '../block/block-source.ts'

/** Shows a disk as one of `size` bytes, no fewer than it has: what follows its end is a hole. */
export const lengthened =
  (size: number): Filter =>
  (next) => {
    const end = next.size
    assertRange(0, end, size)
    const inside = (offset: number, length: number): number => Math.max(0, Math.min(length, end - offset))
    return {
      size,
      async read(offset, length, into) {
        assertRange(offset, length, size)
        const head = inside(offset, length)
        if (head === length) return next.read(offset, length, into)
        const answer = into ?? Buffer.allocUnsafeSlow(length)
        answer.fill(0, head)
        if (head === 0) return answer
        const place = answer.subarray(0, head)
        const bytes = await next.read(offset, head, place)
        if (bytes.buffer !== place.buffer || bytes.byteOffset !== place.byteOffset) place.set(bytes)
        return answer
      },
      async *extents(offset, length) {
        assertRange(offset, length, size)
        const head = inside(offset, length)
        if (head > 0) yield* next.extents(offset, head)
        if (head < length) yield { offset: offset + head, length: length - head, kind: 'hole' }
      },
      close: () => next.close(),
    }
  }
