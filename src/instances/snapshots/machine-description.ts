import { ServiceError } from '../../base/errors.ts'
import type { InstanceRecord, VolumeSnapshot } from '../records.ts'
import { ROOT_INDEX } from '../volumes/attachment.ts'

/** What it takes to make the same machine again, of an image that is one. It is stored as JSON, made by this service alone. */
export interface MachineDescription
  extends Pick<
    InstanceRecord,
    | 'imageId'
    | 'imageProperties'
    | 'description'
    | 'flavor'
    | 'key'
    | 'metadata'
    | 'tags'
    | 'rootBytes'
    | 'hardware'
    | 'diskConfig'
  > {
  readonly format: 1
  /** In the order in which the machine has them. */
  readonly volumes: readonly DescribedVolume[]
  /** Base64. */
  readonly userData: string | null
  /** Of its network card, which its memory knows; null: it has none. */
  readonly mac: string | null
  /** Null: the memory is not in the image. */
  readonly memory: {
    /** The hypervisor's. */
    readonly shape: string
    /** Base64, of the disc with cloud-init's data; null: it has none. */
    readonly seedDisc: string | null
  } | null
}

export interface DescribedVolume
  extends Pick<VolumeSnapshot, 'volumeId' | 'bytes' | 'bootIndex' | 'deleteOnTermination' | 'tag'> {
  /** Of the image; null: its disk. */
  readonly part: string | null
}

/** The one that an instance starts from is the disk of its image. */
const describeVolume = ({ volumeId, bytes, bootIndex, deleteOnTermination, tag }: VolumeSnapshot): DescribedVolume => ({
  ...{ volumeId, bytes, bootIndex, deleteOnTermination, tag },
  part: bootIndex === ROOT_INDEX ? null : volumeId,
})

export function describeMachine(
  instance: InstanceRecord,
  volumes: readonly VolumeSnapshot[],
  userData: string | null,
  memory: MachineDescription['memory'],
): MachineDescription {
  const { imageId, imageProperties, description, flavor, key, metadata, tags, rootBytes, hardware, diskConfig, network } =
    instance
  const kept = { imageId, imageProperties, description, flavor, key, metadata, tags, rootBytes, hardware, diskConfig }
  return { format: 1, ...kept, volumes: volumes.map(describeVolume), userData, mac: network?.mac ?? null, memory }
}

/** @throws ServiceError `unsupported` for one of a later version */
export function machineFrom(text: string): MachineDescription {
  const machine = JSON.parse(text) as Omit<MachineDescription, 'volumes'> & Partial<MachineDescription>
  if (machine.format === 1) return { ...machine, volumes: machine.volumes ?? [] } // there were none at first
  throw new ServiceError('unsupported', 'the machine in this image was told by a later version of the service: update this one')
}
