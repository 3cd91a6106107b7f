import { availableParallelism } from 'node:os'
import type { BlockSource } from '../../disk/block/block-source.ts'
import type { BlobStore } from '../blobs/blob-store.ts'
import { digestOfManifest } from '../content/digests.ts'
import { check } from './check.ts'
import { ChunkMemory } from './chunk-memory.ts'
import { ChunkReader, STAGING_BYTES } from './chunk-reader.ts'
import type {
  ChunkStore,
  ChunkUpload,
  CollectReport,
  DiskIngestOptions,
  Ingested,
  IngestOptions,
  JobOptions,
  LendChunksOptions,
  Lent,
  Live,
  ManifestSizes,
  ReadOptions,
  StoredFile,
  StoreFault,
  StoreStats,
  StreamDigest,
} from './chunk-store.ts'
import { collect } from './collector.ts'
import { newCounters } from './counters.ts'
import { digestFile } from './digest-file.ts'
import { blockBytesOf, type Engine } from './engine.ts'
import { openFile } from './file-source.ts'
import type { ChunkIndex } from './index/chunk-index.ts'
import { ingest } from './ingest.ts'
import { ingestDisk } from './ingest-disk.ts'
import { lendChunks } from './lend-chunks.ts'
import { DEFAULT_MEMORY_BYTES, planMemory } from './memory-plan.ts'
import { PackWriter } from './pack-writer.ts'
import { rebuild } from './rebuild.ts'
import { reconcile } from './reconcile.ts'
import { manifestSizes } from './sizes.ts'
import { openStoreDocument } from './store-document.ts'
import { lendFile, streamFile } from './stream-file.ts'
import { beginUpload, resumeUpload } from './upload-session.ts'
import { ReadSlots } from './workers/read-slots.ts'
import { SLOT_BYTES, SlotPool } from './workers/slot-pool.ts'
import { WorkerPool } from './workers/worker-pool.ts'

export interface ChunkStoreOptions {
  readonly blobs: BlobStore
  /** Closed with the store. */
  readonly index: ChunkIndex
  /** Threads; absent or 0: one for each processor, and at least two. */
  readonly workers?: number
  /** For buffers and caches, packs included; absent: 128 MiB. */
  readonly memoryBytes?: number
  /** Of a new store; absent: 64 KiB. An existing store keeps its own. */
  readonly chunkBytes?: number
}

/**
 * Opens the store in `blobs`, or makes one there, and brings the index up to date with it: packs that a process wrote and did
 * not enter before it died are entered now.
 * @throws ServiceError `corrupt`, `unsupported`, `invalid-request`
 */
export async function openChunkStore(options: ChunkStoreOptions): Promise<ChunkStore> {
  const { blobs, index } = options
  const chunkBytes = await openStoreDocument(blobs, options.chunkBytes)
  await reconcile(blobs, index)
  const threads = Math.max(2, options.workers || availableParallelism())
  const plan = planMemory(options.memoryBytes ?? DEFAULT_MEMORY_BYTES, threads)
  const slots = new SlotPool(plan.slots)
  const readSlots = new ReadSlots(plan.readSlots)
  const staging = new SlotPool(plan.stagingSlots, STAGING_BYTES)
  const memory = new ChunkMemory(Math.floor(plan.cacheBytes / chunkBytes), chunkBytes)
  const workers = new WorkerPool(threads, {
    memory: slots.memory,
    slotBytes: SLOT_BYTES,
    readMemory: readSlots.memory,
    stagingMemory: staging.memory,
    chunkMemory: memory.memory,
  })
  const counters = newCounters()
  return new OpenChunkStore({
    chunkBytes,
    blobs,
    index,
    workers,
    slots,
    writer: new PackWriter(blobs, index),
    reader: new ChunkReader({ blobs, index, workers, readSlots, staging, memory, counters }, chunkBytes),
    readSlots,
    plan,
    counters,
    ingests: 0,
    streams: 0,
    lastMovedMs: Number.NEGATIVE_INFINITY,
    givenUp: new Set(),
    reading: new Map(),
    blockBytes: (users) => blockBytesOf(chunkBytes, users),
  })
}

/** The port over the engine's parts. Jobs over the whole store, which move or remove chunks, take turns. */
class OpenChunkStore implements ChunkStore {
  readonly chunkBytes: number
  readonly #engine: Engine
  #job: Promise<unknown> = Promise.resolve()

  constructor(engine: Engine) {
    this.chunkBytes = engine.chunkBytes
    this.#engine = engine
  }

  ingest(body: AsyncIterable<Uint8Array>, options: IngestOptions): Promise<Ingested> {
    return ingest(this.#engine, body, options)
  }

  ingestDisk(disk: BlockSource, options: DiskIngestOptions): Promise<Ingested> {
    return ingestDisk(this.#engine, disk, options)
  }

  beginUpload({ owner }: { readonly owner: string }): Promise<ChunkUpload> {
    return beginUpload(this.#engine, owner)
  }

  resumeUpload(id: string): Promise<ChunkUpload> {
    return resumeUpload(this.#engine, id)
  }

  open(manifest: string): Promise<StoredFile> {
    return openFile(this.#engine, manifest)
  }

  stream(manifest: string, offset: number, length: number, signal?: AbortSignal): AsyncIterable<Uint8Array> {
    return streamFile(this.#engine, manifest, offset, length, signal)
  }

  lend(manifest: string, offset: number, length: number, signal?: AbortSignal): AsyncIterable<Lent> {
    return lendFile(this.#engine, manifest, offset, length, { signal })
  }

  layout(manifest: string): Promise<Uint8Array> {
    return this.#engine.reader.rootBytes(manifest)
  }

  layoutPage(manifest: string, page: number): Promise<Uint8Array> {
    return this.#engine.reader.pageBytes(manifest, page)
  }

  lendChunks(manifest: string, numbers: readonly number[], options?: LendChunksOptions): AsyncIterable<Lent> {
    return lendChunks(this.#engine, manifest, numbers, options)
  }

  digest(manifest: string, algorithms: readonly StreamDigest[], options?: ReadOptions): Promise<Record<StreamDigest, string>> {
    return digestFile(this.#engine, manifest, algorithms, options)
  }

  sizes(manifest: string, owner?: string): Promise<ManifestSizes> {
    return manifestSizes(this.#engine, manifest, owner ?? null)
  }

  async drop(manifest: string, owner?: string): Promise<void> {
    await this.#engine.index.drop(digestOfManifest(manifest), owner)
  }

  collect(live: () => AsyncIterable<Live>, options?: JobOptions): Promise<CollectReport> {
    return this.#inTurn(() => collect(this.#engine, live, options))
  }

  check(live: () => AsyncIterable<Live>, options?: JobOptions & { readonly readData?: boolean }): AsyncIterable<StoreFault> {
    return check(this.#engine, live, options)
  }

  rebuild(live: () => AsyncIterable<Live>, options?: JobOptions): Promise<{ packs: number; chunks: number }> {
    return this.#inTurn(() => rebuild(this.#engine, live, options))
  }

  async stats(): Promise<StoreStats> {
    const { index, counters, workers } = this.#engine
    const { plainBytes, ...totals } = await index.totals()
    return {
      chunkBytes: this.chunkBytes,
      ...totals,
      chunkDataBytes: plainBytes,
      counters: { ...counters, queueDepth: workers.queueDepth },
    }
  }

  async close(): Promise<void> {
    await this.#job
    await this.#engine.writer.drain()
    await this.#engine.workers.close()
    await this.#engine.index.close()
  }

  #inTurn<T>(job: () => Promise<T>): Promise<T> {
    const running = this.#job.then(job)
    this.#job = running.catch(() => undefined)
    return running
  }
}
