import { type Caller, serviceCaller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { openableFormats, openImage } from '../../disk/formats/index.ts'
import type { ImageRecord } from '../../store/catalog/catalog.ts'
import { findImage } from '../find-image.ts'
import type { ImagePorts } from '../ports.ts'
import type { TaskRecord } from './tasks.ts'

/** The disk that an import is a difference to; undefined where it stands alone. */
export interface ParentDisk {
  readonly imageId: string
  readonly bytes: number
  /** To be closed by who opens it. */
  open(): Promise<BlockSource>
  /** Its bytes may go again. */
  release(): void
}

/** @throws ServiceError `conflict`, `unsupported` */
export function assertCanBeParent({ id, status, manifest, diskFormat, containerFormat }: ImageRecord): void {
  if (status !== 'active' || manifest === null) {
    throw new ServiceError('conflict', `image ${id} cannot be a parent: it is ${status} and not active`, { imageId: id })
  }
  if (containerFormat === 'bare' && diskFormat !== null && openableFormats.includes(diskFormat)) return
  throw new ServiceError(
    'unsupported',
    `image ${id} cannot be a parent: the disk in ${containerFormat}/${diskFormat} cannot be opened here`,
  )
}

/**
 * Held until it is released: it may be deleted meanwhile.
 * @throws ServiceError `not-found`, `denied` where who asked for the import may not read it any more; `conflict`, `unsupported` as it is now
 */
export async function parentOf(ports: ImagePorts, task: TaskRecord): Promise<ParentDisk | undefined> {
  const { method } = task.request
  if (method.name === 'copy-image' || method.parentImage === undefined) return undefined
  const imageId = method.parentImage
  const { image } = await findImage(ports.catalog, callerOf(task), imageId, 'download')
  assertCanBeParent(image)
  const { manifest, diskFormat } = image
  const release = ports.readers.hold(manifest!)
  const open = async () => {
    const stored = await ports.chunks.open(manifest!)
    return openImage(diskFormat!, stored).catch(async (error: unknown) => {
      await stored.close()
      throw error
    })
  }
  try {
    const disk = await open()
    const bytes = disk.size
    await disk.close()
    return { imageId, bytes, open, release }
  } catch (error) {
    release()
    throw error
  }
}

/** With the rights that everybody has in the project, and those of an administrator where it was one. */
export const callerOf = ({ owner, userId, requestId, isAdmin = false }: TaskRecord): Caller => ({
  ...serviceCaller(requestId),
  isAdmin,
  roles: new Set(isAdmin ? ['admin', 'member', 'reader'] : ['member', 'reader']),
  projectId: owner,
  userId,
  systemScope: false,
})
