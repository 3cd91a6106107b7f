import type { Caller } from '../base/caller.ts'
import { changeInstanceAs } from './change-instance.ts'
import type { InstancePorts } from './ports.ts'
import type { InstanceRecord } from './records.ts'

export type InstanceUpdate = Partial<Pick<InstanceRecord, 'name' | 'description' | 'accessIPv4' | 'accessIPv6' | 'diskConfig'>>

/** What people call it; the guest keeps the name that it was told. @throws ServiceError `not-found`, `denied` */
export const updateInstance = (
  ports: Pick<InstancePorts, 'catalog' | 'now'>,
  caller: Caller,
  id: string,
  changes: InstanceUpdate,
): Promise<InstanceRecord> => changeInstanceAs(ports, caller, id, 'update', () => changes)
