import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { failpoint } from '../base/failpoint.ts'
import { recordAudit } from './audit.ts'
import { findImage } from './find-image.ts'
import type { ImagePorts } from './ports.ts'
import { ownerOfChunks } from './transfer.ts'

/**
 * `DELETE /v2/images/{id}`: the record becomes a tombstone that keeps its id for ever; then the bytes are given to the
 * collector. Cut in between, the collector finds by the records alone that nobody names them any more. Whoever is uploading to
 * the image learns of it when the bytes are to be recorded; whoever is downloading reads on to the end.
 * @throws ServiceError `not-found`; `denied`, also where the image is protected
 */
export async function deleteImage(ports: ImagePorts, caller: Caller, id: string): Promise<void> {
  const image = await ports.catalog.write(async (tx) => {
    const { image } = await findImage(tx, caller, id, 'delete')
    if (image.protected) {
      throw new ServiceError('denied', `image ${image.id} is protected: set "protected" to false before you delete it`)
    }
    const at = ports.now()
    for (const { memberId } of await tx.images.members(image.id)) await tx.images.deleteMember(image.id, memberId)
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
    return image
  })
  failpoint('delete:recorded')
  for (const manifest of new Set([image.manifest, image.stagedManifest])) {
    if (manifest === null) continue
    await ports.converted.forget(`${manifest} `)
    await ports.chunks.drop(manifest, ownerOfChunks(image))
  }
  failpoint('delete:dropped')
}
