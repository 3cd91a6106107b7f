/** The service as a process that a test may kill at any step and start again on what it left. */
import { accessSync, constants, existsSync, writeFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Failpoint } from '../../src/base/failpoint.ts'
import { answers, type Daemon, freePort, startDaemon } from '../peers/daemon.ts'
import { cast, logIn } from '../peers/identity-client.ts'

const root = resolve(import.meta.dirname, '../..')

/** A failpoint, at its nth passing. */
export type Death = `${Failpoint}:${number}`

export interface MortalService {
  readonly address: string
  readonly pid: number
  /** Until `/readyz` said so, from the start of the process on. */
  readonly readyAfterMs: number
  readonly logFile: string
  /** Resolves with the exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>
  /** From now on the service dies at this step. */
  arm(death: Death): Promise<void>
  kill(): Promise<void>
  /** Lets it end by itself. */
  stop(): Promise<void>
}

/**
 * A folder for a test's services, in memory where the machine has such a place: what a killed process has written is the
 * kernel's, on a disk and there alike, and a sync costs nothing.
 */
export async function folderInMemory(name: string): Promise<string> {
  const folder = await mkdtemp(join(memoryPlace(), `imprint-${name}-`))
  await mkdir(join(folder, 'data'))
  return folder
}
function memoryPlace(): string {
  try {
    accessSync('/dev/shm', constants.W_OK)
    return '/dev/shm'
  } catch {
    return tmpdir()
  }
}
export const removeFolder = (folder: string): Promise<void> => rm(folder, { recursive: true, force: true, maxRetries: 3 })

/**
 * @param folder the service's data lie in `data` below it
 * @param under a program that starts it in its own stead, with its arguments
 * @param env a failpoint among it is armed from the start: the service may not live to be ready; then this throws
 */
export async function startMortal(
  folder: string,
  env: Readonly<Record<string, string>> = {},
  flags: readonly string[] = [],
  under: readonly string[] = [],
): Promise<MortalService> {
  const listen = env.IMPRINT_LISTEN ?? `127.0.0.1:${await freePort()}`
  const address = `http://${listen}`
  const orders = join(folder, 'failpoint')
  const startedAt = performance.now()
  const daemon: Daemon = await startDaemon({
    name: 'imprint',
    folder,
    command: ['env', ...under, process.execPath, join(root, 'src/main.ts'), 'serve', ...flags],
    env: {
      IMPRINT_LISTEN: listen,
      IMPRINT_DATA: join(folder, 'data'),
      IMPRINT_ADMIN_PASSWORD: cast.admin.password,
      IMPRINT_LOG_LEVEL: 'warn',
      IMPRINT_PASSWORD_PASSES: '1', // clients log in hundreds of times
      IMPRINT_COLLECT_HOURS: '0',
      IMPRINT_DRAIN_SECONDS: '5',
      IMPRINT_INSTANCE_ACCELERATOR: 'tcg', // without a trial, which would write files of its own
      IMPRINT_FAILPOINT: `@${orders}`,
      NODE_TEST_CONTEXT: undefined, // it is no test file
      ...env,
    },
    ready: answers(`${address}/readyz`),
  })
  const { pid, logFile, ended } = daemon
  return {
    address,
    pid,
    readyAfterMs: performance.now() - startedAt,
    logFile,
    ended,
    async arm(death) {
      await mkdir(dirname(orders), { recursive: true })
      writeFileSync(orders, death)
      process.kill(pid, 'SIGUSR2')
      while (existsSync(orders)) await pause(2)
    },
    async kill() {
      process.kill(pid, 'SIGKILL')
      await daemon.stop()
    },
    stop: () => daemon.stop(),
  }
}

export const adminToken = ({ address }: Pick<MortalService, 'address'>): Promise<string> =>
  logIn(`${address}/identity/v3`, cast.admin)
