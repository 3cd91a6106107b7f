import type { Caller } from '../base/caller.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import { findVolume } from './find-volume.ts'
import type { VolumeVerb } from './policy.ts'
import type { VolumePorts } from './ports.ts'
import type { VolumeRecord } from './records.ts'
import { volumes } from './store.ts'

type Ports = Pick<VolumePorts, 'catalog' | 'now'>
export type VolumeChanges = Partial<Omit<VolumeRecord, 'id' | 'projectId' | 'updatedAt'>>

/**
 * Changes what the caller may change, by what stands there now.
 * @throws ServiceError `not-found`, `denied`, `conflict`; what `change` throws
 */
export const changeVolumeAs = (
  { catalog, now }: Ports,
  caller: Caller,
  id: string,
  verb: VolumeVerb,
  change: (volume: VolumeRecord, documents: DocumentReader) => VolumeChanges | Promise<VolumeChanges>,
): Promise<VolumeRecord> =>
  catalog.write(async ({ documents }) => {
    const volume = await findVolume(documents, caller, id, verb)
    const changed = { ...volume, ...(await change(volume, documents)), updatedAt: now() }
    await volumes.put(documents, changed)
    return changed
  })

/**
 * For work that was begun before: nobody is asked again.
 * @param change null: it stays as it is
 * @returns as it is now; undefined where it is gone
 */
export const changeVolume = (
  { catalog, now }: Ports,
  id: string,
  change: (volume: VolumeRecord) => VolumeChanges | null,
): Promise<VolumeRecord | undefined> =>
  catalog.write(async ({ documents }) => {
    const volume = await volumes.get(documents, id)
    const changes = volume && change(volume)
    if (!volume || !changes) return volume
    const changed = { ...volume, ...changes, updatedAt: now() }
    await volumes.put(documents, changed)
    return changed
  })
