import type { BlockSource } from '../../disk/block/block-source.ts'
import type { WireChunk } from '../content/encode-chunks.ts'

/**
 * The store of bytes: stream → manifest + chunks, manifest → BlockSource. `docs/store-format.md` is the format.
 * A manifest is named by the SHA-256 of its root, in lower-case hex; that digest vouches for every byte below it.
 */
export interface ChunkStore {
  /** Bytes of a chunk: a constant of the store, recorded in it when it was made. */
  readonly chunkBytes: number

  /**
   * Cuts `body` into chunks, stores those that are new, and makes the manifest. Reads `body` once, never holds more than a
   * fixed number of buffers, and is done with a piece of it when it asks for the next. When it resolves, chunks and manifest are durable, and held by the returned lease.
   * @throws ServiceError `too-large` beyond `maxBytes`; `no-space`; `cancelled`; errors of `body` pass through. What was
   *   stored by then stays unreferenced, for the collector.
   */
  ingest(body: AsyncIterable<Uint8Array>, options: IngestOptions): Promise<Ingested>

  /**
   * The same for a disk: asks for its extents and reads only data. Where it is known to be `over` a file of the store, only what
   * changed is asked and read; the time then goes with the changes, and a few microseconds for each chunk that stays.
   * @throws ServiceError as `ingest`; `not-found` where that file is not in the store; `invalid-request` for ranges that do not
   *   ascend or lie outside the disk
   */
  ingestDisk(disk: BlockSource, options: DiskIngestOptions): Promise<Ingested>

  /** Chunks sent by a client that knows which ones are lacking. */
  beginUpload(options: { readonly owner: string }): Promise<ChunkUpload>
  /** Takes up an upload begun earlier, also before a restart. @throws ServiceError `not-found` */
  resumeUpload(id: string): Promise<ChunkUpload>

  /** Random access. Every byte was verified by its chunk's digest. @throws ServiceError `not-found`; reads throw `corrupt` */
  open(manifest: string): Promise<StoredFile>

  /** `[offset, offset + length)` front to back with read-ahead, verified; buffers of at most 1 MiB. */
  stream(manifest: string, offset: number, length: number, signal?: AbortSignal): AsyncIterable<Uint8Array>

  /** The same without a copy: memory of the store itself, to be given back. For HTTP bodies. */
  lend(manifest: string, offset: number, length: number, signal?: AbortSignal): AsyncIterable<Lent>

  /** The manifest's root as docs/store-format.md has it; its SHA-256 is the manifest's name. @throws ServiceError `not-found` */
  layout(manifest: string): Promise<Uint8Array>
  /** A page of it, whose digest stands in the root. @throws ServiceError `not-found`, also for a page of zeros, which is no chunk */
  layoutPage(manifest: string, page: number): Promise<Uint8Array>

  /**
   * Chunks of the file by their numbers, in the order of asking, as frames (docs/api-v1.md) and as they lie in packs: neither unpacked
   * nor verified, since whoever takes them must verify them by their digests anyway. Chunks of zeros are left out.
   * @throws ServiceError `invalid-request` for a number beyond the file; `not-found`, `corrupt`
   */
  lendChunks(manifest: string, numbers: readonly number[], options?: LendChunksOptions): AsyncIterable<Lent>

  /** md5 and sha512 of the whole file, computed on the worker threads. */
  digest(
    manifest: string,
    algorithms: readonly StreamDigest[],
    options?: ReadOptions,
  ): Promise<Readonly<Record<StreamDigest, string>>>

  /** @param owner a project: what others store does not change the answer; absent: what deleting really frees */
  sizes(manifest: string, owner?: string): Promise<ManifestSizes>

  /**
   * Says that a record of this owner names the manifest no more. What no other record uses goes with the next collection.
   * @param owner as it was given when the bytes came; absent: no record at all names the manifest
   */
  drop(manifest: string, owner?: string): Promise<void>

  /**
   * Removes what no live manifest and no lease holds; rewrites packs that are mostly garbage.
   * @param live what must stay: each manifest once for each record that names it, and those that are only being read; asked for
   *   after the marking has begun
   * @throws ServiceError `cancelled`; `unavailable` where a part could not be read, after everything else was collected
   */
  collect(live: () => AsyncIterable<Live>, options?: JobOptions): Promise<CollectReport>

  /**
   * Reads and verifies packs, index and the given manifests. Yields each fault with the manifests that it touches. Chunks that it
   * finds damaged count as lacking from now on: the same bytes again, in whatever file, mend all that use them.
   */
  check(live: () => AsyncIterable<Live>, options?: JobOptions & { readonly readData?: boolean }): AsyncIterable<StoreFault>

  /** Makes the index again from the packs' footers and the live manifests. */
  rebuild(live: () => AsyncIterable<Live>, options?: JobOptions): Promise<{ readonly packs: number; readonly chunks: number }>

  stats(): Promise<StoreStats>
  close(): Promise<void>
}

/** A manifest that must stay; the bare name stands for a record of nobody knows whom. */
export type Live = string | LiveManifest

export interface LiveManifest {
  readonly manifest: string
  /** The record's project, as it is given to `drop`. */
  readonly owner?: string
  /** No record names it, somebody only reads it: its bytes stay for now, but nothing becomes of it that a record would have. */
  readonly isRead?: boolean
}

/** A file, and what can be asked of the store for it. */
export interface StoredFile extends BlockSource {
  /** Brings a range into memory, after what somebody waits for. Settles when it is there, or was. @throws as `read` */
  prefetch(offset: number, length: number): Promise<void>
}

/** Bytes that belong to the store: not to be changed, and not to be looked at after they were given back. */
export interface Lent {
  readonly bytes: Uint8Array
  /** Until then the store cannot use the memory for others. More than once is harmless. */
  giveBack(): void
}

export type StreamDigest = 'md5' | 'sha256' | 'sha512'

export interface LendChunksOptions {
  readonly signal?: AbortSignal | undefined
  /** Read and verified as for `open`: for who got bytes that did not match. Damage is found, and mended where it can be. */
  readonly isVerified?: boolean
}

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined
  /** Nobody waits for it: goes on slowly while there are transfers. */
  readonly givesWay?: boolean
}

export interface IngestOptions {
  /** Project id: whose bytes these are. Answers to "which chunks do you lack?" come from what the asker's project holds. */
  readonly owner: string
  /** Digests of the whole stream to compute in passing. */
  readonly digests?: readonly StreamDigest[]
  /**
   * Files of the store that the stream may turn out to be, with all `digests` of theirs: as long as its chunks are those of one
   * of them, no digest is computed. Of these files the ingest's speed tells whether they have the bytes that are sent, so name
   * only what the sender may see.
   */
  readonly likely?: readonly KnownFile[]
  /** Checked while reading, so that an endless body ends in an error and not in a full store. */
  readonly maxBytes?: number
  readonly signal?: AbortSignal
  /** Called now and then with bytes taken so far. */
  readonly onProgress?: (bytes: number) => void
}

export type DiskIngestOptions = IngestOptions | OverIngestOptions
/** Without `digests`: nobody sees such a disk from front to back. */
export type OverIngestOptions = Omit<IngestOptions, 'digests' | 'likely'> & { readonly over: KnownDisk }

/**
 * A file of the store that a disk is equal to, but for some ranges. The disk may be larger or smaller; what lies behind the end of the
 * file is always asked of the disk. Nothing but the new file suffers where this is not true.
 */
export interface KnownDisk {
  readonly manifest: string
  /** Ascending, not overlapping, inside the disk; those that touch the same chunk are read together. */
  readonly changed: Iterable<ByteRange> | AsyncIterable<ByteRange>
}

export interface ByteRange {
  readonly offset: number
  readonly length: number
}

export interface KnownFile {
  readonly manifest: string
  readonly digests: Readonly<Partial<Record<StreamDigest, string>>>
}

export interface Ingested extends ManifestSizes {
  readonly manifest: string
  readonly digests: Readonly<Partial<Record<StreamDigest, string>>>
  /** Compressed bytes that this ingest added to the store. */
  readonly newBytes: number
  /** Keeps the chunks from the collector until a record names the manifest. */
  readonly lease: Lease
}

export interface Lease {
  /** After the record is committed. From now on the record alone keeps the chunks. */
  release(): Promise<void>
  /** The record will not come: as `release`, and the manifest is dropped. After `release` it does nothing. */
  abandon(): Promise<void>
}

export interface ManifestSizes {
  /** Bytes of the file, holes included. */
  readonly fileBytes: number
  /** Bytes that are not zero chunks. */
  readonly allocatedBytes: number
  /** Compressed bytes of the distinct chunks of this manifest. */
  readonly storedBytes: number
  /** The part of `storedBytes` that no other manifest uses: what deleting this one frees. */
  readonly exclusiveBytes: number
}

/** A resumable upload by chunks. Durable: it can be taken up after a restart by its id until it is committed or abandoned. */
export interface ChunkUpload {
  readonly id: string
  readonly owner: string
  /**
   * Which of these chunks must be sent. Knows only what the owner's project holds and what this upload has sent.
   * @param digests n × 32 bytes
   * @returns n bytes, 1 = lacking
   */
  lacks(digests: Uint8Array): Promise<Uint8Array>
  /** Verifies and stores chunks. @throws ServiceError `invalid-request` where the bytes do not match the digest */
  put(chunks: readonly WireChunk[]): Promise<void>
  /**
   * Makes the manifest. `digests` yields, in order, one 32-byte digest for each chunk of the file, or `null` for zeros.
   * @throws ServiceError `conflict` naming the first chunk that was never sent
   */
  commit(fileBytes: number, digests: AsyncIterable<Uint8Array | null>): Promise<Ingested>
  abandon(): Promise<void>
}

export interface JobOptions {
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: { readonly phase: string; readonly done: number; readonly total: number }) => void
}

export interface CollectReport {
  readonly chunksRemoved: number
  readonly bytesFreed: number
  readonly packsRemoved: number
  readonly packsRewritten: number
  readonly liveManifests: number
}

export interface StoreFault {
  readonly kind:
    | 'missing-blob'
    | 'damaged-chunk'
    | 'damaged-footer'
    | 'missing-chunk'
    | 'index-mismatch'
    | 'missing-manifest'
    /** The disk did not give it: that it is damaged is not proven. */
    | 'unreadable'
  /** One sentence: what is wrong and where. */
  readonly message: string
  readonly blob?: string
  readonly digest?: string
  /** Live manifests that cannot be read whole because of it. */
  readonly manifests: readonly string[]
}

export interface StoreStats {
  readonly chunkBytes: number
  readonly chunks: number
  readonly packs: number
  readonly manifests: number
  /** Compressed bytes of all chunks, and the bytes that they stand for. */
  readonly storedBytes: number
  readonly chunkDataBytes: number
  /** Counters since the start, for metrics. */
  readonly counters: {
    readonly chunksNew: number
    readonly chunksKnown: number
    readonly chunksZero: number
    readonly bytesIngested: number
    readonly bytesRead: number
    readonly cacheHits: number
    readonly cacheMisses: number
    readonly queueDepth: number
    readonly collections: number
    readonly bytesFreed: number
  }
}
