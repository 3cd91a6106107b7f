import type { Caller } from '../base/caller.ts'
import { changeVolumeAs } from './change-volume.ts'
import { merged, without } from './metadata.ts'
import type { VolumePorts } from './ports.ts'
import type { Metadata, VolumeRecord } from './records.ts'

type Ports = Pick<VolumePorts, 'catalog' | 'now'>
export type VolumeUpdate = Partial<Pick<VolumeRecord, 'name' | 'description' | 'metadata' | 'isBootable'>>

/** @throws ServiceError `not-found`, `denied`, `conflict` */
export const updateVolume = (ports: Ports, caller: Caller, id: string, changes: VolumeUpdate): Promise<VolumeRecord> =>
  changeVolumeAs(ports, caller, id, 'update', ({ metadata }) => ({
    ...changes,
    ...(changes.metadata ? { metadata: merged({}, changes.metadata) } : { metadata }),
  }))

/** @throws ServiceError as `updateVolume`; `too-large` */
export const mergeVolumeMetadata = (ports: Ports, caller: Caller, id: string, added: Metadata): Promise<VolumeRecord> =>
  changeVolumeAs(ports, caller, id, 'update', ({ metadata }) => ({ metadata: merged(metadata, added) }))

/** @throws ServiceError as `updateVolume`; `not-found` also where there is no such item */
export const removeVolumeMetadata = (ports: Ports, caller: Caller, id: string, name: string): Promise<VolumeRecord> =>
  changeVolumeAs(ports, caller, id, 'update', ({ metadata }) => ({ metadata: without(metadata, name) }))

/** Of the image that it is taken to hold. @throws ServiceError as `mergeVolumeMetadata` */
export const mergeImageMetadata = (ports: Ports, caller: Caller, id: string, added: Metadata): Promise<VolumeRecord> =>
  changeVolumeAs(ports, caller, id, 'update', ({ imageMetadata }) => ({ imageMetadata: merged(imageMetadata ?? {}, added) }))

/** @throws ServiceError as `removeVolumeMetadata` */
export const removeImageMetadata = (ports: Ports, caller: Caller, id: string, name: string): Promise<VolumeRecord> =>
  changeVolumeAs(ports, caller, id, 'update', ({ imageMetadata }) => ({ imageMetadata: without(imageMetadata ?? {}, name) }))

/** Whether instances may write to it: of those that are attached, nothing changes. @throws ServiceError `not-found`, `denied`, `conflict` */
export const setReadOnly = (ports: Ports, caller: Caller, id: string, isReadOnly: boolean): Promise<VolumeRecord> =>
  changeVolumeAs(ports, caller, id, 'set-read-only', () => ({ isReadOnly }))
