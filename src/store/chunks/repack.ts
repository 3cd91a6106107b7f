import { isServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import type { JobOptions } from './chunk-store.ts'
import { countOf, digestAt } from './digests.ts'
import type { Engine } from './engine.ts'
import type { PackRow } from './index/chunk-index.ts'
import { PACK_BYTES, packKey } from './pack-format.ts'
import type { StoredChunk } from './workers/jobs.ts'

/** A pack is rewritten when less than half of it is in use … */
const LIVE_SHARE = 0.5
/** … or when it is small, and there are others to merge it with. */
const SMALL_BYTES = PACK_BYTES / 4
const BATCH_BYTES = MiB

/**
 * Moves what is in use out of packs that are mostly garbage or small. Every chunk is verified before it is moved; a pack with a
 * damaged chunk stays as it is. The old packs are empty for the index afterwards, once the new ones are durable.
 * @returns packs whose chunks were moved
 */
export async function repack(
  engine: Engine,
  assertGoesOn: () => void,
  onProgress: NonNullable<JobOptions['onProgress']>,
): Promise<number> {
  const chosen = choose(await engine.index.packs())
  const durable = new Set<Promise<void>>()
  let moved = 0
  for (const { pack } of chosen) {
    assertGoesOn()
    try {
      for (const promise of await movePack(engine, pack)) durable.add(promise)
      moved += 1
    } catch (error) {
      if (!isServiceError(error, 'corrupt') && !isServiceError(error, 'not-found')) throw error // `check` reports those
    }
    onProgress({ phase: 'repack', done: moved, total: chosen.length })
  }
  engine.writer.flush()
  await Promise.all(durable)
  return moved
}

function choose(rows: readonly PackRow[]): PackRow[] {
  const living = rows.filter(({ state, liveChunks }) => state === 'sealed' && liveChunks > 0)
  const isSparse = ({ liveBytes, packBytes }: PackRow) => liveBytes < packBytes * LIVE_SHARE
  const isSmall = ({ liveBytes }: PackRow) => liveBytes < SMALL_BYTES
  const small = living.filter(isSmall)
  return living.filter((row) => (isSmall(row) ? small.length > 1 || isSparse(row) : isSparse(row)))
}

async function movePack({ blobs, index, workers, writer }: Engine, pack: string): Promise<Promise<void>[]> {
  const columns = await index.chunksOfPack(pack)
  const durable = new Set<Promise<void>>()
  for (let next = 0; next < countOf(columns.digests); ) {
    const first = next
    const from = columns.offsets[first]!
    const endOf = (chunk: number) => columns.offsets[chunk]! + columns.storedBytes[chunk]!
    do next += 1
    while (next < countOf(columns.digests) && endOf(next) - from <= BATCH_BYTES)
    const bytes = await blobs.read(packKey(pack), from, endOf(next - 1) - from)
    const chunks = Array.from({ length: next - first }, (_, index): StoredChunk => {
      const at = first + index
      return {
        input: 0,
        at: columns.offsets[at]! - from,
        storedBytes: columns.storedBytes[at]!,
        plainBytes: columns.plainBytes[at]!,
        codec: columns.codecs[at]!,
        digest: digestAt(columns.digests, at).slice(),
        to: 0,
      }
    })
    const { damaged } = await workers.run({ kind: 'decode', inputs: [bytes], chunks })
    for (const [index, { at, storedBytes, digest, plainBytes, codec }] of chunks.entries()) {
      if (damaged.includes(index)) continue // stays where it is, and its pack with it
      const kind = columns.kinds[first + index]!
      const moved = await writer.move({ digest, bytes: bytes.subarray(at, at + storedBytes), plainBytes, kind, codec }, pack)
      durable.add(moved.durable)
    }
  }
  return [...durable]
}
