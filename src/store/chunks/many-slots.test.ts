import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemoryBlobStore } from '../blobs/memory/memory-blob-store.ts'
import { ChunkMemory } from './chunk-memory.ts'
import { ChunkReader, STAGING_BYTES } from './chunk-reader.ts'
import { newCounters } from './counters.ts'
import { SqliteChunkIndex } from './index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from './open.ts'
import { ingestAndRelease, noise } from './random-files.suite.ts'
import { ReadSlots } from './workers/read-slots.ts'
import { SlotPool } from './workers/slot-pool.ts'
import { WorkerPool } from './workers/worker-pool.ts'

const CHUNK = 4096
const RUN = 8
const RUNS = 24

/** Its reads of packs wait: the first of each pack until those of all runs have begun. */
class SlowBlobStore extends MemoryBlobStore {
  readonly held = new Map<string, PromiseWithResolvers<void>>()
  override async read(key: string, offset: number, length: number): Promise<Uint8Array> {
    await this.held.get(key)?.promise
    return super.read(key, offset, length)
  }
}

test('reads of several packs each do not wait for one another for ever, however few places and many slots there are', async (t) => {
  const blobs = new SlowBlobStore()
  const index = await SqliteChunkIndex.open(':memory:')
  const store = await openChunkStore({ blobs, index, workers: 2, chunkBytes: CHUNK })
  t.after(() => store.close())
  const [one, other] = [noise((RUNS * RUN * CHUNK) / 2, 1), noise((RUNS * RUN * CHUNK) / 2, 2)]
  await ingestAndRelease(store, one)
  const [firstPack] = await Array.fromAsync(blobs.list('packs/'))
  const parts: Uint8Array[] = [] // each run half from the first pack, half from another
  for (let at = 0; at < one.length; at += (RUN / 2) * CHUNK)
    parts.push(one.subarray(at, at + (RUN / 2) * CHUNK), other.subarray(at, at + (RUN / 2) * CHUNK))
  const { manifest: name } = await ingestAndRelease(store, Buffer.concat(parts))

  const staging = new SlotPool(2 * RUNS, STAGING_BYTES)
  const memory = new ChunkMemory(2 * RUN, CHUNK)
  const readSlots = new ReadSlots(1)
  const workers = new WorkerPool(2, {
    memory: new SharedArrayBuffer(CHUNK),
    slotBytes: CHUNK,
    readMemory: readSlots.memory,
    stagingMemory: staging.memory,
    chunkMemory: memory.memory,
  })
  t.after(() => workers.close())
  const reader = new ChunkReader({ blobs, index, workers, readSlots, staging, memory, counters: newCounters() }, CHUNK)
  const manifest = await reader.openManifest(name)
  await reader.pageEntries(manifest, 0)

  for (const key of await Array.fromAsync(blobs.list('packs/')))
    if (key !== firstPack) blobs.held.set(key, Promise.withResolvers())
  const file = Buffer.concat(parts)
  const reads = Array.from({ length: RUNS }, async (_, run) => {
    const got = Buffer.alloc(RUN * CHUNK)
    await reader.readChunks(manifest, run * RUN, RUN, (place, bytes) => got.set(bytes!, place * CHUNK))
    assert.equal(Buffer.compare(got, file.subarray(run * RUN * CHUNK, (run + 1) * RUN * CHUNK)), 0)
  })
  for (let turn = 0; turn < 500; turn += 1) await new Promise(setImmediate) // the first halves take what they can get
  for (const held of blobs.held.values()) held.resolve()
  await Promise.all(reads)
})
