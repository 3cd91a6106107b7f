import { MiB } from '../../base/units.ts'
import type { BlockSource, Extent } from '../../disk/block/block-source.ts'

export const PIECE_BYTES = MiB
/** Read or written at a time. Node has four threads for files; the others wait in line, so that none of them idles. */
export const PIECES_AHEAD = 8

/** Extents cut at multiples of 1 MiB, so that each can be read at once. What holds no data is left whole. */
export async function* piecesOf(source: BlockSource, signal: AbortSignal): AsyncGenerator<Extent> {
  for await (const { kind, offset, length } of source.extents(0, source.size)) {
    signal.throwIfAborted()
    if (kind !== 'data') {
      yield { kind, offset, length }
      continue
    }
    const end = offset + length
    for (let at = offset; at < end; ) {
      const stop = Math.min(end, (Math.floor(at / PIECE_BYTES) + 1) * PIECE_BYTES)
      yield { kind, offset: at, length: stop - at }
      at = stop
      signal.throwIfAborted()
    }
  }
}

/** Memory that is used again and again: fresh pages cost as much as the copy into them. */
export class PieceBuffers {
  readonly #free: Uint8Array[] = []

  /** Lends 1 MiB, of which `work` may use what it likes until it ends. */
  async lend<Result>(work: (buffer: Uint8Array) => Promise<Result>): Promise<Result> {
    const buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES)
    try {
      return await work(buffer)
    } finally {
      this.#free.push(buffer)
    }
  }
}
