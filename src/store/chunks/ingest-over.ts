import type { BlockSource } from '../../disk/block/block-source.ts'
import { DIGEST_BYTES, digestAt, isZeroAt, joinDigests } from '../content/digests.ts'
import { chunksOf, PAGE_ENTRIES } from '../content/manifest-format.ts'
import type { OpenManifest } from './chunk-reader.ts'
import type { ByteRange, Ingested, OverIngestOptions } from './chunk-store.ts'
import { changedRuns } from './disk-runs.ts'
import type { Engine } from './engine.ts'
import { enterReading } from './file-source.ts'
import { cancelledError, orCancelled } from './gather.ts'
import { IngestRun, type StoredPart } from './ingest-run.ts'
import { type Stretch, stretchesOf } from './stretches.ts'

/** A disk that is being put over a file of the store. */
interface Over {
  readonly engine: Engine
  readonly run: IngestRun
  readonly disk: BlockSource
  readonly known: OpenManifest
  readonly signal: AbortSignal | undefined
}

/**
 * See `ChunkStore.ingestDisk`. The file below is being read while this lasts, so that no collector takes from it what is about to be
 * claimed.
 */
export async function ingestOver(engine: Engine, disk: BlockSource, options: OverIngestOptions): Promise<Ingested> {
  const leave = enterReading(engine, options.over.manifest)
  try {
    const known = await engine.reader.openManifest(options.over.manifest)
    const run = await IngestRun.begin(engine, options)
    const over = { engine, run, disk, known, signal: options.signal }
    return await run.through(async () => {
      const runs = changedRuns(disk, options.over, known.root.fileBytes, engine.chunkBytes)
      for await (const stretch of stretchesOf(runs, engine.chunkBytes)) {
        if (options.signal?.aborted) throw cancelledError()
        await run.add(stretch.length, () => storedPart(over, stretch))
      }
    })
  } finally {
    leave()
  }
}

async function storedPart(over: Over, stretch: Stretch): Promise<StoredPart> {
  const { engine, known } = over
  const first = stretch.offset / engine.chunkBytes
  const hasKnown = stretch.known.length > 0 && !isZeroAt(known.root.pages, Math.floor(first / PAGE_ENTRIES))
  if (!hasKnown && stretch.read.length === 0) return { zeroChunks: chunksOf(stretch.length, engine.chunkBytes) }
  const part = new PartOfPage(engine.chunkBytes, stretch)
  // one after the other: whoever waits for a slot holds none
  if (hasKnown) await keepKnown(over, stretch, part)
  if (stretch.read.length > 0) await readInto(over, stretch.read, part)
  return part
}

/** Entries of a manifest that are found out bit by bit. */
class PartOfPage {
  readonly digests: Uint8Array
  allocatedBytes = 0
  newBytes = 0
  readonly #chunkBytes: number
  readonly #offset: number

  constructor(chunkBytes: number, { offset, length }: ByteRange) {
    this.digests = new Uint8Array(chunksOf(length, chunkBytes) * DIGEST_BYTES)
    this.#chunkBytes = chunkBytes
    this.#offset = offset
  }

  /** The entry of the chunk that begins there. @param digest zeros for zeros */
  set(offset: number, digest: Uint8Array): void {
    this.digests.set(digest, ((offset - this.#offset) / this.#chunkBytes) * DIGEST_BYTES)
  }
}

/** Takes the chunks of the known file as they are; those that the store has no more, or not whole, are read from the disk. */
async function keepKnown(over: Over, stretch: Stretch, part: PartOfPage): Promise<void> {
  const { engine, run, known } = over
  const { chunkBytes, counters, index, reader } = engine
  const page = Math.floor(stretch.offset / chunkBytes / PAGE_ENTRIES)
  const entries = await reader.pageEntries(known, page)
  const digestOf = (offset: number) => digestAt(entries, offset / chunkBytes - page * PAGE_ENTRIES)
  const chunks = [...chunksIn(stretch.known, chunkBytes)].filter(({ offset }) => !isZeroAt(digestOf(offset), 0))
  const held = await index.claim(run.hold, joinDigests(chunks.map(({ offset }) => digestOf(offset))))
  const lost = chunks.filter(({ length }, place) => held[place] !== length)
  for (const { offset, length } of chunks) {
    part.set(offset, digestOf(offset))
    part.allocatedBytes += length
  }
  counters.chunksKnown += chunks.length - lost.length
  for (const chunk of lost) {
    part.allocatedBytes -= chunk.length
    await readInto(over, [chunk], part)
  }
}

/** Reads ranges of the disk, as many bytes as a slot has, and stores what is new in them. The slot is taken when the bytes are there. */
async function readInto({ engine, run, disk, signal }: Over, ranges: readonly ByteRange[], part: PartOfPage): Promise<void> {
  const { slots, chunkBytes, counters } = engine
  const reading = Promise.all(ranges.map(({ offset, length }) => disk.read(offset, length)))
  const pieces = await orCancelled(reading, signal)
  const slot = await slots.acquire()
  let bytes = 0
  for (const piece of pieces) {
    slots.bytes(slot).set(piece, bytes)
    bytes += piece.length
  }
  counters.bytesIngested += bytes
  const stored = await run.store(slot, bytes)
  for (const [place, { offset }] of [...chunksIn(ranges, chunkBytes)].entries()) part.set(offset, digestAt(stored.digests, place))
  part.allocatedBytes += stored.allocatedBytes
  part.newBytes += stored.newBytes
}

function* chunksIn(ranges: readonly ByteRange[], chunkBytes: number): Generator<ByteRange> {
  for (const { offset, length } of ranges) {
    const end = offset + length
    for (let at = offset; at < end; at += chunkBytes) yield { offset: at, length: Math.min(chunkBytes, end - at) }
  }
}
