import { ServiceError } from '../../base/errors.ts'
import { GiB } from '../../base/units.ts'
import type { BootImage } from '../ports.ts'
import type { VolumeSnapshot } from '../records.ts'
import { type MadeVolume, ROOT_INDEX } from './attachment.ts'
import type { WantedDisk } from './new-disks.ts'

/**
 * An image that names snapshots of volumes, as Nova makes it of a server that starts from a volume: properties, and no bytes. Source: Nova,
 * `nova/block_device.py`, `snapshot_from_bdm` and `BlockDeviceDict.get_image_mapping`.
 */

/** The properties by which it does. Whoever may write an image's properties may write these. */
const mappingProperties = ['block_device_mapping', 'bdm_v2', 'root_device_name'] as const
const MAX_CHARACTERS = 65_535
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** Those of an image of these. @param snapshots in the order of their volumes */
export function mappingOf(snapshots: readonly VolumeSnapshot[], diskBus: string): Readonly<Record<string, string>> {
  const mapping = snapshots.map(({ id, bytes, device, bootIndex, deleteOnTermination, tag }) => ({
    source_type: 'snapshot',
    destination_type: 'volume',
    snapshot_id: id,
    volume_size: bytes / GiB,
    boot_index: bootIndex,
    device_name: device,
    disk_bus: diskBus,
    device_type: 'disk',
    delete_on_termination: deleteOnTermination,
    tag,
    ...{ guest_format: null, image_id: null, no_device: null, volume_id: null, volume_type: null },
  }))
  const root = snapshots.find(({ bootIndex }) => bootIndex === ROOT_INDEX)
  return {
    block_device_mapping: JSON.stringify(mapping),
    bdm_v2: 'True',
    ...(root ? { root_device_name: root.device } : {}),
  }
}

/** The others. */
export const withoutMapping = (properties: Readonly<Record<string, string>>): Readonly<Record<string, string>> =>
  Object.fromEntries(Object.entries(properties).filter(([name]) => !(mappingProperties as readonly string[]).includes(name)))

/** A volume that is made of what an image names. */
export interface MappedDisk extends WantedDisk {
  readonly from: MadeVolume['from']
}

/**
 * What an instance that is made of the image gets beside, or in place of, its bytes: volumes that are made, never ones that are there. The
 * image may be somebody else's, who would choose what becomes of them.
 * @throws ServiceError `invalid-request`
 */
export function mappedDisks({ id, properties }: Pick<BootImage, 'id' | 'properties'>): readonly MappedDisk[] {
  const { block_device_mapping: text, bdm_v2: isOfNow } = properties
  if (text === undefined) return []
  const refuse = (problem: string): never => {
    throw new ServiceError('invalid-request', `Block Device Mapping is Invalid: block_device_mapping of image ${id} ${problem}`)
  }
  if (isOfNow?.toLowerCase() !== 'true') refuse('is of the older form: set bdm_v2 where it is of the newer one')
  const devices = text.length <= MAX_CHARACTERS ? parsed(text) : undefined
  if (!Array.isArray(devices)) return refuse('is no list of JSON')
  return devices.filter(isObject).map((device): MappedDisk => {
    const { source_type, destination_type, boot_index, volume_size, delete_on_termination, tag } = device
    if (destination_type !== 'volume') refuse('names a disk that is no volume')
    const index = Number(boot_index ?? -1)
    const sizeGiB = Number(volume_size ?? 0)
    if (!Number.isInteger(index) || !Number.isInteger(sizeGiB))
      refuse('has a boot_index or a volume_size that is no whole number')
    if (source_type === 'volume') refuse('names a volume that is there: name it in block_device_mapping_v2 of the request')
    const from = sourceOf(source_type, device) ?? refuse(`names a source_type ${JSON.stringify(source_type)} without its id`)
    if (from.kind !== 'snapshot' && sizeGiB < 1) refuse(`makes a volume of source_type ${from.kind} without volume_size`)
    return {
      bootIndex: index < 0 ? null : index,
      from,
      sizeGiB: sizeGiB < 1 ? null : sizeGiB,
      deleteOnTermination: delete_on_termination === true,
      tag: typeof tag === 'string' ? tag.slice(0, 60) : null,
    }
  })
}

/**
 * For what is made of an image's own bytes: one that names a disk to start from has none, or none that is meant.
 * @throws ServiceError `invalid-request`
 */
export function assertOwnDisk(image: BootImage): void {
  if (!mappedDisks(image).some(({ bootIndex }) => bootIndex === ROOT_INDEX)) return
  throw new ServiceError(
    'invalid-request',
    `image ${image.id} holds no disk: its block_device_mapping names a volume to start from; make another server of it, or volumes of the snapshots that it names`,
    { imageId: image.id },
  )
}

function sourceOf(kind: unknown, device: Readonly<Record<string, unknown>>): MappedDisk['from'] | undefined {
  const idIn = (name: string) =>
    typeof device[name] === 'string' && UUID.test(device[name]) ? device[name].toLowerCase() : undefined
  const [imageId, snapshotId] = [idIn('image_id'), idIn('snapshot_id')]
  if (kind === 'blank') return { kind }
  if (kind === 'snapshot' && snapshotId) return { kind, snapshotId }
  return kind === 'image' && imageId ? { kind, imageId } : undefined
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
