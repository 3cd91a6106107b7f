/** Programs that a test starts beside the service: on loopback, in a folder of their own, ended by their process id. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

export interface Peer {
  readonly name: string
  stop(): Promise<void>
}

export interface DaemonOptions {
  readonly name: string
  readonly command: readonly [string, ...string[]]
  /** Its working folder; `<name>.log` in it gets what it prints. */
  readonly folder: string
  readonly env?: Readonly<Record<string, string | undefined>>
  /** Asked again and again until it says true, at most `readyWithinMs`. */
  readonly ready: () => Promise<boolean>
  readonly readyWithinMs?: number
  readonly stopSignal?: NodeJS.Signals
}
export interface Daemon extends Peer {
  readonly pid: number
  readonly logFile: string
  /** Resolves with its exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>
}

const STOP_WITHIN_MS = 20_000
const POLL_MS = 50

/** Starts a program in a process group of its own, which gets SIGTERM also if this process dies first. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { name, folder, command } = options
  const logFile = join(folder, `${name}.log`)
  const log = await open(logFile, 'a')
  const child = spawn('setpriv', ['--pdeathsig', options.stopSignal ?? 'TERM', ...command], {
    cwd: folder,
    env: options.env ? { ...process.env, ...options.env } : process.env,
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  })
  await once(child, 'spawn')
  await log.close()
  const pid = child.pid!
  let running = true
  const ended = once(child, 'close').then(([code, signal]) => {
    running = false
    return (code ?? signal) as number | NodeJS.Signals
  })
  const signalGroup = (signal: NodeJS.Signals) => {
    try {
      process.kill(-pid, signal)
    } catch {} // it is gone already
  }
  const atExit = () => signalGroup('SIGKILL')
  process.once('exit', atExit)
  const stop = async () => {
    process.removeListener('exit', atExit)
    if (running) process.kill(pid, options.stopSignal ?? 'SIGTERM')
    const late = new AbortController()
    await Promise.race([ended, pause(STOP_WITHIN_MS, undefined, { signal: late.signal }).catch(() => {})])
    late.abort()
    signalGroup('SIGKILL')
    await ended
  }

  const deadline = Date.now() + (options.readyWithinMs ?? 60_000)
  while (!(await options.ready().catch(() => false))) {
    if (running && Date.now() < deadline) {
      await pause(POLL_MS)
      continue
    }
    const how = running ? 'is not ready in time' : `ended (${await ended})`
    await stop()
    throw new Error(`${name} ${how}:\n${(await readFile(logFile, 'utf8')).slice(-3000)}`)
  }
  return { name, pid, logFile, ended, stop }
}

/** A TCP port of loopback that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

/** Whether `url` answers with any status below 500. */
export const answers = (url: string) => async (): Promise<boolean> => {
  const response = await fetch(url, { signal: AbortSignal.timeout(5000) })
  await response.body?.cancel()
  return response.status < 500
}

/** A folder that goes away when `stop` is called. */
export async function scratchFolder(name: string): Promise<{ readonly path: string } & Peer> {
  const path = await mkdtemp(join(tmpdir(), `imprint-${name}-`))
  return { name, path, stop: () => rm(path, { recursive: true, force: true, maxRetries: 3 }) }
}

/** Several peers as one, stopped in the opposite order. */
export function together<T extends object>(name: string, parts: readonly Peer[], extra: T): Peer & T {
  const stop = async () => {
    for (const part of parts.toReversed()) await part.stop()
  }
  return { ...extra, name, stop }
}
