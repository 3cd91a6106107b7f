import { ServiceError } from '../base/errors.ts'
import { MiB } from '../base/units.ts'
import { WorkerPool } from '../store/chunks/workers/worker-pool.ts'
import { ChunkCache } from '../store/content/chunk-cache.ts'
import { CODEC_PLAIN, CODEC_ZSTD } from '../store/content/codec.ts'
import { hexOf, keyOf } from '../store/content/digests.ts'
import type { ChunkFetcher, Haste } from './chunk-fetcher.ts'
import { type HostCounters, newHostCounters } from './counters.ts'
import type { DiskCache } from './disk-cache/disk-cache.ts'
import { VerifyQueue } from './verify-queue.ts'

export const DEFAULT_MEMORY_BYTES = 128 * MiB
const THREADS = 2

export interface WantedChunk {
  /** In its file. */
  readonly number: number
  readonly digest: Uint8Array
  readonly plainBytes: number
}

/**
 * The chunks that a host has, by content: in memory, on its disk, or on their way. All disks that are open on the host share one, so that
 * a chunk is fetched once however many read it. Every chunk, wherever it comes from, is unpacked and verified by a thread before anybody
 * sees it.
 */
export class ChunkPool {
  readonly counters: HostCounters = newHostCounters()
  readonly #memory: ChunkCache
  readonly #disk: DiskCache | undefined
  readonly #workers: WorkerPool
  readonly #verifying: VerifyQueue
  readonly #coming = new Map<
    string,
    { readonly bytes: Promise<Uint8Array>; readonly haste: Haste; readonly fetcher: ChunkFetcher }
  >()

  /** @param disk closed by its owner, after the pool */
  constructor({ memoryBytes = DEFAULT_MEMORY_BYTES, disk }: { readonly memoryBytes?: number; readonly disk?: DiskCache } = {}) {
    this.#memory = new ChunkCache(memoryBytes)
    this.#disk = disk
    const none = new SharedArrayBuffer(0) // the shared memory is for ingests and readers of the store itself
    const shared = { memory: none, slotBytes: 0, readMemory: none, stagingMemory: none, chunkMemory: none }
    this.#workers = new WorkerPool(THREADS, shared)
    this.#verifying = new VerifyQueue(this.#workers)
  }

  /** What is in memory. The caller must not change it. */
  cached(digest: Uint8Array): Uint8Array | undefined {
    return this.#memory.get(keyOf(digest))
  }

  /**
   * The caller must not change it.
   * @param isAhead nobody waits for it yet
   * @throws ServiceError of the fetcher; `corrupt` where what comes does not match the digest
   */
  get(wanted: WantedChunk, fetcher: ChunkFetcher, isAhead: boolean): Promise<Uint8Array> {
    const key = keyOf(wanted.digest)
    const coming = this.#coming.get(key)
    if (coming) {
      if (!isAhead && !coming.haste.isUrgent) {
        coming.haste.isUrgent = true
        coming.fetcher.hurry()
      }
      if (coming.fetcher === fetcher) return coming.bytes
      return coming.bytes.catch(() => this.get(wanted, fetcher, isAhead)) // the other disk was closed, or its export is over
    }
    const known = this.#memory.get(key)
    if (known) return Promise.resolve(known)
    const haste = { isUrgent: !isAhead }
    const bytes = this.#bring(wanted, fetcher, haste)
      .then((plain) => {
        this.#memory.set(key, plain)
        return plain
      })
      .finally(() => this.#coming.delete(key))
    this.#coming.set(key, { bytes, haste, fetcher })
    return bytes
  }

  /** A page of a manifest, which is content like any other; small, and verified by whoever reads it. */
  async keptBytes(digest: Uint8Array): Promise<Uint8Array | undefined> {
    const kept = await this.#disk?.get(digest)
    return kept?.codec === CODEC_PLAIN ? kept.bytes : undefined
  }
  async keep(digest: Uint8Array, bytes: Uint8Array): Promise<void> {
    await this.#disk?.put({ digest: new Uint8Array(digest), codec: CODEC_PLAIN, bytes })
  }
  dropKept(digest: Uint8Array): void {
    this.#disk?.drop(digest)
  }

  /** The disks that read from it are closed. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#coming.values()].map(({ bytes }) => bytes))
    await this.#workers.close()
  }

  async #bring(wanted: WantedChunk, fetcher: ChunkFetcher, haste: Haste): Promise<Uint8Array> {
    return (await this.#fromDisk(wanted, haste)) ?? (await this.#fromOrigin(wanted, fetcher, haste))
  }

  async #fromDisk(wanted: WantedChunk, haste: Haste): Promise<Uint8Array | undefined> {
    const kept = await this.#disk?.get(wanted.digest)
    if (!kept) return undefined
    const plain = await this.#verified(wanted, kept.bytes, kept.codec, haste)
    if (plain) this.counters.chunksKept += 1
    else {
      this.counters.chunksDamaged += 1
      this.#disk?.drop(wanted.digest)
    }
    return plain
  }

  async #fromOrigin(wanted: WantedChunk, fetcher: ChunkFetcher, haste: Haste): Promise<Uint8Array> {
    for (const isVerified of [false, true]) {
      const { codec, bytes } = await fetcher.fetch(wanted.number, haste, isVerified)
      const number = codec === 'zstd' ? CODEC_ZSTD : CODEC_PLAIN
      const plain = await this.#verified(wanted, bytes, number, haste)
      if (!plain) continue
      await this.#disk?.put({ digest: new Uint8Array(wanted.digest), codec: number, bytes })
      return plain
    }
    throw new ServiceError(
      'corrupt',
      `chunk ${wanted.number} came with other bytes than its digest ${hexOf(wanted.digest)} names, also when the service had verified it: look for damage with "imprint store check"`,
      { chunk: wanted.number },
    )
  }

  #verified(
    { digest, plainBytes }: WantedChunk,
    bytes: Uint8Array,
    codec: number,
    haste: Haste,
  ): Promise<Uint8Array | undefined> {
    const stored = new Uint8Array(bytes) // what came may share its buffer with what comes next
    return this.#verifying.verify({ stored, codec, plainBytes, digest: new Uint8Array(digest) }, haste)
  }
}
