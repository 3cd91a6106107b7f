import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { beginAction } from '../actions/actions.ts'
import { isForOwner } from '../faults.ts'
import { findInstance } from '../find-instance.ts'
import { abilitiesAt, isHostMissed } from '../hosts.ts'
import type { InstancePorts } from '../ports.ts'
import { attachments } from '../store.ts'
import { showAttachment } from './attach-volume.ts'
import { type AttachmentRecord, ROOT_INDEX } from './attachment.ts'
import { forgetVolume, recordAttached } from './plug.ts'

/** A guest that uses a disk may take its time to let go; one that does not listen never does. */
const GRACE_MS = 30_000

/**
 * `DELETE /servers/{id}/os-volume_attachments/{volume}`: the guest is asked to let go of it in the background. Where it does not, the volume
 * stays attached.
 * @throws ServiceError `not-found`; `denied` for the disk that the instance starts from; `conflict`; `unavailable`
 */
export async function detachVolume(ports: InstancePorts, caller: Caller, instanceId: string, volumeId: string): Promise<void> {
  await showAttachment(ports, caller, instanceId, volumeId)
  const attachment = await ports.catalog.write(async ({ documents }) => {
    const instance = await findInstance(documents, caller, instanceId, 'detach-volume')
    void abilitiesAt(ports, instance)
    const found = await attachments.get(documents, instance.id, volumeId.toLowerCase())
    if (!found) throw new ServiceError('not-found', `Instance ${instance.id} is not attached to volume ${volumeId.slice(0, 80)}`)
    if (found.bootIndex === ROOT_INDEX) {
      throw new ServiceError('denied', `Cannot detach a root device volume: instance ${instance.id} starts from it`)
    }
    if (found.state !== 'attached') {
      throw new ServiceError('conflict', `volume ${found.volumeId} is ${found.state}: wait until that is done`)
    }
    const detaching = { ...found, state: 'detaching' } as const
    await beginAction(documents, caller, instance, 'detach-volume', ports.now())
    await attachments.put(documents, detaching)
    return detaching
  })
  await ports.volumes.detaching(attachment.volumeId, attachment.instanceId)
  failpoint('instance:volume-detaching')
  startDetaching(ports, attachment)
}

export function startDetaching(ports: InstancePorts, { instanceId, volumeId }: AttachmentRecord): void {
  ports.tasks.start(instanceId, async (signal) => {
    const attachment = await attachments.get(ports.catalog.documents, instanceId, volumeId)
    if (attachment?.state !== 'detaching') return
    try {
      await ports.hypervisor.detach(instanceId, volumeId, GRACE_MS)
    } catch (error) {
      if (signal.aborted || (await isHostMissed(ports, instanceId, error))) return // whoever cut it knows what comes next
      if (!isForOwner(error)) ports.onProblem(error)
      return recordAttached(ports, attachment)
    }
    failpoint('instance:volume-unplugged')
    await forgetVolume(ports, attachment, { terminates: false })
  })
}
