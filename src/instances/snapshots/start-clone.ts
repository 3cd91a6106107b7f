import { type Caller, serviceCaller } from '../../base/caller.ts'
import { failpoint } from '../../base/failpoint.ts'
import { changeInstance } from '../change-instance.ts'
import { faultFrom } from '../faults.ts'
import { holderOf, startLaunch } from '../launch/launch.ts'
import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord } from '../records.ts'
import { forwardedPorts, instanceActions, instances, seeds } from '../store.ts'

/**
 * What waited for its disk gets it and starts; the image that the disk came by goes. Asked again after a kill it does what is left of that;
 * where the clone was deleted meanwhile, only the image goes.
 */
export async function startClone(ports: InstancePorts, imageId: string, cloneId: string): Promise<void> {
  const clone = await changeInstance(ports, cloneId, () => null)
  if (clone && isWaiting(clone)) {
    const caller: Caller = { ...serviceCaller('req-clone'), projectId: clone.projectId, userId: clone.userId }
    const { leaseId } = await ports.images.lend(caller, imageId, holderOf(cloneId))
    failpoint('instance:clone-lent')
    const given = await changeInstance(ports, cloneId, (found) =>
      isWaiting(found) ? { leaseId, taskState: 'scheduling' } : null,
    )
    if (given?.leaseId === leaseId) startLaunch(ports, caller, given)
    else await ports.images.release(leaseId)
  }
  await ports.snapshots.remove(imageId)
}

/** There will be no disk for it. */
export async function failClone(ports: InstancePorts, cloneId: string, error: unknown): Promise<void> {
  const fault = faultFrom(
    error,
    'the instance that it was to be a copy of could not be copied: delete it, and try again',
    ports.now(),
  )
  await changeInstance(ports, cloneId, (clone) => (isWaiting(clone) ? { vmState: 'error', taskState: null, fault } : null))
}

/** Whoever asked for it is refused: there never was one. */
export const forgetClone = ({ catalog }: InstancePorts, cloneId: string): Promise<void> =>
  catalog.write(async ({ documents }) => {
    await seeds.delete(documents, cloneId)
    await forwardedPorts.giveBack(documents, cloneId)
    await instanceActions.forget(documents, cloneId)
    await instances.delete(documents, cloneId)
  })

export const isWaiting = ({ vmState, taskState }: InstanceRecord): boolean =>
  vmState === 'building' && taskState === 'block_device_mapping'
