import { ServiceError } from '../../../../base/errors.ts'

/** Bytes that lie in pieces over a database: its front is read as far as it is wanted. */
export interface Blob {
  readonly bytes: number
  /** The first `count` bytes. @throws ServiceError `invalid-image` where there are fewer */
  prefix(count: number): Promise<Uint8Array>
}

/** A package of a database, and what goes by it in messages: `package 7`. */
export interface StoredHeader {
  readonly what: string
  readonly blob: Blob
}

/** @param notes told of what is damaged, while the rest is read */
export type ReadHeaders = (notes: { add(note: string): void }) => AsyncIterable<StoredHeader>

export const refuse = (problem: string, reason = 'malformed'): ServiceError =>
  new ServiceError('invalid-image', `the rpm database ${problem}`, { reason })

export const unsupported = (problem: string): ServiceError =>
  new ServiceError('unsupported', `the rpm database ${problem}`, { reason: 'unknown-feature' })

/** A blob by its pieces, in order. They are asked for once, and only as many as are wanted; `pieces` says what ends too early. */
export function chained(bytes: number, pieces: AsyncIterator<Uint8Array>): Blob {
  let [held, heldBytes]: [Uint8Array[], number] = [[], 0]
  return {
    bytes,
    async prefix(count) {
      if (count > bytes) throw refuse(`has a record of ${bytes} bytes where ${count} are wanted`, 'truncated')
      while (heldBytes < count) {
        const { value, done } = await pieces.next()
        if (done) throw refuse(`has a record of ${bytes} bytes that ends after ${heldBytes}`, 'truncated')
        held.push(value)
        heldBytes += value.length
      }
      if (held.length > 1) held = [Buffer.concat(held)]
      return (held[0] ?? new Uint8Array()).subarray(0, count)
    },
  }
}

/** The same blob without its first bytes. */
export const without = (start: number, blob: Blob, bytes: number): Blob => ({
  bytes,
  async prefix(count) {
    if (count > bytes) throw refuse(`has a value of ${bytes} bytes where ${count} are wanted`, 'truncated')
    return (await blob.prefix(start + count)).subarray(start)
  },
})

/** Pages of a file, each of which may be used once: what leads back to where it was is damage, and so every walk ends. */
export class PagesOnce {
  readonly #used: Uint8Array
  readonly #first: number
  readonly #end: number

  /** @param first the first page that may be used; pages end before `end` */
  constructor(first: number, end: number) {
    this.#first = first
    this.#end = end
    this.#used = new Uint8Array(Math.ceil(end / 8))
  }

  use(page: number): number {
    if (page < this.#first || page >= this.#end)
      throw refuse(`points at page ${page}, and has pages ${this.#first} to ${this.#end - 1}`)
    const [byte, bit] = [page >>> 3, 1 << (page & 7)]
    if ((this.#used[byte]! & bit) !== 0) throw refuse(`uses page ${page} twice`)
    this.#used[byte]! |= bit
    return page
  }
}
