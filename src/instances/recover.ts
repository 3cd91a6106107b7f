import { type Caller, serviceCaller } from '../base/caller.ts'
import { isServiceError, ServiceError } from '../base/errors.ts'
import { changeInstance } from './change-instance.ts'
import { startDeletion } from './delete-instance.ts'
import type { FoundMachine } from './hypervisor/hypervisor.ts'
import { HOLDER_KIND, holderOf, recordLaunched, startLaunch } from './launch/launch.ts'
import type { InstancePorts } from './ports.ts'
import { startAction } from './power/actions.ts'
import { asFound, isAtRest, recordPower } from './power/settle.ts'
import type { InstanceRecord } from './records.ts'
import { instances } from './store.ts'

/**
 * Takes up what a stop or a kill cut short, and learns what became of the machines meanwhile. To be called before the service
 * answers. Launches, deletions and tasks then go on in the background; a host that cannot be asked changes no record.
 */
export async function recoverInstances(ports: InstancePorts): Promise<void> {
  const known = await instances.list(ports.catalog.documents)
  const machines = await machinesOf(ports, known)
  if (!machines) return
  await releaseLostLeases(ports, known, machines)
  for (const instance of known) await takeUp(ports, instance, machines.get(instance.id))
  reportStrangers(ports, known, machines)
}

type Machines = ReadonlyMap<string, FoundMachine>

async function machinesOf({ hypervisor, onProblem }: InstancePorts, known: readonly InstanceRecord[]): Promise<Machines | null> {
  try {
    return new Map((await hypervisor.list()).map((machine) => [machine.id, machine]))
  } catch (error) {
    if (!isServiceError(error, 'unavailable')) throw error
    if (known.length > 0) onProblem(error) // a host that was never to run machines has no problem
    return null
  }
}

async function takeUp(ports: InstancePorts, instance: InstanceRecord, machine: FoundMachine | undefined): Promise<void> {
  const { id, vmState, taskState } = instance
  if (taskState === 'deleting') return startDeletion(ports, id)
  if (vmState === 'building' && machine) {
    await recordLaunched(ports, id)
    return recordPower(ports, id)
  }
  if (vmState === 'building' || taskState === 'scheduling' || taskState === 'spawning') {
    return startLaunch(ports, callerFor(instance), id)
  }
  if (taskState !== null) return startAction(ports, id, taskState)
  if (isAtRest(instance)) await changeInstance(ports, id, (current) => asFound(current, machine, ports.now()))
}

/** Who may start from the image was asked when the instance was made. */
const callerFor = ({ projectId, userId }: InstanceRecord): Caller => ({ ...serviceCaller('req-start'), projectId, userId })

/** Lent to a launch that was killed before it could note that, or to an instance of which nothing is left. */
async function releaseLostLeases({ images }: InstancePorts, known: readonly InstanceRecord[], machines: Machines): Promise<void> {
  const byHolder = new Map(known.map((instance) => [holderOf(instance.id), instance]))
  for await (const { leaseId, holder } of images.held(HOLDER_KIND)) {
    const instance = byHolder.get(holder)
    const inUse = instance ? instance.leaseId === leaseId : machines.has(holder.slice(HOLDER_KIND.length + 1))
    if (!inUse) await images.release(leaseId)
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
