import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import type { ManifestSizes } from '../store/chunks/chunk-store.ts'
import { findImage } from './find-image.ts'
import { partsOf } from './parts/image-parts.ts'
import type { ImagePorts } from './ports.ts'

/** What an image weighs, in bytes. */
export interface ImageSizes {
  /** The disk that a machine sees; null where the format is not one that is opened. */
  readonly virtualBytes: number | null
  /** The file that was put in. */
  readonly fileBytes: number
  /** What belongs to it beside the file: further disks, memory. The three below are of the file and these together. */
  readonly partBytes: number
  /** What is not zeros. */
  readonly allocatedBytes: number
  /** Chunks in the store, compressed, each counted once for the file and once for each part that has it. */
  readonly storedBytes: number
  /** Of these, what no other image uses (to its owner: no other image of the project): what deleting it frees. */
  readonly exclusiveBytes: number
}

/**
 * Only who could delete the image learns them. What other projects store shows in no answer but an administrator's: else a guess at
 * somebody's bytes, put in, would be confirmed by an exclusive size that is smaller than the stored one.
 * @throws ServiceError `not-found`; `denied`; `conflict` while the image has no bytes
 */
export async function imageSizes(
  { catalog, chunks }: Pick<ImagePorts, 'catalog' | 'chunks'>,
  caller: Caller,
  id: string,
): Promise<ImageSizes> {
  const { image } = await findImage(catalog, caller, id, 'show')
  if (!caller.isAdmin && image.owner !== caller.projectId) {
    throw new ServiceError('denied', `the sizes of image ${image.id} are for the project that owns it`, { imageId: image.id })
  }
  if (image.manifest === null) {
    throw new ServiceError('conflict', `image ${image.id} is ${image.status}: it has no bytes yet`, { imageId: image.id })
  }
  const owner = caller.isAdmin ? undefined : (image.owner ?? undefined)
  const file = await chunks.sizes(image.manifest, owner)
  const parts = await Promise.all((await partsOf(catalog, image.id)).map(({ manifest }) => chunks.sizes(manifest, owner)))
  const sum = (of: (sizes: ManifestSizes) => number) => [file, ...parts].reduce((total, sizes) => total + of(sizes), 0)
  return {
    virtualBytes: image.virtualSize,
    fileBytes: file.fileBytes,
    partBytes: parts.reduce((total, { fileBytes }) => total + fileBytes, 0),
    allocatedBytes: sum((sizes) => sizes.allocatedBytes),
    storedBytes: sum((sizes) => sizes.storedBytes),
    exclusiveBytes: sum((sizes) => sizes.exclusiveBytes),
  }
}
