import type { Caller } from '../../base/caller.ts'
import { failpoint } from '../../base/failpoint.ts'
import { faultOf } from '../faults.ts'
import type { VolumePorts } from '../ports.ts'
import type { SnapshotRecord } from '../records.ts'
import { snapshots } from '../store.ts'
import { changeSnapshot, changeSnapshotAs } from './change-snapshot.ts'

/**
 * `DELETE /snapshots/{id}`. What was made from it, and the volume itself, have what they need of it.
 * @param how.force whatever its status says: for administrators
 * @throws ServiceError `not-found`, `denied`, `conflict`
 */
export async function deleteSnapshot(
  ports: VolumePorts,
  caller: Caller,
  id: string,
  how: { readonly force?: boolean } = {},
): Promise<void> {
  const verb = how.force ? 'force-delete' : 'delete'
  const snapshot = await changeSnapshotAs(ports, caller, id, verb, () => ({ status: 'deleting' }))
  failpoint('volume:snapshot-deleting')
  startSnapshotDeletion(ports, snapshot)
}

/** After all that is made from it. */
export function startSnapshotDeletion(ports: VolumePorts, { id }: Pick<SnapshotRecord, 'id'>): void {
  ports.tasks.start(id, async (signal) => {
    try {
      await ports.contents.release(id)
      failpoint('volume:snapshot-released')
      await ports.catalog.write(async ({ documents }) => void (await snapshots.delete(documents, id)))
    } catch (error) {
      if (signal.aborted) return // the next start goes on
      ports.onProblem(error)
      const fault = faultOf(error, 'it could not be deleted: try again')
      await changeSnapshot(ports, id, () => ({ status: 'error_deleting', fault }))
    }
  })
}
