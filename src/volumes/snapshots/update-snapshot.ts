import type { Caller } from '../../base/caller.ts'
import { merged, without } from '../metadata.ts'
import type { VolumePorts } from '../ports.ts'
import type { Metadata, SnapshotRecord } from '../records.ts'
import { changeSnapshotAs } from './change-snapshot.ts'

type Ports = Pick<VolumePorts, 'catalog' | 'now'>
export type SnapshotUpdate = Partial<Pick<SnapshotRecord, 'name' | 'description' | 'metadata'>>

/** @throws ServiceError `not-found`, `denied`, `conflict` */
export const updateSnapshot = (ports: Ports, caller: Caller, id: string, changes: SnapshotUpdate): Promise<SnapshotRecord> =>
  changeSnapshotAs(ports, caller, id, 'update', ({ metadata }) => ({
    ...changes,
    metadata: changes.metadata ? merged({}, changes.metadata) : metadata,
  }))

/** @throws ServiceError as `updateSnapshot`; `too-large` */
export const mergeSnapshotMetadata = (ports: Ports, caller: Caller, id: string, added: Metadata): Promise<SnapshotRecord> =>
  changeSnapshotAs(ports, caller, id, 'update', ({ metadata }) => ({ metadata: merged(metadata, added) }))

/** @throws ServiceError as `updateSnapshot`; `not-found` also where there is no such item */
export const removeSnapshotMetadata = (ports: Ports, caller: Caller, id: string, name: string): Promise<SnapshotRecord> =>
  changeSnapshotAs(ports, caller, id, 'update', ({ metadata }) => ({ metadata: without(metadata, name) }))

/** Statuses that mean nothing but themselves: to set any other by hand would claim work that nobody does. */
export const resettableSnapshotStatuses = ['available', 'error', 'error_deleting'] as const

/** For administrators, after what went wrong. @throws ServiceError `not-found`, `denied`, `conflict` */
export const resetSnapshotStatus = (
  ports: Ports,
  caller: Caller,
  id: string,
  status: (typeof resettableSnapshotStatuses)[number],
): Promise<SnapshotRecord> => changeSnapshotAs(ports, caller, id, 'reset-status', () => ({ status, fault: null }))
