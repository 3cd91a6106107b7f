import { ServiceError } from '../../base/errors.ts'
import { digestOfManifest } from '../content/digests.ts'
import { adoptManifest } from './adopt.ts'
import type { ManifestSizes } from './chunk-store.ts'
import type { Engine } from './engine.ts'
import { storedSizes } from './finish-manifest.ts'

/** See `ChunkStore.sizes`. A manifest that the index does not know, since it was made anew, is entered first. */
export async function manifestSizes(engine: Engine, name: string, owner: string | null): Promise<ManifestSizes> {
  const digest = digestOfManifest(name)
  const { root } = await engine.reader.openManifest(name)
  if (!(await engine.index.findManifest(digest))) await adoptManifest(engine, name)
  const row = await engine.index.findManifest(digest)
  if (!row)
    throw new ServiceError('corrupt', `Manifest ${name} cannot be read whole: run "imprint store check".`, { manifest: name })
  const { storedBytes, exclusiveBytes } = await storedSizes(engine.index, row.hold, digest, owner)
  return { fileBytes: root.fileBytes, allocatedBytes: root.allocatedBytes, storedBytes, exclusiveBytes }
}
