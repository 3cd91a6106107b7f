import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { failpoint } from '../base/failpoint.ts'
import { changeInstance, changeInstanceAs } from './change-instance.ts'
import { faultFrom } from './faults.ts'
import { isHostMissed } from './hosts.ts'
import { forgetSecrets } from './launch/launch.ts'
import { leasesOf } from './launch/move-disk.ts'
import { removeAtTarget } from './migrate/whereabouts.ts'
import type { InstancePorts } from './ports.ts'
import { endJob } from './start-job.ts'
import { backupSchedules, forwardedPorts, instanceActions, instances, jobs, seeds } from './store.ts'
import { forgetVolumes } from './volumes/plug.ts'

/**
 * `DELETE /servers/{id}`: in any state, also while something is done to it, which ends. Then in the background: the machine and
 * its files, the lease on its disk, the record. Asking again is harmless.
 * @throws ServiceError `not-found`, `denied`; `conflict` where it is locked
 */
export async function deleteInstance(ports: InstancePorts, caller: Caller, id: string): Promise<void> {
  const instance = await changeInstanceAs(ports, caller, id, 'delete', () => ({ taskState: 'deleting' }))
  failpoint('instance:deleting')
  startDeletion(ports, instance.id)
}

export function startDeletion(ports: InstancePorts, id: string): void {
  ports.tasks.interrupt(id)
  ports.tasks.start(id, async (signal) => {
    try {
      await remove(ports, id)
    } catch (error) {
      if (signal.aborted || (await isHostMissed(ports, id, error))) return // the next start goes on, or its host when it is back
      ports.onProblem(error)
      const fault = faultFrom(error, 'it could not be deleted: try again', ports.now())
      await changeInstance(ports, id, () => ({ vmState: 'error', taskState: null, fault }))
    }
  })
}

/** In this order, so that what a kill leaves over is found by the record, which goes last; and that no failure leaves a job. */
async function remove(ports: InstancePorts, id: string): Promise<void> {
  const instance = await changeInstance(ports, id, () => null)
  if (!instance) return
  const job = await jobs.get(ports.catalog.documents, id)
  if (job?.kind === 'migrate') await removeAtTarget(ports, id, job)
  await endJob(ports, id, new ServiceError('conflict', `instance ${id} was deleted`))
  await ports.hypervisor.remove(id)
  failpoint('instance:removed')
  await forgetVolumes(ports, id)
  await forgetSecrets(ports, id)
  for (const leaseId of leasesOf(instance)) await ports.images.release(leaseId)
  failpoint('instance:released')
  await ports.catalog.write(async ({ documents }) => {
    await seeds.delete(documents, id)
    await backupSchedules.delete(documents, id)
    await forwardedPorts.giveBack(documents, id)
    await instanceActions.forget(documents, id)
    await instances.delete(documents, id)
  })
  failpoint('instance:deleted')
}
