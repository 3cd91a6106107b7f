import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { changeInstance } from './change-instance.ts'
import { findInstance } from './find-instance.ts'
import type { Progress } from './job-progress.ts'
import type { InstancePorts } from './ports.ts'
import type { InstanceJob, TaskState } from './records.ts'
import { giveBack, startJob } from './start-job.ts'
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
 * Ends it and gives back what it holds: the instance is as it was, and of a snapshot nothing is left.
 * @throws ServiceError `not-found`, `denied`; `conflict` for what must be brought to its end: a rebuild, or a snapshot whose image is there
 */
export async function cancelJob(ports: InstancePorts, caller: Caller, id: string): Promise<void> {
  const instance = await findInstance(ports.catalog.documents, caller, id, 'cancel-job')
  assertMayEnd(await jobs.get(ports.catalog.documents, instance.id), instance.id)
  ports.tasks.interrupt(instance.id)
  const ended = Promise.withResolvers<void>()
  ports.tasks.start(instance.id, async () => {
    await undo(ports, instance.id).then(ended.resolve, ended.reject)
  })
  await ended.promise
}

/** What it was doing has come to a halt by now. */
async function undo(ports: InstancePorts, id: string): Promise<void> {
  const job = await jobs.get(ports.catalog.documents, id)
  if (!job) return // it had come to its end before it was cut
  if (!mayEnd(job)) startJob(ports, id) // it had come too far: it goes on
  assertMayEnd(job, id)
  await giveBack(ports, job, new ServiceError('cancelled', 'it was cancelled'))
  ports.progress.forget(id)
  await changeInstance(ports, id, async (_, documents) => {
    await jobs.delete(documents, id)
    return { taskState: null }
  })
}

function assertMayEnd(job: InstanceJob | undefined, id: string): void {
  if (!job) throw new ServiceError('not-found', `nothing is done to instance ${id} now`)
  if (mayEnd(job)) return
  throw new ServiceError('conflict', `the ${job.kind} of instance ${id} cannot be ended any more: wait until it is done`)
}

const mayEnd = (job: InstanceJob): boolean => job.kind === 'hydrate' || (job.kind === 'snapshot' && !job.isSaved)
