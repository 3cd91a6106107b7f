import { basename } from 'node:path'
import { KiB } from '../../../base/units.ts'
import { askAgent } from './guest-agent.ts'
import { isObject } from './json-lines.ts'

/**
 * Which of the guest's applications were told of a freeze. On Unix the agent runs a hook before it freezes (`qemu-ga --fsfreeze-hook`) and
 * does not say so; the hook that comes with it runs what is in a folder, and notes each of them with its exit status in a log, which the agent
 * lets one read. On Windows a freeze is a shadow copy, whose writers are the applications. What the guest says is what it says of itself.
 * Source: QEMU scripts/qemu-guest-agent/fsfreeze-hook; qga/qapi-schema.json; qga/vss-win32.
 */
export interface Applications {
  /** Made ready, by name. */
  readonly told: readonly string[]
  /** Told, and could not. */
  readonly failed: readonly string[]
}

const LOG = '/var/log/qga-fsfreeze-hook.log'
const READ_BYTES = 32 * KiB
const MAX_READS = 8
/** Of all that is asked before a freeze, and again of all that is asked after it. */
const WITHIN_MS = 3000
const CLOSE_WITHIN_MS = 1000
const MAX_NAMES = 5
const MAX_NAME_CHARACTERS = 40
const WINDOWS: Applications = { told: ["the writers of Windows' volume shadow copies"], failed: [] }
const NOBODY: Applications = { told: [], failed: [] }

/**
 * To be called before the freeze. An agent that may not say, or says nonsense, says nothing.
 * @returns to be called after the thaw, as an agent opens no files while they are frozen; neither rejects
 */
export async function watchApplications(agentPath: string): Promise<() => Promise<Applications>> {
  const before = asker(agentPath)
  if (await isWindows(before)) return async () => WINDOWS
  const end = await endOfLog(before).catch(() => null)
  if (end === null) return async () => NOBODY
  return async () => {
    const text = await logFrom(asker(agentPath), end).catch(() => '')
    return applicationsIn(text)
  }
}

type Asking = (command: string, given?: Readonly<Record<string, unknown>>) => Promise<unknown>
/** Within the time that all has together; `inAnyCase` in time of its own, for what must be given back. */
type Ask = Asking & { readonly inAnyCase: Asking }
function asker(path: string): Ask {
  const until = performance.now() + WITHIN_MS
  const ask: Asking = (command, given) => askAgent(path, command, Math.max(1, until - performance.now()), given)
  return Object.assign(ask, { inAnyCase: ((command, given) => askAgent(path, command, CLOSE_WITHIN_MS, given)) satisfies Asking })
}

const isWindows = (ask: Ask): Promise<boolean> =>
  ask('guest-get-osinfo').then(
    (info) => isObject(info) && info.id === 'mswindows',
    () => false,
  )

/** @returns 0 where there is none yet. @throws Error where it cannot be told: a log that was there before would be taken for new */
async function endOfLog(ask: Ask): Promise<number> {
  try {
    return await inLog(ask, async (handle) => positionIn(await ask('guest-file-seek', { handle, offset: 0, whence: 'end' })))
  } catch (error) {
    if (/No such file/.test((error as Error).message)) return 0
    throw error
  }
}

/**
 * All that came after that; a log that is shorter by now, having been rotated, has nothing there.
 * @throws Error where it has no end: what fails may stand behind what is read
 */
const logFrom = (ask: Ask, offset: number): Promise<string> =>
  inLog(ask, async (handle) => {
    await ask('guest-file-seek', { handle, offset, whence: 'set' })
    const pieces: Buffer[] = []
    for (let reads = 0; reads < MAX_READS; reads += 1) {
      const answer = await ask('guest-file-read', { handle, count: READ_BYTES })
      if (!isObject(answer) || typeof answer['buf-b64'] !== 'string') break
      pieces.push(Buffer.from(answer['buf-b64'], 'base64'))
      if (answer.eof === true || answer.count === 0) return Buffer.concat(pieces).toString('utf8')
    }
    throw new Error('the log of the hook has no end')
  })

async function inLog<T>(ask: Ask, work: (handle: unknown) => Promise<T>): Promise<T> {
  const handle = await ask('guest-file-open', { path: LOG, mode: 'r' })
  try {
    return await work(handle)
  } finally {
    await ask.inAnyCase('guest-file-close', { handle }).catch(() => {})
  }
}

function positionIn(answer: unknown): number {
  const position = isObject(answer) ? answer.position : undefined
  if (typeof position === 'number' && position >= 0) return position
  throw new Error("the guest's agent does not know where it is in a file")
}

/**
 * `DATE: execute PATH freeze`, what that says itself, `DATE: PATH finished with status=0`; since QEMU 10 `Executing PATH freeze`,
 * `PATH finished successfully`. One that did not finish before the next began failed.
 */
function applicationsIn(log: string): Applications {
  const [told, failed] = [new Set<string>(), new Set<string>()]
  let running: string | null = null
  for (const line of log.split('\n')) {
    const begun = /(?:^|: )(?:execute|Executing) (\/.+) (\w+)$/.exec(line)
    if (begun) {
      if (running !== null) failed.add(running)
      running = begun[2] === 'freeze' ? begun[1]! : null
      continue
    }
    const ended: RegExpExecArray | null = running === null ? null : / finished (?:with status=(\d+)|successfully)$/.exec(line)
    if (running === null || !ended || !line.slice(0, ended.index).endsWith(running)) continue
    ;(ended[1] === undefined || ended[1] === '0' ? told : failed).add(running)
    running = null
  }
  if (running !== null) failed.add(running)
  return { told: named(told), failed: named(failed) }
}

function named(paths: ReadonlySet<string>): readonly string[] {
  const names = [...paths].map((path) => basename(path).replaceAll(/\p{C}/gu, ' ').slice(0, MAX_NAME_CHARACTERS))
  const rest = names.length - MAX_NAMES
  return rest > 0 ? [...names.slice(0, MAX_NAMES), `${rest} more`] : names
}
