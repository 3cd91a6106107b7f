import { fastestSha256, type Sha256 } from '../../../base/sha256-lanes.ts'
import { isZero } from '../../../disk/block/zero.ts'
import { DIGEST_BYTES } from '../../content/digests.ts'

let sha256: Sha256 | undefined // one for each thread, chosen by trying on its first use

/** @returns SHA-256 of each chunk, 32 bytes each; zeros in the place of a chunk that is all zeros */
export function hashChunks(chunks: readonly Uint8Array[]): Uint8Array {
  sha256 ??= fastestSha256()
  const places = [...chunks.keys()].filter((place) => !isZero(chunks[place]!))
  const digests = sha256.digests(places.map((place) => chunks[place]!))
  const all = new Uint8Array(chunks.length * DIGEST_BYTES)
  for (const [index, place] of places.entries())
    all.set(digests.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES), place * DIGEST_BYTES)
  return all
}

/** SHA-256 of each chunk, zeros or not. */
export function digestsOf(chunks: readonly Uint8Array[]): Uint8Array {
  sha256 ??= fastestSha256()
  return sha256.digests(chunks)
}
