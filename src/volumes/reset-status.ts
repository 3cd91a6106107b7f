import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { changeVolumeAs } from './change-volume.ts'
import type { VolumePorts } from './ports.ts'
import type { VolumeRecord } from './records.ts'

/** Statuses that mean nothing but themselves: to set any other by hand would claim work that nobody does. */
export const resettableStatuses = ['available', 'in-use', 'error', 'error_deleting'] as const
export type ResettableStatus = (typeof resettableStatuses)[number]

/**
 * For administrators, after what went wrong. What is attached stays attached: detach it, or give it the status that says so.
 * @throws ServiceError `not-found`, `denied`; `conflict` where it contradicts what is attached
 */
export const resetVolumeStatus = (
  ports: Pick<VolumePorts, 'catalog' | 'now'>,
  caller: Caller,
  id: string,
  status: ResettableStatus,
): Promise<VolumeRecord> =>
  changeVolumeAs(ports, caller, id, 'reset-status', ({ attachment, status: now }) => {
    if ((status === 'in-use') !== (attachment !== null) && status !== 'error') {
      const problem = attachment
        ? `it is attached to instance ${attachment.instanceId}: detach it there`
        : 'it is attached to nothing'
      throw new ServiceError('conflict', `Invalid volume: volume ${id} cannot become ${status}: ${problem}`, { id })
    }
    if (['creating', 'extending', 'uploading'].includes(now)) {
      throw new ServiceError('conflict', `Invalid volume: volume ${id} is ${now}: wait until that is done`, { id })
    }
    return { status, fault: null }
  })
