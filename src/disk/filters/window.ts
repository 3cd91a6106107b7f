import { assertRange, type Filter } from '../block/block-source.ts'

/** Shows `[start, start + length)`, in bytes, as a disk of its own: a partition, say. */
export const window =
  (start: number, length: number): Filter =>
  (next) => {
    assertRange(start, length, next.size)
    return {
      size: length,
      read: (offset, count) => next.read(start + offset, count),
      async *extents(offset, count) {
        for await (const run of next.extents(start + offset, count)) yield { ...run, offset: run.offset - start }
      },
      close: () => next.close(),
    }
  }
