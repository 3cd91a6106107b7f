import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { asRequested } from '../launch/requested.ts'
import type { BootImage, InstancePorts } from '../ports.ts'
import { type InstanceRecord, startsFromVolume, type VolumeRevert } from '../records.ts'
import { machineIfIn } from '../snapshots/machine-parts.ts'
import { attachments } from '../store.ts'
import { ROOT_INDEX } from '../volumes/attachment.ts'
import { mappedDisks } from '../volumes/image-mapping.ts'

/**
 * What a volume holds is nobody's to replace by a rebuild: as Nova until its version 2.93, one starts anew from the image that the volume was
 * made from, and finds there what it had written.
 * @throws ServiceError `invalid-request`
 */
export async function assertSameImage(ports: InstancePorts, instance: InstanceRecord, imageId: string): Promise<void> {
  const attached = await attachments.ofInstance(ports.catalog.documents, instance.id)
  const root = attached.find(({ bootIndex }) => bootIndex === ROOT_INDEX)
  const made = root && (await ports.volumes.show(root.volumeId, instance.id)).imageMetadata?.image_id
  if (made === imageId) return
  const message = `Image ${imageId} is unacceptable: Unable to rebuild with a different image for a volume-backed server. Make another one, or restore a snapshot of it`
  throw new ServiceError('invalid-request', message, { instanceId: instance.id })
}

/**
 * What the volumes of an instance are put back to by a snapshot of it: those in a machine's image, or those that it names.
 * @throws ServiceError `invalid-request` where it holds a volume that the instance has no more, or not the one that it starts from
 */
export async function revertsFrom(
  ports: InstancePorts,
  caller: Caller,
  instance: InstanceRecord,
  image: BootImage,
): Promise<readonly VolumeRevert[]> {
  const reverts = (await revertsInMachine(ports, caller, image)) ?? (await revertsNamed(ports, caller, image))
  const attached = await attachments.ofInstance(ports.catalog.documents, instance.id)
  const has = new Set(attached.filter(({ state }) => state === 'attached').map(({ volumeId }) => volumeId))
  const refuse = (problem: string) => {
    throw new ServiceError('invalid-request', `image ${image.id} ${problem}`, { imageId: image.id, instanceId: instance.id })
  }
  for (const { volumeId } of reverts) {
    if (has.has(volumeId)) continue
    refuse(
      `holds volume ${volumeId}, which instance ${instance.id} has no more: attach it, or make another instance of the image`,
    )
  }
  const root = attached.find(({ bootIndex }) => bootIndex === ROOT_INDEX)
  if (startsFromVolume(instance) && !reverts.some(({ volumeId }) => volumeId === root?.volumeId)) {
    refuse(`does not hold the volume that instance ${instance.id} starts from: make another instance of it`)
  }
  return reverts
}

async function revertsInMachine(
  ports: InstancePorts,
  caller: Caller,
  { id }: BootImage,
): Promise<readonly VolumeRevert[] | undefined> {
  const machine = await machineIfIn(ports, caller, id)
  return machine?.volumes.map(({ volumeId, part }) => ({ volumeId, to: { kind: 'part', part } }))
}

async function revertsNamed(ports: InstancePorts, caller: Caller, image: BootImage): Promise<readonly VolumeRevert[]> {
  const reverts: VolumeRevert[] = []
  for (const { from } of mappedDisks(image)) {
    if (from.kind !== 'snapshot') continue
    const { volumeId } = await asRequested(() => ports.volumes.checkSnapshot(caller, from.snapshotId))
    reverts.push({ volumeId, to: from })
  }
  return reverts
}
