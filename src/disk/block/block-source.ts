import { ServiceError } from '../../base/errors.ts'

/** A readable disk or file: the one shape that formats return and that NBD, HTTP, convert and inspect take. */
export interface BlockSource {
  /** Bytes; constant until `close`. */
  readonly size: number
  /**
   * Exactly `length` bytes from `offset`; holes read as zeros. Reads may overlap in time. The caller may keep the answer, and must
   * not change it: it may be a view of memory that others read as well.
   * @param into where a source may put them in place of new memory, of `length` bytes: look at which array comes back. It is
   *   the source's until the promise settles, also where it fails, and no longer
   */
  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array>
  /** The runs that cover `[offset, offset + length)`: ascending, gap-free, clipped to the range. */
  extents(offset: number, length: number): AsyncIterable<Extent>
  close(): Promise<void>
}

export interface Extent {
  /** Bytes from the start of the source. */
  readonly offset: number
  /** Bytes, > 0. */
  readonly length: number
  /** hole: not allocated in this layer; zero: recorded as zeros. Both read as zeros. */
  readonly kind: 'data' | 'zero' | 'hole'
}

/** Puts one source in front of another. The last filter of a stack is nearest to the reader. */
export type Filter = (next: BlockSource) => BlockSource
export const stack = (disk: BlockSource, filters: readonly Filter[]): BlockSource =>
  filters.reduce((next, filter) => filter(next), disk)

export function assertRange(offset: number, length: number, size: number): void {
  const inside =
    Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0 && length <= size - offset
  if (!inside) throw new ServiceError('invalid-request', 'range is outside the source', { offset, length, size })
}
