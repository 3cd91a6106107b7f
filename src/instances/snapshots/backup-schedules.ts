import { type Caller, serviceCaller } from '../../base/caller.ts'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { findInstance } from '../find-instance.ts'
import type { InstancePorts } from '../ports.ts'
import type { BackupSchedule, InstanceRecord } from '../records.ts'
import { backupSchedules, instances } from '../store.ts'
import { createBackup } from './create-snapshot.ts'

const HOUR_MS = 3_600_000
const MAX_PROBLEM = 255

export type BackupPlan = Pick<BackupSchedule, 'everyHours' | 'backupType' | 'rotation'>

/**
 * From now on a backup is made of the instance every so many hours, the first one at once; it takes the place of the schedule before.
 * @throws ServiceError `not-found`, `denied`, `conflict` where the instance never ran
 */
export function scheduleBackups(ports: InstancePorts, caller: Caller, id: string, plan: BackupPlan): Promise<BackupSchedule> {
  return ports.catalog.write(async ({ documents }) => {
    const instance = await findInstance(documents, caller, id, 'schedule-backups')
    const schedule = { instanceId: instance.id, ...plan, nextAt: ports.now(), lastProblem: null }
    await backupSchedules.put(documents, schedule)
    return schedule
  })
}

/** @throws ServiceError `not-found` where there is none, too */
export async function showBackupSchedule({ catalog }: InstancePorts, caller: Caller, id: string): Promise<BackupSchedule> {
  const instance = await findInstance(catalog.documents, caller, id, 'show')
  const schedule = await backupSchedules.get(catalog.documents, instance.id)
  if (schedule) return schedule
  throw new ServiceError('not-found', `instance ${instance.id} has no schedule of backups: set one`)
}

/** Backups that there are stay. @throws ServiceError `not-found`, `denied` */
export const endBackupSchedule = ({ catalog }: InstancePorts, caller: Caller, id: string): Promise<void> =>
  catalog.write(async ({ documents }) => {
    const instance = await findInstance(documents, caller, id, 'schedule-backups')
    await backupSchedules.delete(documents, instance.id)
  })

/**
 * Begins the backups whose time has come. One that fell due while the service was away is made once. To be called every minute or so.
 * @returns how many it began
 */
export async function beginDueBackups(ports: InstancePorts): Promise<number> {
  let begun = 0
  for (const schedule of await backupSchedules.list(ports.catalog.documents)) {
    if (schedule.nextAt > ports.now()) continue
    const instance = await instances.get(ports.catalog.documents, schedule.instanceId)
    if (!instance || instance.taskState !== null) continue // busy: its time is still there in a minute
    const problem = await begin(ports, instance, schedule)
    if (problem === null) begun += 1
    await noteRun(ports, schedule, problem)
  }
  return begun
}

/** @returns why there is none, for its owner */
async function begin(
  ports: InstancePorts,
  instance: InstanceRecord,
  { backupType, rotation }: BackupSchedule,
): Promise<string | null> {
  const caller = { ...serviceCaller('req-backup'), projectId: instance.projectId, userId: instance.userId }
  const name = `${instance.name.slice(0, 180)} ${backupType.slice(0, 40)} ${new Date(ports.now()).toISOString().slice(0, 19)}Z`
  try {
    await createBackup(ports, caller, instance.id, { name, properties: {}, backupType, rotation })
    return null
  } catch (error) {
    if (!isServiceError(error)) throw error
    return error.message.slice(0, MAX_PROBLEM)
  }
}

/** Unless somebody changed the schedule meanwhile. */
const noteRun = (
  { catalog, now }: InstancePorts,
  { instanceId, nextAt }: BackupSchedule,
  lastProblem: string | null,
): Promise<void> =>
  catalog.write(async ({ documents }) => {
    const schedule = await backupSchedules.get(documents, instanceId)
    if (schedule?.nextAt !== nextAt) return
    await backupSchedules.put(documents, { ...schedule, lastProblem, nextAt: now() + schedule.everyHours * HOUR_MS })
  })
