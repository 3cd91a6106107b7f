import type { Caller } from '../../base/caller.ts'
import { failpoint } from '../../base/failpoint.ts'
import { changeInstance, changeInstanceAs } from '../change-instance.ts'
import { faultFrom, isForOwner } from '../faults.ts'
import { findInstance } from '../find-instance.ts'
import { abilitiesAt } from '../hosts.ts'
import { ROOT } from '../launch/launch.ts'
import { endMove } from '../launch/move-disk.ts'
import type { InstanceVerb } from '../policy.ts'
import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord, JobTask, TaskState } from '../records.ts'
import { volumeAddresses } from '../volumes/plug.ts'
import { asFound, findMachine } from './settle.ts'

/** What an action does to the machine. It may be done again: after a kill it is, on whatever state it left. */
type Work = (ports: InstancePorts, instance: InstanceRecord, signal: AbortSignal) => Promise<void>
export type PowerTask = Exclude<TaskState, 'scheduling' | 'block_device_mapping' | 'spawning' | 'deleting' | JobTask>
type Action = (ports: InstancePorts, caller: Caller, id: string) => Promise<InstanceRecord>

const works: Readonly<Record<PowerTask, Work>> = {
  async 'powering-on'(ports, instance, signal) {
    const power = (await findMachine(ports, instance.id))?.power
    if (power !== 'running' && power !== 'paused') await startAgain(ports, instance, signal)
  },
  async 'powering-off'({ hypervisor, settings }, { id }) {
    await hypervisor.stop(id, settings.stopGraceMs)
  },
  rebooting: (ports, instance, signal) => reboot(ports, instance, signal, ports.settings.stopGraceMs),
  rebooting_hard: (ports, instance, signal) => reboot(ports, instance, signal, 0),
  // what went off meanwhile is recorded as it is found
  async pausing(ports, { id }) {
    if ((await findMachine(ports, id))?.power === 'running') await ports.hypervisor.pause(id)
  },
  async unpausing(ports, { id }) {
    if ((await findMachine(ports, id))?.power === 'paused') await ports.hypervisor.resume(id)
  },
}

export const isPowerTask = (task: TaskState | null): task is PowerTask => task !== null && Object.hasOwn(works, task)

async function reboot(ports: InstancePorts, instance: InstanceRecord, signal: AbortSignal, graceMs: number): Promise<void> {
  const power = (await findMachine(ports, instance.id))?.power
  if (power === 'running' || power === 'paused') await ports.hypervisor.reboot(instance.id, graceMs)
  else await startAgain(ports, instance, signal)
}

/** The addresses of its disks were good for one run. */
async function startAgain(ports: InstancePorts, instance: InstanceRecord, signal: AbortSignal): Promise<void> {
  const { id, leaseId } = await endMove(ports, instance)
  const root = leaseId === null ? {} : { [ROOT]: await ports.images.readdress(leaseId) }
  const addresses = { ...root, ...(await volumeAddresses(ports, id)) }
  await ports.hypervisor.start(id, { addresses }, signal)
}

const action =
  (verb: InstanceVerb, task: PowerTask): Action =>
  async (ports, caller, id) => {
    void abilitiesAt(ports, await findInstance(ports.catalog.documents, caller, id, 'show'))
    const instance = await changeInstanceAs(ports, caller, id, verb, () => ({ taskState: task }))
    failpoint('instance:asked')
    startAction(ports, instance.id, task)
    return instance
  }

/** Each records the task, answers, and does it in the background. @throws ServiceError `not-found`, `denied`, `conflict`, `unavailable` */
export const startInstance = action('start', 'powering-on')
export const stopInstance = action('stop', 'powering-off')
export const softReboot = action('soft-reboot', 'rebooting')
export const hardReboot = action('hard-reboot', 'rebooting_hard')
export const pauseInstance = action('pause', 'pausing')
export const unpauseInstance = action('unpause', 'unpausing')

export const startAction = (ports: InstancePorts, id: string, task: PowerTask): void =>
  ports.tasks.start(id, (signal) => act(ports, id, task, signal))

/** Cut short, the task stays recorded, for whoever cut it. Failed, the instance is in error and says why. */
async function act(ports: InstancePorts, id: string, task: PowerTask, signal: AbortSignal): Promise<void> {
  const instance = await changeInstance(ports, id, () => null)
  if (instance?.taskState !== task) return
  let failure: unknown = null
  try {
    signal.throwIfAborted()
    await until(signal, works[task](ports, instance, signal))
  } catch (error) {
    if (signal.aborted) return
    failure = error
    if (!isForOwner(error)) ports.onProblem(error)
  }
  failpoint('instance:acted')
  const machine = await findMachine(ports, id).catch((error: unknown) => {
    failure ??= error
    return 'nobody knows' as const
  })
  const now = ports.now()
  await changeInstance(ports, id, (current) => {
    if (current.taskState !== task) return null
    const fault = failure === null ? {} : { fault: faultFrom(failure, `"${task}" failed`, now) }
    if (machine === 'nobody knows') return { ...fault, taskState: null }
    const found = asFound({ ...current, power: null }, machine, now)
    return { ...found, ...(failure === null ? {} : { vmState: 'error' as const }), ...fault, taskState: null }
  })
}

/** A guest may take a minute to shut down: who deletes it, or stops the service, does not wait for that. */
async function until(signal: AbortSignal, work: Promise<void>): Promise<void> {
  const { promise: cut, reject } = Promise.withResolvers<never>()
  const onAbort = () => reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    await Promise.race([work, cut])
  } finally {
    signal.removeEventListener('abort', onAbort)
    work.catch(() => {}) // after a cut nobody asks how it ended
  }
}
