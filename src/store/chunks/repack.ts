import { isServiceError, ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import { countOf, digestAt, joinDigests } from '../content/digests.ts'
import type { JobOptions } from './chunk-store.ts'
import { endOf, readBatch } from './distrust.ts'
import type { Engine } from './engine.ts'
import type { ChunkColumns, PackRow } from './index/chunk-index.ts'
import { PACK_BYTES } from './pack-format.ts'

/** A pack is rewritten when less than half of it is in use … */
const LIVE_SHARE = 0.5
/** … or when it is small, and there are others to merge it with. */
const SMALL_BYTES = PACK_BYTES / 4
const BATCH_BYTES = MiB

/**
 * Moves what is in use out of packs that are mostly garbage, small, or were found damaged somewhere. Every chunk is verified before it is
 * moved; damaged ones are distrusted and stay, and their packs with them. The old packs are otherwise empty for the index
 * afterwards, once the new ones are durable. A pack that the disk does not give is left as it is, and the others have their turn.
 * @returns `moved`: packs whose chunks were moved; `unread`: errors of packs that could not be read
 */
export async function repack(
  engine: Engine,
  assertGoesOn: () => void,
  onProgress: NonNullable<JobOptions['onProgress']>,
): Promise<{ readonly moved: number; readonly unread: readonly ServiceError[] }> {
  const chosen = choose(await engine.index.packs())
  const durable = new Set<Promise<void>>()
  const unread: ServiceError[] = []
  let moved = 0
  for (const { pack } of chosen) {
    assertGoesOn()
    try {
      const before = durable.size
      const error = await movePack(engine, pack, durable)
      if (error) unread.push(error)
      if (durable.size > before) moved += 1
    } catch (error) {
      if (!isServiceError(error, 'corrupt') && !isServiceError(error, 'not-found')) throw error // `check` reports those
    }
    onProgress({ phase: 'repack', done: moved, total: chosen.length })
  }
  engine.writer.flush()
  await Promise.all(durable)
  return { moved, unread }
}

function choose(rows: readonly PackRow[]): PackRow[] {
  const living = rows.filter(({ state, liveChunks }) => state === 'sealed' && liveChunks > 0)
  const isSparse = ({ liveBytes, packBytes }: PackRow) => liveBytes < packBytes * LIVE_SHARE
  const isSmall = ({ liveBytes }: PackRow) => liveBytes < SMALL_BYTES
  const small = living.filter((row) => isSmall(row) && !row.isSuspect)
  return living.filter((row) => row.isSuspect || (isSmall(row) ? small.length > 1 || isSparse(row) : isSparse(row)))
}

/**
 * @param durable gets what must be awaited before the pack's chunks are safe in others
 * @returns the error of a disk that does not give the pack now: what was not moved by then stays
 */
async function movePack(
  { blobs, index, workers, writer }: Engine,
  pack: string,
  durable: Set<Promise<void>>,
): Promise<ServiceError | undefined> {
  const all = chunksOf(await index.chunksOfPack(pack))
  for (let next = 0; next < all.length; ) {
    const first = next
    do next += 1
    while (next < all.length && endOf(all[next]!) - all[first]!.offset <= BATCH_BYTES)
    const batch = all.slice(first, next)
    const read = await readBatch(blobs, pack, batch).catch((error) => {
      if (isServiceError(error, 'unavailable')) return error
      throw error
    })
    if (read instanceof ServiceError) return read
    const { inputs, places } = read
    const readable = batch.flatMap((chunk, at) => (places[at] ? [{ ...chunk, ...places[at], to: 0 }] : []))
    const { damaged } = await workers.run({ kind: 'decode', inputs, chunks: readable })
    const whole = readable.filter((_, place) => !damaged.includes(place))
    for (const { digest, input, at, storedBytes, plainBytes, kind, codec } of whole) {
      const bytes = inputs[input]!.subarray(at, at + storedBytes)
      durable.add((await writer.move({ digest, bytes, plainBytes, kind, codec }, pack)).durable)
    }
    const offsets = new Set(whole.map(({ offset }) => offset))
    const stay = batch.filter(({ offset }) => !offsets.has(offset))
    if (stay.length > 0) await index.distrust(pack, joinDigests(stay.map(({ digest }) => digest)))
  }
  return undefined
}

const chunksOf = (columns: ChunkColumns) =>
  Array.from({ length: countOf(columns.digests) }, (_, chunk) => ({
    digest: digestAt(columns.digests, chunk).slice(),
    offset: columns.offsets[chunk]!,
    storedBytes: columns.storedBytes[chunk]!,
    plainBytes: columns.plainBytes[chunk]!,
    kind: columns.kinds[chunk]!,
    codec: columns.codecs[chunk]!,
  }))
