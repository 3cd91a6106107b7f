import type { KnownFile } from '../store/chunks/chunk-store.ts'
import type { ImagePorts } from './ports.ts'

/** The latest images of this size; a stream is compared with all of them until it parts from them, so they are few. */
const MOST = 8

/**
 * What a file of this size that comes into this project may turn out to be: images that the project can see anyway, so that the
 * speed of an upload tells it nothing about others.
 */
export async function likelyFiles(
  { catalog }: ImagePorts,
  projectId: string | null,
  bytes: number,
): Promise<readonly KnownFile[]> {
  const images = await catalog.images.list({
    viewer: { projectId },
    statuses: ['active'],
    sizeMin: bytes,
    sizeMax: bytes,
    limit: MOST,
  })
  const known = new Map<string, KnownFile>()
  for (const { manifest, checksum, hashAlgo, hashValue } of images) {
    if (manifest === null || checksum === null || hashAlgo !== 'sha512' || hashValue === null) continue
    known.set(manifest, { manifest, digests: { md5: checksum, sha512: hashValue } })
  }
  return [...known.values()]
}
