import { type Caller, serviceCaller } from '../base/caller.ts'
import { isServiceError, ServiceError } from '../base/errors.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import { changeInstance } from './change-instance.ts'
import { startDeletion } from './delete-instance.ts'
import { findHost, hostNameOf, isHostMissed } from './hosts.ts'
import type { FoundMachine } from './hypervisor/hypervisor.ts'
import { HOLDER_KIND, holderOf, recordLaunched, startLaunch } from './launch/launch.ts'
import { leasesOf } from './launch/move-disk.ts'
import type { InstancePorts, NamedHost } from './ports.ts'
import { isPowerTask, startAction } from './power/actions.ts'
import { asFound, findMachine, isAtRest, recordPower } from './power/settle.ts'
import { type InstanceRecord, isJobTask } from './records.ts'
import { failClone, isWaiting } from './snapshots/start-clone.ts'
import { endLeftJob, leasesOfJob, startJob } from './start-job.ts'
import { instances, jobs, seeds } from './store.ts'
import { giveBackVolumes, takeUpVolumes } from './volumes/recover-volumes.ts'

/**
 * Takes up what a stop or a kill cut short, and learns what became of the machines meanwhile. To be called before the service
 * answers. Launches, deletions and tasks then go on in the background. Of a host that cannot be asked no record changes, and it is missed.
 */
export async function recoverInstances(ports: InstancePorts): Promise<void> {
  const known = await instances.list(ports.catalog.documents)
  reportUnknownHosts(ports, known)
  const { machines, reached } = await machinesOf(ports, known)
  await releaseLostLeases(ports, known)
  const awaited = await clonesOf(ports, known)
  for (const { id } of known.filter((instance) => isWaiting(instance) && !awaited.has(instance.id))) {
    await failClone(ports, id, new ServiceError('cancelled', 'nobody makes its disk'))
  }
  await giveBackVolumes(ports, known)
  const mayBeTakenUp = (each: InstanceRecord) => each.taskState === 'migrating' || reached.has(hostNameOf(ports, each)) // it may have gone
  for (const instance of known.filter(mayBeTakenUp)) {
    const settle = () => changeInstance(ports, instance.id, (now) => asFound(now, machines.get(instance.id), ports.now()))
    if (!isWaiting(instance)) await takeUp(ports, instance, async () => void (isAtRest(instance) && (await settle())))
    await takeUpVolumes(ports, instance)
  }
  reportStrangers(ports, known, machines)
}

/**
 * The same for the instances of a host that was away and is back, while the service answers: each after what is done to it now, and as it is then.
 * @throws ServiceError `unavailable` where it is away again
 */
export async function recoverHost(ports: InstancePorts, { name, machines }: NamedHost): Promise<void> {
  const found = byId(await machines.list())
  const known = await instances.list(ports.catalog.documents)
  reportStrangers(ports, known, found)
  const isConcerned = (each: InstanceRecord) => hostNameOf(ports, each) === name || each.taskState === 'deleting' // what came there of it
  for (const instance of known.filter(isConcerned)) {
    ports.tasks.start(instance.id, () => ifReached(ports, instance.id, takeUpReturned))
  }
}

async function takeUpReturned(ports: InstancePorts, instance: InstanceRecord): Promise<void> {
  if (!isWaiting(instance)) await takeUp(ports, instance, () => recordPower(ports, instance.id))
  await takeUpVolumes(ports, instance)
}

/** As the instance is now. A host that is away once more is missed again. */
async function ifReached(
  ports: InstancePorts,
  id: string,
  work: (ports: InstancePorts, instance: InstanceRecord) => Promise<void>,
): Promise<void> {
  const instance = await instances.get(ports.catalog.documents, id)
  if (!instance) return
  try {
    await work(ports, instance)
  } catch (error) {
    if (!(await isHostMissed(ports, id, error))) throw error
  }
}

/**
 * Leases of instances of which there is neither a record nor a machine. To be called when all hosts can be asked: one that is away may have more.
 * @throws ServiceError `unavailable` where one cannot
 */
export async function releaseLeasesOfNobody(
  { catalog, images }: InstancePorts,
  hosts: readonly Pick<NamedHost, 'machines'>[],
): Promise<void> {
  const held = await Array.fromAsync(images.held(HOLDER_KIND)) // whatever holds one has a record by then
  const known = (await instances.list(catalog.documents)).map(({ id }) => holderOf(id))
  const machines = await Promise.all(hosts.map((host) => host.machines.list()))
  const holders = new Set([...known, ...machines.flat().map(({ id }) => holderOf(id))])
  for (const { leaseId, holder } of held) if (!holders.has(holder)) await images.release(leaseId)
}

type Machines = ReadonlyMap<string, FoundMachine>
const byId = (found: readonly FoundMachine[]): Machines => new Map(found.map((machine) => [machine.id, machine]))

/** @returns `reached`: the names of the hosts that answered */
async function machinesOf(
  { hosts, missedHosts, onProblem }: InstancePorts,
  known: readonly InstanceRecord[],
): Promise<{ readonly machines: Machines; readonly reached: ReadonlySet<string> }> {
  const reached = new Set<string>()
  const found: FoundMachine[] = []
  for (const { name, machines } of hosts) {
    try {
      found.push(...(await machines.list()))
      reached.add(name)
    } catch (error) {
      if (!isServiceError(error, 'unavailable')) throw error
      if (known.some((instance) => hostNameOf({ hosts }, instance) === name)) onProblem(error) // else none is missed
      missedHosts.add(name)
    }
  }
  return { machines: byId(found), reached }
}

/** @param settle records what became of the machine of an instance to which nothing is done */
async function takeUp(ports: InstancePorts, instance: InstanceRecord, settle: () => Promise<void>): Promise<void> {
  const { id, taskState } = instance
  if (taskState === 'deleting') return startDeletion(ports, id)
  if (isLaunching(instance)) return ports.tasks.start(id, () => ifReached(ports, id, takeUpLaunch))
  if (isJobTask(taskState)) return startJob(ports, instance)
  if (isPowerTask(taskState)) return startAction(ports, id, taskState)
  await endLeftJob(ports, id).catch(ports.onProblem)
  await settle()
}

const isLaunching = ({ vmState, taskState }: InstanceRecord): boolean =>
  vmState === 'building' || taskState === 'scheduling' || taskState === 'spawning'

/** The host is asked for this one machine: then it has ended what it was at when nobody waited for it any more. */
async function takeUpLaunch(ports: InstancePorts, instance: InstanceRecord): Promise<void> {
  if (!isLaunching(instance)) return
  if (!(await findMachine(ports, instance.id))) return startLaunch(ports, callerFor(instance), instance)
  await recordLaunched(ports, instance.id)
  await recordPower(ports, instance.id)
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

/** Lent to a launch that was killed before it could note that. Of an instance whose host nobody knows any more none is. */
async function releaseLostLeases({ catalog, hosts, images }: InstancePorts, known: readonly InstanceRecord[]): Promise<void> {
  const onHosts = known.filter((instance) => findHost({ hosts }, hostNameOf({ hosts }, instance)))
  const byHolder = new Map(onHosts.map((instance) => [holderOf(instance.id), instance]))
  for await (const { leaseId, holder } of images.held(HOLDER_KIND)) {
    const instance = byHolder.get(holder)
    if (instance && !(await needs(catalog.documents, instance, leaseId))) await images.release(leaseId)
  }
}

async function needs(documents: DocumentReader, instance: InstanceRecord, leaseId: string): Promise<boolean> {
  const { resumesFrom } = await seeds.get(documents, instance.id)
  const ofJob = leasesOfJob(await jobs.get(documents, instance.id))
  return [...leasesOf(instance), ...ofJob, resumesFrom?.leaseId].includes(leaseId)
}

function reportUnknownHosts({ hosts, onProblem }: InstancePorts, known: readonly InstanceRecord[]): void {
  const names = new Set(known.map((instance) => hostNameOf({ hosts }, instance)))
  for (const name of names) {
    if (findHost({ hosts }, name)) continue
    const count = known.filter((instance) => hostNameOf({ hosts }, instance) === name).length
    const message = `${count} instances are on the host "${name}", which this service does not know: name it among its hosts again`
    onProblem(new ServiceError('unavailable', message, { host: name, instances: count }))
  }
}

/** After a catalog was put back to an earlier state, say. They hold somebody's data: nobody but a person deletes them. */
function reportStrangers({ onProblem }: InstancePorts, known: readonly InstanceRecord[], machines: Machines): void {
  const ids = new Set(known.map(({ id }) => id))
  for (const id of machines.keys()) {
    if (ids.has(id)) continue
    onProblem(new ServiceError('conflict', `this host has a machine ${id} of which there is no record; it is left alone`, { id }))
  }
}
