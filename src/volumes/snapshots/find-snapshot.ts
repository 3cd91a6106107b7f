import type { Caller } from '../../base/caller.ts'
import type { DocumentReader } from '../../store/catalog/catalog.ts'
import { authorizeSnapshot, noSuchSnapshot, type SnapshotVerb } from '../policy.ts'
import type { VolumePorts } from '../ports.ts'
import type { SnapshotRecord } from '../records.ts'
import { snapshots } from '../store.ts'

/**
 * The snapshot, if the caller may do `verb` to it now. Asked again inside the transaction that acts on the answer.
 * @throws ServiceError `not-found`, `denied`, `conflict`
 */
export async function findSnapshot(
  documents: DocumentReader,
  caller: Caller,
  id: string,
  verb: SnapshotVerb,
): Promise<SnapshotRecord> {
  const snapshot = await snapshots.get(documents, id.toLowerCase())
  if (!snapshot) throw noSuchSnapshot(id)
  authorizeSnapshot(caller, verb, snapshot)
  return snapshot
}

/** @throws ServiceError `not-found` */
export const showSnapshot = ({ catalog }: Pick<VolumePorts, 'catalog'>, caller: Caller, id: string): Promise<SnapshotRecord> =>
  findSnapshot(catalog.documents, caller, id, 'show')
