import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { beginAction } from '../actions/actions.ts'
import { isForOwner } from '../faults.ts'
import { findInstance } from '../find-instance.ts'
import { abilitiesAt, isHostMissed } from '../hosts.ts'
import type { InstancePorts } from '../ports.ts'
import { startsFromVolume } from '../records.ts'
import { attachments } from '../store.ts'
import { type AttachmentRecord, nextDevice } from './attachment.ts'
import { diskOf, forgetVolume, recordAttached } from './plug.ts'

export interface WantedAttachment {
  readonly volumeId: string
  readonly deleteOnTermination: boolean
  readonly tag: string | null
}

/**
 * `POST /servers/{id}/os-volume_attachments`: the volume is the instance's when this is answered; the machine gets it in the background. One
 * that cannot be plugged is given back.
 * @throws ServiceError `not-found`, `denied`, `conflict` of the instance and of the volume; `unsupported`; `unavailable`
 */
export async function attachVolume(
  ports: InstancePorts,
  caller: Caller,
  instanceId: string,
  { volumeId, deleteOnTermination, tag }: WantedAttachment,
): Promise<AttachmentRecord> {
  const instance = await findInstance(ports.catalog.documents, caller, instanceId, 'attach-volume')
  void abilitiesAt(ports, instance)
  const volume = await ports.volumes.reserve(caller, volumeId, instance.id)
  failpoint('instance:volume-reserved')
  const attachment = await note(ports, caller, {
    ...{
      instanceId: instance.id,
      volumeId: volume.id,
      deleteOnTermination,
      tag,
      bootIndex: null,
      made: null,
      state: 'attaching',
    },
    createdAt: ports.now(),
  }).catch(async (error: unknown) => {
    await ports.volumes.released(volume.id, instance.id)
    throw error
  })
  failpoint('instance:volume-noted')
  startAttaching(ports, attachment)
  return attachment
}

const note = (ports: InstancePorts, caller: Caller, attachment: Omit<AttachmentRecord, 'device'>): Promise<AttachmentRecord> =>
  ports.catalog.write(async ({ documents }) => {
    const instance = await findInstance(documents, caller, attachment.instanceId, 'attach-volume')
    const { id, hardware } = instance
    const there = await attachments.ofInstance(documents, id)
    const noted = { ...attachment, device: nextDevice(there, hardware.diskBus, !startsFromVolume(instance)) }
    await beginAction(documents, caller, instance, 'attach-volume', noted.createdAt)
    await attachments.put(documents, noted)
    return noted
  })

/** Also of one that a kill cut short, which the machine has or has not. */
export function startAttaching(ports: InstancePorts, { instanceId, volumeId }: AttachmentRecord): void {
  ports.tasks.start(instanceId, async (signal) => {
    const attachment = await attachments.get(ports.catalog.documents, instanceId, volumeId)
    if (attachment?.state !== 'attaching') return
    try {
      await plug(ports, attachment)
    } catch (error) {
      if (signal.aborted || (await isHostMissed(ports, instanceId, error))) return // whoever cut it knows what comes next
      if (!isForOwner(error)) ports.onProblem(error)
      return forgetVolume(ports, attachment, { terminates: false })
    }
    failpoint('instance:volume-plugged')
    await recordAttached(ports, attachment)
  })
}

/** A machine that has it has it since before a kill, by the address of then, which is good yet: its guest may be using it. */
async function plug(ports: InstancePorts, attachment: AttachmentRecord): Promise<void> {
  const { instanceId, volumeId } = attachment
  const { disks } = await ports.hypervisor.show(instanceId)
  if (!disks.includes(volumeId)) await ports.hypervisor.attach(instanceId, await diskOf(ports, attachment))
}

/** @throws ServiceError `not-found` */
export async function showAttachment(
  { catalog }: Pick<InstancePorts, 'catalog'>,
  caller: Caller,
  instanceId: string,
  volumeId: string,
): Promise<AttachmentRecord> {
  const instance = await findInstance(catalog.documents, caller, instanceId, 'show')
  const found = await attachments.get(catalog.documents, instance.id, volumeId.toLowerCase())
  if (found) return found
  throw new ServiceError('not-found', `Instance ${instance.id} is not attached to volume ${volumeId.slice(0, 80)}`)
}
