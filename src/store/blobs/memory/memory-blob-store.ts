import { ServiceError } from '../../../base/errors.ts'
import { assertKey, type BlobStore } from '../blob-store.ts'

/** A blob store that lives as long as the process: for tests, and the model that the others are compared with. */
export class MemoryBlobStore implements BlobStore {
  readonly #blobs = new Map<string, Uint8Array>()

  async get(key: string): Promise<Uint8Array> {
    return this.#blob(key).slice()
  }

  async read(key: string, offset: number, length: number): Promise<Uint8Array> {
    const blob = this.#blob(key)
    if (offset + length > blob.length)
      throw new ServiceError('corrupt', `Blob ${key} ends at ${blob.length}, before the bytes that were asked for.`, {
        key,
        offset,
        length,
      })
    return blob.slice(offset, offset + length)
  }

  async size(key: string): Promise<number> {
    return this.#blob(key).length
  }

  async *list(prefix: string): AsyncIterable<string> {
    yield* [...this.#blobs.keys()].filter((key) => key.startsWith(prefix)).sort()
  }

  async put(key: string, parts: readonly Uint8Array[]): Promise<void> {
    assertKey(key)
    const bytes = new Uint8Array(Buffer.concat(parts))
    const existing = this.#blobs.get(key)
    if (existing && Buffer.compare(existing, bytes) !== 0)
      throw new ServiceError('conflict', `Blob ${key} exists with other bytes, and blobs are never overwritten.`, { key })
    this.#blobs.set(key, bytes)
  }

  async delete(key: string): Promise<void> {
    assertKey(key)
    this.#blobs.delete(key)
  }

  #blob(key: string): Uint8Array {
    assertKey(key)
    const blob = this.#blobs.get(key)
    if (!blob) throw new ServiceError('not-found', `There is no blob ${key}.`, { key })
    return blob
  }
}
