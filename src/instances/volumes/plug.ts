import { type Caller, serviceCaller } from '../../base/caller.ts'
import type { DiskAddress, MachineDisk } from '../hypervisor/hypervisor.ts'
import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord } from '../records.ts'
import { attachments } from '../store.ts'
import { type AttachmentRecord, inOrder } from './attachment.ts'

type Ports = Pick<InstancePorts, 'catalog' | 'volumes'>
const service = serviceCaller('req-volume')

/** As a disk of the machine, by a new address. Made and reserved before, where that was not done. */
export async function diskOf({ volumes }: Ports, { volumeId, instanceId }: AttachmentRecord): Promise<MachineDisk> {
  const { bytes } = await volumes.show(volumeId, instanceId)
  const store = await volumes.address(volumeId, instanceId)
  return { name: volumeId, bytes, store, serial: volumeId.slice(0, 20) }
}

/** As `volumeDisks`, of what a machine has now; where they are to be had is not told, and stays as it is. */
export async function volumeSizes({ catalog, volumes }: Ports, instanceId: string): Promise<readonly MachineDisk[]> {
  const disks: MachineDisk[] = []
  for (const { volumeId, state } of inOrder(await attachments.ofInstance(catalog.documents, instanceId))) {
    if (state !== 'attached') continue
    const { bytes } = await volumes.show(volumeId, instanceId)
    disks.push({ name: volumeId, bytes, serial: volumeId.slice(0, 20) })
  }
  return disks
}

/**
 * The volumes that a machine starts with, in their order; those that are being taken from it are not among them.
 * @throws ServiceError where one cannot be made or had
 */
export async function volumeDisks(ports: Ports, instance: InstanceRecord): Promise<readonly MachineDisk[]> {
  const caller: Caller = { ...service, projectId: instance.projectId, userId: instance.userId }
  const disks: MachineDisk[] = []
  for (const attachment of inOrder(await attachments.ofInstance(ports.catalog.documents, instance.id))) {
    if (attachment.state === 'detaching') continue
    if (attachment.state === 'attaching') await have(ports, caller, attachment)
    disks.push(await diskOf(ports, attachment))
  }
  return disks
}

/** Makes it, where it is made for the instance, and reserves it. Again, it does nothing. */
async function have({ volumes }: Ports, caller: Caller, { volumeId, instanceId, made }: AttachmentRecord): Promise<void> {
  if (made) await volumes.create(caller, volumeId, made)
  if (!(await volumes.isHeldBy(volumeId, instanceId))) await volumes.reserve(caller, volumeId, instanceId)
}

/** Where the volumes of a machine are to be had when it starts again: the addresses before were good for one run. */
export async function volumeAddresses(ports: Ports, instanceId: string): Promise<Readonly<Record<string, DiskAddress>>> {
  const addresses: Record<string, DiskAddress> = {}
  for (const { volumeId, state } of await attachments.ofInstance(ports.catalog.documents, instanceId)) {
    if (state === 'attached') addresses[volumeId] = await ports.volumes.address(volumeId, instanceId)
  }
  return addresses
}

/** The machine runs with them: what was being attached is, also what a kill had come between. */
export async function recordAllAttached(ports: Ports, instanceId: string): Promise<void> {
  for (const attachment of await attachments.ofInstance(ports.catalog.documents, instanceId)) {
    if (attachment.state !== 'detaching') await recordAttached(ports, attachment)
  }
}

/**
 * The volume says so last, as who sees it in use may ask for it back at once. Again, it does nothing; nor where the attachment is in another state
 * by now than the caller knows.
 */
export async function recordAttached(
  { catalog, volumes }: Ports,
  { instanceId, volumeId, device, state }: AttachmentRecord,
): Promise<void> {
  const isAttached = await catalog.write(async ({ documents }) => {
    const now = await attachments.get(documents, instanceId, volumeId)
    if (now?.state !== state) return false
    if (state !== 'attached') await attachments.put(documents, { ...now, state: 'attached' })
    return true
  })
  if (isAttached) await volumes.attached(volumeId, instanceId, device)
}

/** The volume is nobody's again, and then nothing is known of it here; one that goes with the instance goes. */
export async function forgetVolume(
  ports: Ports,
  { instanceId, volumeId, deleteOnTermination }: AttachmentRecord,
  how: { readonly terminates: boolean },
): Promise<void> {
  await ports.volumes.released(volumeId, instanceId)
  if (how.terminates && deleteOnTermination) await ports.volumes.delete(volumeId)
  await ports.catalog.write(async ({ documents }) => void (await attachments.delete(documents, instanceId, volumeId)))
}

/** When there is no machine any more, or never will be. */
export async function forgetVolumes(ports: Ports, instanceId: string): Promise<void> {
  for (const attachment of await attachments.ofInstance(ports.catalog.documents, instanceId)) {
    await forgetVolume(ports, attachment, { terminates: true })
  }
}
