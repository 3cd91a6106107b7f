import type { Filter } from '../block/block-source.ts'
import { ByteLru } from '../block/byte-lru.ts'

export interface PagedOptions {
  /** Read at a time, aligned to it. */
  readonly pageBytes: number
  /** Of pages that are kept. */
  readonly maxBytes: number
}

/**
 * Reads whole pages and keeps them, for readers that follow pointers from one small structure to the next. A read of more than
 * a page that is not kept goes straight to the source. What it answers may be a view of a page.
 */
export const paged =
  ({ pageBytes, maxBytes }: PagedOptions): Filter =>
  (next) => {
    const pages = new ByteLru(maxBytes)
    const page = (index: number) =>
      pages.get(index, () => next.read(index * pageBytes, Math.min(pageBytes, next.size - index * pageBytes)))
    return {
      size: next.size,
      async read(offset, length, into) {
        const first = Math.floor(offset / pageBytes)
        const start = offset - first * pageBytes
        if (length === 0) return into ?? new Uint8Array(0)
        if (start + length <= pageBytes) return (await page(first)).subarray(start, start + length)
        if (length > pageBytes) return next.read(offset, length, into)
        const [head, tail] = await Promise.all([page(first), page(first + 1)])
        const answer = into ?? new Uint8Array(length)
        answer.set(head.subarray(start))
        answer.set(tail.subarray(0, start + length - pageBytes), pageBytes - start)
        return answer
      },
      extents: (offset, length) => next.extents(offset, length),
      close: () => next.close(),
    }
  }
