import { MiB } from '../../base/units.ts'
import { STAGING_BYTES } from './chunk-reader.ts'
import { READ_SLOT_BYTES } from './workers/read-slots.ts'
import { SLOT_BYTES } from './workers/slot-pool.ts'

/** How the memory that the store may use is shared out. Two pack buffers of 16 MiB come on top of it and never change. */
export interface MemoryPlan {
  /** Slots of 1 MiB through which all ingests go. */
  readonly slots: number
  /** Of one ingest. */
  readonly slotsOfOne: number
  /** Chunks kept for random reads. */
  readonly cacheBytes: number
  /** Slots through which random reads go. */
  readonly stagingSlots: number
  /** Read slots, of all streams together. */
  readonly readSlots: number
}

export const DEFAULT_MEMORY_BYTES = 128 * MiB
const PACK_BUFFERS_BYTES = 32 * MiB

export function planMemory(memoryBytes: number, workers: number): MemoryPlan {
  const left = Math.max(memoryBytes - PACK_BUFFERS_BYTES, 24 * MiB)
  // each worker needs one to work on, one ready, and one that is being placed; more would only wait
  const slots = Math.max(workers + 2, Math.min(4 * workers + 4, Math.floor(left / 3 / MiB)))
  const readSlots = Math.min(4 * workers + 8, Math.floor(left / 3 / READ_SLOT_BYTES))
  const stagingSlots = Math.max(2, Math.min(4 * workers, Math.floor(left / 8 / STAGING_BYTES)))
  return {
    slots,
    slotsOfOne: Math.min(slots, 3 * workers),
    readSlots,
    stagingSlots,
    cacheBytes: Math.max(8 * MiB, left - slots * SLOT_BYTES - readSlots * READ_SLOT_BYTES - stagingSlots * STAGING_BYTES),
  }
}
