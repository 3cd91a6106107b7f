import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import type { CatalogReader, ImageRecord } from '../../store/catalog/catalog.ts'
import { quoted } from '../attributes.ts'
import { findImage } from '../find-image.ts'
import type { ImagePorts } from '../ports.ts'
import { getPart, type ImagePart, partsOf, type StoredPart } from './image-parts.ts'

/**
 * What the image holds beside its disk, ascending by name, for whoever may download it; nothing until it has its bytes.
 * @throws ServiceError `not-found`, `denied`
 */
export async function listParts(
  { catalog }: Pick<ImagePorts, 'catalog'>,
  caller: Caller,
  imageId: string,
): Promise<readonly ImagePart[]> {
  const { image } = await findImage(catalog, caller, imageId, 'download')
  if (image.manifest === null) return []
  return (await partsOf(catalog, image.id)).map(({ name, kind, bytes }) => ({ name, kind, bytes }))
}

/** @throws ServiceError `not-found`, also for a part of an image that has no bytes yet; `denied` */
export async function findPart(
  catalog: CatalogReader,
  caller: Caller,
  imageId: string,
  name: string,
): Promise<{ readonly image: ImageRecord; readonly part: StoredPart }> {
  const { image } = await findImage(catalog, caller, imageId, 'download')
  const part = image.manifest === null ? undefined : await getPart(catalog, image.id, name)
  if (part) return { image, part }
  throw new ServiceError('not-found', `image ${image.id} has no part ${quoted(name)}`, { imageId: image.id })
}

/**
 * The bytes of a part, front to back, verified; the image may be deleted meanwhile.
 * @throws ServiceError `not-found`, `denied`, `corrupt`
 */
export async function* readPart(
  { catalog, chunks, readers }: Pick<ImagePorts, 'catalog' | 'chunks' | 'readers'>,
  caller: Caller,
  imageId: string,
  name: string,
): AsyncGenerator<Uint8Array> {
  const { part } = await findPart(catalog, caller, imageId, name)
  const letGo = readers.hold(part.manifest)
  try {
    yield* chunks.stream(part.manifest, 0, part.bytes)
  } finally {
    letGo()
  }
}
