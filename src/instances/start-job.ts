import { ServiceError } from '../base/errors.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import { changeInstance, type InstanceChanges } from './change-instance.ts'
import { faultFrom, isForOwner } from './faults.ts'
import { isHostMissed } from './hosts.ts'
import { hydrateDisk } from './launch/hydrate-disk.ts'
import { migrate } from './migrate/migrate.ts'
import type { InstancePorts, Pool } from './ports.ts'
import { recordPower } from './power/settle.ts'
import { rebuild, rebuildFailed } from './rebuild/rebuild.ts'
import { type InstanceJob, type InstanceRecord, isJobTask, type SnapshotJob } from './records.ts'
import { failClone } from './snapshots/start-clone.ts'
import { takeSnapshot } from './snapshots/take-snapshot.ts'
import { instances, jobs } from './store.ts'

/**
 * What is done to an instance in several steps, of which each is noted: stopped or killed at any point, the next start goes on by what was
 * noted. While there is a job, the instance has its task.
 */
export async function startJob(ports: InstancePorts, { id, projectId }: InstanceRecord): Promise<void> {
  const pool = poolOf(await jobs.get(ports.catalog.documents, id))
  const place = { pool, owner: projectId, ends: ports.progress.cutOf(id) } as const
  ports.tasks.start(id, (signal) => runJob(ports, id, signal), place)
}

/** A rebuild is a launch, but for one that reads memory, or waits until what its volumes were is stored. */
const poolOf = (job: InstanceJob | undefined): Pool =>
  job?.kind === 'rebuild' && job.partsFrom === null && job.reverts.length === 0 ? 'launches' : 'jobs'

/** Cut short, the job stays, for whoever cut it: a deletion gives back what it holds, the next start goes on. */
async function runJob(ports: InstancePorts, id: string, signal: AbortSignal): Promise<void> {
  const { documents } = ports.catalog
  const [instance, job] = [await instances.get(documents, id), await jobs.get(documents, id)]
  if (!instance || instance.taskState === 'deleting') return
  let changes: Undone = { instance: {}, isUndone: true }
  const cut = ports.progress.cutOf(id)
  try {
    if (job) await work(ports, instance, job, { signal, cut })
  } catch (error) {
    if (signal.aborted || (await waitsForHost(ports, id, error))) return
    if (!isForOwner(error) && !cut.aborted) ports.onProblem(error)
    changes = await undo(ports, instance, cut.aborted ? new ServiceError('cancelled', 'it was ended on request') : error)
  }
  await changeInstance(ports, id, async ({ taskState }, writer) => {
    ports.progress.forget(id)
    if (changes.isUndone) await jobs.delete(writer, id)
    return { ...changes.instance, ...(isJobTask(taskState) ? { taskState: null } : {}) }
  })
  await recordPower(ports, id)
}

/** A rebuild has a machine that may run by now. What else a job was at when its host went away is given back, and may be asked for again. */
async function waitsForHost(ports: InstancePorts, id: string, error: unknown): Promise<boolean> {
  const job = await jobs.get(ports.catalog.documents, id)
  return job?.kind === 'rebuild' && (await isHostMissed(ports, id, error))
}

/** Whether it can be ended half-way: of a snapshot, until its image is there; of a migration, until it has gone. */
export const mayEnd = (job: InstanceJob): boolean =>
  job.kind === 'hydrate' || job.kind === 'migrate' || (job.kind === 'snapshot' && !job.isSaved)

async function work(
  ports: InstancePorts,
  instance: InstanceRecord,
  job: InstanceJob,
  ends: { readonly signal: AbortSignal; readonly cut: AbortSignal },
): Promise<void> {
  if (job.kind === 'migrate') return migrate(ports, instance, job, ends) // where it is must be known, wanted or not
  const signal = mayEnd(job) ? AbortSignal.any([ends.signal, ends.cut]) : ends.signal
  if (mayEnd(job)) ends.cut.throwIfAborted()
  const report = ports.progress.reportOf(instance.id)
  if (job.kind === 'snapshot') return takeSnapshot(ports, instance, job, signal, report)
  return job.kind === 'hydrate' ? hydrateDisk(ports, instance, signal, report) : rebuild(ports, instance, job, signal)
}

interface Undone {
  /** What becomes of it. */
  readonly instance: InstanceChanges
  /** False: the job holds something yet, and stays for that (`endJob`). */
  readonly isUndone: boolean
}

const nameOf = { snapshot: 'snapshot', rebuild: 'rebuild', hydrate: 'hydration', migrate: 'migration' } as const

/** What a job holds that failed is given back. */
async function undo(ports: InstancePorts, { id }: InstanceRecord, error: unknown): Promise<Undone> {
  const job = await jobs.get(ports.catalog.documents, id)
  const isUndone = await giveBack(ports, job, error).then(
    () => true,
    (problem: unknown) => {
      ports.onProblem(problem)
      return false
    },
  )
  if (job?.kind === 'rebuild') return { instance: rebuildFailed(job, error, ports.now()), isUndone }
  return {
    instance: { fault: faultFrom(error, `the ${job ? nameOf[job.kind] : 'job'} failed: try again`, ports.now()) },
    isUndone,
  }
}

/**
 * A job that nobody goes on with: what it holds is given back, and nothing is left of it.
 * @param why told to a clone that waits for it
 */
export async function endJob(ports: InstancePorts, id: string, why: unknown): Promise<void> {
  const job = await jobs.get(ports.catalog.documents, id)
  if (!job) return
  await giveBack(ports, job, why)
  await ports.catalog.write(async ({ documents }) => {
    ports.progress.forget(id)
    await jobs.delete(documents, id)
  })
}

/**
 * Of a job that failed and could not be undone then: nobody works at it. To be called before there is another one.
 * @throws ServiceError where it still cannot be undone
 */
export async function endLeftJob(ports: InstancePorts, id: string): Promise<void> {
  const left = await ports.catalog.write(({ documents }) => leftJob(documents, id))
  if (!left) return
  await giveBack(ports, left, new ServiceError('cancelled', 'what it waited for failed'))
  await ports.catalog.write(async ({ documents }) => {
    if (await leftJob(documents, id)) await jobs.delete(documents, id)
  })
}

async function leftJob(documents: DocumentReader, id: string): Promise<InstanceJob | undefined> {
  return (await instances.get(documents, id))?.taskState === null ? jobs.get(documents, id) : undefined
}

async function giveBack(ports: InstancePorts, job: InstanceJob | undefined, why: unknown): Promise<void> {
  if (job?.kind === 'snapshot') await giveBackSnapshot(ports, job, why)
  if (job?.kind === 'rebuild') for (const { volumeId } of job.reverts) await ports.volumes.cancelRevert(volumeId)
  for (const leaseId of leasesOfJob(job)) await ports.images.release(leaseId)
}

/** Of the volumes, only an image that is there and names their snapshots needs them. */
async function giveBackSnapshot(ports: InstancePorts, job: SnapshotJob, why: unknown): Promise<void> {
  const { imageId, isSaved, cloneId, withMachine, volumes } = job
  if (!isSaved) await ports.snapshots.giveUp(imageId)
  if (cloneId !== null) {
    await failClone(ports, cloneId, why)
    await ports.snapshots.remove(imageId)
  }
  if (isSaved && cloneId === null && !withMachine) return
  for (const { id } of volumes) await ports.volumes.deleteSnapshot(id)
}

/** Lent to a job, and not the instance's. */
export function leasesOfJob(job: InstanceJob | undefined): readonly string[] {
  if (job?.kind !== 'rebuild') return []
  return [job.isCleared ? null : job.leaseId, job.partsFrom?.leaseId ?? null].filter((id) => id !== null)
}
