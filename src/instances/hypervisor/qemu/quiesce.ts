import { access, rm, writeFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { failpoint } from '../../../base/failpoint.ts'
import { askAgent } from './guest-agent.ts'

export interface Quiescence {
  /** Whether the guest's file systems stood still from before the work until after it. */
  readonly held: boolean
  /** For people: what says so, or why not. */
  readonly evidence: string
}

export interface Freezing {
  /** Path of a file that is there from before the freeze until after the thaw, for whoever comes after us when we are killed between. */
  readonly note: string
  /** Told where a guest could not be told to go on. */
  readonly onProblem: (error: unknown) => void
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
 */
export async function quiesced<T>(
  agentPath: string,
  atMostMs: number,
  work: () => Promise<T>,
  freezing: Freezing,
): Promise<{ readonly result: T; readonly quiescence: Quiescence }> {
  const absent = await askAgent(agentPath, 'guest-ping', PING_WITHIN_MS).then(
    () => null,
    (error: Error) => error.message,
  )
  if (absent) return { result: await work(), quiescence: { held: false, evidence: absent } }

  let thawed: Promise<void> | null = null
  const thaw = () => {
    thawed ??= thawAtLast(agentPath, freezing)
    return thawed
  }
  const isNoted = await writeFile(freezing.note, '', { mode: 0o600 }).then(
    () => true,
    () => false,
  )
  if (!isNoted)
    return { result: await work(), quiescence: { held: false, evidence: 'there was no room to note that it stands still' } }
  const deadline = setTimeout(thaw, atMostMs)
  try {
    const frozen = await frozenBy(agentPath, atMostMs)
    failpoint('machine:frozen')
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

/** A guest whose service was killed before it told it to go on. */
export async function thawFound(agentPath: string, freezing: Freezing): Promise<void> {
  const isFrozen = await access(freezing.note).then(
    () => true,
    () => false,
  )
  if (isFrozen) await thawAtLast(agentPath, freezing)
}

/** Also where the freeze was not answered: it may have happened. */
async function thawAtLast(agentPath: string, { note, onProblem }: Freezing): Promise<void> {
  const once = async () => {
    await askAgent(agentPath, 'guest-fsfreeze-thaw', THAW_WITHIN_MS)
    await rm(note, { force: true })
  }
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
