import type { Caller } from '../base/caller.ts'
import { rankOf } from '../base/rank.ts'
import { changeInstanceAs } from './change-instance.ts'
import { authorize } from './policy.ts'
import type { InstancePorts } from './ports.ts'
import type { InstanceRecord } from './records.ts'

type Ports = Pick<InstancePorts, 'catalog' | 'now'>

/** Keeps all but administrators from acting on it. A lock of an administrator is not replaced by its owner's. */
export const lockInstance = (ports: Ports, caller: Caller, id: string, reason: string | null): Promise<InstanceRecord> =>
  changeInstanceAs(ports, caller, id, 'lock', ({ lock, projectId }) => {
    const by = rankOf(caller) === 'admin' && caller.projectId !== projectId ? 'admin' : 'owner'
    return { lock: lock?.by === 'admin' && by === 'owner' ? lock : { by, reason } }
  })

/** @throws ServiceError `denied` where an administrator locked it and the caller is none */
export const unlockInstance = (ports: Ports, caller: Caller, id: string): Promise<InstanceRecord> =>
  changeInstanceAs(ports, caller, id, 'unlock', (instance) => {
    if (instance.lock?.by === 'admin') authorize(caller, 'unlock-for-admin', instance)
    return { lock: null }
  })
