import { serviceCaller } from '../../base/caller.ts'
import { failpoint } from '../../base/failpoint.ts'
import { changeInstance, type InstanceChanges } from '../change-instance.ts'
import { changeJob } from '../change-job.ts'
import { faultFrom } from '../faults.ts'
import { forgetSecrets, holderOf, machineOf } from '../launch/launch.ts'
import { leasesOf } from '../launch/move-disk.ts'
import type { InstancePorts } from '../ports.ts'
import { findMachine } from '../power/settle.ts'
import type { InstanceRecord, RebuildJob } from '../records.ts'
import { jobs, seeds } from '../store.ts'

/**
 * A new machine on the disk of an image, in place of the old one: with its id, its ports and its network card. What it is to start from is
 * lent before anything of the old one goes.
 */
export async function rebuild(ports: InstancePorts, { id }: InstanceRecord, job: RebuildJob, signal: AbortSignal): Promise<void> {
  if (job.leaseId === null) {
    const { leaseId } = await ports.images.lend(serviceCaller('req-rebuild'), job.becomes.imageId, holderOf(id))
    failpoint('instance:rebuild-lent')
    await changeJob(ports, id, 'rebuild', () => ({ leaseId }))
  }
  signal.throwIfAborted()
  if (!job.isCleared) await clear(ports, id)
  await launchAnew(ports, id, signal)
  if (job.wasStopped) await ports.hypervisor.stop(id, ports.settings.stopGraceMs)
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
    await seeds.put(documents, id, { ...(await seeds.get(documents, id)), ...job.seed })
    before = leasesOf(instance)
    return { ...job.becomes, leaseId: job.leaseId, move: null, power: null }
  })
  failpoint('instance:rebuild-cleared')
  for (const leaseId of before) await ports.images.release(leaseId)
}

async function launchAnew(ports: InstancePorts, id: string, signal: AbortSignal): Promise<void> {
  const instance = await changeInstance(ports, id, () => null)
  if (!instance?.leaseId) return
  if (!(await findMachine(ports, id))) {
    const base = await ports.images.readdress(instance.leaseId)
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
