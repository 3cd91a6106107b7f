import { KiB, MiB } from '../../../base/units.ts'

/** A read slot begins with the place of plain bytes … */
export const PLAIN_BYTES = MiB
/** … and goes on with a place for what is read from packs and has to be unpacked; what does not fit is read another way. */
const STORED_BYTES = MiB + 512 * KiB
export const READ_SLOT_BYTES = PLAIN_BYTES + STORED_BYTES

/**
 * The memory through which files are streamed: read from packs, verified by the worker threads and sent from the same place,
 * so that nothing is allocated, cloned or handed over for each piece. Nobody waits for a slot: who gets none reads another
 * way, since a slow client may keep a slot for as long as it likes.
 */
export class ReadSlots {
  readonly memory: SharedArrayBuffer
  readonly count: number
  readonly #free: number[]

  constructor(count: number) {
    this.count = count
    this.memory = new SharedArrayBuffer(count * READ_SLOT_BYTES) // costs nothing until it is used
    this.#free = Array.from({ length: count }, (_, index) => count - 1 - index)
  }

  take(): number | undefined {
    return this.#free.pop() // the one used last: its pages are warm
  }

  give(slot: number): void {
    this.#free.push(slot)
  }

  /** `at + length` within `READ_SLOT_BYTES`. */
  bytes(slot: number, at: number, length: number): Uint8Array {
    return new Uint8Array(this.memory, slot * READ_SLOT_BYTES + at, length)
  }
}
