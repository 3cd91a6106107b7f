import { ServiceError } from '../../base/errors.ts'
import { encodeChunksInto, FRAME_HEAD_BYTES, framesBytes, type WireChunk } from '../content/encode-chunks.ts'
import { chunksOf, PAGE_ENTRIES } from '../content/manifest-format.ts'
import type { OpenManifest } from './chunk-reader.ts'
import type { LendChunksOptions, Lent } from './chunk-store.ts'
import type { Engine } from './engine.ts'
import { enterReading } from './file-source.ts'
import { cancelledError, orCancelled } from './gather.ts'
import { PLAIN_BYTES, READ_SLOT_BYTES } from './workers/read-slots.ts'

/**
 * See `ChunkStore.lendChunks`. Two batches at most are in memory for one reader: the one that is being sent, and the next. They lie in
 * read slots where there are some left; else in memory of their own, and are smaller the more readers there are.
 */
export async function* lendChunks(
  engine: Engine,
  name: string,
  numbers: readonly number[],
  { signal, isVerified = false }: LendChunksOptions = {},
): AsyncGenerator<Lent> {
  const leave = enterReading(engine, name)
  engine.streams += 1
  let next: Promise<Lent> | undefined
  try {
    const manifest = await engine.reader.openManifest(name)
    assertNumbers(numbers, manifest, engine.chunkBytes)
    const batches = batchesOf(numbers, () => batchChunks(engine))
    const start = (): Promise<Lent> | undefined => {
      const batch = batches.next()
      if (batch.done) return undefined
      const lent = lendBatch(engine, manifest, batch.value, isVerified)
      lent.catch(() => undefined) // it is awaited in its turn
      return lent
    }
    next = start()
    while (next) {
      if (signal?.aborted) throw cancelledError()
      const lent = await orCancelled(next, signal)
      next = start()
      engine.lastMovedMs = performance.now()
      yield lent
    }
  } finally {
    engine.streams -= 1
    leave()
    void next?.then(
      ({ giveBack }) => giveBack(),
      () => undefined,
    )
  }
}

/** As many as fit into the first part of a read slot, plain and with their heads; fewer where many read. */
function batchChunks(engine: Engine): number {
  const fitting = Math.floor(PLAIN_BYTES / (engine.chunkBytes + FRAME_HEAD_BYTES))
  return Math.max(1, Math.min(fitting, engine.blockBytes(engine.streams) / engine.chunkBytes))
}

/** In the order of asking; a batch lies within a page. */
function* batchesOf(numbers: readonly number[], most: () => number): Generator<readonly number[]> {
  const pageOf = (index: number) => Math.floor(numbers[index]! / PAGE_ENTRIES)
  for (let at = 0; at < numbers.length; ) {
    const end = Math.min(numbers.length, at + most())
    let to = at + 1
    while (to < end && pageOf(to) === pageOf(at)) to += 1
    yield numbers.slice(at, to)
    at = to
  }
}

async function lendBatch(
  { reader, readSlots }: Engine,
  manifest: OpenManifest,
  numbers: readonly number[],
  isVerified: boolean,
): Promise<Lent> {
  const slot = readSlots.take()
  let isHeld = slot !== undefined
  const giveBack = () => {
    if (isHeld) readSlots.give(slot!)
    isHeld = false
  }
  let storedEnd = PLAIN_BYTES
  const memory = (bytes: number): Uint8Array | undefined => {
    if (slot === undefined || storedEnd + bytes > READ_SLOT_BYTES) return undefined
    storedEnd += bytes
    return readSlots.bytes(slot, storedEnd - bytes, bytes)
  }
  try {
    const chunks: readonly WireChunk[] = isVerified
      ? await reader.readVerified(manifest, numbers)
      : await reader.readStored(manifest, numbers, memory)
    const bytes = framesBytes(chunks)
    const isInSlot = slot !== undefined && bytes <= PLAIN_BYTES
    const frames = isInSlot ? readSlots.bytes(slot, 0, bytes) : new Uint8Array(bytes)
    encodeChunksInto(frames, chunks)
    if (!isInSlot) giveBack()
    return { bytes: frames, giveBack }
  } catch (error) {
    giveBack()
    throw error
  }
}

function assertNumbers(numbers: readonly number[], { root }: OpenManifest, chunkBytes: number): void {
  const chunks = chunksOf(root.fileBytes, chunkBytes)
  const wrong = numbers.find((number) => !(Number.isSafeInteger(number) && number >= 0 && number < chunks))
  if (wrong === undefined) return
  throw new ServiceError('invalid-request', `there is no chunk ${wrong}: the file has ${chunks}, numbered from 0`, {
    chunks,
  })
}
