import { countOf, digestAt, digestOfManifest, isZeroAt, joinDigests } from '../content/digests.ts'
import type { ChunkReader, OpenManifest } from './chunk-reader.ts'

/** A root or a page with what it refers to. */
export interface ManifestPart {
  readonly kind: 'root' | 'page'
  readonly digest: Uint8Array
  /** Digests of the pages, or of the chunks; no zeros among them. */
  readonly children: Uint8Array
}

/**
 * Root first, then pages that `wants` says yes to.
 * @param wants spares the reading of pages that are known
 * @param onUnreadable told of pages that cannot be read; absent: they throw
 * @throws ServiceError `not-found`, `corrupt`
 */
export async function* walkManifest(
  reader: ChunkReader,
  name: string,
  wants: (page: Uint8Array) => Promise<boolean>,
  onUnreadable?: (error: unknown, page: Uint8Array) => void,
): AsyncGenerator<ManifestPart> {
  const manifest: OpenManifest = await reader.openManifest(name)
  yield { kind: 'root', digest: digestOfManifest(name), children: withoutZeros(manifest.root.pages) }
  for (let page = 0; page < countOf(manifest.root.pages); page += 1) {
    if (isZeroAt(manifest.root.pages, page)) continue
    const digest = digestAt(manifest.root.pages, page)
    if (!(await wants(digest))) continue
    try {
      yield { kind: 'page', digest, children: withoutZeros(await reader.pageEntries(manifest, page)) }
    } catch (error) {
      if (!onUnreadable) throw error
      onUnreadable(error, digest)
    }
  }
}

export function withoutZeros(digests: Uint8Array): Uint8Array {
  const kept: Uint8Array[] = []
  for (let index = 0; index < countOf(digests); index += 1) if (!isZeroAt(digests, index)) kept.push(digestAt(digests, index))
  return joinDigests(kept)
}
