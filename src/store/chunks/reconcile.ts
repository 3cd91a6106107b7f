import { isServiceError } from '../../base/errors.ts'
import type { BlobStore } from '../blobs/blob-store.ts'
import { digestAt } from '../content/digests.ts'
import { distrustDamaged, type PlacedChunk } from './distrust.ts'
import type { ChunkIndex } from './index/chunk-index.ts'
import { ENTRY_BYTES, PACK_PREFIX, type PackEntry, packKey, parseFooter, parseTrailer, TRAILER_BYTES } from './pack-format.ts'
import { columnsOf } from './pack-writer.ts'

/** Packs whose footers are read side by side. */
const FOOTERS_AT_ONCE = 8

/**
 * Brings the index up to what lies in the blob store: enters packs that it does not know (the process ended between writing one
 * and entering it, or the index is new), forgets those that were never written, marks those that are lost.
 * @returns packs and chunks that were entered
 */
export async function reconcile(
  blobs: BlobStore,
  index: ChunkIndex,
  onPack: (done: number) => void = () => undefined,
): Promise<{ packs: number; chunks: number }> {
  const known = new Map((await index.packs()).map((row) => [row.pack, row.state]))
  const entered = { packs: 0, chunks: 0 }
  const underWay = new Set<Promise<void>>()
  for await (const key of blobs.list(PACK_PREFIX)) {
    const pack = packOfKey(key)
    if (pack === undefined) continue
    const state = known.get(pack)
    known.delete(pack)
    if (state === 'sealed') continue
    const entering = enterPack(blobs, index, pack).then((chunks) => {
      if (chunks === undefined) return
      entered.packs += 1
      entered.chunks += chunks
      onPack(entered.packs)
    })
    underWay.add(entering)
    void entering.finally(() => underWay.delete(entering)).catch(() => undefined)
    if (underWay.size >= FOOTERS_AT_ONCE) await Promise.race(underWay)
  }
  await Promise.all(underWay)
  for (const [pack, state] of known) {
    if (state === 'writing') await index.forgetPack(pack)
    else if (state === 'sealed') await index.losePack(pack)
  }
  return entered
}

const noRefs = { chunks: new Uint32Array(0), holds: new Float64Array(0) }

/**
 * Of chunks that lie in two packs one copy may be damaged: the one that came again is entered in its place.
 * @returns the number of its chunks; undefined: its footer is damaged, which `check` reports
 */
async function enterPack(blobs: BlobStore, index: ChunkIndex, pack: string): Promise<number | undefined> {
  try {
    const { entries, packBytes } = await readFooter(blobs, pack)
    const enter = () => index.addPack(pack, packBytes, columnsOf(entries), noRefs, [])
    const elsewhere = await enter()
    if (elsewhere.length > 0 && (await distrustDamaged(blobs, index, await placesOf(index, elsewhere))) > 0) await enter()
    return entries.length
  } catch (error) {
    if (isServiceError(error, 'corrupt') || isServiceError(error, 'not-found')) return undefined
    throw error
  }
}

async function placesOf(index: ChunkIndex, digests: Uint8Array): Promise<PlacedChunk[]> {
  const found = await index.locate(digests)
  return [...found.pack.keys()].flatMap((at) => {
    const pack = found.packs[found.pack[at]!]
    if (pack === undefined) return []
    return {
      digest: digestAt(digests, at),
      pack,
      offset: found.offsets[at]!,
      storedBytes: found.storedBytes[at]!,
      plainBytes: found.plainBytes[at]!,
      codec: found.codecs[at]!,
    }
  })
}

/** @throws ServiceError `corrupt`, `not-found` */
export async function readFooter(blobs: BlobStore, pack: string): Promise<{ entries: PackEntry[]; packBytes: number }> {
  const key = packKey(pack)
  const packBytes = await blobs.size(key)
  const trailer = await blobs.read(key, Math.max(0, packBytes - TRAILER_BYTES), Math.min(TRAILER_BYTES, packBytes))
  const { offset, entries } = parseTrailer(trailer, packBytes)
  const footer = await blobs.read(key, offset, entries * ENTRY_BYTES + TRAILER_BYTES)
  return { entries: parseFooter(footer, packBytes), packBytes }
}

/** Undefined for what is no pack. */
export function packOfKey(key: string): string | undefined {
  const id = key.slice(key.lastIndexOf('/') + 1)
  return /^[0-9a-f]{32}$/.test(id) && packKey(id) === key ? id : undefined
}
