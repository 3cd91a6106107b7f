import type { FoundMachine, PowerState } from '../hypervisor.ts'
import { pressReset } from './buttons.ts'
import type { KeptRecord } from './kept-record.ts'
import type { MachineDisks } from './machine-disks.ts'
import type { MachineRecord } from './machine-folder.ts'
import { arrived, type MachineTransit } from './machine-transit.ts'
import type { QemuHost } from './qemu-host.ts'
import type { QmpEvent } from './qmp.ts'
import { type Run, STATUS } from './run.ts'
import { unbound } from './start-process.ts'

/**
 * Whether one machine has a process, how its processors stand, and why. By what the process tells of itself, the record is kept and those
 * who watch are told.
 */
export class MachinePower {
  readonly #host: QemuHost
  readonly #kept: KeptRecord
  readonly #disks: Pick<MachineDisks, 'names' | 'whyStopped'>
  readonly #transit: MachineTransit
  /** Told before the end of a run is recorded. */
  readonly #onEnd: () => void
  #run: Run | null = null
  #over: Promise<void> = Promise.resolve()
  #isPaused = false
  /** Why it stands still although nobody asked for that. */
  #standsFor: string | null = null
  #telling: Promise<void> = Promise.resolve()
  /** Takes the guest's own poweroff while somebody waits for it, to turn the machine on again. */
  onGuestOff: (() => void) | null = null

  constructor(
    host: QemuHost,
    kept: KeptRecord,
    of: {
      readonly disks: Pick<MachineDisks, 'names' | 'whyStopped'>
      readonly transit: MachineTransit
      readonly onEnd: () => void
    },
  ) {
    this.#host = host
    this.#kept = kept
    this.#disks = of.disks
    this.#transit = of.transit
    this.#onEnd = of.onEnd
  }

  get run(): Run | null {
    return this.#run
  }
  get isPaused(): boolean {
    return this.#isPaused
  }
  /** Settles when the end of the run is recorded. */
  get over(): Promise<void> {
    return this.#over
  }
  get now(): PowerState {
    if (this.#run) return this.#isPaused ? 'paused' : 'running'
    return this.#kept.now.power === 'crashed' ? 'crashed' : 'shutdown'
  }

  async describe(): Promise<FoundMachine> {
    const { id } = this.#kept.now.spec
    const reason = this.#run ? this.#standsFor : this.#kept.now.reason
    return { id, power: this.now, reason, ...(await this.#hasOfDisks()) }
  }

  async #hasOfDisks(): Promise<Pick<FoundMachine, 'disks' | 'diskBytes'>> {
    return { disks: await this.#disks.names(), diskBytes: await this.#kept.folder.diskBytes() }
  }

  /** From now on it is the process of this machine. */
  follow(run: Run): void {
    this.#run = run
    this.#isPaused = false
    this.#standsFor = null
    run.onEvent((event) => void this.#heard(run, event).catch(this.#host.onProblem))
    this.#over = run.ended.then(() => this.#hasEnded(run)).catch(this.#host.onProblem)
  }

  /** Where it cannot be asked now, it is when it answers again. */
  async look(run: Run): Promise<void> {
    const status = await run.execute('query-status').then(
      (answer) => answer.status,
      () => null,
    )
    if (status) await this.#stands(run, status)
  }

  async see({ isPaused }: { readonly isPaused: boolean }): Promise<void> {
    if (!this.#run || this.#isPaused === isPaused) return
    this.#isPaused = isPaused
    if (!isPaused) this.#standsFor = null
    await this.tell()
  }

  async reset(run: Run): Promise<void> {
    await pressReset(run)
    if (this.#run === run && !this.#transit.isUnderWay) await run.execute('cont') // it stood still if it was off or paused; else this does nothing
    await this.see({ isPaused: false })
  }

  /** One that has crashed counts as shut down. */
  async forgetCrash(): Promise<void> {
    if (this.#kept.now.power !== 'crashed') return
    await this.#kept.save((record) => ({ ...record, power: 'shutdown', reason: null }))
    await this.tell()
  }

  /** In the order in which things happened. */
  async tell(): Promise<void> {
    const [power, reason] = [this.now, this.#run ? this.#standsFor : this.#kept.now.reason]
    const { id } = this.#kept.now.spec
    const tell = async () => this.#host.tell({ id, power, reason, ...(await this.#hasOfDisks()) })
    this.#telling = this.#telling.then(tell).catch(this.#host.onProblem)
    await this.#telling
  }

  async #stands(run: Run, status: string): Promise<void> {
    if (status === 'io-error') this.#standsFor ??= 'a disk of it failed or has no room: see to that, and resume it'
    if (status === 'shutdown' && !this.onGuestOff) await this.#guestIsOff(run)
    else if (!this.#transit.isUnderWay) await this.see({ isPaused: status !== 'running' })
  }

  async #heard(run: Run, { name, data }: QmpEvent): Promise<void> {
    if (run !== this.#run) return
    if (name === STATUS && this.#kept.now.transit && !this.#transit.isUnderWay) {
      await this.#transit.bringBack(run)
      await this.look(run)
    } else if (name === STATUS) await this.#stands(run, String(data.status))
    else if (name === 'SHUTDOWN' && data.reason === 'guest-shutdown') {
      if (this.onGuestOff) this.onGuestOff()
      else await this.#guestIsOff(run)
    } else if (name === 'SHUTDOWN') run.isGoing = true
    else if (name === 'BLOCK_IO_ERROR' && data.action === 'stop') this.#standsFor = this.#disks.whyStopped(data['node-name'])
    else if (this.#transit.isUnderWay) return
    else if (name === 'STOP' && !run.isGoing && !this.onGuestOff) await this.see({ isPaused: true })
    else if (name === 'RESUME') await this.see({ isPaused: false })
  }

  /** The process waits to be ended, since a reset might have been wanted instead. */
  async #guestIsOff(run: Run): Promise<void> {
    run.isGoing = true
    await run.quit()
    await this.#over
  }

  /** Until its end is recorded the machine counts as on, so that nobody sees it off without knowing why. */
  async #hasEnded(run: Run): Promise<void> {
    this.#onEnd()
    const { spec } = this.#kept.now
    await unbound(this.#host, spec.id).catch(this.#host.onProblem)
    const reason = run.isToEnd ? null : await run.why(spec)
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
    await this.tell()
  }
}
