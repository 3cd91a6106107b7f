import { randomUUID } from 'node:crypto'
import { type Caller, serviceCaller } from '../../base/caller.ts'
import { failpoint } from '../../base/failpoint.ts'
import { changeInstance } from '../change-instance.ts'
import { changeJob } from '../change-job.ts'
import type { InstancePorts } from '../ports.ts'
import { findMachine } from '../power/settle.ts'
import { type InstanceRecord, type SnapshotJob, startsFromVolume, type VolumeSnapshot } from '../records.ts'
import { attachments } from '../store.ts'
import { inOrder } from '../volumes/attachment.ts'
import { addMachine, sealWithMemory } from './machine-parts.ts'

/**
 * The moment of a snapshot: an empty layer comes on top of each of the machine's own disks, and of each volume that is in it, while the guest
 * stands still for that. Cut short, all of it is done again, so that nothing is of another moment.
 */
export async function sealDisks(
  ports: InstancePorts,
  instance: InstanceRecord,
  job: SnapshotJob,
  signal: AbortSignal,
): Promise<SnapshotJob> {
  const { id } = instance
  const volumes = await plannedSnapshots(ports, instance, job)
  const caller: Caller = { ...serviceCaller('req-snapshot'), projectId: instance.projectId, userId: instance.userId }
  const named = volumes.map(({ id, volumeId }) => ({ id, volumeId, name: `snapshot for ${job.imageName}`.slice(0, 255) }))
  // a guest that stands still for a disk which it cannot reach stands still until it can
  const power = (await findMachine(ports, id))?.power
  const isOn = power === 'running' || power === 'paused'
  if (isOn) for (const { volumeId } of volumes) await ports.volumes.whenOpen(volumeId, signal)
  const still = named.length > 0 ? { whileStill: () => ports.volumes.snapshot(caller, named) } : {}
  const described = { instance, imageId: job.imageId, volumes }
  if (job.withMachine && !job.withMemory) await addMachine(ports, described, null)
  const sealed = job.withMemory
    ? await sealWithMemory(ports, described, { ...still, signal })
    : await ports.hypervisor.seal(id, ports.settings.freezeMs, { ...still, mustBeQuiet: mustBeQuiet(instance) })
  failpoint('instance:sealed')
  await changeInstance(ports, id, ({ taskState }) => (taskState === 'deleting' ? null : { taskState: 'image_uploading' }))
  const noted = await changeJob(ports, id, 'snapshot', () => ({ sealed }))
  failpoint('instance:sealing-noted')
  return noted
}

/** Nova's `os_require_quiesce`. What holds the memory as well lacks nothing that a guest which was not frozen had not written. */
const mustBeQuiet = ({ imageProperties }: InstanceRecord): boolean =>
  /^(yes|true|1|on)$/i.test(imageProperties.os_require_quiesce?.trim() ?? '')

/** Of the volumes that the machine has now. Those of an attempt before are of another moment, and go. */
async function plannedSnapshots(
  ports: InstancePorts,
  instance: InstanceRecord,
  { volumes: before, withMachine }: SnapshotJob,
): Promise<readonly VolumeSnapshot[]> {
  if (!startsFromVolume(instance) && !withMachine) return []
  for (const { id } of before) await ports.volumes.deleteSnapshot(id)
  const volumes: VolumeSnapshot[] = []
  for (const attachment of inOrder(await attachments.ofInstance(ports.catalog.documents, instance.id))) {
    if (attachment.state !== 'attached') continue
    const { volumeId, device, bootIndex, deleteOnTermination, tag } = attachment
    const { bytes } = await ports.volumes.show(volumeId, instance.id)
    volumes.push({ id: randomUUID(), volumeId, bytes, device, bootIndex, deleteOnTermination, tag })
  }
  await changeJob(ports, instance.id, 'snapshot', () => ({ volumes }))
  failpoint('instance:volume-snapshots-noted')
  return volumes
}
