import type { Caller } from '../base/caller.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import { authorizeVolume, noSuchVolume, type VolumeVerb } from './policy.ts'
import type { VolumePorts } from './ports.ts'
import type { VolumeRecord } from './records.ts'
import { volumes } from './store.ts'

/**
 * The volume, if the caller may do `verb` to it now. Asked again inside the transaction that acts on the answer.
 * @throws ServiceError `not-found`, `denied`, `conflict`
 */
export async function findVolume(documents: DocumentReader, caller: Caller, id: string, verb: VolumeVerb): Promise<VolumeRecord> {
  const volume = await volumes.get(documents, id.toLowerCase())
  if (!volume) throw noSuchVolume(id)
  authorizeVolume(caller, verb, volume)
  return volume
}

/** @throws ServiceError `not-found` */
export const showVolume = ({ catalog }: Pick<VolumePorts, 'catalog'>, caller: Caller, id: string): Promise<VolumeRecord> =>
  findVolume(catalog.documents, caller, id, 'show')
