import type { Caller } from '../base/caller.ts'
import type { CatalogReader, ImageMember, ImageRecord } from '../store/catalog/catalog.ts'
import { authorize, type ImageVerb, noSuchImage } from './policy.ts'

export interface FoundImage {
  readonly image: ImageRecord
  /** The caller's own membership, where the image is shared with the caller's project. */
  readonly membership: ImageMember | undefined
}

/**
 * The image, if the caller may do `verb` to it now. Asked again inside the transaction that acts on the answer.
 * @throws ServiceError `not-found`, `denied`, `conflict`
 */
export async function findImage({ images }: CatalogReader, caller: Caller, id: string, verb: ImageVerb): Promise<FoundImage> {
  const image = isImageId(id) ? await images.get(id.toLowerCase()) : undefined
  if (!image) throw noSuchImage(id)
  const mayBeMember = image.visibility === 'shared' && caller.projectId !== null && caller.projectId !== image.owner
  const membership = mayBeMember && caller.projectId !== null ? await images.member(image.id, caller.projectId) : undefined
  authorize(caller, verb, image, membership)
  return { image, membership }
}

/** @throws ServiceError `not-found` */
export const showImage = async (
  { catalog }: { readonly catalog: CatalogReader },
  caller: Caller,
  id: string,
): Promise<ImageRecord> => (await findImage(catalog, caller, id, 'show')).image

export const isImageId = (text: string): boolean => /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.test(text)
