import { availableParallelism } from 'node:os'
import { KiB, MiB } from '../../base/units.ts'
import { WorkerPool } from '../../store/chunks/workers/worker-pool.ts'

/** What is compared at a time; bounds memory together with `LANES`. */
export const WINDOW_BYTES = 4 * MiB
/** Windows under way side by side: one is read, one hashed, one fetched, one written. */
export const LANES = 4
const MAX_THREADS = 4
/** A window may begin and end within a block of the medium. */
const MARGIN_BYTES = 8 * KiB
const PAGE_BYTES = 64 * KiB // WebAssembly core specification 2.0, 2.5.5
const SLOT_BYTES = WINDOW_BYTES + PAGE_BYTES

/**
 * Memory for windows, and threads that hash what is in it. Reading past the cache of the system (O_DIRECT) wants memory that begins on a
 * page, which Node's buffers do not; WebAssembly's does, and can be shared with threads.
 */
export class ChunkLanes {
  readonly #memory: SharedArrayBuffer
  readonly #workers: WorkerPool

  constructor() {
    const pages = (LANES * SLOT_BYTES) / PAGE_BYTES
    this.#memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer as SharedArrayBuffer
    const none = new SharedArrayBuffer(0)
    const shared = { memory: this.#memory, slotBytes: SLOT_BYTES, readMemory: none, stagingMemory: none, chunkMemory: none }
    this.#workers = new WorkerPool(Math.min(MAX_THREADS, availableParallelism()), shared)
  }

  /** A window, with what it may take more at its ends. */
  memory(lane: number): Uint8Array {
    return new Uint8Array(this.#memory, lane * SLOT_BYTES, WINDOW_BYTES + MARGIN_BYTES)
  }

  /** @returns SHA-256 of each chunk at the beginning of the lane's memory, 32 bytes each; zeros for a chunk of zeros */
  hash(lane: number, bytes: number, chunkBytes: number): Promise<Uint8Array> {
    return this.#workers.run({ kind: 'hash', slot: lane, bytes, chunkBytes })
  }

  close(): Promise<void> {
    return this.#workers.close()
  }
}
