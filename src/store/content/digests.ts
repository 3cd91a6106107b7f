import { hash } from 'node:crypto'
import { ServiceError } from '../../base/errors.ts'

/** SHA-256. Many digests travel as one array, 32 bytes each; 32 zero bytes stand for "zeros, no chunk". */
export const DIGEST_BYTES = 32

export const countOf = (digests: Uint8Array): number => digests.length / DIGEST_BYTES
export const digestAt = (digests: Uint8Array, index: number): Uint8Array =>
  digests.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES)

/** A key for maps: one character a byte, a quarter of the cost of hex. */
export const keyOf = (digest: Uint8Array): string =>
  Buffer.from(digest.buffer, digest.byteOffset, digest.length).toString('latin1')
export const keyAt = (digests: Uint8Array, index: number): string => keyOf(digestAt(digests, index))
export const hexOf = (digest: Uint8Array): string => Buffer.from(digest.buffer, digest.byteOffset, digest.length).toString('hex')

export const isZeroAt = (digests: Uint8Array, index: number): boolean => {
  for (let at = index * DIGEST_BYTES; at < (index + 1) * DIGEST_BYTES; at += 1) if (digests[at] !== 0) return false
  return true
}

export const sha256 = (bytes: Uint8Array): Uint8Array => hash('sha256', bytes, 'buffer')

export const sha256Hex = (bytes: Uint8Array): string => hash('sha256', bytes)

export const joinDigests = (digests: readonly Uint8Array[]): Uint8Array => {
  const joined = new Uint8Array(digests.length * DIGEST_BYTES)
  for (const [index, digest] of digests.entries()) joined.set(digest, index * DIGEST_BYTES)
  return joined
}

/** @throws ServiceError `not-found` for what is no manifest's name */
export function digestOfManifest(manifest: string): Uint8Array {
  if (!/^[0-9a-f]{64}$/.test(manifest))
    throw new ServiceError('not-found', 'This is not the name of a manifest: 64 lower-case hex digits.', {
      manifest: manifest.slice(0, 80),
    })
  return new Uint8Array(Buffer.from(manifest, 'hex'))
}
