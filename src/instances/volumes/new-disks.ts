import { randomUUID } from 'node:crypto'
import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { asRequested } from '../launch/requested.ts'
import type { BootImage, InstancePorts } from '../ports.ts'
import { type InstanceRecord, startsFromVolume } from '../records.ts'
import { type AttachmentRecord, type MadeVolume, nextDevice, ROOT_INDEX } from './attachment.ts'
import { assertOwnDisk, mappedDisks, withoutMapping } from './image-mapping.ts'

/** A volume that an instance is made with. */
export interface WantedDisk {
  /** 0: the instance starts from it; null: from it, never. */
  readonly bootIndex: number | null
  readonly from: { readonly kind: 'volume'; readonly volumeId: string } | MadeVolume['from']
  /** Of one that is made; null: as large as what it is made from. */
  readonly sizeGiB: number | null
  readonly deleteOnTermination: boolean
  readonly tag: string | null
}

/** With its root disk, and what the hypervisor keeps for itself, as many as a machine has places for. */
const MAX_VOLUMES = 15

/** What instances are made of: all that can be refused is refused here. */
export interface Sources {
  /** That they start from; with the id '': what is known of it, where that is in a volume. */
  readonly image: BootImage
  readonly volumes: readonly WantedDisk[]
}

/**
 * An image may name volumes that are to be made (image-mapping.ts), one to start from among them.
 * @throws ServiceError `invalid-request`
 */
export async function sourcesOf(
  ports: InstancePorts,
  caller: Caller,
  { imageId, volumes, most }: { readonly imageId: string; readonly volumes: readonly WantedDisk[]; readonly most: number },
): Promise<Sources> {
  const named = imageId === '' ? null : await asRequested(() => ports.images.show(caller, imageId))
  const mapped = named ? mappedDisks(named) : []
  const isMapped = mapped.some(({ bootIndex }) => bootIndex === ROOT_INDEX)
  const all = [...mapped, ...volumes]
  await assertDisks(ports, caller, { volumes: all, imageId: isMapped ? '' : imageId, most })
  await assertMakeable(ports, { ...caller, isAdmin: false }, mapped) // an administrator did not choose what it names
  await assertMakeable(ports, caller, volumes)
  const properties = withoutMapping(named?.properties ?? {})
  if (named && isMapped) return { image: { ...named, id: '', diskBytes: 0, minDisk: 0, properties }, volumes: all }
  if (named) return { image: { ...named, properties }, volumes: all }
  return { image: await bootVolume(ports, caller, all), volumes: all }
}

/**
 * What can be said of them before there is an instance.
 * @throws ServiceError `invalid-request`
 */
async function assertDisks(
  ports: InstancePorts,
  caller: Caller,
  wanted: { readonly volumes: readonly WantedDisk[]; readonly imageId: string; readonly most: number },
): Promise<void> {
  const { volumes, imageId, most } = wanted
  const refuse = (problem: string) => {
    throw new ServiceError('invalid-request', `Block Device Mapping is Invalid: ${problem}`)
  }
  const roots = volumes.filter(({ bootIndex }) => bootIndex === ROOT_INDEX).length + (imageId === '' ? 0 : 1)
  if (roots !== 1) refuse(`an instance starts from one disk, and ${roots} are named`)
  if (volumes.length > MAX_VOLUMES) refuse(`an instance has at most ${MAX_VOLUMES} volumes`)
  const named = volumes.flatMap(({ from }) => (from.kind === 'volume' ? [from.volumeId] : []))
  if (named.length > 0 && most > 1) refuse('a volume is attached to one instance: make one at a time, or have volumes made')
  if (new Set(named).size < named.length) refuse('a volume is named twice')
  for (const volumeId of named) await asRequested(() => ports.volumes.check(caller, volumeId))
}

/** Whether the caller may have what they are made from. @throws ServiceError `invalid-request` */
async function assertMakeable(ports: InstancePorts, caller: Caller, volumes: readonly WantedDisk[]): Promise<void> {
  for (const { from } of volumes) {
    if (from.kind === 'image') assertOwnDisk(await asRequested(() => ports.images.show(caller, from.imageId)))
    if (from.kind === 'snapshot') await asRequested(() => ports.volumes.checkSnapshot(caller, from.snapshotId))
  }
}

/** What is known of the volume that an instance starts from: its disk fits. @throws ServiceError `invalid-request` */
async function bootVolume(ports: InstancePorts, caller: Caller, volumes: readonly WantedDisk[]): Promise<BootImage> {
  const from = volumes.find(({ bootIndex }) => bootIndex === ROOT_INDEX)?.from
  const plain = { id: '', name: null, diskBytes: 0, minDisk: 0, minRam: 0, properties: {} }
  if (from?.kind === 'image') {
    const { minRam, properties } = await asRequested(() => ports.images.show(caller, from.imageId))
    return { ...plain, minRam, properties }
  }
  if (from?.kind !== 'volume' && from?.kind !== 'snapshot') return plain
  const { id, isBootable, imageMetadata } = await asRequested(() =>
    from.kind === 'volume' ? ports.volumes.check(caller, from.volumeId) : ports.volumes.checkSnapshot(caller, from.snapshotId),
  )
  if (!isBootable) {
    throw new ServiceError(
      'invalid-request',
      `Block Device Mapping is Invalid: ${from.kind} ${id} is not bootable: set the volume so, if it is`,
    )
  }
  return { ...plain, minRam: Number(imageMetadata?.min_ram ?? 0) || 0, properties: imageMetadata ?? {} }
}

/** What an instance that is recorded now gets. */
export function attachmentsFor(instance: InstanceRecord, volumes: readonly WantedDisk[]): readonly AttachmentRecord[] {
  const noted: AttachmentRecord[] = []
  for (const { from, sizeGiB, bootIndex, deleteOnTermination, tag } of volumes) {
    noted.push({
      instanceId: instance.id,
      volumeId: from.kind === 'volume' ? from.volumeId.toLowerCase() : randomUUID(),
      device: nextDevice(noted, instance.hardware.diskBus, !startsFromVolume(instance)),
      ...{ bootIndex, deleteOnTermination, tag, state: 'attaching', createdAt: instance.createdAt + noted.length },
      made: from.kind === 'volume' ? null : { from, sizeGiB },
    })
  }
  return noted
}
