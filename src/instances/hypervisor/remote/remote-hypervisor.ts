import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { isServiceError, ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../../disk/block/block-source.ts'
import type { HydrateOptions, NewBase, Sealed, SealOptions } from '../disk-layers.ts'
import type { FoundMachine, HypervisorAbilities, MachineChanges, MachineDisk, MachineSpec } from '../hypervisor.ts'
import type { MachineHost } from '../machine-host.ts'
import type { SavedMemory, SaveOptions } from '../machine-memory.ts'
import type { Migrated, MigrationTarget } from '../machine-migration.ts'
import type { FrameLink } from './frames.ts'
import { answerOf, openLink, type Parts, RemoteCall } from './remote-call.ts'
import { remoteDisk } from './remote-disk.ts'
import { RemoteWatch } from './remote-watch.ts'
import { Silence } from './silence.ts'
import type { LongCall, Opening, PlainCall } from './words.ts'

export interface RemoteOptions {
  /** Where the host's agent listens. */
  readonly socketPath: string
  /** Told when the agent goes away, and of what it says that cannot be: of each reason once, until it is back. */
  readonly onProblem: (error: unknown) => void
  /** An agent that says nothing for so long is away. */
  readonly silenceMs?: number
}

/** Agents say a word every few seconds (machine-agent.ts). */
const SILENCE_MS = 10_000
/** What an agent has to look up only. */
const ANSWERS_WITHIN_MS = 30_000

/** What is given up when it is closed must be known to be, or is let go of after so long. */
const ENDS_WITHIN_MS = 30_000

/**
 * The hypervisor of another process, or another host, by its agent. Where the agent is away, calls fail with `unavailable`, and when it is back
 * those who watch are told of all its machines: what befell them meanwhile nobody saw.
 *
 * Closed, or gone, it ends what it began and may be cut short; a stop or a seal that the agent has begun goes on.
 */
export class RemoteHypervisor implements MachineHost {
  readonly #options: RemoteOptions
  readonly #closing = new AbortController()
  readonly #watchers = new Set<(machine: FoundMachine) => void>()
  readonly #links = new Set<FrameLink>()
  /** Those that end by being cut short. */
  readonly #long = new Set<Promise<unknown>>()
  #watch: RemoteWatch | null = null

  private constructor(options: RemoteOptions) {
    this.#options = options
  }

  /** Settles when the agent has answered, or is known to be away. */
  static async open(options: RemoteOptions): Promise<RemoteHypervisor> {
    const remote = new RemoteHypervisor(options)
    remote.#watch = await RemoteWatch.start({
      socketPath: options.socketPath,
      closing: remote.#closing.signal,
      tell: (machine) => remote.#tell(machine),
      onBack: () => void remote.#tellAll().catch(options.onProblem),
      onAway: (error) => {
        remote.#letGo() // of an agent that stands still no call would ever end
        options.onProblem(error)
      },
      silenceMs: options.silenceMs ?? SILENCE_MS,
    })
    return remote
  }

  get type(): string {
    return this.#watch?.lastKnown?.type ?? 'unknown'
  }

  /** @throws ServiceError `unavailable` where the agent is away, or its host can run no machines */
  get abilities(): HypervisorAbilities {
    const { abilities, problem } = this.#watch!.about
    if (abilities) return abilities
    throw new ServiceError('unavailable', problem ?? 'This host runs no machines.')
  }

  async launch({ memory, ...spec }: MachineSpec, signal?: AbortSignal): Promise<void> {
    const { open, ...state } = memory ?? {}
    const undo: Opening = { say: 'remove', values: [spec.id] }
    await this.#callLong('launch', [{ ...spec, ...(memory ? { memory: state } : {}) }], signal, {
      undo,
      ...(open ? { open } : {}),
    })
  }

  async start(id: string, { memory, ...changes }: MachineChanges = {}, signal?: AbortSignal): Promise<void> {
    const { open, ...state } = memory ?? {}
    const undo: Opening = { say: 'stop', values: [id, 0] }
    const values = [id, { ...changes, ...(memory ? { memory: state } : {}) }]
    await this.#callLong('start', values, signal, { undo, ...(open ? { open } : {}) })
  }

  list(): Promise<readonly FoundMachine[]> {
    return this.#call('list', [], ANSWERS_WITHIN_MS)
  }

  show(id: string): Promise<FoundMachine> {
    return this.#call('show', [id], ANSWERS_WITHIN_MS)
  }

  async stop(id: string, graceMs: number): Promise<void> {
    await this.#call('stop', [id, graceMs])
  }

  async reboot(id: string, graceMs: number): Promise<void> {
    await this.#call('reboot', [id, graceMs])
  }

  async pause(id: string): Promise<void> {
    await this.#call('pause', [id])
  }

  async resume(id: string): Promise<void> {
    await this.#call('resume', [id])
  }

  consoleLog(id: string, bytes: number): Promise<Uint8Array> {
    return this.#call('consoleLog', [id, bytes])
  }

  async serial(id: string): Promise<Duplex> {
    const link = await this.#linkFor({ say: 'serial', values: [id] })
    await this.#firstAnswer(link)
    return link.release()
  }

  async remove(id: string): Promise<void> {
    await this.#call('remove', [id])
  }

  async seal(id: string, quiesceMs: number, { whileStill, mustBeQuiet = false }: SealOptions = {}): Promise<Sealed> {
    const how = { quiesceMs, mustBeQuiet }
    return (await this.#callLong('seal', [id, how], undefined, whileStill ? { whileStill } : {})) as Sealed
  }

  async openLayer(id: string, disk: string, layer: number): Promise<BlockSource> {
    const link = await this.#linkFor({ say: 'openLayer', values: [id, disk, layer] })
    const { done } = await this.#firstAnswer(link)
    return remoteDisk(link, (done as { readonly size: number }).size)
  }

  async rebase(id: string, bases: Readonly<Record<string, NewBase>>): Promise<void> {
    await this.#call('rebase', [id, bases])
  }

  async hydrate(id: string, disk: string, { signal, onProgress }: HydrateOptions = {}): Promise<void> {
    await this.#callLong('hydrate', [id, disk], signal, onProgress ? { onProgress } : {})
  }

  async attach(id: string, disk: MachineDisk): Promise<void> {
    await this.#call('attach', [id, disk])
  }

  async detach(id: string, diskName: string, graceMs: number): Promise<void> {
    await this.#call('detach', [id, diskName, graceMs])
  }

  async saveMemory(
    id: string,
    sink: (body: AsyncIterable<Uint8Array>) => Promise<void>,
    { signal, whileStill }: SaveOptions = {},
  ): Promise<SavedMemory> {
    const parts = { sink, ...(whileStill ? { whileStill } : {}) }
    return (await this.#callLong('saveMemory', [id], signal, parts)) as SavedMemory
  }

  async assertResumable({ memory, ...spec }: MachineSpec): Promise<void> {
    const { open: _notRead, ...state } = memory ?? {}
    await this.#call('assertResumable', [{ ...spec, ...(memory ? { memory: state } : {}) }])
  }

  receive(machine: MachineSpec): Promise<MigrationTarget> {
    const { seed: _its, memory: _comes, ...spec } = machine
    return this.#call('receive', [spec])
  }

  async withdraw(id: string): Promise<void> {
    await this.#call('withdraw', [id])
  }

  specOf(id: string): Promise<MachineSpec> {
    return this.#call('specOf', [id])
  }

  async migrateTo(id: string, target: MigrationTarget, { signal }: { readonly signal?: AbortSignal } = {}): Promise<Migrated> {
    return (await this.#callLong('migrateTo', [id, target], signal, {})) as Migrated
  }

  watch(listener: (machine: FoundMachine) => void): () => void {
    this.#assertOpen()
    const own = (machine: FoundMachine) => listener(machine) // the same listener may watch twice
    this.#watchers.add(own)
    return () => this.#watchers.delete(own)
  }

  /** Calls that can be cut short have ended at the agent when it settles. */
  async close(): Promise<void> {
    this.#closing.abort()
    this.#watchers.clear()
    const late = setTimeout(() => this.#letGo(), ENDS_WITHIN_MS)
    await Promise.allSettled(this.#long)
    clearTimeout(late)
    this.#letGo()
  }

  #letGo(): void {
    for (const link of this.#links) link.destroy()
  }

  /** @param withinMs after which the agent counts as away; absent: it takes its time */
  async #call<T>(say: PlainCall, values: readonly unknown[], withinMs?: number): Promise<T> {
    const link = await this.#linkFor({ say, values })
    const silence = withinMs === undefined ? null : new Silence(withinMs, () => link.destroy())
    const closed = () => link.destroy()
    this.#closing.signal.addEventListener('abort', closed, { once: true })
    if (this.#closing.signal.aborted) closed()
    try {
      const { done, told } = await answerOf(link)
      await this.#watch?.heard(Number(told))
      return done as T
    } catch (error) {
      throw this.#closing.signal.aborted ? cancelled() : error
    } finally {
      this.#closing.signal.removeEventListener('abort', closed)
      silence?.end()
      link.destroy()
    }
  }

  /** @param undo what takes back a call that came to its end although it was to be cut short */
  async #callLong(
    say: LongCall,
    values: readonly unknown[],
    signal: AbortSignal | undefined,
    { undo, ...parts }: Parts & { readonly undo?: Opening },
  ): Promise<unknown> {
    this.#assertOpen()
    const ended = signal ? AbortSignal.any([signal, this.#closing.signal]) : this.#closing.signal
    if (ended.aborted) throw cancelled()
    const key = randomUUID()
    const hasMoment = parts.whileStill !== undefined
    const call = async () => {
      const link = await this.#linkFor({ say, values, key, hasMoment })
      const { done, told } = await new RemoteCall(link, key, parts, (opening) => this.#linkFor(opening)).answer(ended)
      await this.#watch?.heard(Number(told))
      if (!ended.aborted || say === 'migrateTo') return done
      if (undo) await this.#takeBack(undo)
      throw cancelled()
    }
    const under = call()
    this.#long.add(under)
    try {
      return await under
    } catch (error) {
      throw this.#closing.signal.aborted && isServiceError(error, 'unavailable') ? cancelled() : error
    } finally {
      this.#long.delete(under)
    }
  }

  async #takeBack(undo: Opening): Promise<void> {
    const link = await openLink(this.#options.socketPath, undo)
    try {
      await answerOf(link)
    } finally {
      link.destroy()
    }
  }

  async #firstAnswer(link: FrameLink): Promise<Readonly<Record<string, unknown>>> {
    try {
      return await answerOf(link)
    } catch (error) {
      link.destroy()
      throw error
    }
  }

  async #linkFor(opening: Opening): Promise<FrameLink> {
    this.#assertOpen(opening.say === 'stream')
    void this.#watch?.about // throws where the host is away
    const link = await openLink(this.#options.socketPath, opening)
    this.#links.add(link)
    link.socket.once('close', () => this.#links.delete(link))
    return link
  }

  async #tellAll(): Promise<void> {
    for (const machine of await this.list()) this.#tell(machine)
  }

  #tell(machine: FoundMachine): void {
    for (const watcher of [...this.#watchers]) watcher(machine)
  }

  #assertOpen(isPart = false): void {
    if (this.#closing.signal.aborted && !isPart)
      throw new ServiceError('unavailable', 'The hypervisor is closed; ask again when it is open.')
  }
}

const cancelled = (): ServiceError =>
  new ServiceError('cancelled', 'The service let go of the host meanwhile; see how the machine stands.')
