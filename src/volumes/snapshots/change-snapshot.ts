import type { Caller } from '../../base/caller.ts'
import type { SnapshotVerb } from '../policy.ts'
import type { VolumePorts } from '../ports.ts'
import type { SnapshotRecord } from '../records.ts'
import { snapshots } from '../store.ts'
import { findSnapshot } from './find-snapshot.ts'

type Ports = Pick<VolumePorts, 'catalog' | 'now'>
export type SnapshotChanges = Partial<Omit<SnapshotRecord, 'id' | 'projectId' | 'volumeId' | 'updatedAt'>>

/**
 * Changes what the caller may change, by what stands there now.
 * @throws ServiceError `not-found`, `denied`, `conflict`; what `change` throws
 */
export const changeSnapshotAs = (
  { catalog, now }: Ports,
  caller: Caller,
  id: string,
  verb: SnapshotVerb,
  change: (snapshot: SnapshotRecord) => SnapshotChanges,
): Promise<SnapshotRecord> =>
  catalog.write(async ({ documents }) => {
    const snapshot = await findSnapshot(documents, caller, id, verb)
    const changed = { ...snapshot, ...change(snapshot), updatedAt: now() }
    await snapshots.put(documents, changed)
    return changed
  })

/**
 * For work that was begun before: nobody is asked again.
 * @param change null: it stays as it is
 * @returns as it is now; undefined where it is gone
 */
export const changeSnapshot = (
  { catalog, now }: Ports,
  id: string,
  change: (snapshot: SnapshotRecord) => SnapshotChanges | null,
): Promise<SnapshotRecord | undefined> =>
  catalog.write(async ({ documents }) => {
    const snapshot = await snapshots.get(documents, id)
    const changes = snapshot && change(snapshot)
    if (!snapshot || !changes) return snapshot
    const changed = { ...snapshot, ...changes, updatedAt: now() }
    await snapshots.put(documents, changed)
    return changed
  })
