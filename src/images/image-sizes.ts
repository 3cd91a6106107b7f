import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { findImage } from './find-image.ts'
import type { ImagePorts } from './ports.ts'

/** What an image weighs, in bytes. */
export interface ImageSizes {
  /** The disk that a machine sees; null where the format is not one that is opened. */
  readonly virtualBytes: number | null
  /** The file that was put in. */
  readonly fileBytes: number
  /** Of it, what is not zeros. */
  readonly allocatedBytes: number
  /** Its chunks in the store, compressed, each counted once. */
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
  const { fileBytes, allocatedBytes, storedBytes, exclusiveBytes } = await (caller.isAdmin || image.owner === null
    ? chunks.sizes(image.manifest)
    : chunks.sizes(image.manifest, image.owner))
  return { virtualBytes: image.virtualSize, fileBytes, allocatedBytes, storedBytes, exclusiveBytes }
}
