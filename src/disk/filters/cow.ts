import { allEnded } from '../../base/all-ended.ts'
import { KiB, MiB } from '../../base/units.ts'
import { assertRange, type BlockSource, type Extent } from '../block/block-source.ts'
import type { WritableSource } from '../block/block-writer.ts'
import { merged } from '../block/run-merger.ts'
import { BLOCK, type BlockMap } from './block-map.ts'
import { BlockTurns } from './block-turns.ts'

/** What is copied up at once; a chunk of the store. */
export const COW_BLOCK_BYTES = 64 * KiB

/** Where a copy-on-write layer keeps what was written: at the place that it has on the disk. */
export interface Overlay {
  /** Which blocks of the disk are here. The layer sets it, after the bytes of a block are there whole. */
  readonly map: BlockMap
  /** Only of blocks that the map says are here. */
  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array>
  /** Writes the parts one behind the other. */
  write(offset: number, parts: readonly Uint8Array[]): Promise<void>
  /**
   * When this settles, whoever opens the overlay after the death of this process reads of the blocks `[first, end)` what the map says
   * now. Not after a power cut: that is for `sync`. Called for every change, before it is answered.
   * @param isNew whether the map said something else before
   */
  note(first: number, end: number, isNew: boolean): Promise<void>
  /** Makes durable, in this order, the bytes that were written and the map as it stood at the call. Calls do not overlap. */
  sync(): Promise<void>
  close(): Promise<void>
}

/** Copies that may be under way at once: each holds a block of memory that no client was charged for. */
const MAX_COPIES = 32
const ZEROS = new Uint8Array(MiB)
/** Blocks that are cleared in one go, 64 MiB: between two, everybody else has a turn. */
const BLOCKS_A_TURN = 1024

/**
 * A disk that can be written over one that cannot: blocks that were written are in `overlay`, all others in `base`. A block that
 * is written in part is copied up first. Closing it makes what was written durable, and closes both.
 */
export function copyOnWrite(base: BlockSource, overlay: Overlay): WritableSource {
  return new CopyOnWrite(base, overlay)
}

class CopyOnWrite implements WritableSource {
  readonly size: number
  readonly zeroesAreFast = true
  readonly #base: BlockSource
  readonly #overlay: Overlay
  readonly #turns = new BlockTurns()
  readonly #copies = new Places(MAX_COPIES)
  /** The sync that runs, and the one after it, which those who come meanwhile share. */
  #syncing: Promise<void> = Promise.resolve()
  #nextSync: Promise<void> | undefined

  constructor(base: BlockSource, overlay: Overlay) {
    this.size = base.size
    this.#base = base
    this.#overlay = overlay
  }

  async read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    assertRange(offset, length, this.size)
    const runs = [...this.#runs(offset, length)]
    if (runs.length === 1) return this.#readRun(runs[0]!, into)
    const answer = into ?? Buffer.allocUnsafeSlow(length)
    await allEnded(
      runs.map(async (run) => {
        const place = answer.subarray(run.offset - offset, run.offset - offset + run.length)
        const bytes = await this.#readRun(run, place)
        if (bytes.buffer !== place.buffer || bytes.byteOffset !== place.byteOffset) place.set(bytes)
      }),
    )
    return answer
  }

  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    assertRange(offset, length, this.size)
    yield* merged(this.#extentsOfRuns(offset, length))
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    assertRange(offset, bytes.length, this.size)
    if (bytes.length === 0) return
    const end = offset + bytes.length
    const [first, last] = [blockOf(offset), blockOf(end - 1)]
    const done = await this.#turns.take(first, last + 1)
    try {
      const head = this.#isHere(first) ? 0 : offset - startOf(first)
      const tail = this.#isHere(last) ? 0 : Math.min(this.size, startOf(last + 1)) - end
      if (head + tail === 0) await this.#overlay.write(offset, [bytes])
      else await this.#copies.use(() => this.#writeWithCopy(offset, bytes, head, tail))
      await this.#overlay.note(first, last + 1, this.#overlay.map.set(first, last + 1, BLOCK.data))
    } finally {
      done()
    }
  }

  async writeZeroes(offset: number, length: number, mayPunch: boolean): Promise<void> {
    assertRange(offset, length, this.size)
    const end = offset + length
    if (!mayPunch) return this.#writeBytesOfZeros(offset, end)
    const [from, to] = this.#wholeBlocks(offset, end)
    if (from >= to) return this.#writeBytesOfZeros(offset, end)
    await this.#writeBytesOfZeros(offset, startOf(from))
    await this.#clear(from, to)
    await this.#writeBytesOfZeros(Math.min(end, startOf(to)), end)
  }

  async trim(offset: number, length: number): Promise<void> {
    assertRange(offset, length, this.size)
    const [from, to] = this.#wholeBlocks(offset, offset + length)
    await this.#clear(from, to)
  }

  flush(): Promise<void> {
    this.#nextSync ??= this.#syncing
      .catch(() => undefined)
      .then(() => {
        this.#nextSync = undefined
        this.#syncing = this.#overlay.sync()
        return this.#syncing
      })
    return this.#nextSync
  }

  async close(): Promise<void> {
    try {
      await this.flush()
    } finally {
      await this.#overlay.close()
      await this.#base.close()
    }
  }

  /** Stretches of `[offset, offset + length)` that are in one state. */
  *#runs(offset: number, length: number): Generator<Run> {
    const { map } = this.#overlay
    const end = offset + length
    if (length === 0) yield { offset, length, state: BLOCK.zero }
    for (let at = offset; at < end; ) {
      const block = blockOf(at)
      const next = Math.min(end, startOf(map.runEnd(block, blockOf(end - 1) + 1)))
      yield { offset: at, length: next - at, state: map.get(block) }
      at = next
    }
  }

  async #readRun({ offset, length, state }: Run, into?: Uint8Array): Promise<Uint8Array> {
    if (state === BLOCK.absent) return this.#base.read(offset, length, into)
    if (state === BLOCK.data) return this.#overlay.read(offset, length, into)
    return into?.fill(0) ?? new Uint8Array(length)
  }

  async *#extentsOfRuns(offset: number, length: number): AsyncGenerator<Extent> {
    if (length === 0) return
    for (const run of this.#runs(offset, length)) {
      if (run.state === BLOCK.absent) yield* this.#base.extents(run.offset, run.length)
      else yield { offset: run.offset, length: run.length, kind: run.state === BLOCK.data ? 'data' : 'hole' }
    }
  }

  /** @param head bytes that are copied in front, from the start of a block; @param tail those behind, to the end of one */
  async #writeWithCopy(offset: number, bytes: Uint8Array, head: number, tail: number): Promise<void> {
    const end = offset + bytes.length
    const [before, after] = await Promise.all([this.read(offset - head, head), this.read(end, tail)])
    const parts = [before, bytes, after]
    // one call costs more than to copy a block
    const isShort = head + bytes.length + tail <= 2 * COW_BLOCK_BYTES
    await this.#overlay.write(offset - head, isShort ? [Buffer.concat(parts)] : parts)
  }

  async #writeBytesOfZeros(offset: number, end: number): Promise<void> {
    for (let at = offset; at < end; at += ZEROS.length) await this.write(at, ZEROS.subarray(0, end - at))
  }

  async #clear(from: number, to: number): Promise<void> {
    for (let first = from; first < to; first += BLOCKS_A_TURN) {
      const end = Math.min(to, first + BLOCKS_A_TURN)
      const done = await this.#turns.take(first, end)
      try {
        await this.#overlay.note(first, end, this.#overlay.map.set(first, end, BLOCK.zero))
      } finally {
        done()
      }
      if (end < to) await new Promise(setImmediate)
    }
  }

  /** Blocks that lie wholly in `[offset, end)`; the last of a disk may be short. */
  #wholeBlocks(offset: number, end: number): readonly [from: number, to: number] {
    return [Math.ceil(offset / COW_BLOCK_BYTES), end === this.size ? this.#overlay.map.blocks : blockOf(end)]
  }

  #isHere(block: number): boolean {
    return this.#overlay.map.get(block) === BLOCK.data
  }
}

interface Run {
  readonly offset: number
  readonly length: number
  readonly state: number
}

const blockOf = (offset: number): number => Math.floor(offset / COW_BLOCK_BYTES)
const startOf = (block: number): number => block * COW_BLOCK_BYTES
/** Of a disk so large; the last may be short. */
export const blocksOfDisk = (bytes: number): number => Math.ceil(bytes / COW_BLOCK_BYTES)

/** So many at once, the others in the order of coming. */
class Places {
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(places: number) {
    this.#free = places
  }

  async use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1
    else await new Promise<void>((go) => void this.#waiting.push(go))
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next) next()
      else this.#free += 1
    }
  }
}
