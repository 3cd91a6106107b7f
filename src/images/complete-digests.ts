import { isServiceError } from '../base/errors.ts'
import type { CatalogWriter } from '../store/catalog/catalog.ts'
import type { ImagePorts } from './ports.ts'

/** Images whose bytes came as chunks, so that nobody saw them from front to back: their md5 and sha512 are still to be computed. */
const KIND = 'pending-digests'
interface Pending {
  readonly manifest: string
}
/** Somebody may change the record between the reading and the writing; each such change is quick. */
const TRIES = 5
const PAGE = 100

/** In the transaction that makes the image active, so that no crash forgets it. */
export async function requestDigests({ documents }: CatalogWriter, imageId: string, manifest: string): Promise<void> {
  await documents.put<Pending>(KIND, imageId, { manifest })
}

/** Computes them behind the request; the fields are null until then. */
export function startDigests(ports: ImagePorts, imageId: string): void {
  ports.jobs.start(`digests of image ${imageId}`, (signal) => completeDigests(ports, imageId, signal))
}

/** Takes up what the last run of the service left undone. */
export async function resumeDigests(ports: ImagePorts): Promise<void> {
  for (let after: string | undefined; ; ) {
    const page = await ports.catalog.documents.list<Pending>(KIND, { limit: PAGE, ...(after ? { after } : {}) })
    for (const { key } of page) startDigests(ports, key)
    after = page.at(-1)?.key
    if (!after || page.length < PAGE) return
  }
}

async function completeDigests({ catalog, chunks, readers }: ImagePorts, imageId: string, signal: AbortSignal): Promise<void> {
  const pending = await catalog.documents.get<Pending>(KIND, imageId)
  if (!pending) return
  const { manifest } = pending.body
  const letGo = readers.hold(manifest)
  try {
    const isStillThere = (await catalog.images.get(imageId))?.manifest === manifest
    const digests = isStillThere ? await chunks.digest(manifest, ['md5', 'sha512'], signal) : undefined
    for (let attempt = 1; ; attempt += 1) {
      try {
        await catalog.write(async ({ images, documents }) => {
          const image = await images.get(imageId)
          if (digests && image?.manifest === manifest && image.checksum === null) {
            // updatedAt stays: to its owner, nothing about the image has changed
            const changes = { checksum: digests.md5, hashAlgo: 'sha512', hashValue: digests.sha512, updatedAt: image.updatedAt }
            await images.update(imageId, image.version, changes)
          }
          await documents.delete(KIND, imageId)
        })
        return
      } catch (error) {
        if (!isServiceError(error, 'conflict') || attempt === TRIES) throw error
      }
    }
  } finally {
    letGo()
  }
}
