import { isServiceError } from '../../base/errors.ts'
import { digestOfManifest } from '../content/digests.ts'
import type { Engine } from './engine.ts'
import { walkManifest } from './walk-manifest.ts'

/** No project, where no record says whose the bytes are: `lacks` does not answer from them, and one record cannot drop them. */
const NOBODY = '(nobody)'

/**
 * Enters a manifest that the index does not know, with refs to all that it reaches.
 * @param onlyWhole enters nothing where a part is missing or damaged
 * @returns whether all of it is there
 * @throws ServiceError `unavailable` where the disk does not give a part of it: nothing is entered then
 */
export async function adoptManifest(
  engine: Engine,
  name: string,
  { owner = NOBODY, onlyWhole = false }: { readonly owner?: string | undefined; readonly onlyWhole?: boolean } = {},
): Promise<boolean> {
  const { index, reader } = engine
  const digest = digestOfManifest(name)
  const hold = await index.begin(owner)
  let whole = true
  const claim = async (digests: Uint8Array) => {
    if ((await index.claim(hold, digests)).some((plainBytes) => plainBytes === 0)) whole = false
  }
  try {
    const { root } = await reader.openManifest(name)
    const isMissing = (error: unknown) => {
      if (isServiceError(error, 'unavailable')) throw error // a row without refs to what is below would be taken for whole
      whole = false
    }
    for await (const part of walkManifest(reader, name, async () => true, isMissing)) {
      await claim(part.digest)
      await claim(part.children)
    }
    if (onlyWhole && !whole) {
      await index.abandon(hold)
      return false
    }
    await index.complete(hold, { digest, fileBytes: root.fileBytes, allocatedBytes: root.allocatedBytes })
    await index.commit(hold)
    return whole
  } catch (error) {
    await index.abandon(hold).catch(() => engine.givenUp.add(hold))
    if (isServiceError(error, 'corrupt') || isServiceError(error, 'not-found')) return false
    throw error
  }
}
