import { ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import type { CatalogWriter, ImageRecord } from '../../store/catalog/catalog.ts'
import type { ImagePorts } from '../ports.ts'
import { assertWithinQuota, type ProjectQuota, storableBytes } from '../quotas.ts'
import { changeTask, type TaskRecord } from './tasks.ts'

/** An import under way: the image is `importing` and names the task in its notes, and nobody else may touch its bytes. */
export interface HeldImport {
  readonly task: TaskRecord
  readonly image: ImageRecord
  readonly quota: ProjectQuota
}

/** The record as it is now. @throws ServiceError `gone` where it was deleted, or is no longer this import's */
export async function heldImage({ images }: CatalogWriter, { task }: HeldImport): Promise<ImageRecord> {
  const image = await images.get(task.imageId)
  if (image?.status === 'importing' && image.notes.importTask === task.id) return image
  throw new ServiceError('gone', `image ${task.imageId} was deleted while it was imported`, { imageId: task.imageId })
}

/**
 * Makes room for `needed` bytes in the project's quota, before they are used, and for up to `wanted` where there is room.
 * @returns what is reserved now; what was reserved before counts
 * @throws ServiceError `over-quota`, `gone`
 */
export async function reserve({ catalog }: ImagePorts, held: HeldImport, needed: number, wanted = needed): Promise<number> {
  return catalog.write(async (tx) => {
    const image = await heldImage(tx, held)
    const reserved = reservedBytesOf(image)
    if (needed <= reserved) return reserved
    await assertWithinQuota(tx, image.owner, held.quota, { storedBytes: needed - reserved })
    const room = image.owner === null ? Infinity : storableBytes(held.quota, await tx.images.usage(image.owner))
    const reservedBytes = Math.max(needed, Math.min(wanted, reserved + room))
    await tx.images.update(image.id, image.version, { notes: { ...image.notes, reservedBytes }, updatedAt: image.updatedAt })
    return reservedBytes
  })
}
export const reservedBytesOf = ({ notes }: ImageRecord): number =>
  typeof notes.reservedBytes === 'number' ? notes.reservedBytes : 0

/** Small, so that imports at the same time do not keep room from each other that none of them will use. */
const FIRST_RESERVATION_BYTES = MiB

/** Bytes as they come, with room reserved before they are passed on: in steps that double, so that few writes are needed. */
export async function* reserving(
  ports: ImagePorts,
  held: HeldImport,
  body: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  let [taken, reserved] = [0, reservedBytesOf(held.image)]
  for await (const chunk of body) {
    taken += chunk.length
    if (taken > reserved) reserved = await reserve(ports, held, taken, Math.max(FIRST_RESERVATION_BYTES, reserved * 2))
    yield chunk
  }
}

/**
 * Follows an import from the side: writes its progress into its task, and ends it when its image is deleted.
 * @param tellMs between two looks
 */
export function watch(ports: ImagePorts, held: HeldImport, stopping: AbortSignal, tellMs = 1000) {
  const ended = new AbortController()
  const signal = AbortSignal.any([stopping, ended.signal])
  let [bytes, told, writing] = [0, -1, Promise.resolve()]
  const look = async (): Promise<void> => {
    try {
      await ports.catalog.write(async (tx) => {
        await heldImage(tx, held)
        if (bytes === told) return
        told = bytes
        const message = `Copied ${Math.floor(bytes / MiB)} MiB`
        await changeTask(tx, held.task.id, { bytes, message, updatedAt: ports.now() })
      })
    } catch (error) {
      ended.abort(error)
    }
  }
  const timer = setInterval(() => {
    writing = writing.then(look)
  }, tellMs).unref()
  return {
    signal,
    onProgress: (taken: number): void => {
      bytes = taken
    },
    async stop(): Promise<void> {
      clearInterval(timer)
      await writing
    },
  }
}
