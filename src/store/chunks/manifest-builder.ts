import { ServiceError } from '../../base/errors.ts'
import { encodeChunk } from '../content/codec.ts'
import { countOf, DIGEST_BYTES, isZeroAt, sha256 } from '../content/digests.ts'
import { encodePage, encodeRoot, maxFileBytes, PAGE_ENTRIES, pagesOf } from '../content/manifest-format.ts'
import type { Durability } from './durability.ts'
import { KIND_PAGE, KIND_ROOT } from './pack-format.ts'
import type { PackWriter } from './pack-writer.ts'

/** Takes a file's entries front to back and stores its pages as they fill, so that memory does not grow with the file. */
export class ManifestBuilder {
  readonly #writer: PackWriter
  readonly #hold: number
  readonly #chunkBytes: number
  readonly #durability: Durability
  readonly #page = new Uint8Array(PAGE_ENTRIES * DIGEST_BYTES)
  #pageEntries = 0
  #pageHasData = false
  #pages = new Uint8Array(64 * DIGEST_BYTES)
  #pageCount = 0
  #newBytes = 0

  constructor(writer: PackWriter, hold: number, chunkBytes: number, durability: Durability) {
    this.#writer = writer
    this.#hold = hold
    this.#chunkBytes = chunkBytes
    this.#durability = durability
  }

  /** Stored bytes of pages and root that were new. */
  get newBytes(): number {
    return this.#newBytes
  }

  /** @param digests 32 bytes each; zeros: a chunk of zeros */
  async append(digests: Uint8Array): Promise<void> {
    for (let index = 0; index < countOf(digests); index += 1) {
      if (!isZeroAt(digests, index)) {
        const at = index * DIGEST_BYTES
        this.#page.set(digests.subarray(at, at + DIGEST_BYTES), this.#pageEntries * DIGEST_BYTES)
        this.#pageHasData = true
      }
      this.#pageEntries += 1
      if (this.#pageEntries === PAGE_ENTRIES) await this.#endPage()
    }
  }

  /** Costs a step for each page, not for each chunk. */
  async appendZeros(chunks: number): Promise<void> {
    for (let left = chunks; left > 0; ) {
      const step = Math.min(left, PAGE_ENTRIES - this.#pageEntries)
      this.#pageEntries += step
      left -= step
      if (this.#pageEntries === PAGE_ENTRIES) await this.#endPage()
    }
  }

  /** @returns digest of the root */
  async finish(fileBytes: number, allocatedBytes: number): Promise<Uint8Array> {
    if (this.#pageEntries > 0) await this.#endPage()
    if (this.#pageCount !== pagesOf(fileBytes, this.#chunkBytes)) throw new Error('entries do not match the size of the file')
    const pages = this.#pages.subarray(0, this.#pageCount * DIGEST_BYTES)
    return this.#put(encodeRoot({ chunkBytes: this.#chunkBytes, fileBytes, allocatedBytes, pages }), KIND_ROOT)
  }

  async #endPage(): Promise<void> {
    const at = this.#pageCount * DIGEST_BYTES
    if (this.#pageCount * PAGE_ENTRIES * this.#chunkBytes >= maxFileBytes(this.#chunkBytes))
      throw new ServiceError('too-large', 'A file in this store has at most 262,144 manifest pages (16 TiB in 64 KiB chunks).')
    if (at === this.#pages.length) {
      const longer = new Uint8Array(this.#pages.length * 2)
      longer.set(this.#pages)
      this.#pages = longer
    }
    if (this.#pageHasData) {
      const entries = this.#page.subarray(0, this.#pageEntries * DIGEST_BYTES)
      this.#pages.set(await this.#put(encodePage(entries), KIND_PAGE), at)
    }
    this.#pageCount += 1
    this.#pageEntries = 0
    this.#pageHasData = false
    this.#page.fill(0)
  }

  async #put(plain: Uint8Array, kind: number): Promise<Uint8Array> {
    const digest = sha256(plain)
    const placed = await this.#writer.place(this.#hold, digest, async () => [
      { ...encodeChunk(plain), plainBytes: plain.length, kind },
    ])
    this.#durability.add(placed.durable)
    this.#newBytes += placed.newBytes
    return digest
  }
}
