import { type Caller, serviceCaller } from '../../base/caller.ts'
import { failpoint } from '../../base/failpoint.ts'
import { changeInstance } from '../change-instance.ts'
import { faultFrom } from '../faults.ts'
import { holderOf, startLaunch } from '../launch/launch.ts'
import type { InstancePorts } from '../ports.ts'
import { type InstanceRecord, type SnapshotJob, startsFromVolume } from '../records.ts'
import { attachments, forwardedPorts, instanceActions, instances, seeds } from '../store.ts'
import { attachmentsFor } from '../volumes/new-disks.ts'

/**
 * What waited for its disk gets it and starts; the image that the disk came by goes. Asked again after a kill it does what is left of that;
 * where the clone was deleted meanwhile, only the image goes.
 */
export async function startClone(ports: InstancePorts, job: SnapshotJob, cloneId: string): Promise<void> {
  const clone = await changeInstance(ports, cloneId, () => null)
  if (clone && isWaiting(clone)) {
    const caller: Caller = { ...serviceCaller('req-clone'), projectId: clone.projectId, userId: clone.userId }
    if (startsFromVolume(clone)) await giveVolumes(ports, caller, clone, job.volumes)
    else await giveDisk(ports, caller, clone, job.imageId)
  }
  await ports.snapshots.remove(job.imageId)
  for (const { id } of job.volumes) await ports.volumes.deleteSnapshot(id)
}

async function giveDisk(ports: InstancePorts, caller: Caller, { id }: InstanceRecord, imageId: string): Promise<void> {
  const { leaseId } = await ports.images.lend(caller, imageId, holderOf(id))
  failpoint('instance:clone-lent')
  const given = await changeInstance(ports, id, (found) => (isWaiting(found) ? { leaseId, taskState: 'scheduling' } : null))
  if (given?.leaseId === leaseId) startLaunch(ports, caller, given)
  else await ports.images.release(leaseId)
}

/** They are made here rather than by the launch, as the snapshots go then. */
async function giveVolumes(
  ports: InstancePorts,
  caller: Caller,
  clone: InstanceRecord,
  snapshots: SnapshotJob['volumes'],
): Promise<void> {
  const noted = await ports.catalog.write(async ({ documents }) => {
    const there = await attachments.ofInstance(documents, clone.id)
    if (there.length > 0) return there
    const disks = snapshots.map((each) => ({ ...each, from: { kind: 'snapshot', snapshotId: each.id } as const, sizeGiB: null }))
    const made = attachmentsFor(clone, disks)
    for (const attachment of made) await attachments.put(documents, attachment)
    return made
  })
  failpoint('instance:clone-volumes-noted')
  for (const { volumeId, made } of noted) if (made) await ports.volumes.create(caller, volumeId, made)
  failpoint('instance:clone-volumes-made')
  const given = await changeInstance(ports, clone.id, (found) => (isWaiting(found) ? { taskState: 'scheduling' } : null))
  if (given?.taskState === 'scheduling') startLaunch(ports, caller, given)
  else for (const { volumeId } of noted) await ports.volumes.delete(volumeId) // it was deleted meanwhile
}

/** There will be no disk for it, and the volumes that were made for it go. Killed before that is noted, `giveVolumes` makes all of them again. */
export async function failClone(ports: InstancePorts, cloneId: string, error: unknown): Promise<void> {
  const fault = faultFrom(
    error,
    'the instance that it was to be a copy of could not be copied: delete it, and try again',
    ports.now(),
  )
  const { documents } = ports.catalog
  const clone = await instances.get(documents, cloneId)
  if (!clone || !isWaiting(clone)) return
  const noted = await attachments.ofInstance(documents, cloneId)
  for (const { volumeId } of noted) await ports.volumes.delete(volumeId)
  await changeInstance(ports, cloneId, async (now, writer) => {
    if (!isWaiting(now)) return null
    for (const { volumeId } of noted) await attachments.delete(writer, cloneId, volumeId)
    return { vmState: 'error', taskState: null, fault }
  })
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
