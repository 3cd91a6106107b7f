import { isServiceError } from '../base/errors.ts'
import type { CatalogWriter } from '../store/catalog/catalog.ts'
import type { JobRunner } from './jobs.ts'
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

/** What runs for these jobs already, and whether to look again when it is done. */
const running = new WeakMap<JobRunner, { again: boolean }>()

/** Computes what is pending, behind the request: one image at a time, so that uploads and imports keep their threads. */
export function startDigests(ports: ImagePorts): void {
  const known = running.get(ports.jobs)
  if (known) {
    known.again = true
    return
  }
  const state = { again: true }
  running.set(ports.jobs, state)
  const work = async (signal: AbortSignal): Promise<void> => {
    try {
      while (state.again && !signal.aborted) {
        state.again = false
        await completePending(ports, signal)
      }
    } finally {
      running.delete(ports.jobs)
    }
  }
  try {
    ports.jobs.start('digests of images that came as chunks', work)
  } catch (error) {
    // the service is stopping: the next start goes on
    running.delete(ports.jobs)
    if (!isServiceError(error, 'unavailable')) throw error
  }
}

/** Each pending image once; what fails stays pending until the next start, and the first failure is told when all were tried. */
async function completePending(ports: ImagePorts, signal: AbortSignal): Promise<void> {
  const failures: unknown[] = []
  for (let after: string | undefined; !signal.aborted; ) {
    const page = await ports.catalog.documents.list<Pending>(KIND, { limit: PAGE, ...(after ? { after } : {}) })
    for (const { key } of page) {
      if (signal.aborted) return
      await completeDigests(ports, key, signal).catch((error: unknown) => failures.push(error))
    }
    after = page.at(-1)?.key
    if (!after || page.length < PAGE) break
  }
  if (failures.length > 0 && !signal.aborted) throw failures[0]
}

/** Takes up what the last run of the service left undone. */
export async function resumeDigests(ports: ImagePorts): Promise<void> {
  const [first] = await ports.catalog.documents.list<Pending>(KIND, { limit: 1 })
  if (first) startDigests(ports)
}

async function completeDigests({ catalog, chunks, readers }: ImagePorts, imageId: string, signal: AbortSignal): Promise<void> {
  const pending = await catalog.documents.get<Pending>(KIND, imageId)
  if (!pending) return
  const { manifest } = pending.body
  const letGo = readers.hold(manifest)
  try {
    const isStillThere = (await catalog.images.get(imageId))?.manifest === manifest
    const digests = isStillThere ? await chunks.digest(manifest, ['md5', 'sha512'], { signal, givesWay: true }) : undefined
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
