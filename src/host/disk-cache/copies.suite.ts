/** Chunks for tests of the cache: what they hold follows from their number. */
import { createHash } from 'node:crypto'
import { CODEC_PLAIN } from '../../store/content/codec.ts'
import { sha256 } from '../../store/content/digests.ts'
import type { StoredCopy } from './disk-cache.ts'

const MAX_BYTES = 20_000

export function numberedBytes(number: number): Uint8Array {
  const seed = createHash('sha512').update(`chunk ${number}`).digest()
  const bytes = new Uint8Array(1 + ((number * 7919) % MAX_BYTES))
  for (let at = 0; at < bytes.length; at += seed.length) bytes.set(seed.subarray(0, bytes.length - at), at)
  return bytes
}
export function numberedCopy(number: number): StoredCopy {
  const bytes = numberedBytes(number)
  return { digest: sha256(bytes), codec: CODEC_PLAIN, bytes }
}
