import { setTimeout as pause } from 'node:timers/promises'
import { askAgent } from './guest-agent.ts'

export interface Quiescence {
  /** Whether the guest's file systems stood still from before the work until after it. */
  readonly held: boolean
  /** For people: what says so, or why not. */
  readonly evidence: string
}

/** One that does not answer this is not asked to freeze anything. */
const PING_WITHIN_MS = 2000
/** A guest whose file systems stand still is a guest that hangs: when its agent does not answer, it is asked again this often. */
const THAW_AGAIN_MS = 1000
const THAW_WITHIN_MS = 5000
const THAW_ATTEMPTS = 60

/**
 * Does the work while the guest's file systems stand still, if its agent makes them. Whatever becomes of the work, the guest is told to
 * go on not later than `atMostMs` after it was told to stop; where that comes before the end of the work, they did not hold.
 * @param onProblem told where a guest could not be told to go on
 */
export async function quiesced<T>(
  agentPath: string,
  atMostMs: number,
  work: () => Promise<T>,
  onProblem: (error: unknown) => void,
): Promise<{ readonly result: T; readonly quiescence: Quiescence }> {
  const absent = await askAgent(agentPath, 'guest-ping', PING_WITHIN_MS).then(
    () => null,
    (error: Error) => error.message,
  )
  if (absent) return { result: await work(), quiescence: { held: false, evidence: absent } }

  let thawed: Promise<void> | null = null
  const thaw = () => {
    thawed ??= thawAtLast(agentPath, onProblem)
    return thawed
  }
  const deadline = setTimeout(thaw, atMostMs)
  try {
    const frozen = await frozenBy(agentPath, atMostMs)
    const result = await work()
    const inTime = thawed === null
    const evidence = frozen.held && !inTime ? 'the guest had to go on before its disks were sealed' : frozen.evidence
    return { result, quiescence: { held: frozen.held && inTime, evidence } }
  } finally {
    clearTimeout(deadline)
    await thaw()
  }
}

async function frozenBy(agentPath: string, withinMs: number): Promise<Quiescence> {
  try {
    const count = await askAgent(agentPath, 'guest-fsfreeze-freeze', withinMs)
    const held = typeof count === 'number' && count > 0
    return {
      held,
      evidence: held ? `the guest's agent froze ${Math.floor(count)} file systems` : "the guest's agent froze nothing",
    }
  } catch (error) {
    return { held: false, evidence: (error as Error).message }
  }
}

/** Also where the freeze was not answered: it may have happened. */
async function thawAtLast(agentPath: string, onProblem: (error: unknown) => void): Promise<void> {
  const once = () => askAgent(agentPath, 'guest-fsfreeze-thaw', THAW_WITHIN_MS)
  const failed = await once().then(
    () => null,
    (error: Error) => error,
  )
  if (!failed) return
  // who asked for the work need not wait for a guest that has stopped answering
  void (async () => {
    for (let attempt = 1; attempt < THAW_ATTEMPTS; attempt += 1) {
      await pause(THAW_AGAIN_MS, undefined, { ref: false })
      const isDone = await once().then(
        () => true,
        () => false,
      )
      if (isDone) return
    }
    onProblem(failed)
  })()
}
