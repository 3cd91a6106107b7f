import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { findInstance } from './find-instance.ts'
import type { Progress } from './job-progress.ts'
import type { InstancePorts } from './ports.ts'
import { type InstanceJob, type InstanceRecord, isJobTask, type TaskState } from './records.ts'
import { endLeftJob, mayEnd } from './start-job.ts'
import { jobs } from './store.ts'

export interface JobView {
  readonly kind: InstanceJob['kind']
  readonly taskState: TaskState | null
  /** Null: nothing is told yet. */
  readonly progress: Progress | null
}

/** What is done to an instance in several steps. @throws ServiceError `not-found`, also where nothing is */
export async function showJob({ catalog, progress }: InstancePorts, caller: Caller, id: string): Promise<JobView> {
  const instance = await findInstance(catalog.documents, caller, id, 'show')
  const job = await jobs.get(catalog.documents, instance.id)
  if (!job) throw new ServiceError('not-found', `nothing is done to instance ${instance.id} now`)
  return { kind: job.kind, taskState: instance.taskState, progress: progress.of(instance.id) }
}

/**
 * Ends it and gives back what it holds: the instance is as it was, and of a snapshot nothing is left. Answers when that is asked for; a
 * snapshot whose image is there by then goes on to its end. Of one that failed and could not be undone then, that is done before it answers.
 * @throws ServiceError `not-found`, `denied`; `conflict` for what must be brought to its end: a rebuild, or a snapshot whose image is there;
 *   what keeps one from being undone
 */
export async function cancelJob(ports: InstancePorts, caller: Caller, id: string): Promise<void> {
  const { catalog, progress } = ports
  const instance = await catalog.write(async ({ documents }) => {
    const found = await findInstance(documents, caller, id, 'cancel-job')
    const job = await jobs.get(documents, found.id)
    if (!job) throw new ServiceError('not-found', `nothing is done to instance ${found.id} now`)
    if (found.taskState === null) return found
    assertMayEnd(job, found)
    progress.cut(found.id)
    return found
  })
  if (instance.taskState === null) await endLeftJob(ports, instance.id)
}

function assertMayEnd(job: InstanceJob, { id, taskState }: InstanceRecord): void {
  if (!isJobTask(taskState)) {
    throw new ServiceError('conflict', `instance ${id} is ${taskState}: end what is left of its ${job.kind} afterwards`)
  }
  if (mayEnd(job)) return
  throw new ServiceError('conflict', `the ${job.kind} of instance ${id} cannot be ended any more: wait until it is done`)
}
