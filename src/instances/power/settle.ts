import { isServiceError } from '../../base/errors.ts'
import { changeInstance, type InstanceChanges } from '../change-instance.ts'
import type { FoundMachine, PowerState } from '../hypervisor/hypervisor.ts'
import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord, VmState } from '../records.ts'

const vmStateOf: Readonly<Record<PowerState, VmState>> = {
  running: 'active',
  paused: 'paused',
  shutdown: 'stopped',
  crashed: 'error',
}

/** The machine, or undefined where this host has none of that id. */
export async function findMachine(
  { hypervisor }: Pick<InstancePorts, 'hypervisor'>,
  id: string,
): Promise<FoundMachine | undefined> {
  try {
    return await hypervisor.show(id)
  } catch (error) {
    if (isServiceError(error, 'not-found')) return undefined
    throw error
  }
}

/** What the record says of a machine that was found so; null where it says it already. */
export function asFound(instance: InstanceRecord, machine: FoundMachine | undefined, now: number): InstanceChanges | null {
  const power = machine?.power ?? null
  const vmState = power === null ? 'error' : vmStateOf[power]
  if (instance.power === power && (instance.vmState === vmState || instance.vmState === 'error')) return null
  const crash = { code: 500, message: 'the machine ended unexpectedly: reboot it hard, or stop and start it', at: now }
  const loss = { code: 500, message: 'the files of the machine are gone from this host: delete the instance', at: now }
  if (!machine) return { vmState, power, fault: { ...loss, details: '' } }
  if (power !== 'crashed') return { vmState, power, fault: null }
  return { vmState, power, fault: { ...crash, details: machine.reason ?? '' } }
}

/**
 * Records what became of the machine by itself: a guest that turned itself off, a process that died. While something is done to
 * the instance, that records the outcome.
 */
export async function recordPower(ports: InstancePorts, id: string): Promise<void> {
  const machine = await findMachine(ports, id)
  await changeInstance(ports, id, (instance) => (isAtRest(instance) ? asFound(instance, machine, ports.now()) : null))
}

/** Nothing is done to it, and it should have a machine. */
export const isAtRest = ({ taskState, launchedAt }: InstanceRecord): boolean => taskState === null && launchedAt !== null

/** Tells of each instance whose machine changed its power, after what is done to it now. */
export function watchPower(ports: InstancePorts): () => void {
  const queued = new Set<string>()
  return ports.hypervisor.watch(({ id }) => {
    if (queued.has(id)) return
    queued.add(id)
    const look = async () => {
      queued.delete(id)
      await recordPower(ports, id)
    }
    try {
      ports.tasks.start(id, look, undefined, () => queued.delete(id)) // a deletion that fails leaves one to be looked at
    } catch {
      queued.delete(id) // stopping: the next start looks at every machine
    }
  })
}
