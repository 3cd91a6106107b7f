import { MiB } from '../../base/units.ts'
import type { BlobStore } from '../blobs/blob-store.ts'
import type { ChunkReader } from './chunk-reader.ts'
import type { Counters } from './counters.ts'
import type { ChunkIndex } from './index/chunk-index.ts'
import type { MemoryPlan } from './memory-plan.ts'
import type { PackWriter } from './pack-writer.ts'
import type { ReadSlots } from './workers/read-slots.ts'
import type { SlotPool } from './workers/slot-pool.ts'
import type { WorkerPool } from './workers/worker-pool.ts'

/** The parts of an open store, for the functions that do its work. */
export interface Engine {
  readonly chunkBytes: number
  readonly blobs: BlobStore
  readonly index: ChunkIndex
  readonly workers: WorkerPool
  readonly slots: SlotPool
  readonly writer: PackWriter
  readonly reader: ChunkReader
  readonly plan: MemoryPlan
  readonly counters: Counters
  readonly readSlots: ReadSlots
  /** Ingests that wait for their senders now. */
  ingests: number
  /** Streams that are being read now. */
  streams: number
  /** When a transfer last moved, as `performance.now()`: what can wait gives way to it. */
  lastMovedMs: number
  /** Holds of ingests that failed, and that could not be given up then, as on a full disk: the next collection gives them up. */
  readonly givenUp: Set<number>
  /** Manifests that somebody reads, by how many: the collector leaves them alone. */
  readonly reading: Map<string, number>
  /** Bytes that one of `users` may collect at a time: 1 MiB, less where there are many. A multiple of the chunk size. */
  blockBytes(users: number): number
}

/** What all transfers together may hold while they wait for the other side, as long as each has at least one chunk. */
const WAITING_BYTES = 8 * MiB

export function blockBytesOf(chunkBytes: number, users: number): number {
  const share = Math.min(MiB, WAITING_BYTES / Math.max(1, users))
  const chunks = 2 ** Math.floor(Math.log2(Math.max(1, share / chunkBytes))) // divides a page's entries: no block crosses a page
  return chunks * chunkBytes
}
