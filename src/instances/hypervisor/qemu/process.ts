import { spawn } from 'node:child_process'
import { type FileHandle, open, readFile, unlink } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { ServiceError } from '../../../base/errors.ts'

/** Processes that live on without us, known by more than a number that another process may get. Linux only: /proc. */

export interface ProcessIdentity {
  readonly pid: number
  /** Clock ticks from the start of the host to that of the process. */
  readonly startTicks: string
  /** Differs after each start of the host. */
  readonly bootId: string
}

export interface ProcessUser {
  readonly uid: number
  readonly gid: number
}

const STAT_START_TICKS = 22 - 3 // proc(5), `starttime` is field 22; counted from the state, which is field 3
const STAT_STATE = 0
const POLL_MS = 20
const END_WITHIN_MS = 60_000
const MAX_IDENTITY_BYTES = 4096

/**
 * The process writes down who it is before it becomes the program, and becomes it only if what it wrote is still to be found: so
 * `takeIdentity` (which unlinks, then reads) either learns of the process or keeps it from coming to be, whenever this process
 * is killed. It gets no core file, which would hold the guest's memory.
 */
const START_SCRIPT =
  'umask 077; ulimit -c 0; read -r boot </proc/sys/kernel/random/boot_id && read -r stat </proc/$$/stat && ' +
  'printf "%s\\n%s\\n" "$boot" "$stat" >&3 && identity=$1 && shift && [ -e "$identity" ] && exec 3>&- && exec "$@"'

/** Secrets of the service may be in its environment, and a program that runs hostile guests needs none of it. */
const ENVIRONMENT = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' }

export interface Started {
  /** Settles with how it ended: "exit status 1", "signal SIGKILL". */
  readonly ended: Promise<string>
}

/**
 * Starts a program in a session of its own.
 * @param options.folder its working folder
 * @param options.identity where its identity is kept: made here, and must not be there; `name` is its path from `folder`
 * @param options.words gets what it says on both of its outputs
 */
export async function startProcess(
  command: readonly [string, ...string[]],
  options: {
    readonly folder: string
    readonly identity: { readonly path: string; readonly name: string }
    readonly words: FileHandle
    readonly user?: ProcessUser | undefined
  },
): Promise<Started> {
  const identity = await open(options.identity.path, 'wx', 0o600)
  try {
    const child = spawn('/bin/sh', ['-c', START_SCRIPT, 'imprint', options.identity.name, ...command], {
      cwd: options.folder,
      detached: true,
      env: ENVIRONMENT,
      stdio: ['ignore', options.words.fd, options.words.fd, identity.fd],
      ...(options.user ?? {}),
    })
    const ended = Promise.withResolvers<string>()
    child.once('error', (error) => ended.resolve(error.message))
    child.once('exit', (code, signal) => ended.resolve(signal ? `signal ${signal}` : `exit status ${code}`))
    child.unref()
    return { ended: ended.promise }
  } finally {
    await identity.close()
  }
}

/** Null where there is none, or it is not written yet. */
export async function readIdentity(path: string): Promise<ProcessIdentity | null> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return ''
    throw error
  })
  return parseIdentity(text)
}

/** The same, and from then on nothing can start that was to write it. */
export async function takeIdentity(path: string): Promise<ProcessIdentity | null> {
  const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
  if (!file) return null
  try {
    await unlink(path)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(MAX_IDENTITY_BYTES), 0, MAX_IDENTITY_BYTES, 0)
    return parseIdentity(buffer.toString('latin1', 0, bytesRead))
  } finally {
    await file.close()
  }
}

function parseIdentity(text: string): ProcessIdentity | null {
  const [bootId = '', stat = ''] = text.split('\n')
  const pid = Number.parseInt(stat, 10)
  const startTicks = statFields(stat)[STAT_START_TICKS]
  return startTicks && pid > 1 && bootId ? { pid, startTicks, bootId } : null
}

/** From the state on; the name before it may hold anything, brackets too. */
const statFields = (stat: string): readonly string[] =>
  stat
    .slice(stat.lastIndexOf(')') + 1)
    .trim()
    .split(' ')

/** Whether it is there; one that has ended and waits for its parent to look is not. */
export async function isAlive({ pid, startTicks, bootId }: ProcessIdentity): Promise<boolean> {
  const [stat, boot] = await Promise.all([
    readFile(`/proc/${pid}/stat`, 'latin1').catch(() => ''),
    readFile('/proc/sys/kernel/random/boot_id', 'latin1'),
  ])
  const fields = statFields(stat)
  const hasEnded = fields[STAT_STATE] === 'Z' || fields[STAT_STATE] === 'X'
  return boot.trim() === bootId && fields[STAT_START_TICKS] === startTicks && !hasEnded
}

/** Settles when it is gone. @returns false where it is still there after `withinMs` */
export async function isGone(identity: ProcessIdentity, withinMs: number): Promise<boolean> {
  const deadline = performance.now() + withinMs
  while (await isAlive(identity)) {
    if (performance.now() >= deadline) return false
    await pause(POLL_MS)
  }
  return true
}

/**
 * SIGKILL, and waits for the end.
 * @throws ServiceError `unavailable` where the kernel does not let it end: it waits for a disk or a network file system
 */
export async function killProcess(identity: ProcessIdentity): Promise<void> {
  if (!(await isAlive(identity))) return
  try {
    process.kill(identity.pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
  if (await isGone(identity, END_WITHIN_MS)) return
  throw new ServiceError(
    'unavailable',
    `The process ${identity.pid} does not end although it was killed; see what it waits for.`,
    {
      pid: identity.pid,
    },
  )
}
