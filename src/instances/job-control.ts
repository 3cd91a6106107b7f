import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { findInstance } from './find-instance.ts'
import type { Progress } from './job-progress.ts'
import type { InstancePorts } from './ports.ts'
import type { InstanceJob, TaskState } from './records.ts'
import { mayEnd } from './start-job.ts'
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
 * snapshot whose image is there by then goes on to its end.
 * @throws ServiceError `not-found`, `denied`; `conflict` for what must be brought to its end: a rebuild, or a snapshot whose image is there
 */
export async function cancelJob({ catalog, progress }: InstancePorts, caller: Caller, id: string): Promise<void> {
  const instance = await findInstance(catalog.documents, caller, id, 'cancel-job')
  assertMayEnd(await jobs.get(catalog.documents, instance.id), instance.id)
  progress.cut(instance.id)
}

function assertMayEnd(job: InstanceJob | undefined, id: string): void {
  if (!job) throw new ServiceError('not-found', `nothing is done to instance ${id} now`)
  if (mayEnd(job)) return
  throw new ServiceError('conflict', `the ${job.kind} of instance ${id} cannot be ended any more: wait until it is done`)
}
