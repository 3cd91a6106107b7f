import { failpoint } from '../../base/failpoint.ts'
import { hexOf } from '../content/digests.ts'
import type { Ingested, Lease } from './chunk-store.ts'
import type { Engine } from './engine.ts'
import type { ChunkIndex } from './index/chunk-index.ts'

export interface HoldFacts {
  readonly hold: number
  /** The hold of the upload by chunks that ends with it. */
  readonly session?: number
}
/** Rows of refs that one question looks through: bounds how long other questions wait, to some tens of milliseconds. */
const REFS_A_QUESTION = 4096

/** All chunks, pages and the root are durable: enters the manifest into the index, and hands out the lease. */
export async function finishManifest(
  { index }: Engine,
  { hold, session }: HoldFacts,
  root: Uint8Array,
  sizes: { readonly fileBytes: number; readonly allocatedBytes: number },
  newBytes: number,
  digests: Ingested['digests'],
): Promise<Ingested> {
  await index.complete(hold, { digest: root, ...sizes }, session)
  failpoint('manifest:committed')
  const { storedBytes, exclusiveBytes } = await storedSizes(index, hold, root, null)
  return { manifest: hexOf(root), digests, newBytes, ...sizes, storedBytes, exclusiveBytes, lease: makeLease(index, hold) }
}

/** Compressed bytes of what `hold` keeps, and the part of them that no other manifest (of `owner`, if given) than `digest` uses. */
export async function storedSizes(
  index: ChunkIndex,
  hold: number,
  digest: Uint8Array,
  owner: string | null,
): Promise<{ storedBytes: number; exclusiveBytes: number }> {
  let exclusiveBytes = 0
  let after = 0
  do {
    const part = await index.exclusiveBytes(hold, digest, after, REFS_A_QUESTION, owner)
    exclusiveBytes += part.bytes
    after = part.last
  } while (after > 0)
  const row = await index.findManifest(digest)
  return { storedBytes: row?.storedBytes ?? exclusiveBytes, exclusiveBytes }
}

const makeLease = (index: ChunkIndex, hold: number): Lease => ({
  release: () => index.commit(hold),
  abandon: () => index.abandon(hold),
})
