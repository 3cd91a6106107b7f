import { type Static, Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import type { WantedDisk } from '../../../instances/volumes/new-disks.ts'
import { isYes } from '../paging.ts'
import { strict, yesOrNo } from './schemas.ts'

/** `block_device_mapping_v2` of `POST /servers`. */
const word = Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()]))
const number = Type.Optional(
  Type.Union([Type.Integer({ minimum: -1, maximum: 2 ** 31 - 1 }), Type.String({ pattern: '^-?[0-9]{1,9}$' }), Type.Null()]),
)
export const blockDevice = Type.Object(
  {
    uuid: word,
    source_type: word,
    destination_type: word,
    boot_index: number,
    volume_size: number,
    delete_on_termination: Type.Optional(yesOrNo),
    device_name: word,
    disk_bus: word,
    device_type: word,
    guest_format: word,
    no_device: Type.Optional(Type.Unknown()),
    tag: word,
    volume_type: word,
  },
  strict,
)
type BlockDevice = Static<typeof blockDevice>

export interface Disks {
  /** '': the instance starts from a volume. */
  readonly imageId: string
  readonly volumes: readonly WantedDisk[]
}

/** @param imageId of `imageRef`; '': none. @throws ServiceError `invalid-request` */
export function disksFrom(imageId: string, devices: readonly BlockDevice[]): Disks {
  const own = devices.filter(isOwnRoot)
  const volumes = devices.filter((device) => !isOwnRoot(device)).map(diskFrom)
  const named = own.flatMap(({ uuid }) => (uuid ? [uuid] : []))
  const images = new Set(imageId === '' ? named : [imageId, ...named])
  if (images.size > 1) refuse('an instance starts from one image, and two are named')
  const [image = ''] = images
  const hasRoot = volumes.some(({ bootIndex }) => bootIndex === 0)
  if (image === '' && !hasRoot) refuseImage()
  return { imageId: image, volumes }
}

/** An image as the one local disk: the form in which some clients name the same as by `imageRef`. */
const isOwnRoot = ({ source_type, destination_type, boot_index }: BlockDevice): boolean =>
  source_type === 'image' && (destination_type ?? 'local') === 'local' && Number(boot_index) === 0

function diskFrom(device: BlockDevice): WantedDisk {
  const { destination_type, source_type, boot_index, volume_size, delete_on_termination, tag, no_device } = device
  if (no_device) refuse('no_device: a volume that is not to be there is left out')
  if ((destination_type ?? (source_type === 'volume' || source_type === 'snapshot' ? 'volume' : 'local')) !== 'volume') {
    refuse('destination_type: an instance has one local disk, from the image in imageRef; further ones are volumes')
  }
  const index = Number(boot_index ?? -1)
  const size = Number(volume_size ?? 0)
  const from = sourceFrom(device)
  if ((from.kind === 'blank' || from.kind === 'image') && size < 1)
    refuse(`a volume that is made from source_type ${from.kind} needs volume_size`)
  return {
    bootIndex: index < 0 ? null : index,
    from,
    sizeGiB: size < 1 ? null : size,
    deleteOnTermination: isYes(String(delete_on_termination ?? false)),
    tag: tag ?? null,
  }
}

function sourceFrom({ source_type, uuid }: BlockDevice): WantedDisk['from'] {
  if (source_type === 'blank') return { kind: 'blank' }
  if (!uuid) return refuse(`source_type ${source_type} needs a uuid`)
  if (source_type === 'volume') return { kind: 'volume', volumeId: uuid }
  if (source_type === 'image') return { kind: 'image', imageId: uuid }
  if (source_type === 'snapshot') return { kind: 'snapshot', snapshotId: uuid }
  return refuse('source_type is one of volume, image, snapshot, blank')
}

function refuse(problem: string): never {
  throw new ServiceError('invalid-request', `Block Device Mapping is Invalid: ${problem}`)
}
function refuseImage(): never {
  throw new ServiceError('invalid-request', 'Invalid imageRef provided.')
}
