import { setTimeout as wait } from 'node:timers/promises'
import { isServiceError, ServiceError } from '../base/errors.ts'
import { cancelled, persist } from './client/http-client.ts'
import type { Image, ImageClient } from './client/image-client.ts'

const LOOK_MS = 300
const TRIES = 7

/**
 * Waits until an image that the service makes has its bytes.
 * @throws ServiceError `conflict` where it comes to nothing; `cancelled`
 */
export async function untilImage(images: ImageClient, id: string, signal: AbortSignal): Promise<Image> {
  for (;;) {
    const image = await persist(TRIES, signal, () => images.show(id)).catch((error: unknown) => {
      if (!isServiceError(error, 'not-found')) throw error
      throw new ServiceError('conflict', 'nothing came of it: the image was taken away again; see: imprint events')
    })
    if (image.status === 'active') return image
    if (image.status === 'killed') throw new ServiceError('conflict', `nothing came of it: image ${id} is ${image.status}`)
    await wait(LOOK_MS, undefined, { signal }).catch(() => {
      throw cancelled()
    })
  }
}

/** `web` at a moment → `web-20261121-201500`, in UTC. */
export const nameAt = (name: string, now = new Date()): string =>
  `${name}-${now.toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '-')}`
