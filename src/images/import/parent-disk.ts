import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { formats, openImage } from '../../disk/formats/index.ts'
import type { ImageRecord } from '../../store/catalog/catalog.ts'
import type { ImagePorts } from '../ports.ts'
import type { ImportRequest } from './import-request.ts'

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
  if (containerFormat === 'bare' && formats.some(({ name }) => name === diskFormat)) return
  throw new ServiceError(
    'unsupported',
    `image ${id} cannot be a parent: the disk in ${containerFormat}/${diskFormat} cannot be opened here`,
  )
}

/** Held until it is released: it may be deleted meanwhile. @throws ServiceError `conflict`, `unsupported` as it is now */
export async function parentOf(ports: ImagePorts, { method }: ImportRequest): Promise<ParentDisk | undefined> {
  if (method.name === 'copy-image' || method.parentImage === undefined) return undefined
  const imageId = method.parentImage
  const image = await ports.catalog.images.get(imageId)
  if (!image)
    throw new ServiceError('conflict', `the parent, image ${imageId}, was deleted: import the file that stands alone`, {
      imageId,
    })
  assertCanBeParent(image)
  const { manifest, diskFormat } = image
  const release = ports.readers.hold(manifest!)
  const open = async () => openImage(diskFormat!, await ports.chunks.open(manifest!))
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
