import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord } from '../records.ts'
import { attachments } from '../store.ts'
import { startAttaching } from './attach-volume.ts'
import { startDetaching } from './detach-volume.ts'
import { forgetVolume } from './plug.ts'

/** Takes up what was being attached or detached, and gives back what no instance knows of. */
export async function recoverVolumes(ports: InstancePorts, known: readonly InstanceRecord[]): Promise<void> {
  const byId = new Map(known.map((instance) => [instance.id, instance]))
  const all = await attachments.list(ports.catalog.documents)
  const held = new Set(all.map(({ instanceId, volumeId }) => `${instanceId} ${volumeId}`))
  for (const { volumeId, instanceId } of await ports.volumes.held()) {
    if (!held.has(`${instanceId} ${volumeId}`)) await ports.volumes.released(volumeId, instanceId)
  }
  for (const attachment of all) {
    const instance = byId.get(attachment.instanceId)
    if (!instance) await forgetVolume(ports, attachment, { terminates: true })
    // what is being launched or deleted takes its volumes along
    else if (instance.launchedAt === null || instance.taskState === 'deleting') continue
    else if (attachment.state === 'attaching') startAttaching(ports, attachment)
    else if (attachment.state === 'detaching') startDetaching(ports, attachment)
  }
}
