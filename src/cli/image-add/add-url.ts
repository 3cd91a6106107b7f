import { setTimeout as wait } from 'node:timers/promises'
import { ServiceError } from '../../base/errors.ts'
import { cancelled, persist } from '../client/http-client.ts'
import type { Image, ImageClient } from '../client/image-client.ts'
import type { TransferState } from '../progress.ts'

const FIRST_LOOK_MS = 100
const SLOWEST_LOOK_MS = 2000
const TRIES = 9

export interface AddUrlOptions {
  readonly images: ImageClient
  readonly url: string
  /** In the words of the image API. */
  readonly fields: Readonly<Record<string, unknown>>
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}

/**
 * Lets the service fetch an image by itself, and watches. Ctrl-C stops watching; the service goes on.
 * @throws ServiceError `invalid-image` with the service's reason where it could not
 */
export async function addUrl({ images, url, fields, signal, onProgress }: AddUrlOptions): Promise<Image> {
  const { id } = await images.create(fields)
  try {
    await images.importFromUrl(id, url)
  } catch (error) {
    await images.remove(id).catch(() => {})
    throw error
  }
  for (let pause = FIRST_LOOK_MS; ; pause = Math.min(SLOWEST_LOOK_MS, pause * 1.5)) {
    const image = await persist(TRIES, signal, () => images.show(id))
    if (image.status === 'active') return image
    const task = await images.latestTask(id)
    if (task?.status === 'failure' || image.status === 'killed') {
      throw new ServiceError(
        'invalid-image',
        `the service could not import it: ${task?.message ?? 'it gave no reason'}; the image ${id} says more`,
      )
    }
    onProgress({ phase: 'Importing', doneBytes: image.sizeBytes ?? 0, totalBytes: null, movedBytes: 0 })
    await wait(pause, undefined, { signal }).catch(() => {
      throw cancelled()
    })
  }
}
