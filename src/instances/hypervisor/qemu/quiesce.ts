import { access, rm, writeFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { failpoint } from '../../../base/failpoint.ts'
import type { Sealed } from '../disk-layers.ts'
import { type Applications, watchApplications } from './freeze-hooks.ts'
import { AgentRefusal, askAgent } from './guest-agent.ts'

type Quiescence = Pick<Sealed, 'consistency' | 'evidence'>

export interface Freezing {
  /** Path of a file that is there from before the freeze until after the thaw, for whoever comes after us when we are killed between. */
  readonly note: string
  /** Told where a guest could not be told to go on. */
  readonly onProblem: (error: unknown) => void
  /** What is thrown before the work where they do not stand still; absent: it is done all the same. @param evidence why not */
  readonly refuse?: ((evidence: string) => Error) | undefined
}

/** One that does not answer this is not asked to freeze anything. */
const PING_WITHIN_MS = 2000
/** A guest whose file systems stand still is a guest that hangs: when its agent does not answer, it is asked again this often. */
const THAW_AGAIN_MS = 1000
const THAW_WITHIN_MS = 5000
const THAW_ATTEMPTS = 60

/**
 * Does the work while the guest's file systems stand still, if its agent makes them: from before the work until after it, or they are said to be
 * as after a crash. Whatever becomes of the work, the guest is told to
 * go on not later than `atMostMs` after it was told to stop; where that comes before the end of the work, they did not hold.
 */
export async function quiesced<T>(
  agentPath: string,
  atMostMs: number,
  work: () => Promise<T>,
  freezing: Freezing,
): Promise<Quiescence & { readonly result: T }> {
  const unfrozen = async (evidence: string) => {
    if (freezing.refuse) throw freezing.refuse(evidence)
    return { result: await work(), consistency: 'crash', evidence } as const
  }
  const absent = await askAgent(agentPath, 'guest-ping', PING_WITHIN_MS).then(
    () => null,
    (error: Error) => error.message,
  )
  if (absent) return unfrozen(absent)
  const toldSince = await watchApplications(agentPath)

  let thawed: Promise<Thaw> | null = null
  const thaw = () => {
    thawed ??= thawAtLast(agentPath, freezing)
    return thawed
  }
  const isNoted = await writeFile(freezing.note, '', { mode: 0o600 }).then(
    () => true,
    () => false,
  )
  if (!isNoted) return unfrozen('there was no room to note that it stands still')
  const deadline = setTimeout(thaw, atMostMs)
  const { result, frozen, inTime } = await (async () => {
    try {
      const frozen = await frozenBy(agentPath, atMostMs)
      failpoint('machine:frozen')
      if (frozen.count === 0 && freezing.refuse) throw freezing.refuse(frozen.evidence)
      const result = await work()
      return { result, frozen, inTime: thawed === null }
    } finally {
      clearTimeout(deadline)
      await thaw()
    }
  })()
  const broken = brokenBy(frozen, inTime, await thaw())
  if (broken === null) return { result, ...withApplications(frozen.evidence, await toldSince()) }
  if (freezing.refuse) throw freezing.refuse(broken)
  return { result, consistency: 'crash', evidence: broken }
}

interface Frozen {
  readonly count: number
  readonly evidence: string
}

/** Why they did not stand still from the freeze to the thaw; null where they did, as far as the agent knows. */
function brokenBy({ count, evidence }: Frozen, inTime: boolean, thaw: Thaw): string | null {
  if (count === 0) return evidence
  if (!inTime) return 'the guest had to go on before its disks were sealed'
  if (thaw.refusal !== null) return thaw.refusal
  if (thaw.count === null || thaw.count >= count) return null
  // "likely means some freezable filesystems were unfrozen before this call": qapi-schema.json, guest-fsfreeze-thaw
  return `of ${Math.floor(count)} file systems that the guest's agent froze, ${Math.floor(thaw.count)} stood still until the end`
}

async function frozenBy(agentPath: string, withinMs: number): Promise<Frozen> {
  try {
    const count = await askAgent(agentPath, 'guest-fsfreeze-freeze', withinMs)
    if (typeof count !== 'number' || count <= 0) return { count: 0, evidence: "the guest's agent froze nothing" }
    return { count, evidence: `the guest's agent froze ${Math.floor(count)} file systems` }
  } catch (error) {
    return { count: 0, evidence: (error as Error).message }
  }
}

function withApplications(frozen: string, { told, failed }: Applications): Quiescence {
  if (failed.length > 0) return { consistency: 'file-system', evidence: `${frozen}; its hook failed for ${failed.join(', ')}` }
  if (told.length === 0) return { consistency: 'file-system', evidence: frozen }
  return { consistency: 'application', evidence: `${frozen}, after it had told ${told.join(', ')}` }
}

/** A guest whose service was killed before it told it to go on. */
export async function thawFound(agentPath: string, freezing: Freezing): Promise<void> {
  const isFrozen = await access(freezing.note).then(
    () => true,
    () => false,
  )
  if (isFrozen) await thawAtLast(agentPath, freezing)
}

interface Thaw {
  /** Of the file systems that stood still until then; null where the agent did not say. */
  readonly count: number | null
  /** Of the agent, in its words; null: it did, or did not answer. */
  readonly refusal: string | null
}

/** Also where the freeze was not answered: it may have happened. */
async function thawAtLast(agentPath: string, { note, onProblem }: Freezing): Promise<Thaw> {
  const once = async () => {
    const count = await askAgent(agentPath, 'guest-fsfreeze-thaw', THAW_WITHIN_MS)
    await rm(note, { force: true })
    return typeof count === 'number' ? count : null
  }
  const { count, failed } = await once().then(
    (count) => ({ count, failed: null }),
    (failed: Error) => ({ count: null, failed }),
  )
  if (!failed) return { count, refusal: null }
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
  return { count, refusal: failed instanceof AgentRefusal ? failed.message : null }
}
