import { ServiceError } from '../../base/errors.ts'
import type { InstanceRecord } from '../records.ts'

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

export function describeMachine(
  instance: InstanceRecord,
  userData: string | null,
  memory: MachineDescription['memory'],
): MachineDescription {
  const { imageId, imageProperties, description, flavor, key, metadata, tags, rootBytes, hardware, diskConfig, network } =
    instance
  const kept = { imageId, imageProperties, description, flavor, key, metadata, tags, rootBytes, hardware, diskConfig }
  return { format: 1, ...kept, userData, mac: network?.mac ?? null, memory }
}

/** @throws ServiceError `unsupported` for one of a later version */
export function machineFrom(text: string): MachineDescription {
  const machine = JSON.parse(text) as MachineDescription
  if (machine.format === 1) return machine
  throw new ServiceError('unsupported', 'the machine in this image was told by a later version of the service: update this one')
}
