import { KiB, MiB } from '../../base/units.ts'

const SMALLEST_BYTES = 4 * KiB
/** Larger ones are rare (a client that reads 32 MiB at once) and are left to the collector. */
const LARGEST_BYTES = 2 * MiB
const CLASSES = Math.log2(LARGEST_BYTES / SMALLEST_BYTES) + 1
/** Before a read's bytes there is room for the header of its reply, so that both leave as one buffer. */
export const HEADROOM_BYTES = 32

const classOf = (bytes: number) => Math.max(0, 32 - Math.clz32(bytes - 1) - Math.log2(SMALLEST_BYTES))

/** The room of the slab that one gets for so many bytes. */
export const roomFor = (bytes: number): number => (bytes > LARGEST_BYTES ? bytes : SMALLEST_BYTES * 2 ** classOf(bytes))

/** Memory for the bytes of one request. It holds what was in it last: nobody may send more of it than was written anew. */
export class Slab {
  /** `HEADROOM_BYTES`, then room for the bytes. */
  readonly buffer: Buffer
  readonly view: DataView
  /** The room alone. */
  readonly room: Buffer

  constructor(roomBytes: number) {
    this.buffer = Buffer.allocUnsafeSlow(HEADROOM_BYTES + roomBytes)
    this.view = new DataView(this.buffer.buffer)
    this.room = this.buffer.subarray(HEADROOM_BYTES)
  }
}

/** Slabs that are used again: fresh memory of a megabyte costs as much in page faults as the bytes in it cost to copy. */
export class SlabPool {
  readonly #free: Slab[][] = Array.from({ length: CLASSES }, () => [])
  readonly #maxBytes: number
  #keptBytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** With room for at least so many bytes. */
  take(bytes: number): Slab {
    const kept = bytes > LARGEST_BYTES ? undefined : this.#free[classOf(bytes)]!.pop()
    if (!kept) return new Slab(roomFor(bytes))
    this.#keptBytes -= kept.room.length
    return kept
  }

  /** Once nobody, the kernel included, looks at it any more. */
  give(slab: Slab): void {
    const bytes = slab.room.length
    if (bytes > LARGEST_BYTES || this.#keptBytes + bytes > this.#maxBytes) return
    this.#free[classOf(bytes)]!.push(slab)
    this.#keptBytes += bytes
  }
}
