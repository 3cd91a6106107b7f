import { setTimeout as pause } from 'node:timers/promises'
import { isServiceError } from '../../base/errors.ts'
import { hostAt } from '../hosts.ts'
import { HostAway } from '../hypervisor/host-away.ts'
import type { FoundMachine } from '../hypervisor/hypervisor.ts'
import { abilitiesOf } from '../hypervisor/machine-host.ts'
import type { InstancePorts, MachineHost } from '../ports.ts'
import type { MigrateJob } from '../records.ts'

const ASK_AGAIN_MS = 1000

/**
 * Whether a machine whose migration ended, nobody knows how, has gone. Its target is told that it shall not come any more, so if it is not there
 * then it never will be, and goes on where it was. Of a target that is away this can be said only where nothing of the machine is left at its
 * source, or its guest runs there; else it is asked again, for as long as it takes.
 * @throws what `signal` was aborted with
 */
export async function isAtTarget(
  ports: InstancePorts,
  id: string,
  { from, to }: MigrateJob,
  signal: AbortSignal,
): Promise<boolean> {
  for (;;) {
    signal.throwIfAborted()
    const there = await ifReached(async () => {
      const { machines } = hostAt(ports, to)
      await machines.withdraw(id)
      return (await found(machines, id)) !== null
    })
    if (there !== 'away') return there
    const here = await ifReached(() => found(hostAt(ports, from).machines, id))
    if (here === null) return true
    if (here !== 'away' && here.power === 'running') return false
    await pause(ASK_AGAIN_MS, undefined, { signal }).catch(() => {})
  }
}

/** Of an instance that goes: what of it is where it was to be moved to. @throws HostAway, which names the target */
export async function removeAtTarget(ports: InstancePorts, id: string, { to }: MigrateJob): Promise<void> {
  const target = hostAt(ports, to)
  try {
    await target.machines.remove(id)
  } catch (error) {
    const isAway = error instanceof HostAway || (isServiceError(error, 'unavailable') && abilitiesOf(target) === null)
    if (isAway) throw new HostAway(error.message, { details: { id, host: target.name }, cause: error })
    throw error
  }
}

async function found(machines: MachineHost, id: string): Promise<FoundMachine | null> {
  try {
    return await machines.show(id)
  } catch (error) {
    if (isServiceError(error, 'not-found')) return null
    throw error
  }
}

async function ifReached<T>(ask: () => Promise<T>): Promise<T | 'away'> {
  try {
    return await ask()
  } catch (error) {
    if (isServiceError(error, 'unavailable')) return 'away'
    throw error
  }
}
