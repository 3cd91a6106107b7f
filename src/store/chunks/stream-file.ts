import { assertRange } from '../../disk/block/block-source.ts'
import type { OpenManifest } from './chunk-reader.ts'
import type { Lent, ReadOptions } from './chunk-store.ts'
import type { Engine } from './engine.ts'
import { type BlockOfChunks, blocksOf, enterReading } from './file-source.ts'
import { cancelledError, orCancelled } from './gather.ts'
import { SLOT_BYTES } from './workers/slot-pool.ts'

/** Blocks of one stream that may be on their way beside the one that is being sent. */
const BLOCKS_AHEAD = 4
/** Chunks of the first block, so that the first byte does not wait for a whole MiB. */
const FIRST_CHUNKS = 1
/** What every lent block of zeros is a part of: nobody may write to it. */
export const LENT_ZEROS = new Uint8Array(SLOT_BYTES)
const nothingToGiveBack = () => undefined

/** See `ChunkStore.stream`. */
export async function* streamFile(
  engine: Engine,
  name: string,
  offset: number,
  length: number,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  for await (const { bytes, giveBack } of lendFile(engine, name, offset, length, { signal })) {
    const own = bytes.slice()
    giveBack()
    yield own
  }
}

/**
 * Front to back with read-ahead; see `ChunkStore.lend`. Reads ahead only as far as there are read slots, an equal share for each
 * stream; a stream for which none is left reads one block after the other, into memory of its own.
 */
export async function* lendFile(
  engine: Engine,
  name: string,
  offset: number,
  length: number,
  { signal, givesWay = false }: ReadOptions = {},
): AsyncGenerator<Lent> {
  const { readSlots } = engine
  const leave = enterReading(engine, name)
  engine.streams += 1
  const underWay: Promise<Lent>[] = []
  try {
    const manifest = await engine.reader.openManifest(name)
    assertRange(offset, length, manifest.root.fileBytes)
    const blocks = startingSmall(offset, length, engine.chunkBytes, engine.blockBytes(engine.streams))
    const start = (slot: number | undefined): boolean => {
      const next = blocks.next()
      if (next.done) {
        if (slot !== undefined) readSlots.give(slot)
        return false
      }
      const lent = lendBlock(engine, manifest, next.value, slot)
      lent.catch(() => undefined) // it is awaited in its turn
      underWay.push(lent)
      return true
    }
    for (;;) {
      if (signal?.aborted) throw cancelledError()
      const share = Math.max(1, Math.min(BLOCKS_AHEAD + 1, Math.floor(readSlots.count / engine.streams)))
      while (underWay.length < share) {
        const slot = readSlots.take()
        if (slot === undefined || !start(slot)) break
      }
      if (underWay.length === 0 && !start(undefined)) return
      const lent = await orCancelled(underWay[0]!, signal)
      underWay.shift()
      if (!givesWay) engine.lastMovedMs = performance.now()
      yield lent
    }
  } finally {
    engine.streams -= 1
    leave()
    for (const lent of underWay) void lent.then(({ giveBack }) => giveBack(), nothingToGiveBack)
  }
}

/** @param slot given back by the reader of the block, or here where it is of no use */
async function lendBlock(
  { reader, readSlots }: Engine,
  manifest: OpenManifest,
  { first, count, skip, take }: BlockOfChunks,
  slot: number | undefined,
): Promise<Lent> {
  let isHeld = slot !== undefined
  const giveBack = () => {
    if (isHeld) readSlots.give(slot!)
    isHeld = false
  }
  try {
    const found = slot === undefined ? 'does-not-fit' : await reader.readIntoSlot(manifest, first, count, slot)
    if (found === 'read') return { bytes: readSlots.bytes(slot!, skip, take), giveBack }
    giveBack()
    if (found === 'zeros') return { bytes: LENT_ZEROS.subarray(0, take), giveBack }
    const joined = await reader.readJoined(manifest, first, count)
    return { bytes: joined.subarray(skip, skip + take), giveBack }
  } catch (error) {
    giveBack()
    throw error
  }
}

function* startingSmall(offset: number, length: number, chunkBytes: number, blockBytes: number): Generator<BlockOfChunks> {
  const firstEnd = (Math.floor(offset / chunkBytes) + FIRST_CHUNKS) * chunkBytes
  const firstBytes = Math.min(length, firstEnd - offset)
  yield* blocksOf(offset, firstBytes, chunkBytes, chunkBytes)
  yield* blocksOf(offset + firstBytes, length - firstBytes, chunkBytes, blockBytes)
}
