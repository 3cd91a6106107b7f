import { type Caller, serviceCaller } from '../base/caller.ts'
import { isServiceError, ServiceError } from '../base/errors.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import { changeInstance } from './change-instance.ts'
import { startDeletion } from './delete-instance.ts'
import { hostNameOf } from './hosts.ts'
import type { FoundMachine } from './hypervisor/hypervisor.ts'
import { HOLDER_KIND, holderOf, recordLaunched, startLaunch } from './launch/launch.ts'
import { leasesOf } from './launch/move-disk.ts'
import type { InstancePorts, NamedHost } from './ports.ts'
import { isPowerTask, startAction } from './power/actions.ts'
import { asFound, isAtRest, recordPower } from './power/settle.ts'
import { type InstanceRecord, isJobTask } from './records.ts'
import { failClone, isWaiting } from './snapshots/start-clone.ts'
import { endLeftJob, leasesOfJob, startJob } from './start-job.ts'
import { instances, jobs, seeds } from './store.ts'
import { recoverVolumes } from './volumes/recover-volumes.ts'

/**
 * Takes up what a stop or a kill cut short, and learns what became of the machines meanwhile. To be called before the service
 * answers. Launches, deletions and tasks then go on in the background; of a host that cannot be asked no record changes.
 * @returns the hosts that could not be asked
 */
export async function recoverInstances(ports: InstancePorts): Promise<readonly NamedHost[]> {
  const known = await instances.list(ports.catalog.documents)
  const { machines, away } = await machinesOf(ports, known)
  const reached = known.filter((instance) => !away.some(({ name }) => name === hostNameOf(ports, instance)))
  if (away.length === ports.hosts.length) return away
  await releaseLostLeases(ports, known, away.length === 0 ? machines : null)
  const awaited = await clonesOf(ports, known)
  for (const instance of reached) {
    if (!isWaiting(instance)) await takeUp(ports, instance, machines.get(instance.id))
    else if (!awaited.has(instance.id))
      await failClone(ports, instance.id, new ServiceError('cancelled', 'nobody makes its disk'))
  }
  await recoverVolumes(ports, known)
  reportStrangers(ports, known, machines)
  return away
}

/** The same for the instances of a host that was away then and is there now, while the service answers. */
export async function recoverHost(ports: InstancePorts, { name, machines }: NamedHost): Promise<void> {
  const found = byId(await machines.list())
  for (const instance of await instances.list(ports.catalog.documents)) {
    if (hostNameOf(ports, instance) === name && !isWaiting(instance)) await takeUp(ports, instance, found.get(instance.id))
  }
}

type Machines = ReadonlyMap<string, FoundMachine>
const byId = (found: readonly FoundMachine[]): Machines => new Map(found.map((machine) => [machine.id, machine]))

async function machinesOf(
  { hosts, onProblem }: InstancePorts,
  known: readonly InstanceRecord[],
): Promise<{ readonly machines: Machines; readonly away: readonly NamedHost[] }> {
  const away: NamedHost[] = []
  const found: FoundMachine[] = []
  for (const host of hosts) {
    try {
      found.push(...(await host.machines.list()))
    } catch (error) {
      if (!isServiceError(error, 'unavailable')) throw error
      if (known.some((instance) => hostNameOf({ hosts }, instance) === host.name)) onProblem(error) // else none is missed
      away.push(host)
    }
  }
  return { machines: byId(found), away }
}

async function takeUp(ports: InstancePorts, instance: InstanceRecord, machine: FoundMachine | undefined): Promise<void> {
  const { id, vmState, taskState } = instance
  if (taskState === 'deleting') return startDeletion(ports, id)
  if (vmState === 'building' && machine) {
    await recordLaunched(ports, id)
    return recordPower(ports, id)
  }
  if (vmState === 'building' || taskState === 'scheduling' || taskState === 'spawning') {
    return startLaunch(ports, callerFor(instance), instance)
  }
  if (isJobTask(taskState)) return startJob(ports, instance)
  if (isPowerTask(taskState)) return startAction(ports, id, taskState)
  await endLeftJob(ports, id).catch(ports.onProblem)
  if (isAtRest(instance)) await changeInstance(ports, id, (current) => asFound(current, machine, ports.now()))
}

/** Instances that some job makes a disk for. */
async function clonesOf({ catalog }: InstancePorts, known: readonly InstanceRecord[]): Promise<ReadonlySet<string>> {
  const found = new Set<string>()
  for (const { id, taskState } of known) {
    const job = isJobTask(taskState) ? await jobs.get(catalog.documents, id) : undefined
    if (job?.kind === 'snapshot' && job.cloneId !== null) found.add(job.cloneId)
  }
  return found
}

/** Who may start from the image was asked when the instance was made. */
const callerFor = ({ projectId, userId }: InstanceRecord): Caller => ({ ...serviceCaller('req-start'), projectId, userId })

/**
 * Lent to a launch that was killed before it could note that, or to an instance of which nothing is left.
 * @param machines null: some host may have more
 */
async function releaseLostLeases(
  { catalog, images }: InstancePorts,
  known: readonly InstanceRecord[],
  machines: Machines | null,
): Promise<void> {
  const byHolder = new Map(known.map((instance) => [holderOf(instance.id), instance]))
  for await (const { leaseId, holder } of images.held(HOLDER_KIND)) {
    const instance = byHolder.get(holder)
    const inUse = instance
      ? await needs(catalog.documents, instance, leaseId)
      : !machines || machines.has(holder.slice(HOLDER_KIND.length + 1))
    if (!inUse) await images.release(leaseId)
  }
}

async function needs(documents: DocumentReader, instance: InstanceRecord, leaseId: string): Promise<boolean> {
  const { resumesFrom } = await seeds.get(documents, instance.id)
  const ofJob = leasesOfJob(await jobs.get(documents, instance.id))
  return [...leasesOf(instance), ...ofJob, resumesFrom?.leaseId].includes(leaseId)
}

/** After a catalog was put back to an earlier state, say. They hold somebody's data: nobody but a person deletes them. */
function reportStrangers({ onProblem }: InstancePorts, known: readonly InstanceRecord[], machines: Machines): void {
  const ids = new Set(known.map(({ id }) => id))
  for (const id of machines.keys()) {
    if (ids.has(id)) continue
    onProblem(new ServiceError('conflict', `this host has a machine ${id} of which there is no record; it is left alone`, { id }))
  }
}
