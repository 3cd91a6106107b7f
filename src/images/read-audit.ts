import type { Caller } from '../base/caller.ts'
import { listAudit } from './audit.ts'
import { isImageId } from './find-image.ts'
import { noSuchImage } from './policy.ts'
import type { ImagePorts } from './ports.ts'

/**
 * Who did what to an image, also to one that is deleted, newest first: for the project that owns it and administrators.
 * @throws ServiceError `not-found`
 */
export async function auditOfImage(
  { catalog }: Pick<ImagePorts, 'catalog'>,
  caller: Caller,
  id: string,
  page: Parameters<typeof listAudit>[2],
): ReturnType<typeof listAudit> {
  const image = isImageId(id) ? await catalog.images.get(id) : undefined
  const mayAsk = image && (caller.isAdmin || (image.owner !== null && image.owner === caller.projectId))
  if (!mayAsk) throw noSuchImage(id)
  return listAudit(catalog, { imageId: image.id }, page)
}
