import { lstat } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'
import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../../disk/block/block-source.ts'
import { type HydrateOptions, type NewBase, notQuiet, type Sealed, type SealOptions } from '../disk-layers.ts'
import type { FoundMachine, MachineChanges, MachineDisk, MachineSpec } from '../hypervisor.ts'
import type { MemoryState, SavedMemory, SaveOptions } from '../machine-memory.ts'
import type { Migrated, MigrationTarget } from '../machine-migration.ts'
import { changed } from '../machine-spec.ts'
import { awaitSource } from './await-source.ts'
import { pressPower } from './buttons.ts'
import { type Chosen, firmwareOf } from './command-line.ts'
import { ConsoleLog } from './console-log.ts'
import { lastWord } from './departure.ts'
import { KeptRecord } from './kept-record.ts'
import { forwardLate } from './late-forwards.ts'
import { MachineDisks } from './machine-disks.ts'
import { files } from './machine-files.ts'
import { keptSpec, MachineFolder, type MachineRecord } from './machine-folder.ts'
import { MachinePower } from './machine-power.ts'
import { arrived, MachineTransit } from './machine-transit.ts'
import { MachineTurns, wrongPower } from './machine-turns.ts'
import type { Offer } from './migration-link.ts'
import type { QemuHost } from './qemu-host.ts'
import { type Freezing, quiesced, thawFound } from './quiesce.ts'
import { cancelled, endWhatRuns, Run, whyEnded } from './run.ts'
import type { Outgoing } from './save-memory.ts'
import { assertFits, fill, startProcess, unbound } from './start-process.ts'
import { boundWords } from './words.ts'

/** Of what its guest wrote to its console, so much goes along with a machine. */
const MOVED_CONSOLE_BYTES = MiB

/**
 * One machine: its record, its process where it has one, and what is asked of both.
 *
 * The record says `on` from when the processors run until the process is gone, and then why. A machine whose record says so and
 * which has no process has crashed.
 */
export class Machine {
  readonly #host: QemuHost
  readonly #folder: MachineFolder
  readonly #console: ConsoleLog
  readonly #kept: KeptRecord
  readonly #disks: MachineDisks
  readonly #transit: MachineTransit
  readonly #power: MachinePower
  readonly #turns: MachineTurns
  #serial: Socket | null = null

  private constructor(host: QemuHost, record: MachineRecord) {
    this.#host = host
    this.#folder = new MachineFolder(host.root, record.spec.id, host.user)
    this.#kept = new KeptRecord(this.#folder, record)
    this.#disks = new MachineDisks(this.#kept, () => this.#power.run)
    this.#transit = new MachineTransit(this.#kept, this.#disks, host)
    this.#power = new MachinePower(host, this.#kept, {
      disks: this.#disks,
      transit: this.#transit,
      onEnd: () => this.#serial?.destroy(),
    })
    this.#turns = new MachineTurns(record.spec.id, host.closing)
    this.#console = new ConsoleLog(this.#folder.inRun(files.console), `${this.#folder.path}/console.older`)
  }

  /** Not on disk yet. @param layers of disks that come from elsewhere, by name */
  static planned(host: QemuHost, spec: MachineSpec, chosen: Chosen, layers: Offer['layers'] = {}): Machine {
    const kept = structuredClone(keptSpec(spec))
    return new Machine(host, {
      format: 1,
      isLaunched: false,
      spec: { ...kept, disks: kept.disks.map((disk) => ({ ...disk, layers: layers[disk.name] ?? disk.layers })) },
      chosen,
      power: 'shutdown',
      reason: null,
    })
  }

  /**
   * As an earlier service left it, and what befell it since. Null where it was not launched to the end: then it is swept away.
   * @throws ServiceError `corrupt`
   */
  static async found(host: QemuHost, id: string): Promise<Machine | null> {
    const folder = new MachineFolder(host.root, id, host.user)
    const record = await folder.read()
    if (!record?.isLaunched) {
      await endWhatRuns(folder)
      await unbound(host, id)
      await folder.remove()
      return null
    }
    const machine = new Machine(host, record)
    await machine.#find()
    return machine
  }

  /** One of which nothing can be read but its process, which is ended. */
  static async removeUnread(host: QemuHost, id: string): Promise<void> {
    const folder = new MachineFolder(host.root, id, host.user)
    await endWhatRuns(folder)
    await unbound(host, id)
    await folder.remove()
  }

  get id(): string {
    return this.#record.spec.id
  }
  get isLaunched(): boolean {
    return this.#record.isLaunched
  }
  /** As it was asked for, and has become since. */
  get spec(): MachineSpec {
    const { hasSeed: _its, disks, ...spec } = this.#record.spec
    return structuredClone({
      ...spec,
      disks: disks.map(({ slot: _here, layers: _written, isPassing: _passes, ...disk }) => disk),
    })
  }
  get folder(): MachineFolder {
    return this.#folder
  }
  get #record(): MachineRecord {
    return this.#kept.now
  }

  /** @throws ServiceError `invalid-request` for memory of a machine that was otherwise */
  assertFits(memory: MemoryState | undefined): Promise<void> {
    return assertFits(this.#host, this.#record, memory)
  }

  describe(): Promise<FoundMachine> {
    return this.#power.describe()
  }

  /** Failed, nothing of it is left. */
  async launch({ seed, memory }: Pick<MachineSpec, 'seed' | 'memory'>, signal?: AbortSignal): Promise<void> {
    await this.#turns.start(signal, async (ended) => {
      let isMine = false
      try {
        await assertFits(this.#host, this.#record, memory)
        if (ended.aborted) throw cancelled(this.id)
        isMine = true
        await this.#makeFiles(seed ?? memory?.seedDisc ?? undefined).catch((error) => {
          isMine = error.code !== 'conflict'
          throw error
        })
        await this.#powerOn({ ...this.#record, isLaunched: true }, ended, memory)
      } catch (error) {
        if (isMine) await this.#folder.remove().catch(this.#host.onProblem) // what stays is swept at the next opening
        throw error
      }
    })
  }

  /** Failed, it is as it was. */
  async start(changes: MachineChanges, signal?: AbortSignal): Promise<void> {
    this.#assertNotGiven()
    if (this.#power.run || this.#turns.isStarting) throw wrongPower(this.id, 'is on already; stop it first')
    if (this.#turns.isRemoved) throw wrongPower(this.id, 'is being removed')
    changed(this.#record.spec, changes) // refused now rather than later
    const before = this.#turns.disksChanged
    await this.#turns.start(signal, async (ended) => {
      await before
      await this.#disks.takeUpOff()
      await assertFits(this.#host, this.#record, changes.memory)
      await this.#powerOn({ ...this.#record, spec: changed(this.#record.spec, changes) }, ended, changes.memory)
    })
  }

  async stop(graceMs: number): Promise<void> {
    await this.#turns.started()
    const { run, isPaused } = this.#power
    if (!run) return this.#power.forgetCrash()
    if (!isPaused && graceMs > 0) await pressPower(run, graceMs, run.ended, this.#host.closing)
    await run.quit()
    await this.#power.over
  }

  async reboot(graceMs: number): Promise<void> {
    await this.#turns.started()
    this.#assertNotGiven()
    while (this.#transit.isUnderWay) await this.#turns.held
    const run = this.#on()
    if (!this.#power.isPaused && graceMs > 0) {
      const guestOff = Promise.withResolvers<void>()
      this.#power.onGuestOff = guestOff.resolve
      try {
        await pressPower(run, graceMs, Promise.race([guestOff.promise, run.ended]), this.#host.closing)
        if (this.#power.run === run) await this.#power.reset(run)
      } finally {
        this.#power.onGuestOff = null
      }
    } else await this.#power.reset(run)
    if (this.#power.run !== run) throw wrongPower(this.id, 'went off meanwhile; start it')
  }

  async pause(): Promise<void> {
    await this.#held(async () => {
      const run = this.#on()
      if (this.#power.isPaused) throw wrongPower(this.id, 'is paused already')
      await run.execute('stop')
      await this.#power.see({ isPaused: true })
    })
  }

  async resume(): Promise<void> {
    await this.#held(async () => {
      const run = this.#on()
      if (!this.#power.isPaused) throw wrongPower(this.id, 'is not paused')
      await run.execute('cont')
      await this.#power.see({ isPaused: false })
    })
  }

  consoleLog(bytes: number): Promise<Uint8Array> {
    return this.#console.tail(bytes)
  }

  /** Keeps what a guest makes QEMU write within bounds. */
  async trim(): Promise<void> {
    if (!this.#power.run) return
    await this.#console.cut()
    await boundWords(this.#folder.words)
  }

  async serial(): Promise<Socket> {
    this.#on()
    const path = this.#folder.inRun(files.serial)
    // QEMU's folder: what broke out of a guest might lead us to the port of another machine
    const stat = await lstat(path).catch(() => null)
    if (!stat?.isSocket()) throw new ServiceError('unavailable', `The machine ${this.id} has lost its serial port; reboot it.`)
    this.#serial?.destroy()
    const serial = connect({ path })
    serial.on('error', () => serial.destroy()) // `close` follows, and that is what those who use it wait for
    this.#serial = serial
    return serial
  }

  async seal(quiesceMs: number, { whileStill, mustBeQuiet = false }: SealOptions): Promise<Sealed> {
    if (!whileStill) return this.#turns.changeDisks(() => this.#sealQuietly(quiesceMs, mustBeQuiet, () => this.#disks.seal()))
    const seal = () => this.#sealQuietly(quiesceMs, mustBeQuiet, () => this.#sealStill(whileStill))
    return this.#turns.changeDisks(() => this.#held(seal))
  }

  async rebase(bases: Readonly<Record<string, NewBase>>): Promise<void> {
    return this.#turns.changeDisks(() => this.#disks.rebase(bases))
  }

  async attach(disk: MachineDisk): Promise<void> {
    return this.#turns.changeDisks(() => this.#disks.attach(disk))
  }

  async detach(disk: string, graceMs: number): Promise<void> {
    return this.#turns.changeDisks(() => this.#disks.detach(disk, graceMs))
  }

  async hydrate(disk: string, { signal, ...options }: HydrateOptions): Promise<void> {
    const ended = this.#endedBy(signal)
    await this.#turns.hydrate(() => this.#disks.hydrate(disk, { ...options, signal: ended }))
  }

  async openLayer(disk: string, layer: number): Promise<BlockSource> {
    return this.#disks.openLayer(disk, layer)
  }

  async saveMemory(sink: Outgoing['sink'], { signal, ...options }: SaveOptions): Promise<SavedMemory> {
    return this.#inTransit((run) =>
      this.#transit.save(run, this.#power.isPaused, sink, { ...options, signal: this.#endedBy(signal) }),
    )
  }

  /** Settles when it goes on there; the caller removes it here. */
  async migrateTo(target: MigrationTarget, signal?: AbortSignal): Promise<Migrated> {
    const { closing } = this.#host
    return this.#inTransit((run) =>
      this.#transit.leave(run, this.#power.isPaused, target, {
        signal: this.#endedBy(signal),
        closing,
        console: () => this.#console.tail(MOVED_CONSOLE_BYTES),
      }),
    )
  }

  get givenTo(): MigrationTarget | undefined {
    return this.#record.transit?.givenTo
  }

  /** Of one that was found given away. Settles when it goes on there. @throws ServiceError `unavailable`: it goes on here; `cancelled` */
  async hearLastWord(target: MigrationTarget): Promise<void> {
    await lastWord(this.#kept, target, this.#host.closing).catch(async (error) => {
      const { run } = this.#power
      if (!this.givenTo && run) {
        await this.#transit.bringBack(run)
        await this.#power.look(run)
      }
      throw error
    })
  }

  /** Its files, but for its sealed layers, which come next. */
  async makeForArrival(memory: MemoryState): Promise<void> {
    await assertFits(this.#host, this.#record, memory)
    await this.#makeFiles(memory.seedDisc ?? undefined)
  }

  async receiveLayer(name: string, layer: number, body: AsyncIterable<Uint8Array>): Promise<void> {
    const disk = this.#record.spec.disks.find((each) => each.name === name)
    if (!disk?.layers.slice(0, -1).includes(layer)) throw new ServiceError('invalid-request', 'No such layer was announced.')
    await this.#folder.receiveLayer(this.id, disk, layer, body)
  }

  /** A process that takes what comes: its disks over NBD, its memory. */
  async awaitMemory(signal: AbortSignal): Promise<Run> {
    const run = await startProcess(this.#host, this.#folder, this.#record, signal, { isFilled: true, isArriving: true })
    await awaitSource(run, this.#record.spec.disks)
    return run
  }

  /** What its guest wrote to its console where it was. */
  async receiveConsole(text: Uint8Array): Promise<void> {
    await this.#console.begin(text)
  }

  /** @param onHere told when the record says that it is here: from then on it is, whatever fails */
  async takeOver(
    run: Run,
    { token, wasPaused }: { readonly token: string; readonly wasPaused: boolean },
    onHere: () => void,
  ): Promise<void> {
    const here = { isLaunched: true, power: 'on', arrivalToken: token, transit: { wasPaused, hasArrived: true } } as const
    const awaitsPorts = this.#record.spec.networks.some(({ forwards }) => forwards.length > 0)
    await this.#kept.save((record) => ({ ...record, ...here, ...(awaitsPorts ? { awaitsPorts } : {}) }))
    onHere()
    failpoint('migration:committed')
    this.#power.follow(run)
    await this.#transit.bringBack(run)
    failpoint('migration:running')
    void this.#forwardLate(run)
    await this.#power.look(run)
    await this.#power.tell()
  }

  /** By which it came, where its source may still ask for it. */
  get arrivalToken(): string | undefined {
    return this.#record.arrivalToken
  }

  async sourceKnows(): Promise<void> {
    if (!this.#turns.isRemoved) await this.#kept.save(({ arrivalToken: _known, ...record }) => record)
  }

  async remove(): Promise<void> {
    await this.#turns.remove()
    await this.#power.run?.kill()
    await this.#power.over
    await this.#turns.disksChanged // they end, having no process to speak to
    await endWhatRuns(this.#folder)
    await unbound(this.#host, this.id)
    await this.#folder.remove()
  }

  /** What is under way ends by the host's `closing`. */
  async letGo(): Promise<void> {
    await this.#turns.started()
    this.#power.run?.letGo()
    this.#serial?.destroy()
    await this.#kept.settled()
  }

  /** What lets processors stand still or go on. */
  async #held<T>(work: () => Promise<T>): Promise<T> {
    this.#assertNotGiven()
    return this.#turns.hold(work)
  }

  async #inTransit<T>(work: (run: Run) => Promise<T>): Promise<T> {
    const transit = async () => {
      const run = this.#on()
      return work(run).finally(() => this.#power.look(run))
    }
    return this.#turns.changeDisks(() => this.#held(transit))
  }

  #endedBy(signal: AbortSignal | undefined): AbortSignal {
    const { closing } = this.#host
    return signal ? AbortSignal.any([signal, closing]) : closing
  }

  async #makeFiles(seed: Parameters<MachineFolder['create']>[1]): Promise<void> {
    const { spec, chosen } = this.#record
    const variables = firmwareOf(spec, chosen, this.#host.firmwares)?.variablesPath
    await this.#folder.create(this.#record, seed, variables)
  }

  async #powerOn(record: MachineRecord, signal: AbortSignal, memory?: MemoryState): Promise<void> {
    const before = this.#record
    const run = await startProcess(this.#host, this.#folder, record, signal, { isFilled: memory !== undefined })
    try {
      if (memory) await fill(run, this.#folder, record, memory, signal)
      await run.execute('cont')
      const { awaitsPorts: _hasThem, ...started } = record
      await this.#kept.save(() => ({ ...started, power: 'on', reason: null }))
      if (signal.aborted) throw cancelled(this.id)
    } catch (error) {
      await run.kill()
      await unbound(this.#host, this.id).catch(this.#host.onProblem)
      if (before.isLaunched) await this.#kept.save(() => before)
      throw error
    }
    this.#power.follow(run)
    await this.#power.tell()
    await this.#power.look(run) // it may have gone off before anybody listened
  }

  async #find(): Promise<void> {
    const { spec, power } = this.#record
    const found = await Run.find(this.#folder, spec)
    if (!found) {
      await unbound(this.#host, spec.id).catch(this.#host.onProblem) // tried again at its next start
      await this.#disks.takeUpOff().catch(this.#host.onProblem) // it is done again after the next change of bases
      if (power !== 'on') return
      const reason = await whyEnded(this.#folder, spec)
      await this.#kept.save((record) => ({ ...arrived(record), power: 'crashed', reason }))
      return
    }
    if (power !== 'on' && found.status === 'paused') {
      // it was given its memory, and did not go on from there: the files are as they were
      found.run.letGo()
      await endWhatRuns(this.#folder)
      return
    }
    if (power !== 'on') await this.#kept.save((record) => ({ ...record, power: 'on', reason: null }))
    this.#power.follow(found.run)
    if (found.status === null) return
    const told = async (error: unknown) => {
      if (!(await found.run.endsSoon())) this.#host.onProblem(error) // it may be going off meanwhile
    }
    await this.#transit.bringBack(found.run).catch(told)
    await thawFound(this.#folder.inRun(files.agent), this.#freezing)
    void this.#forwardLate(found.run)
    await this.#disks.takeUp(found.run).catch(told) // it is done again before disks are changed
    await this.#power.look(found.run)
  }

  /** Nobody waits for it, and who finds the machine goes on with it. */
  async #forwardLate(run: Run): Promise<void> {
    if (!this.#record.awaitsPorts) return
    const { closing, onProblem } = this.#host
    try {
      await forwardLate(run, this.#record.spec.networks, closing, onProblem)
      await this.#kept.save(({ awaitsPorts: _has, ...record }) => record)
    } catch (error) {
      if (!closing.aborted && this.#power.run === run) onProblem(error)
    }
  }

  async #sealQuietly(quiesceMs: number, mustBeQuiet: boolean, seal: () => Promise<Sealed['layers']>): Promise<Sealed> {
    const isOn = this.#power.now === 'running' || this.#power.now === 'paused'
    const crash = async (evidence: string): Promise<Sealed> => {
      if (mustBeQuiet && isOn) throw notQuiet(this.id, evidence)
      return { layers: await seal(), consistency: 'crash', evidence }
    }
    if (this.#power.now !== 'running') return crash(`the machine was ${this.#power.now}`)
    if (quiesceMs <= 0) return crash('the guest was not asked to stand still')
    if (!this.#record.spec.hardware.qemuGuestAgent) return crash('the machine has no channel for a guest agent')
    const agent = this.#folder.inRun(files.agent)
    const refuse = mustBeQuiet ? (evidence: string) => notQuiet(this.id, evidence) : undefined
    const { result, ...quiescence } = await quiesced(agent, quiesceMs, seal, { ...this.#freezing, refuse })
    return { layers: result, ...quiescence }
  }

  async #sealStill(whileStill: () => Promise<void>): Promise<Sealed['layers']> {
    const { run, now } = this.#power
    if (run && now === 'running') return this.#transit.seal(run, whileStill).finally(() => this.#power.look(run))
    const layers = await this.#disks.seal()
    await whileStill()
    return layers
  }

  get #freezing(): Freezing {
    return { note: this.#folder.frozen, onProblem: this.#host.onProblem }
  }

  #on(): Run {
    this.#assertNotGiven()
    if (this.#power.run) return this.#power.run
    throw wrongPower(this.id, 'is not on; start it')
  }

  #assertNotGiven(): void {
    if (this.givenTo) throw wrongPower(this.id, 'may be on another host by now, which is being asked; wait for its answer')
  }
}
