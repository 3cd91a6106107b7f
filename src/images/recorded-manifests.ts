import type { Catalog } from '../store/catalog/catalog.ts'
import type { LiveManifest } from '../store/chunks/chunk-store.ts'
import { ownerOfChunks } from './transfer.ts'

/** What records name, as the chunk store wants to be told: once for each record, with the project that its chunks were stored for. */
export async function* recordedManifests(catalog: Pick<Catalog, 'images'>): AsyncGenerator<LiveManifest> {
  for await (const { manifest, owner } of catalog.images.manifests()) yield { manifest, owner: ownerOfChunks({ owner }) }
}
