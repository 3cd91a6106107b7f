import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { failpoint } from '../base/failpoint.ts'
import { changeVolume } from './change-volume.ts'
import { faultOf } from './faults.ts'
import { findVolume } from './find-volume.ts'
import { authorizeSnapshot } from './policy.ts'
import type { VolumePorts } from './ports.ts'
import { startSnapshotDeletion } from './snapshots/delete-snapshot.ts'
import { snapshots, volumes } from './store.ts'

/**
 * `DELETE /volumes/{id}`. Then in the background: its bytes, its record.
 * @param how.cascade its snapshots go with it; otherwise it must have none
 * @param how.force whatever its status says: for administrators
 * @throws ServiceError `not-found`, `denied`; `conflict` for its status, for snapshots, while it is attached
 */
export async function deleteVolume(
  ports: VolumePorts,
  caller: Caller,
  id: string,
  how: { readonly cascade?: boolean; readonly force?: boolean } = {},
): Promise<void> {
  const verb = how.force ? 'force-delete' : 'delete'
  const { volume, theirs } = await ports.catalog.write(async ({ documents }) => {
    const volume = await findVolume(documents, caller, id, verb)
    if (volume.attachment) {
      const message = `Invalid volume: volume ${volume.id} is attached to instance ${volume.attachment.instanceId}: detach it first`
      throw new ServiceError('conflict', message, { id: volume.id })
    }
    const theirs = await snapshots.ofVolume(documents, volume.id)
    if (theirs.length > 0 && !how.cascade) {
      const message = `Invalid volume: Volume ${volume.id} still has ${theirs.length} dependent snapshots: delete them first, or ask for cascade`
      throw new ServiceError('conflict', message, { id: volume.id, snapshots: theirs.length })
    }
    const at = ports.now()
    for (const snapshot of theirs) {
      authorizeSnapshot(caller, verb, snapshot)
      await snapshots.put(documents, { ...snapshot, status: 'deleting', updatedAt: at })
    }
    await volumes.put(documents, { ...volume, status: 'deleting', updatedAt: at })
    return { volume, theirs }
  })
  failpoint('volume:deleting')
  for (const snapshot of theirs) startSnapshotDeletion(ports, snapshot)
  startVolumeDeletion(ports, volume.id)
}

/** After all that reads its layers. */
export function startVolumeDeletion(ports: VolumePorts, id: string): void {
  ports.tasks.start(id, async (signal) => {
    try {
      await remove(ports, id)
    } catch (error) {
      if (signal.aborted) return // the next start goes on
      ports.onProblem(error)
      const fault = faultOf(error, 'it could not be deleted: try again')
      await changeVolume(ports, id, () => ({ status: 'error_deleting', fault }))
    }
  })
}

/** The record goes last: by it a kill's leavings are found. */
async function remove(ports: VolumePorts, id: string): Promise<void> {
  const volume = await changeVolume(ports, id, () => null)
  if (volume?.status !== 'deleting') return
  await ports.contents.release(id)
  failpoint('volume:released')
  await ports.catalog.write(async ({ documents }) => void (await volumes.delete(documents, id)))
}
