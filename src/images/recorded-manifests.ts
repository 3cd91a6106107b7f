import type { Catalog } from '../store/catalog/catalog.ts'
import type { LiveManifest } from '../store/chunks/chunk-store.ts'
import { allLeases } from './leases/lease.ts'
import { allParts } from './parts/image-parts.ts'
import { ownerOfChunks } from './transfer.ts'

/**
 * What records name, as the chunk store wants to be told: once for each image and each part of one, with the project that its chunks were
 * stored for, and what is lent, which stays without being anybody's. Leases come last: one is made while its image is there, so
 * whoever deletes the image meanwhile, one of the two is met.
 */
export async function* recordedManifests(catalog: Pick<Catalog, 'images' | 'documents'>): AsyncGenerator<LiveManifest> {
  for await (const { manifest, owner } of catalog.images.manifests()) yield { manifest, owner: ownerOfChunks({ owner }) }
  for await (const { manifest, imageId } of allParts(catalog)) {
    const image = await catalog.images.get(imageId)
    if (image && image.status !== 'deleted') yield { manifest, owner: ownerOfChunks(image) }
  }
  for await (const { body } of allLeases(catalog)) {
    for (const held of [body.image, body.revertsTo, ...(body.parts ?? [])])
      if (held) yield { manifest: held.manifest, isRead: true }
  }
}
