import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord } from '../records.ts'
import { attachments } from '../store.ts'
import { startAttaching } from './attach-volume.ts'
import { startDetaching } from './detach-volume.ts'
import { forgetVolume, recordAttached } from './plug.ts'

/** Gives back what no instance knows of. To be called before anything is attached. @param known all instances */
export async function giveBackVolumes(ports: InstancePorts, known: readonly InstanceRecord[]): Promise<void> {
  const ids = new Set(known.map(({ id }) => id))
  const all = await attachments.list(ports.catalog.documents)
  const held = new Set(all.map(({ instanceId, volumeId }) => `${instanceId} ${volumeId}`))
  for (const { volumeId, instanceId } of await ports.volumes.held()) {
    if (!held.has(`${instanceId} ${volumeId}`)) await ports.volumes.released(volumeId, instanceId)
  }
  for (const attachment of all) {
    if (!ids.has(attachment.instanceId)) await forgetVolume(ports, attachment, { terminates: true })
  }
}

/** Takes up what was being attached to the instance or detached. What is being launched or deleted takes its volumes along. */
export async function takeUpVolumes(
  ports: InstancePorts,
  { id, launchedAt, taskState }: Pick<InstanceRecord, 'id' | 'launchedAt' | 'taskState'>,
): Promise<void> {
  if (launchedAt === null || taskState === 'deleting') return
  for (const attachment of await attachments.ofInstance(ports.catalog.documents, id)) {
    if (attachment.state === 'attaching') startAttaching(ports, attachment)
    else if (attachment.state === 'detaching') startDetaching(ports, attachment)
    else await recordAttached(ports, attachment) // the volume may not say so yet
  }
}
