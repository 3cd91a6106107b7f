import { setTimeout as pause } from 'node:timers/promises'
import { isServiceError, ServiceError } from '../../../base/errors.ts'
import type { MachinePlan } from './command-line.ts'
import { files } from './machine-files.ts'
import type { KeptSpec, MachineFolder } from './machine-folder.ts'
import {
  isAlive,
  isGone,
  killProcess,
  type ProcessIdentity,
  type ProcessUser,
  readIdentity,
  startProcess,
  takeIdentity,
} from './process.ts'
import { QmpClient, type QmpCommands, type QmpEvent } from './qmp.ts'
import { lastWords, tidy } from './words.ts'

const START_WITHIN_MS = 60_000 // on a busy host; QEMU itself needs a tenth of a second
const FIND_WITHIN_MS = 10_000
const QUIT_WITHIN_MS = 10_000
const RETRY_MS = 20
const RECONNECT_MS = 500
/** It has no devices yet, or no memory yet: nobody has been told that it runs. */
const UNBORN: ReadonlySet<string> = new Set(['prelaunch', 'inmigrate'])
/** Long enough to be seen to be gone. */
const END_AFTER_MS = 4 * RECONNECT_MS
/** An event of our own, in place of those that came while the connection was away: `data.status` is QEMU's word for how it stands. */
export const STATUS = 'STATUS'

/** One process of QEMU, from when it answers to its end. It is watched by its monitor's connection, which is made again if it breaks. */
export class Run {
  readonly identity: ProcessIdentity
  readonly #folder: MachineFolder
  readonly #spec: KeptSpec
  readonly #listeners = new Set<(event: QmpEvent) => void>()
  readonly #ended = Promise.withResolvers<void>()
  readonly #letGo = new AbortController()
  /** How a child of ours ended; of others nobody can say. */
  readonly #how: Promise<string> | null
  #monitor: QmpClient | null = null
  /** Its end is wanted: by us, or by its guest, which turned itself off. */
  isToEnd = false
  /** It is going, wanted or not: what it does on the way means nothing. */
  isGoing = false

  private constructor(identity: ProcessIdentity, folder: MachineFolder, spec: KeptSpec, how: Promise<string> | null) {
    this.identity = identity
    this.#folder = folder
    this.#spec = spec
    this.#how = how
  }

  /**
   * A new process with all its devices; its processors stand still until `cont`.
   * @throws ServiceError `unavailable` with its last words where it does not start, `conflict` for a host port; `cancelled`.
   *   Nothing of it is left then
   */
  static async start(
    program: string,
    plan: MachinePlan,
    folder: MachineFolder,
    spec: KeptSpec,
    options: {
      readonly user: ProcessUser | undefined
      /** Bounds what the process may take, before it takes any. */
      readonly confine: (pid: number) => Promise<void>
      readonly signal: AbortSignal
    },
  ): Promise<Run> {
    await endWhatRuns(folder)
    await folder.sweepSockets()
    const words = await folder.openWords()
    const command = [program, ...plan.args] as const
    const process = await startProcess(command, {
      folder: folder.run,
      identity: folder.identity,
      words,
      user: options.user,
    }).finally(() => words.close())
    let monitor: QmpClient | null = null
    let givenUp: Promise<void> = Promise.resolve()
    const giveUp = () => {
      givenUp = endWhatRuns(folder)
      givenUp.catch(() => {}) // it is waited for below
    }
    options.signal.addEventListener('abort', giveUp, { once: true })
    try {
      monitor = await whenItAnswers(folder, process.ended, options.signal)
      const identity = await readIdentity(folder.identity.path)
      if (!identity) throw new ServiceError('unavailable', 'QEMU runs, and its identity is gone; try again.', { id: spec.id })
      const run = new Run(identity, folder, spec, process.ended)
      run.#adopt(monitor)
      await options.confine(identity.pid)
      for (const node of plan.blockNodes) await run.execute('blockdev-add', node)
      await run.execute('x-exit-preconfig')
      await run.#assertItself()
      if (options.signal.aborted) throw cancelled(spec.id)
      void run.#follow()
      return run
    } catch (error) {
      // one that ends by itself does so a moment after its connection broke, and then its words are what matters
      const mayEnd = !options.signal.aborted && !monitor?.isOpen
      const end = mayEnd ? await Promise.race([process.ended, pause(QUIT_WITHIN_MS, null)]) : null
      await givenUp
      await endWhatRuns(folder)
      if (options.signal.aborted) throw cancelled(spec.id)
      throw await startProblem(error, end, folder, spec)
    } finally {
      options.signal.removeEventListener('abort', giveUp)
    }
  }

  /**
   * The process that an earlier service started, and QEMU's word for how it stands, null where it does not answer. Null where there
   * is none; one half-started is ended.
   */
  static async find(
    folder: MachineFolder,
    spec: KeptSpec,
  ): Promise<{ readonly run: Run; readonly status: string | null } | null> {
    const identity = await readIdentity(folder.identity.path)
    const isThere = identity !== null && (await isAlive(identity))
    const run = isThere ? new Run(identity, folder, spec, null) : null
    const status = run ? await run.#firstStatus() : null
    if (!run || (status !== null && UNBORN.has(status))) {
      run?.letGo()
      await endWhatRuns(folder)
      return null
    }
    void run.#follow()
    return { run, status }
  }

  /** Connects. Null where it does not answer, or is not itself. */
  async #firstStatus(): Promise<string | null> {
    try {
      const signal = AbortSignal.any([this.#letGo.signal, AbortSignal.timeout(FIND_WITHIN_MS)])
      this.#adopt(await QmpClient.connect(this.#folder.inRun(files.monitor), signal))
      const { status } = await this.execute('query-status')
      if (!UNBORN.has(status)) await this.#assertItself() // before its devices are made it does not say who it is
      return status
    } catch {
      this.#monitor?.close()
      return null
    }
  }

  /** Of the machine. */
  get id(): string {
    return this.#spec.id
  }

  /** Settles when the process is gone; never after `letGo`. */
  get ended(): Promise<void> {
    return this.#ended.promise
  }

  /** Whether it is gone, or is about to be: a process that ends does so a moment after its connection broke. */
  async endsSoon(): Promise<boolean> {
    return Promise.race([this.ended.then(() => true), pause(END_AFTER_MS, false, { ref: false })])
  }

  /** @throws ServiceError `unavailable` */
  async execute<Name extends keyof QmpCommands>(
    command: Name,
    args?: QmpCommands[Name][0],
    withinMs?: number,
  ): Promise<QmpCommands[Name][1]> {
    if (!this.#monitor) throw new ServiceError('unavailable', 'QEMU does not answer now; try again.', { id: this.#spec.id })
    return this.#monitor.execute(command, args, withinMs)
  }

  /** @returns ends it */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Ends the process, having written what it holds of the disks; if it will not, by force. Settles when it is gone. */
  async quit(): Promise<void> {
    this.isToEnd = true
    this.isGoing = true
    await this.execute('quit', undefined, QUIT_WITHIN_MS).catch(() => {}) // it may be gone, or hang: that is seen next
    if (!(await isGone(this.identity, QUIT_WITHIN_MS))) await killProcess(this.identity)
    await this.#ended.promise
  }

  /** At once, where nothing of it will be kept. */
  async kill(): Promise<void> {
    this.isToEnd = true
    this.isGoing = true
    await killProcess(this.identity)
    await this.#ended.promise
  }

  /** The process runs on, and is watched no more. */
  letGo(): void {
    this.#letGo.abort()
    this.#monitor?.close()
  }

  /** Why it ended, when it has. @param spec what it was by then */
  async why(spec: KeptSpec): Promise<string> {
    return whyEnded(this.#folder, spec, await this.#how)
  }

  #adopt(monitor: QmpClient): void {
    this.#monitor = monitor
    monitor.onEvent((event) => this.#tell(event))
  }

  async #follow(): Promise<void> {
    const { signal } = this.#letGo
    while (!signal.aborted) {
      await this.#monitor?.closed
      this.#monitor = null
      if (signal.aborted) return
      if (await isGone(this.identity, RECONNECT_MS)) {
        this.#ended.resolve()
        return
      }
      const status = await this.#firstStatus()
      if (status) this.#tell({ name: STATUS, data: { status } })
    }
  }

  #tell(event: QmpEvent): void {
    for (const listener of [...this.#listeners]) listener(event)
  }

  /** What answers at its socket is the machine: the folder is QEMU's, and one that a guest broke out of may put anything there. */
  async #assertItself(): Promise<void> {
    const { UUID } = await this.execute('query-uuid')
    if (UUID === this.#spec.id) return
    throw new ServiceError('unavailable', `What answers for the machine ${this.#spec.id} is another one.`, { id: this.#spec.id })
  }
}

/** @throws ServiceError `unavailable`, `cancelled` */
async function whenItAnswers(folder: MachineFolder, processEnded: Promise<string>, signal: AbortSignal): Promise<QmpClient> {
  let hasEnded = false
  void processEnded.then(() => {
    hasEnded = true
  })
  const deadline = performance.now() + START_WITHIN_MS
  for (;;) {
    try {
      return await QmpClient.connect(folder.inRun(files.monitor), signal)
    } catch (error) {
      if (hasEnded || signal.aborted || performance.now() > deadline) throw error
      await pause(RETRY_MS)
    }
  }
}

/** @param how it ended, where that is known */
export async function whyEnded(folder: MachineFolder, spec: KeptSpec, how?: string | null): Promise<string> {
  const words = await lastWords(folder.words, spec)
  return words || `QEMU ended without a word${how ? `: ${how}` : ''}`
}

/** Whoever is written down as the process of this folder is ended, and who was about to become it does not. */
export async function endWhatRuns(folder: MachineFolder): Promise<void> {
  const identity = await takeIdentity(folder.identity.path)
  if (identity) await killProcess(identity)
}

async function startProblem(error: unknown, end: string | null, folder: MachineFolder, spec: KeptSpec): Promise<unknown> {
  const { id } = spec
  const words = await lastWords(folder.words, spec)
  const [, forward] = /host forwarding rule '([^']*)-/.exec(words) ?? []
  if (forward) {
    return new ServiceError(
      'conflict',
      `The port ${forward} of the host is taken; choose another.`,
      { id, forward },
      { cause: error },
    )
  }
  if (end !== null) {
    const message = `QEMU does not start the machine ${id}: ${words || end}`
    return new ServiceError('unavailable', message, { id }, { cause: error })
  }
  if (!isServiceError(error)) return error
  return new ServiceError(error.code, `The machine ${id} does not start: ${tidy(error.message, spec)}`, { id }, { cause: error })
}

export const cancelled = (id: string): ServiceError =>
  new ServiceError('cancelled', `What was asked of the machine ${id} was cut short; see how it is, and ask again.`, { id })
