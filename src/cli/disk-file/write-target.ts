import { KiB, MiB } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { inOrder } from '../../disk/block/in-order.ts'
import { isZero } from '../../disk/block/zero.ts'
import type { TransferState } from '../progress.ts'
import { PIECES_AHEAD, PieceBuffers, piecesOf } from './pieces.ts'

/** Zeros that fill one of these, at multiples of it, become a hole. */
const GRAIN_BYTES = 64 * KiB
/** The kernel begins to write to the disk while we go on, so that little is left for the end. */
const SYNC_BYTES = 128 * MiB

/** What holes are made in: a file. */
export interface WriteTarget {
  truncate(bytes: number): Promise<void>
  write(bytes: Uint8Array, offset: number): Promise<void>
  /** Brings what is written so far to the disk; absent: it need not be there. */
  sync?(): Promise<void>
}

export interface WriteOptions {
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}
export interface Written {
  readonly fileBytes: number
  /** The rest are holes. */
  readonly dataBytes: number
}

/** Brings a file that can be read anywhere to the disk: several pieces at a time, holes as holes. */
export async function writeRanges(
  file: BlockSource,
  target: WriteTarget,
  { signal, onProgress }: WriteOptions,
): Promise<Written> {
  await target.truncate(file.size)
  const buffers = new PieceBuffers()
  const sink = new Sink(target)
  const copied = inOrder(piecesOf(file, signal), PIECES_AHEAD, async ({ kind, offset, length }) => {
    if (kind === 'data') {
      await buffers.lend(async (buffer) => sink.put(await file.read(offset, length, buffer.subarray(0, length)), offset))
    }
    return offset + length
  })
  for await (const doneBytes of copied) {
    onProgress({ phase: 'Converting', doneBytes, totalBytes: file.size, movedBytes: sink.bytes, counts: { written: sink.bytes } })
  }
  await sink.settle()
  return { fileBytes: file.size, dataBytes: sink.bytes }
}

/** Brings a file that is made from front to back to the disk. `onProgress` is told how many bytes of it took place. */
export async function writeStream(
  stream: AsyncIterable<Uint8Array>,
  target: WriteTarget,
  { signal, onProgress }: { readonly signal: AbortSignal; readonly onProgress: (writtenBytes: number) => void },
): Promise<Written> {
  const sink = new Sink(target)
  let begun = 0
  const places = async function* () {
    for await (const bytes of stream) {
      signal.throwIfAborted()
      yield { bytes, offset: begun }
      begun += bytes.length
    }
  }
  for await (const _ of inOrder(places(), PIECES_AHEAD, ({ bytes, offset }) => sink.put(bytes, offset))) onProgress(sink.bytes)
  await target.truncate(begun) // it may end with zeros
  await sink.settle()
  return { fileBytes: begun, dataBytes: sink.bytes }
}

/** Leaves out what is zeros. */
class Sink {
  readonly #target: WriteTarget
  #syncing: Promise<void> | undefined
  #syncedBytes = 0
  #failure: unknown
  bytes = 0

  constructor(target: WriteTarget) {
    this.#target = target
  }

  async put(bytes: Uint8Array, offset: number): Promise<void> {
    for (const [start, end] of runsOfData(bytes, offset)) {
      await this.#target.write(bytes.subarray(start, end), offset + start)
      this.bytes += end - start
    }
    if (this.#failure !== undefined) throw this.#failure
    if (!this.#target.sync || this.#syncing || this.bytes - this.#syncedBytes < SYNC_BYTES) return
    this.#syncedBytes = this.bytes
    this.#syncing = this.#target.sync().then(
      () => {
        this.#syncing = undefined
      },
      (error: unknown) => {
        this.#failure = error // never tried again on the same file
      },
    )
  }

  /** Waits for what goes on by itself. */
  async settle(): Promise<void> {
    await this.#syncing
    if (this.#failure !== undefined) throw this.#failure
  }
}

/** `[start, end)` in `bytes`, of what is not zeros. @param offset of `bytes` in the file */
function* runsOfData(bytes: Uint8Array, offset: number): Generator<readonly [start: number, end: number]> {
  let open = -1
  for (let at = 0; at < bytes.length; ) {
    const stop = Math.min(bytes.length, (Math.floor((offset + at) / GRAIN_BYTES) + 1) * GRAIN_BYTES - offset)
    if (!isZero(bytes.subarray(at, stop))) {
      if (open < 0) open = at
    } else if (open >= 0) {
      yield [open, at]
      open = -1
    }
    at = stop
  }
  if (open >= 0) yield [open, bytes.length]
}
