import { setTimeout as pause } from 'node:timers/promises'
import { isServiceError, ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'
import type { MemoryState } from '../machine-memory.ts'
import { assertSameShape } from '../memory-shape.ts'
import { confine, unconfine } from './cgroup.ts'
import { firmwareOf, planMachine } from './command-line.ts'
import { fileProblem, type MachineFolder, type MachineRecord } from './machine-folder.ts'
import type { QemuHost } from './qemu-host.ts'
import { resumeMemory } from './resume-memory.ts'
import { cancelled, endWhatRuns, Run } from './run.ts'
import { shapeOf } from './shape-of-machine.ts'
import { makeTaps, removeTaps, tapName } from './taps.ts'

/** QEMU frees what it had of the guest. */
const ENDS_WITHIN_MS = 30_000

/** @throws ServiceError `invalid-request`, saying how the machine differs from the one whose memory it is */
export async function assertFits(
  host: QemuHost,
  { spec, chosen }: Pick<MachineRecord, 'spec' | 'chosen'>,
  memory: MemoryState | undefined,
): Promise<void> {
  if (memory) assertSameShape(memory.shape, await shapeOf(spec, chosen, host))
}

/**
 * The process of a machine within its bounds; its processors stand still. Failed, nothing of it is left.
 * @param how.isFilled it is to be given its memory
 * @param how.isArriving another process has its ports: they are forwarded late
 * @throws as `Run.start`
 */
export async function startProcess(
  host: QemuHost,
  folder: MachineFolder,
  { spec, chosen }: MachineRecord,
  signal: AbortSignal,
  how: { readonly isFilled: boolean; readonly isArriving?: boolean },
): Promise<Run> {
  const { accelerator, cgroup, firmwares, program, user } = host
  const tapOf = (card: number) => tapName(host.root, spec.id, card)
  const plan = planMachine(spec, chosen, { accelerator, firmware: firmwareOf(spec, chosen, firmwares), tapOf, ...how })
  await folder.handOver(spec.id)
  await endWhatRuns(folder) // what still has the taps
  await makeTaps(host, spec)
  const bound = async (pid: number) => (cgroup ? confine(cgroup, spec, accelerator, pid) : undefined)
  return Run.start(program, plan, folder, spec, { user, confine: bound, signal }).catch(async (error) => {
    await unbound(host, spec.id).catch(host.onProblem)
    throw fileProblem(error, spec.id)
  })
}

/** There is no process any more. @throws ServiceError `unavailable` where something of it stays on the host */
export async function unbound(host: QemuHost, id: string): Promise<void> {
  await removeTaps(host, id)
  if (host.cgroup) await unconfine(host.cgroup, id)
}

/** Gives a process that was started to be filled its memory. @throws as `resumeMemory`; `unavailable` with QEMU's own words */
export async function fill(
  run: Run,
  folder: MachineFolder,
  { spec }: MachineRecord,
  { open }: MemoryState,
  signal: AbortSignal,
): Promise<void> {
  const { id } = spec
  try {
    await resumeMemory(run, folder, open, signal)
    failpoint('memory:filled')
  } catch (error) {
    if (signal.aborted) throw cancelled(id)
    if (!isServiceError(error, 'unavailable')) throw error
    // one that cannot use what it was given ends by itself a moment later
    const words = await Promise.race([run.ended.then(() => run.why(spec)), pause(ENDS_WITHIN_MS, null, { ref: false })])
    if (words === null) throw error
    const message = `QEMU does not take the memory of the machine ${id}: ${words}`
    throw new ServiceError('unavailable', message, { id }, { cause: error })
  }
}
