import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KiB } from '../../base/units.ts'
import type { BlobStore } from '../blobs/blob-store.ts'
import { MemoryBlobStore } from '../blobs/memory/memory-blob-store.ts'
import { sha256 } from '../content/digests.ts'
import { SqliteChunkIndex } from './index/sqlite/sqlite-chunk-index.ts'
import { KIND_DATA } from './pack-format.ts'
import { type EncodedChunk, PackWriter } from './pack-writer.ts'

const CHUNK_BYTES = 64 * KiB
const CHUNKS_A_WRITER = 16
/** What a machine with many processors has waiting for the disk at once: more than a pack holds. */
const WRITERS = 40

/** The chunk's place and number make its bytes; what matters here is that all of them differ. */
function chunkOf(writer: number, chunk: number): Uint8Array {
  const bytes = new Uint8Array(CHUNK_BYTES)
  new DataView(bytes.buffer).setUint32(0, writer * CHUNKS_A_WRITER + chunk + 1)
  return bytes
}

/** Holds every write back until it is let go. */
class HeldBlobStore extends MemoryBlobStore {
  readonly #gate = Promise.withResolvers<void>()
  letGo(): void {
    this.#gate.resolve()
  }
  override async put(...args: Parameters<BlobStore['put']>): ReturnType<BlobStore['put']> {
    await this.#gate.promise
    return super.put(...args)
  }
}

test('writers that waited for room fill the next packs side by side, and none of them beyond its end', async () => {
  const blobs = new HeldBlobStore()
  const index = await SqliteChunkIndex.open(':memory:')
  const writer = new PackWriter(blobs, index)
  const hold = await index.begin('p')
  const encoded = Promise.withResolvers<void>()
  let encoding = 0
  const placed = Array.from({ length: WRITERS }, async (_, number) => {
    const chunks = Array.from({ length: CHUNKS_A_WRITER }, (_, chunk) => chunkOf(number, chunk))
    const digests = new Uint8Array(Buffer.concat(chunks.map((bytes) => sha256(bytes))))
    const { durable, newChunks } = await writer.place(hold, digests, async (places) => {
      encoding += 1
      if (encoding === WRITERS) encoded.resolve()
      await encoded.promise
      return places.map((place): EncodedChunk => ({ bytes: chunks[place]!, plainBytes: CHUNK_BYTES, kind: KIND_DATA, codec: 0 }))
    })
    writer.flush()
    await Promise.all(durable)
    assert.equal(newChunks, CHUNKS_A_WRITER)
  })
  await encoded.promise
  blobs.letGo()
  await Promise.all(placed)
  assert.equal((await index.totals()).chunks, WRITERS * CHUNKS_A_WRITER)
  await index.close()
})
