import { MiB } from '../../../base/units.ts'

export const SLOT_BYTES = MiB

/**
 * Memory through which bytes reach the worker threads: a fixed number of slots, for all ingests together, or for all random reads.
 * A slot is held only while its bytes are being worked on, never while a client is waited for.
 */
export class SlotPool {
  readonly memory: SharedArrayBuffer
  readonly slotBytes: number
  readonly #free: number[]
  readonly #waiting: ((slot: number) => void)[] = []

  constructor(count: number, slotBytes: number = SLOT_BYTES) {
    this.memory = new SharedArrayBuffer(count * slotBytes) // costs nothing until it is used
    this.slotBytes = slotBytes
    this.#free = Array.from({ length: count }, (_, index) => count - 1 - index)
  }

  /** In the order of asking. */
  acquire(): Promise<number> {
    const slot = this.#free.pop() // the one used last: its pages are warm
    if (slot !== undefined) return Promise.resolve(slot)
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  release(slot: number): void {
    const next = this.#waiting.shift()
    if (next) next(slot)
    else this.#free.push(slot)
  }

  bytes(slot: number, length: number = this.slotBytes): Uint8Array {
    return new Uint8Array(this.memory, slot * this.slotBytes, length)
  }
}
