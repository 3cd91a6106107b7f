import { isServiceError } from '../../base/errors.ts'
import type { BlobStore } from '../blobs/blob-store.ts'
import { decodeChunk } from '../content/codec.ts'
import { joinDigests, sha256 } from '../content/digests.ts'
import type { ChunkIndex } from './index/chunk-index.ts'
import { HEADER_BYTES, packKey } from './pack-format.ts'

/** A chunk, and where the index says that it lies. */
export interface PlacedChunk {
  readonly digest: Uint8Array
  readonly pack: string
  readonly offset: number
  readonly storedBytes: number
  readonly plainBytes: number
  readonly codec: number
}

/**
 * Reads each of these chunks by itself, and has the index distrust those whose bytes are gone or are not theirs: whoever brings
 * such a chunk again stores it anew, and every manifest that refers to it reads right again. A chunk that is elsewhere by now
 * is left alone. An I/O error is no proof of damage: such a chunk stays trusted, and `check` and the
 * collector look at it more closely.
 * @returns how many are damaged
 */
export async function distrustDamaged(blobs: BlobStore, index: ChunkIndex, suspects: readonly PlacedChunk[]): Promise<number> {
  const damaged = new Map<string, Uint8Array[]>()
  for (const suspect of suspects) {
    if (!(await isDamaged(blobs, suspect))) continue
    damaged.set(suspect.pack, [...(damaged.get(suspect.pack) ?? []), suspect.digest])
  }
  for (const [pack, digests] of damaged) await index.distrust(pack, joinDigests(digests))
  return [...damaged.values()].reduce((sum, { length }) => sum + length, 0)
}

async function isDamaged(blobs: BlobStore, { digest, pack, offset, storedBytes, plainBytes, codec }: PlacedChunk) {
  try {
    const plain = decodeChunk(await blobs.read(packKey(pack), offset, storedBytes), codec, plainBytes)
    return !plain || Buffer.compare(sha256(plain), digest) !== 0
  } catch (error) {
    return isServiceError(error, 'corrupt') || isServiceError(error, 'not-found')
  }
}

type Stored = Pick<PlacedChunk, 'offset' | 'storedBytes'>

export const endOf = ({ offset, storedBytes }: Stored): number => offset + storedBytes

/** Where a chunk's stored bytes are in `inputs`. */
export interface BatchPlace {
  readonly input: number
  readonly at: number
}

/**
 * Stored bytes of chunks of a pack, ascending: by one read, or one by one where that fails.
 * @returns `places`: undefined for a chunk that cannot be read
 * @throws ServiceError `not-found`; `unavailable` where nothing of the pack can be read
 */
export async function readBatch(
  blobs: BlobStore,
  pack: string,
  batch: readonly Stored[],
): Promise<{ readonly inputs: Uint8Array[]; readonly places: readonly (BatchPlace | undefined)[] }> {
  const from = batch[0]!.offset
  try {
    const together = await blobs.read(packKey(pack), from, endOf(batch.at(-1)!) - from)
    return { inputs: [together], places: batch.map(({ offset }) => ({ input: 0, at: offset - from })) }
  } catch (error) {
    if (isServiceError(error, 'not-found')) throw error
  }
  const inputs: Uint8Array[] = []
  const places: (BatchPlace | undefined)[] = []
  for (const chunk of batch) {
    const stored = await readStored(blobs, pack, chunk)
    places.push(stored && { input: inputs.push(stored) - 1, at: 0 })
  }
  return { inputs, places }
}

/**
 * A chunk's stored bytes, told apart from a store that does not answer.
 * @returns undefined where the pack ends before them, or where they cannot be read twice in a row while the pack's first bytes
 *   can: then it is the place on the disk, and not the way to it
 */
async function readStored(blobs: BlobStore, pack: string, { offset, storedBytes }: Stored): Promise<Uint8Array | undefined> {
  const read = () => blobs.read(packKey(pack), offset, storedBytes)
  const failed = (error: unknown) => {
    if (isServiceError(error, 'corrupt')) return 'ends before'
    if (isServiceError(error, 'unavailable')) return 'not now'
    throw error
  }
  const first = await read().catch(failed)
  const second = first === 'not now' ? await read().catch(failed) : first
  if (second === 'not now') await blobs.read(packKey(pack), 0, HEADER_BYTES)
  return typeof second === 'string' ? undefined : second
}
