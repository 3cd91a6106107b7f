import { refusePacked } from './damage.ts'

/** A stream read byte by byte, without waiting: for decoders that run in a thread of their own. Holds one buffer of the stream. */
export class ByteReader {
  readonly #compression: string
  readonly #refill: () => Uint8Array | undefined
  #bytes: Uint8Array = new Uint8Array()
  #at = 0
  #before = 0

  /** @param refill the next buffer, of any length; undefined at the end */
  constructor(compression: string, refill: () => Uint8Array | undefined) {
    this.#compression = compression
    this.#refill = refill
  }

  /** Bytes from the start of the stream. */
  get position(): number {
    return this.#before + this.#at
  }

  atEnd(): boolean {
    while (this.#at === this.#bytes.length) {
      this.#before += this.#bytes.length
      this.#at = 0
      const next = this.#refill()
      this.#bytes = next ?? new Uint8Array()
      if (!next) return true
    }
    return false
  }

  /** @throws ServiceError `invalid-image` where the stream ends */
  byte(): number {
    if (this.#at === this.#bytes.length && this.atEnd()) throw this.#cutShort()
    return this.#bytes[this.#at++] as number
  }

  /** Fills `target`. @throws ServiceError `invalid-image` where the stream ends before */
  fill(target: Uint8Array): Uint8Array {
    for (let done = 0; done < target.length; ) {
      if (this.atEnd()) throw this.#cutShort()
      const part = this.#bytes.subarray(this.#at, this.#at + target.length - done)
      target.set(part, done)
      done += part.length
      this.#at += part.length
    }
    return target
  }

  #cutShort(): Error {
    return refusePacked(this.#compression, 'truncated', `they end at byte ${this.position}, in the middle`, {
      offset: this.position,
    })
  }
}
