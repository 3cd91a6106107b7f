import type { InstanceRecord, TaskState, VmState } from './records.ts'

/** What clients show: made of vm_state and task_state, never recorded. Nova, `nova/api/openstack/common.py`, `_STATE_MAP`. */
export type Status = 'ACTIVE' | 'BUILD' | 'ERROR' | 'HARD_REBOOT' | 'MIGRATING' | 'PAUSED' | 'REBOOT' | 'REBUILD' | 'SHUTOFF'

const ofVmState: Readonly<Record<VmState, Status>> = {
  building: 'BUILD',
  active: 'ACTIVE',
  paused: 'PAUSED',
  stopped: 'SHUTOFF',
  error: 'ERROR',
}
/** Only what is active shows what is done to it. */
const whileActive: Partial<Readonly<Record<TaskState, Status>>> = { rebooting: 'REBOOT', rebooting_hard: 'HARD_REBOOT' }

export function statusOf({ vmState, taskState }: Pick<InstanceRecord, 'vmState' | 'taskState'>): Status {
  if (taskState === 'rebuilding') return 'REBUILD'
  if (taskState === 'migrating') return 'MIGRATING'
  const busy = vmState === 'active' && taskState !== null ? whileActive[taskState] : undefined
  return busy ?? ofVmState[vmState]
}

/** Every status that Nova knows: filters may name those that no instance here ever has. */
export const knownStatuses: ReadonlySet<string> = new Set([
  ...['ACTIVE', 'BUILD', 'DELETED', 'ERROR', 'HARD_REBOOT', 'MIGRATING', 'PASSWORD', 'PAUSED', 'REBOOT', 'REBUILD', 'RESCUE'],
  ...['RESIZE', 'REVERT_RESIZE', 'SHELVED', 'SHELVED_OFFLOADED', 'SHUTOFF', 'SOFT_DELETED', 'SUSPENDED', 'UNKNOWN'],
  'VERIFY_RESIZE',
])
