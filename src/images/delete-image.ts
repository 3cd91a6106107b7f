import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { failpoint } from '../base/failpoint.ts'
import type { CatalogWriter, ImageRecord } from '../store/catalog/catalog.ts'
import { recordAudit } from './audit.ts'
import { findImage } from './find-image.ts'
import { deleteParts, partsOf } from './parts/image-parts.ts'
import type { ImagePorts } from './ports.ts'
import { ownerOfChunks } from './transfer.ts'

/**
 * `DELETE /v2/images/{id}`: the record becomes a tombstone that keeps its id for ever; then the bytes are given to the
 * collector. Cut in between, the collector finds by the records alone that nobody names them any more. Whoever is uploading to
 * the image learns of it when the bytes are to be recorded; whoever is downloading reads on to the end.
 * @throws ServiceError `not-found`; `denied`, also where the image is protected
 */
export async function deleteImage(ports: ImagePorts, caller: Caller, id: string): Promise<void> {
  const gone = await ports.catalog.write(async (tx) => {
    const { image } = await findImage(tx, caller, id, 'delete')
    if (image.protected) {
      throw new ServiceError('denied', `image ${image.id} is protected: set "protected" to false before you delete it`)
    }
    return entomb(ports, tx, caller, image)
  })
  failpoint('delete:recorded')
  await dropBytes(ports, gone)
  failpoint('delete:dropped')
}

/** What a deleted image leaves to the collector. */
export interface GoneImage {
  readonly owner: string | null
  readonly manifests: readonly string[]
}

/** Makes a tombstone of the record, and takes its members and parts away. */
export async function entomb(
  { now }: Pick<ImagePorts, 'now'>,
  tx: CatalogWriter,
  caller: Caller,
  image: ImageRecord,
): Promise<GoneImage> {
  const at = now()
  for (const { memberId } of await tx.images.members(image.id)) await tx.images.deleteMember(image.id, memberId)
  const parts = await partsOf(tx, image.id)
  if (parts.length > 0) await deleteParts(tx, image.id)
  await tx.images.update(image.id, image.version, {
    status: 'deleted',
    deletedAt: at,
    updatedAt: at,
    manifest: null,
    stagedManifest: null,
    tags: [],
    properties: {},
    notes: {},
  })
  await recordAudit(tx, caller, 'delete', image, at)
  const own = new Set([image.manifest, image.stagedManifest])
  return {
    owner: image.owner,
    manifests: [...[...own].filter((name) => name !== null), ...parts.map(({ manifest }) => manifest)],
  }
}

/** After the commit: nothing is lost where it does not come to it. */
export async function dropBytes(
  { converted, packed, chunks }: Pick<ImagePorts, 'converted' | 'packed' | 'chunks'>,
  gone: GoneImage,
): Promise<void> {
  for (const manifest of gone.manifests) {
    await converted.forget(`${manifest} `)
    await packed.forget(`${manifest} `)
    await chunks.drop(manifest, ownerOfChunks(gone))
  }
}
