import { type Caller, serviceCaller } from '../../base/caller.ts'
import { failpoint } from '../../base/failpoint.ts'
import { changeInstance, type InstanceChanges } from '../change-instance.ts'
import { changeJob } from '../change-job.ts'
import { faultFrom } from '../faults.ts'
import { forgetSecrets, holderOf, machineOf, plannedMachine, rootDisks } from '../launch/launch.ts'
import { leasesOf } from '../launch/move-disk.ts'
import type { InstancePorts } from '../ports.ts'
import { findMachine } from '../power/settle.ts'
import { type InstanceRecord, type RebuildJob, startsFromVolume } from '../records.ts'
import { lentMemory } from '../snapshots/machine-parts.ts'
import { jobs, seeds } from '../store.ts'
import { volumeSizes } from '../volumes/plug.ts'

/**
 * A new machine on the disk of an image, in place of the old one: with its id, its ports, its network card and its volumes. What it is to
 * start from is lent, and memory compared with what it shall go on in, before anything of the old one goes.
 */
export async function rebuild(
  ports: InstancePorts,
  instance: InstanceRecord,
  begun: RebuildJob,
  signal: AbortSignal,
): Promise<void> {
  const { id } = instance
  const job = await borrow(ports, instance, begun)
  signal.throwIfAborted()
  if (!job.isCleared) {
    await assertResumable(ports, instance, job)
    await prepareReverts(ports, instance, job)
    await clear(ports, id)
  }
  for (const { volumeId } of job.reverts) await ports.volumes.revert(volumeId, id)
  failpoint('instance:volumes-reverted')
  await launchAnew(ports, id, signal)
  if (job.wasStopped) await ports.hypervisor.stop(id, ports.settings.stopGraceMs)
  if (job.partsFrom?.leaseId) await ports.images.release(job.partsFrom.leaseId)
}

/** Each lease is noted before the next one is made. */
async function borrow({ images, ...ports }: InstancePorts, { id }: InstanceRecord, begun: RebuildJob): Promise<RebuildJob> {
  let job = begun
  const service = serviceCaller('req-rebuild')
  if (job.leaseId === null && !startsFromVolume(job.becomes)) {
    const { leaseId } = await images.lend(service, job.becomes.imageId, holderOf(id))
    failpoint('instance:rebuild-lent')
    job = await changeJob(ports, id, 'rebuild', () => ({ leaseId }))
  }
  if (job.partsFrom?.leaseId === null) {
    const { imageId } = job.partsFrom
    const { leaseId } = await images.lend(service, imageId, holderOf(id), { withParts: true })
    failpoint('instance:parts-lent')
    job = await changeJob(ports, id, 'rebuild', () => ({ partsFrom: { imageId, leaseId } }))
  }
  return job
}

/** @throws ServiceError `invalid-request` where the machine is otherwise than when its memory was saved */
async function assertResumable(
  ports: InstancePorts,
  instance: InstanceRecord,
  { becomes, seed, partsFrom }: RebuildJob,
): Promise<void> {
  if (seed.resumesFrom === null || !partsFrom?.leaseId) return
  const then = { ...instance, ...becomes }
  const disks = [...rootDisks(then, {}), ...(await volumeSizes(ports, instance.id))]
  const memory = await lentMemory(ports, partsFrom.imageId, partsFrom.leaseId)
  await ports.hypervisor.assertResumable({ ...plannedMachine(ports, then, disks), memory })
}

async function prepareReverts(
  { volumes }: InstancePorts,
  { id, projectId, userId }: InstanceRecord,
  { reverts, partsFrom }: RebuildJob,
): Promise<void> {
  const caller: Caller = { ...serviceCaller('req-rebuild'), projectId, userId }
  for (const { volumeId, to } of reverts) {
    if (to.kind === 'snapshot') await volumes.prepareRevert(caller, volumeId, id, to)
    else if (partsFrom?.leaseId) {
      await volumes.prepareRevert(caller, volumeId, id, { kind: 'lent', leaseId: partsFrom.leaseId, part: to.part })
    }
  }
}

/** The machine goes before the record says so: killed in between, there is nothing to remove the next time. */
async function clear(ports: InstancePorts, id: string): Promise<void> {
  await ports.hypervisor.remove(id)
  failpoint('instance:rebuild-removed')
  let before: readonly string[] = []
  await changeInstance(ports, id, async (instance, documents) => {
    const job = await jobs.get(documents, id)
    if (job?.kind !== 'rebuild') throw new Error(`instance ${id} is not being rebuilt`)
    await jobs.put(documents, id, { ...job, isCleared: true })
    const resumesFrom = job.seed.resumesFrom && job.partsFrom
    await seeds.put(documents, id, { ...(await seeds.get(documents, id)), ...job.seed, resumesFrom })
    before = leasesOf(instance)
    return { ...job.becomes, leaseId: job.leaseId, move: null, power: null }
  })
  failpoint('instance:rebuild-cleared')
  for (const leaseId of before) await ports.images.release(leaseId)
}

async function launchAnew(ports: InstancePorts, id: string, signal: AbortSignal): Promise<void> {
  const instance = await changeInstance(ports, id, () => null)
  if (!instance) return
  if (!(await findMachine(ports, id))) {
    const base = instance.leaseId === null ? null : await ports.images.readdress(instance.leaseId)
    await ports.hypervisor.launch(await machineOf(ports, instance, base), signal)
  }
  failpoint('instance:rebuild-launched')
  await forgetSecrets(ports, id)
  await changeInstance(ports, id, () => ({ vmState: 'active', power: 'running', fault: null, launchedAt: ports.now() }))
}

/** Before its old machine was gone it is as it was; afterwards it is in error, and can be rebuilt again. */
export function rebuildFailed({ isCleared }: RebuildJob, error: unknown, now: number): InstanceChanges {
  const fault = faultFrom(error, 'it could not be rebuilt: try again', now)
  return isCleared ? { vmState: 'error', power: null, fault } : { fault }
}
