import { assertRange } from '../../disk/block/block-source.ts'
import type { Engine } from './engine.ts'
import { type BlockOfChunks, blocksOf, enterReading } from './file-source.ts'
import { cancelledError, orCancelled } from './gather.ts'

/** Blocks of one stream that may be on their way beside the one that is being sent. */
const BLOCKS_AHEAD = 4
/** Chunks of the first block, so that the first byte does not wait for a whole MiB. */
const FIRST_CHUNKS = 1

/** Front to back with read-ahead; see `ChunkStore.stream`. Reads ahead only as far as all streams' common allowance goes. */
export async function* streamFile(
  engine: Engine,
  name: string,
  offset: number,
  length: number,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const leave = enterReading(engine, name)
  engine.streams += 1
  const underWay: { bytes: Promise<Uint8Array>; block: BlockOfChunks; allowed: number }[] = []
  try {
    const manifest = await engine.reader.openManifest(name)
    assertRange(offset, length, manifest.root.fileBytes)
    const blocks = startingSmall(offset, length, engine.chunkBytes, engine.blockBytes(engine.streams))
    const start = (allowed: number): boolean => {
      const next = blocks.next()
      if (next.done) {
        engine.readAhead.give(allowed)
        return false
      }
      const bytes = engine.reader.readJoined(manifest, next.value.first, next.value.count)
      bytes.catch(() => undefined) // it is awaited in its turn
      underWay.push({ bytes, block: next.value, allowed })
      return true
    }
    for (;;) {
      if (signal?.aborted) throw cancelledError()
      if (underWay.length === 0 && !start(0)) return
      const blockBytes = engine.blockBytes(engine.streams)
      while (underWay.length <= BLOCKS_AHEAD && engine.readAhead.take(blockBytes) && start(blockBytes));
      const { bytes, block, allowed } = underWay[0]!
      const joined = await orCancelled(bytes, signal)
      underWay.shift()
      engine.readAhead.give(allowed)
      yield joined.subarray(block.skip, block.skip + block.take)
    }
  } finally {
    engine.streams -= 1
    leave()
    for (const { allowed } of underWay) engine.readAhead.give(allowed)
  }
}

function* startingSmall(offset: number, length: number, chunkBytes: number, blockBytes: number): Generator<BlockOfChunks> {
  const firstEnd = (Math.floor(offset / chunkBytes) + FIRST_CHUNKS) * chunkBytes
  const firstBytes = Math.min(length, firstEnd - offset)
  yield* blocksOf(offset, firstBytes, chunkBytes, chunkBytes)
  yield* blocksOf(offset + firstBytes, length - firstBytes, chunkBytes, blockBytes)
}

/** What all streams together may have read ahead. Taking never waits: without it a stream reads one block after the other. */
export class Allowance {
  #leftBytes: number

  constructor(bytes: number) {
    this.#leftBytes = bytes
  }

  take(bytes: number): boolean {
    if (bytes > this.#leftBytes) return false
    this.#leftBytes -= bytes
    return true
  }

  give(bytes: number): void {
    this.#leftBytes += bytes
  }
}
