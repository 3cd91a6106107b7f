import type { BlockSource } from '../../disk/block/block-source.ts'
import { inOrder } from '../../disk/block/in-order.ts'
import { PIECE_BYTES, PIECES_AHEAD } from './pieces.ts'
import type { WriteOptions, Written } from './write-target.ts'

/** The whole file from front to back, holes as zeros. */
export async function* streamOf(file: BlockSource, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const offsets = function* () {
    for (let at = 0; at < file.size; at += PIECE_BYTES) {
      signal.throwIfAborted()
      yield at
    }
  }
  yield* inOrder(offsets(), PIECES_AHEAD, (at) => file.read(at, Math.min(PIECE_BYTES, file.size - at)))
}

/** Waits for whoever reads. Where nobody does any more, the process ends as one killed by SIGPIPE. */
export async function writeStdout(
  stream: AsyncIterable<Uint8Array>,
  read: () => { readonly doneBytes: number; readonly totalBytes: number } | undefined,
  { signal, onProgress }: WriteOptions,
): Promise<Written> {
  let bytes = 0
  for await (const piece of stream) {
    signal.throwIfAborted()
    await new Promise<void>((done, fail) => {
      process.stdout.write(piece, (error) => (error ? fail(error) : done()))
    })
    bytes += piece.length
    onProgress({
      phase: 'Converting',
      ...(read() ?? { doneBytes: bytes, totalBytes: null }),
      movedBytes: bytes,
      counts: { written: bytes },
    })
  }
  return { fileBytes: bytes, dataBytes: bytes }
}
