import { setTimeout as pause } from 'node:timers/promises'
import { ServiceError } from '../../../base/errors.ts'
import type { MachineNetwork, PortForward } from '../hypervisor.ts'
import type { Run } from './run.ts'

const AGAIN_MS = 50
const TOLD_AFTER_MS = 30_000

/**
 * Forwards ports to a machine that came from a hypervisor on the same host, which has them until its own process is gone. Settles when all are
 * forwarded, or the process has ended.
 * @param onProblem told once, where somebody has a port for longer than that takes
 * @throws ServiceError `unavailable` where QEMU cannot be asked; what `signal` was aborted with
 */
export async function forwardLate(
  run: Run,
  networks: readonly MachineNetwork[],
  signal: AbortSignal,
  onProblem: (error: unknown) => void,
): Promise<void> {
  const toldAt = performance.now() + TOLD_AFTER_MS
  let isTold = false
  let isOver = false
  void run.ended.then(() => {
    isOver = true
  })
  const left = networks.flatMap(({ forwards }, index) => forwards.map((forward) => ({ netdev: `net${index}`, forward })))
  while (left.length > 0 && !isOver) {
    signal.throwIfAborted()
    const there = forwardedBy(await monitor(run, 'info usernet'))
    const [next] = left
    const isThere = next && there.has(placeOf(next.forward))
    if (next && (isThere || (await monitor(run, `hostfwd_add ${next.netdev} ${ruleOf(next.forward)}`)).trim() === '')) {
      left.shift()
      continue
    }
    if (!isTold && performance.now() > toldAt) {
      isTold = true
      const message = `The ports ${left.map(({ forward }) => placeOf(forward)).join(', ')} of the machine ${run.id} are somebody else's; free them.`
      onProblem(new ServiceError('conflict', message, { id: run.id }))
    }
    await pause(AGAIN_MS, undefined, { signal }).catch(() => {})
  }
}

/** QMP has no command of its own for this. */
const monitor = (run: Run, command: string): Promise<string> => run.execute('human-monitor-command', { 'command-line': command })

export const ruleOf = ({ protocol, hostAddress, hostPort, guestPort }: PortForward): string =>
  `${protocol}:${hostAddress}:${hostPort}-:${guestPort}`

const placeOf = ({ protocol, hostPort }: PortForward): string => `${protocol}/${hostPort}`

/** Lines as `  TCP[HOST_FORWARD]  12  127.0.0.1 31022  10.0.2.15  22  0  0`. */
const forwardedBy = (text: string): ReadonlySet<string> =>
  new Set(
    [...text.matchAll(/(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)/g)].map(
      ([, protocol, port]) => `${protocol!.toLowerCase()}/${port}`,
    ),
  )
