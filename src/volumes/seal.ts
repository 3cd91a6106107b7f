import { failpoint } from '../base/failpoint.ts'
import type { VolumePorts } from './ports.ts'

/**
 * Seals the disk of a volume and has the layer noted before anybody else seals it: layers are settled in the order of their numbers, so
 * none may be known before the one below it is.
 * @param note records for whom it was sealed, and says what is to become of it
 * @throws ServiceError as `VolumeContents.seal`
 */
export const sealFor = (
  { contents, seals }: Pick<VolumePorts, 'contents' | 'seals'>,
  volumeId: string,
  note: (layer: number) => Promise<void>,
): Promise<number> =>
  seals.take(volumeId, async () => {
    const layer = await contents.seal(volumeId)
    failpoint('volume:sealed')
    await note(layer)
    return layer
  })
