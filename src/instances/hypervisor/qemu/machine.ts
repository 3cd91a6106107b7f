import { lstat } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { isServiceError, ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'
import type { BlockSource } from '../../../disk/block/block-source.ts'
import type { HydrateOptions, NewBase, Sealed } from '../disk-layers.ts'
import type { FoundMachine, MachineChanges, MachineDisk, MachineSpec, PowerState } from '../hypervisor.ts'
import type { MemoryState, SavedMemory, SaveOptions } from '../machine-memory.ts'
import type { Migrated, MigrationTarget } from '../machine-migration.ts'
import { changed } from '../machine-spec.ts'
import { assertSameShape } from '../memory-shape.ts'
import { awaitSource } from './await-source.ts'
import { pressPower, pressReset } from './buttons.ts'
import { confine, unconfine } from './cgroup.ts'
import { type Chosen, firmwareOf, planMachine } from './command-line.ts'
import { ConsoleLog } from './console-log.ts'
import { lastWord } from './departure.ts'
import type { Firmware } from './firmware.ts'
import { KeptRecord } from './kept-record.ts'
import { MachineDisks } from './machine-disks.ts'
import { files } from './machine-files.ts'
import { fileProblem, keptSpec, MachineFolder, type MachineRecord } from './machine-folder.ts'
import { arrived, MachineTransit } from './machine-transit.ts'
import type { Offer } from './migration-link.ts'
import type { ProcessUser } from './process.ts'
import type { QmpEvent } from './qmp.ts'
import { type Freezing, quiesced, thawFound } from './quiesce.ts'
import { resumeMemory } from './resume-memory.ts'
import { cancelled, endWhatRuns, Run, STATUS, whyEnded } from './run.ts'
import type { Outgoing } from './save-memory.ts'
import { shapeOf } from './shape-of-machine.ts'
import { boundWords } from './words.ts'

/** What the machines of a host share. */
export interface QemuHost {
  readonly root: string
  readonly program: string
  readonly qemuVersion: string
  readonly accelerator: 'kvm' | 'tcg'
  readonly firmwares: readonly Firmware[]
  readonly user: ProcessUser | undefined
  /** A control group that is divided among the machines. */
  readonly cgroup: string | undefined
  /** Aborted when the hypervisor is closed. */
  readonly closing: AbortSignal
  /** Tells those who watch. */
  readonly tell: (machine: FoundMachine) => void
  /** Of what goes wrong when nobody waits for it. */
  readonly onProblem: (error: unknown) => void
}

/** QEMU frees what it had of the guest. */
const ENDS_WITHIN_MS = 30_000

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
  #run: Run | null = null
  /** Settles when the end of the run is recorded. */
  #over: Promise<void> = Promise.resolve()
  #isPaused = false
  /** Why it stands still although nobody asked for that. */
  #standsFor: string | null = null
  #isRemoved = false
  #isHydrating = false
  /** A launch or start under way. */
  #starting: { readonly cut: AbortController; readonly settled: Promise<void> } | null = null
  /** Takes the guest's own poweroff while somebody waits for it, to turn the machine on again. */
  #onGuestOff: (() => void) | null = null
  #serial: Socket | null = null
  #telling: Promise<void> = Promise.resolve()
  /** What changes the disks: one after the other. */
  #turns: Promise<void> = Promise.resolve()
  #holding: Promise<void> = Promise.resolve()

  private constructor(host: QemuHost, record: MachineRecord) {
    this.#host = host
    this.#folder = new MachineFolder(host.root, record.spec.id, host.user)
    this.#kept = new KeptRecord(this.#folder, record)
    this.#disks = new MachineDisks(this.#kept, () => this.#run)
    this.#transit = new MachineTransit(this.#kept, this.#disks, host)
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
    if (host.cgroup) await unconfine(host.cgroup, id)
    await folder.remove()
  }

  get id(): string {
    return this.#record.spec.id
  }
  get isLaunched(): boolean {
    return this.#record.isLaunched
  }
  get #record(): MachineRecord {
    return this.#kept.now
  }
  get #power(): PowerState {
    if (this.#run) return this.#isPaused ? 'paused' : 'running'
    return this.#record.power === 'crashed' ? 'crashed' : 'shutdown'
  }

  get folder(): MachineFolder {
    return this.#folder
  }

  get #reason(): string | null {
    return this.#run ? this.#standsFor : this.#record.reason
  }

  async describe(): Promise<FoundMachine> {
    const { id } = this
    return { id, power: this.#power, reason: this.#reason, diskBytes: await this.#folder.diskBytes() }
  }

  /** Failed, nothing of it is left. */
  async launch({ seed, memory }: Pick<MachineSpec, 'seed' | 'memory'>, signal?: AbortSignal): Promise<void> {
    await this.#start(signal, async (ended) => {
      const { spec, chosen } = this.#record
      let isMine = false
      try {
        const variables = firmwareOf(spec, chosen, this.#host.firmwares)?.variablesPath
        await this.#assertFits(memory)
        if (ended.aborted) throw cancelled(spec.id)
        isMine = true
        await this.#folder.create(this.#record, seed ?? memory?.seedDisc ?? undefined, variables).catch((error) => {
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
    if (this.#run || this.#starting) throw wrongPower(this.id, 'is on already; stop it first')
    if (this.#isRemoved) throw wrongPower(this.id, 'is being removed')
    changed(this.#record.spec, changes) // refused now rather than later
    const turns = this.#turns
    await this.#start(signal, async (ended) => {
      await turns
      await this.#disks.takeUpOff()
      await this.#assertFits(changes.memory)
      await this.#powerOn({ ...this.#record, spec: changed(this.#record.spec, changes) }, ended, changes.memory)
    })
  }

  async stop(graceMs: number): Promise<void> {
    await this.#starting?.settled
    const run = this.#run
    if (!run) return this.#forgetCrash()
    if (!this.#isPaused && graceMs > 0) await pressPower(run, graceMs, run.ended, this.#host.closing)
    await run.quit()
    await this.#over
  }

  async reboot(graceMs: number): Promise<void> {
    await this.#starting?.settled
    this.#assertNotGiven()
    while (this.#transit.isUnderWay) await this.#holding
    const run = this.#on()
    if (!this.#isPaused && graceMs > 0) {
      const guestOff = Promise.withResolvers<void>()
      this.#onGuestOff = guestOff.resolve
      try {
        await pressPower(run, graceMs, Promise.race([guestOff.promise, run.ended]), this.#host.closing)
        if (this.#run === run) await this.#reset(run)
      } finally {
        this.#onGuestOff = null
      }
    } else await this.#reset(run)
    if (this.#run !== run) throw wrongPower(this.id, 'went off meanwhile; start it')
  }

  async pause(): Promise<void> {
    await this.#held(async () => {
      const run = this.#on()
      if (this.#isPaused) throw wrongPower(this.id, 'is paused already')
      await run.execute('stop')
      await this.#see({ isPaused: true })
    })
  }

  async resume(): Promise<void> {
    await this.#held(async () => {
      const run = this.#on()
      if (!this.#isPaused) throw wrongPower(this.id, 'is not paused')
      await run.execute('cont')
      await this.#see({ isPaused: false })
    })
  }

  consoleLog(bytes: number): Promise<Uint8Array> {
    return this.#console.tail(bytes)
  }

  /** Keeps what a guest makes QEMU write within bounds. */
  async trim(): Promise<void> {
    if (!this.#run) return
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

  async seal(quiesceMs: number): Promise<Sealed> {
    return this.#inTurn(() => this.#sealQuietly(quiesceMs))
  }

  async rebase(bases: Readonly<Record<string, NewBase>>): Promise<void> {
    return this.#inTurn(() => this.#disks.rebase(bases))
  }

  async attach(disk: MachineDisk): Promise<void> {
    return this.#inTurn(() => this.#disks.attach(disk))
  }

  async detach(disk: string, graceMs: number): Promise<void> {
    return this.#inTurn(() => this.#disks.detach(disk, graceMs))
  }

  /** It has its turn as others have, but nobody waits for it: it may take hours. */
  async hydrate(disk: string, { signal, ...options }: HydrateOptions): Promise<void> {
    this.#assertNotHydrating()
    const { closing } = this.#host
    const ended = signal ? AbortSignal.any([signal, closing]) : closing
    const hydrated = this.#inTurn(() => this.#disks.hydrate(disk, { ...options, signal: ended }))
    this.#isHydrating = true
    await hydrated.finally(() => {
      this.#isHydrating = false
    })
  }

  async saveMemory(sink: Outgoing['sink'], { signal, ...options }: SaveOptions): Promise<SavedMemory> {
    const save = async () => {
      const run = this.#on()
      const ended = AbortSignal.any([this.#host.closing, ...(signal ? [signal] : [])])
      return this.#transit.save(run, this.#isPaused, sink, { ...options, signal: ended }).finally(() => this.#look(run))
    }
    return this.#inTurn(() => this.#held(save))
  }

  /** Settles when it goes on there; the caller removes it here. */
  async migrateTo(target: MigrationTarget, signal?: AbortSignal): Promise<Migrated> {
    const leave = async () => {
      const run = this.#on()
      const { closing } = this.#host
      const ends = { signal: AbortSignal.any([closing, ...(signal ? [signal] : [])]), closing }
      return this.#transit.leave(run, this.#isPaused, target, ends).finally(() => this.#look(run))
    }
    return this.#inTurn(() => this.#held(leave))
  }

  get givenTo(): MigrationTarget | undefined {
    return this.#record.transit?.givenTo
  }

  /** Of one that was found given away. Settles when it goes on there. @throws ServiceError `unavailable`: it goes on here; `cancelled` */
  async hearLastWord(target: MigrationTarget): Promise<void> {
    await lastWord(this.#kept, target, this.#host.closing).catch(async (error) => {
      const run = this.#run
      if (!this.givenTo && run) {
        await this.#transit.bringBack(run)
        await this.#look(run)
      }
      throw error
    })
  }

  /** Its files, but for its sealed layers, which come next. */
  async makeForArrival(memory: MemoryState): Promise<void> {
    const { spec, chosen } = this.#record
    await this.#assertFits(memory)
    await this.#folder.create(
      this.#record,
      memory.seedDisc ?? undefined,
      firmwareOf(spec, chosen, this.#host.firmwares)?.variablesPath,
    )
  }

  async receiveLayer(name: string, layer: number, body: AsyncIterable<Uint8Array>): Promise<void> {
    const disk = this.#record.spec.disks.find((each) => each.name === name)
    if (!disk?.layers.slice(0, -1).includes(layer)) throw new ServiceError('invalid-request', 'No such layer was announced.')
    await this.#folder.receiveLayer(this.id, disk, layer, body)
  }

  /** A process that takes what comes: its disks over NBD, its memory. */
  async awaitMemory(signal: AbortSignal): Promise<Run> {
    const run = await this.#startProcess(this.#record, signal, true)
    await awaitSource(run, this.#record.spec.disks)
    return run
  }

  /** @param onHere told when the record says that it is here: from then on it is, whatever fails */
  async takeOver(
    run: Run,
    { token, wasPaused }: { readonly token: string; readonly wasPaused: boolean },
    onHere: () => void,
  ): Promise<void> {
    const here = { isLaunched: true, power: 'on', arrivalToken: token, transit: { wasPaused, hasArrived: true } } as const
    await this.#kept.save((record) => ({ ...record, ...here }))
    onHere()
    failpoint('migration:committed')
    this.#follow(run)
    await this.#transit.bringBack(run)
    failpoint('migration:running')
    await this.#look(run)
    await this.#tell()
  }

  /** By which it came, where its source may still ask for it. */
  get arrivalToken(): string | undefined {
    return this.#record.arrivalToken
  }

  async sourceKnows(): Promise<void> {
    if (!this.#isRemoved) await this.#kept.save(({ arrivalToken: _known, ...record }) => record)
  }

  async openLayer(disk: string, layer: number): Promise<BlockSource> {
    return this.#disks.openLayer(disk, layer)
  }

  async remove(): Promise<void> {
    this.#isRemoved = true
    this.#starting?.cut.abort()
    await this.#starting?.settled
    await this.#run?.kill()
    await this.#over
    await this.#turns // they end, having no process to speak to
    await endWhatRuns(this.#folder)
    await this.#unconfine()
    await this.#folder.remove()
  }

  /** What is under way ends by the host's `closing`. */
  async letGo(): Promise<void> {
    await this.#starting?.settled
    this.#run?.letGo()
    this.#serial?.destroy()
    await this.#kept.settled()
  }

  /** What changes the disks waits for what was asked before it, a start too. */
  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    this.#assertNotHydrating()
    const before = Promise.all([this.#turns, this.#starting?.settled])
    const done = before.then(() => {
      if (this.#isRemoved) throw wrongPower(this.id, 'is being removed')
      return work()
    })
    this.#turns = done.then(
      () => {},
      () => {},
    )
    return done
  }

  #assertNotHydrating(): void {
    if (this.#isHydrating) throw wrongPower(this.id, 'is copying a disk; wait for its end, or cancel it')
  }

  /** What lets processors stand still or go on: one after the other. */
  async #held<T>(work: () => Promise<T>): Promise<T> {
    this.#assertNotGiven()
    const done = this.#holding.then(work)
    this.#holding = done.then(
      () => {},
      () => {},
    )
    return done
  }

  async #start(signal: AbortSignal | undefined, work: (ended: AbortSignal) => Promise<void>): Promise<void> {
    const cut = new AbortController()
    const settled = Promise.withResolvers<void>()
    this.#starting = { cut, settled: settled.promise }
    try {
      await work(AbortSignal.any([cut.signal, this.#host.closing, ...(signal ? [signal] : [])]))
    } finally {
      this.#starting = null
      settled.resolve()
    }
  }

  /** @throws ServiceError `invalid-request`, saying how the machine differs from the one whose memory it is */
  async #assertFits(memory: MemoryState | undefined): Promise<void> {
    const { spec, chosen } = this.#record
    if (memory) assertSameShape(memory.shape, await shapeOf(spec, chosen, this.#host))
  }

  /** @param isFilled it is to be given its memory */
  async #startProcess({ spec, chosen }: MachineRecord, signal: AbortSignal, isFilled: boolean): Promise<Run> {
    const { accelerator, cgroup, firmwares, program, user } = this.#host
    const plan = planMachine(spec, chosen, { accelerator, firmware: firmwareOf(spec, chosen, firmwares), isFilled })
    await this.#folder.handOver(spec.id)
    const bound = async (pid: number) => (cgroup ? confine(cgroup, spec, accelerator, pid) : undefined)
    return Run.start(program, plan, this.#folder, spec, { user, confine: bound, signal }).catch(async (error) => {
      await this.#unconfine()
      throw fileProblem(error, spec.id)
    })
  }

  async #powerOn(record: MachineRecord, signal: AbortSignal, memory?: MemoryState): Promise<void> {
    const before = this.#record
    const run = await this.#startProcess(record, signal, memory !== undefined)
    try {
      if (memory) await this.#fill(run, memory, signal)
      await run.execute('cont')
      await this.#kept.save(() => ({ ...record, power: 'on', reason: null }))
      if (signal.aborted) throw cancelled(this.id)
    } catch (error) {
      await run.kill()
      await this.#unconfine()
      if (before.isLaunched) await this.#kept.save(() => before)
      throw error
    }
    this.#follow(run)
    await this.#tell()
    await this.#look(run) // it may have gone off before anybody listened
  }

  async #fill(run: Run, { open }: MemoryState, signal: AbortSignal): Promise<void> {
    try {
      await resumeMemory(run, this.#folder, open, signal)
      failpoint('memory:filled')
    } catch (error) {
      if (signal.aborted) throw cancelled(this.id)
      if (!isServiceError(error, 'unavailable')) throw error
      // one that cannot use what it was given ends by itself a moment later
      const words = await Promise.race([
        run.ended.then(() => run.why(this.#record.spec)),
        pause(ENDS_WITHIN_MS, null, { ref: false }),
      ])
      if (words === null) throw error
      const message = `QEMU does not take the memory of the machine ${this.id}: ${words}`
      throw new ServiceError('unavailable', message, { id: this.id }, { cause: error })
    }
  }

  async #find(): Promise<void> {
    const { spec, power } = this.#record
    const found = await Run.find(this.#folder, spec)
    if (!found) {
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
    this.#follow(found.run)
    if (found.status === null) return
    await this.#transit.bringBack(found.run).catch(this.#host.onProblem)
    await thawFound(this.#folder.inRun(files.agent), this.#freezing)
    await this.#disks.takeUp(found.run).catch(this.#host.onProblem) // it is done again before disks are changed
    await this.#look(found.run)
  }

  /** Where it cannot be asked now, it is when it answers again. */
  async #look(run: Run): Promise<void> {
    const status = await run.execute('query-status').then(
      (answer) => answer.status,
      () => null,
    )
    if (status) await this.#stands(run, status)
  }

  async #stands(run: Run, status: string): Promise<void> {
    if (status === 'io-error') this.#standsFor ??= 'a disk of it failed or has no room: see to that, and resume it'
    if (status === 'shutdown' && !this.#onGuestOff) await this.#guestIsOff(run)
    else if (!this.#transit.isUnderWay) await this.#see({ isPaused: status !== 'running' })
  }

  #follow(run: Run): void {
    this.#run = run
    this.#isPaused = false
    this.#standsFor = null
    run.onEvent((event) => void this.#heard(run, event).catch(this.#host.onProblem))
    this.#over = run.ended.then(() => this.#hasEnded(run)).catch(this.#host.onProblem)
  }

  async #heard(run: Run, { name, data }: QmpEvent): Promise<void> {
    if (run !== this.#run) return
    if (name === STATUS && this.#record.transit && !this.#transit.isUnderWay) {
      await this.#transit.bringBack(run)
      await this.#look(run)
    } else if (name === STATUS) await this.#stands(run, String(data.status))
    else if (name === 'SHUTDOWN' && data.reason === 'guest-shutdown') {
      if (this.#onGuestOff) this.#onGuestOff()
      else await this.#guestIsOff(run)
    } else if (name === 'SHUTDOWN') run.isGoing = true
    else if (name === 'BLOCK_IO_ERROR' && data.action === 'stop') this.#standsFor = this.#disks.whyStopped(data['node-name'])
    else if (this.#transit.isUnderWay) return
    else if (name === 'STOP' && !run.isGoing && !this.#onGuestOff) await this.#see({ isPaused: true })
    else if (name === 'RESUME') await this.#see({ isPaused: false })
  }

  /** The process waits to be ended, since a reset might have been wanted instead. */
  async #guestIsOff(run: Run): Promise<void> {
    run.isGoing = true
    await run.quit()
    await this.#over
  }

  /** Until its end is recorded the machine counts as on, so that nobody sees it off without knowing why. */
  async #hasEnded(run: Run): Promise<void> {
    this.#serial?.destroy()
    await this.#unconfine()
    const reason = run.isToEnd ? null : await run.why(this.#record.spec)
    const ended = (record: MachineRecord): MachineRecord => ({
      ...arrived(record),
      power: run.isToEnd ? 'shutdown' : 'crashed',
      reason,
    })
    await this.#kept.save(ended).catch((error) => {
      this.#kept.forceUnwritten(ended) // it will be found to have crashed, when it is found; for now it is known
      this.#host.onProblem(error)
    })
    this.#run = null
    this.#isPaused = false
    this.#standsFor = null
    await this.#tell()
  }

  async #sealQuietly(quiesceMs: number): Promise<Sealed> {
    const crash = (layers: Sealed['layers'], evidence: string): Sealed => ({ layers, consistency: 'crash', evidence })
    if (!this.#run || this.#isPaused) return crash(await this.#disks.seal(), `the machine was ${this.#power}`)
    if (quiesceMs <= 0) return crash(await this.#disks.seal(), 'the guest was not asked to stand still')
    if (!this.#record.spec.hardware.qemuGuestAgent)
      return crash(await this.#disks.seal(), 'the machine has no channel for a guest agent')
    const agent = this.#folder.inRun(files.agent)
    const { result, quiescence } = await quiesced(agent, quiesceMs, () => this.#disks.seal(), this.#freezing)
    return { layers: result, consistency: quiescence.held ? 'file-system' : 'crash', evidence: quiescence.evidence }
  }

  get #freezing(): Freezing {
    return { note: this.#folder.frozen, onProblem: this.#host.onProblem }
  }

  async #unconfine(): Promise<void> {
    if (this.#host.cgroup) await unconfine(this.#host.cgroup, this.id)
  }

  async #forgetCrash(): Promise<void> {
    if (this.#record.power !== 'crashed') return
    await this.#kept.save((record) => ({ ...record, power: 'shutdown', reason: null }))
    await this.#tell()
  }

  async #reset(run: Run): Promise<void> {
    await pressReset(run)
    if (this.#run === run && !this.#transit.isUnderWay) await run.execute('cont') // it stood still if it was off or paused; else this does nothing
    await this.#see({ isPaused: false })
  }

  async #see({ isPaused }: { readonly isPaused: boolean }): Promise<void> {
    if (!this.#run || this.#isPaused === isPaused) return
    this.#isPaused = isPaused
    if (!isPaused) this.#standsFor = null
    await this.#tell()
  }

  /** In the order in which things happened. */
  async #tell(): Promise<void> {
    const found = { id: this.id, power: this.#power, reason: this.#reason }
    const tell = async () => this.#host.tell({ ...found, diskBytes: await this.#folder.diskBytes() })
    this.#telling = this.#telling.then(tell).catch(this.#host.onProblem)
    await this.#telling
  }

  #on(): Run {
    this.#assertNotGiven()
    if (this.#run) return this.#run
    throw wrongPower(this.id, 'is not on; start it')
  }

  #assertNotGiven(): void {
    if (this.givenTo) throw wrongPower(this.id, 'may be on another host by now, which is being asked; wait for its answer')
  }
}

const wrongPower = (id: string, how: string): ServiceError => new ServiceError('conflict', `The machine ${id} ${how}.`, { id })
