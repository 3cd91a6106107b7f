import { ServiceError } from '../../../base/errors.ts'

/** A stream read by exact counts. Holds one buffer of the stream and what `take` asked for. */
export class ByteQueue {
  readonly #source: AsyncIterator<Uint8Array>
  #rest: Uint8Array = new Uint8Array()

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** Exactly `count` bytes, a copy. For headers: `count` is a few. @throws ServiceError `invalid-image` where the stream ends before */
  take(count: number): Promise<Uint8Array>
  /** @returns `undefined` where the stream ends before the first of them */
  take(count: number, end: 'may-end'): Promise<Uint8Array | undefined>
  async take(count: number, end?: 'may-end'): Promise<Uint8Array | undefined> {
    const taken = new Uint8Array(count)
    let filled = 0
    while (filled < count) {
      if (!(await this.#fill())) {
        if (filled === 0 && end === 'may-end') return undefined
        throw cutShort()
      }
      const part = this.#rest.subarray(0, count - filled)
      taken.set(part, filled)
      filled += part.length
      this.#rest = this.#rest.subarray(part.length)
    }
    return taken
  }

  /** The next `count` bytes, as they come. @throws ServiceError `invalid-image` where the stream ends before */
  async *pass(count: number): AsyncGenerator<Uint8Array, void, undefined> {
    let left = count
    while (left > 0) {
      if (!(await this.#fill())) throw cutShort()
      const part = this.#rest.subarray(0, left)
      this.#rest = this.#rest.subarray(part.length)
      left -= part.length
      yield part
    }
  }

  async close(): Promise<void> {
    await this.#source.return?.()
  }

  /** @returns whether there is at least one byte */
  async #fill(): Promise<boolean> {
    while (this.#rest.length === 0) {
      const next = await this.#source.next()
      if (next.done) return false
      this.#rest = next.value
    }
    return true
  }
}

const cutShort = (): ServiceError =>
  new ServiceError('invalid-image', 'the file is damaged: it ends in the middle of its compressed data')
