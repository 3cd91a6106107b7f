import { chmod, mkdir, readdir } from 'node:fs/promises'
import { availableParallelism, totalmem } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'
import type { BlockSource } from '../../../disk/block/block-source.ts'
import type { DiskLayers, HydrateOptions, NewBase, Sealed, SealOptions } from '../disk-layers.ts'
import type { DiskPlugs } from '../disk-plugs.ts'
import type { FoundMachine, Hypervisor, HypervisorAbilities, MachineChanges, MachineDisk, MachineSpec } from '../hypervisor.ts'
import type { MachineMemory, SavedMemory, SaveOptions } from '../machine-memory.ts'
import type { MachineMigration, Migrated, MigrationTarget } from '../machine-migration.ts'
import { assertSpec, isMachineId } from '../machine-spec.ts'
import { Arrivals, checkedOffer } from './arrivals.ts'
import { choose } from './command-line.ts'
import { type Firmware, findFirmwares } from './firmware.ts'
import { triedAccelerators } from './kept-trial.ts'
import { Machine } from './machine.ts'
import { files } from './machine-files.ts'
import { asked } from './migration-link.ts'
import type { ProcessUser } from './process.ts'
import { findProgram, type QemuProgram } from './program.ts'
import type { QemuHost } from './qemu-host.ts'
import { inKvmGroup } from './system-user.ts'

export interface QemuOptions {
  /** Of the machines; made where it is absent, with the folders above it there. */
  readonly folder: string
  /** Absent: what is found by trying. */
  readonly accelerator?: 'kvm' | 'tcg'
  /** Whom QEMU runs as; only root can choose. Sockets of base disks must be within this user's reach. Absent: whoever we are. */
  readonly user?: ProcessUser
  /** A folder of control groups, version 2, that the service may divide. Absent: machines have no bounds but the host's. */
  readonly cgroup?: string
  /** Name or path. */
  readonly program?: string
  /** With descriptions of UEFI firmware; absent: where distributions put them. */
  readonly firmwareFolders?: readonly string[]
  readonly onProblem: (error: unknown) => void
}

const MAX_SOCKET_PATH_BYTES = 107 // `sun_path` of unix(7), less its zero
const TRIM_MS = 10_000 // a guest writes a few MiB to its console in that time
/** One program runs both. */
const ARCHITECTURES = ['x86_64', 'i686']

/** Machines as processes of QEMU. docs/decisions/qemu.md says how and why. */
export class QemuHypervisor implements Hypervisor, DiskLayers, DiskPlugs, MachineMemory, MachineMigration {
  readonly type = 'QEMU'
  readonly abilities: HypervisorAbilities
  readonly #host: QemuHost
  readonly #program: QemuProgram
  readonly #machines = new Map<string, Machine>()
  /** Machines whose folders say nothing that can be relied on: they may run, and can be removed. */
  readonly #unreadable = new Map<string, ServiceError>()
  /** Those that may come from elsewhere, and are not here. */
  readonly #expected = new Map<string, MachineSpec>()
  readonly #watchers = new Set<(machine: FoundMachine) => void>()
  readonly #closing: AbortController
  #arrivals: Arrivals | null = null
  readonly #trimming: NodeJS.Timeout
  /** Calls under way, which end before `close` does. */
  readonly #calls = new Set<Promise<unknown>>()

  private constructor(host: Omit<QemuHost, 'closing' | 'tell'>, program: QemuProgram, abilities: HypervisorAbilities) {
    this.#closing = new AbortController()
    this.#host = { ...host, closing: this.#closing.signal, tell: (machine) => this.#tell(machine) }
    this.#program = program
    this.abilities = abilities
    this.#trimming = setInterval(() => void this.#trim(), TRIM_MS).unref()
  }

  /**
   * Tries what the host can do, finds the machines of its folder, and sweeps away what was not launched to the end.
   * @throws ServiceError `unavailable` where there is no QEMU, or it cannot run machines; `invalid-request` for the folder
   */
  static async open(options: QemuOptions): Promise<QemuHypervisor> {
    const { folder, onProblem } = options
    await makeRoot(folder, options.user)
    const program = await findProgram(options.program ?? 'qemu-system-x86_64')
    const user = options.user && (await inKvmGroup(options.user))
    const [accelerators, firmwares] = await Promise.all([
      options.accelerator ? [options.accelerator] : triedAccelerators(folder, program.path, user),
      findFirmwares(options.firmwareFolders),
    ])
    const [accelerator] = accelerators
    if (!accelerator) {
      throw new ServiceError('unavailable', `${program.path} runs no machine, with kvm or without; try one by hand.`)
    }
    const host = {
      root: folder,
      program: program.path,
      qemuVersion: program.version,
      accelerator,
      firmwares,
      user,
      cgroup: options.cgroup,
      onProblem,
    }
    const hypervisor = new QemuHypervisor(host, program, abilitiesOf(program, accelerators, firmwares))
    await hypervisor.#find()
    await hypervisor.#listen()
    return hypervisor
  }

  async launch(spec: MachineSpec, signal?: AbortSignal): Promise<void> {
    return this.#call(async () => {
      assertSpec(spec, this.abilities)
      const chosen = choose(spec, this.#program, this.#host.firmwares)
      if (this.#isTaken(spec.id)) throw taken(spec.id)
      const machine = Machine.planned(this.#host, spec, chosen)
      this.#machines.set(spec.id, machine)
      try {
        await machine.launch(spec, signal)
      } catch (error) {
        if (this.#machines.get(spec.id) === machine) this.#machines.delete(spec.id)
        throw error
      }
    })
  }

  async start(id: string, { memory, ...changes }: MachineChanges = {}, signal?: AbortSignal): Promise<void> {
    return this.#call(() => this.#machine(id).start({ ...structuredClone(changes), ...(memory ? { memory } : {}) }, signal))
  }

  async list(): Promise<readonly FoundMachine[]> {
    return this.#call(() =>
      Promise.all([
        ...[...this.#machines.values()].filter((each) => each.isLaunched).map((each) => each.describe()),
        ...[...this.#unreadable].map(async ([id, { message }]) => asCrashed(id, message)),
      ]),
    )
  }

  async show(id: string): Promise<FoundMachine> {
    return this.#call(() => this.#machine(id).describe())
  }

  async stop(id: string, graceMs: number): Promise<void> {
    return this.#call(() => this.#machine(id).stop(graceMs))
  }

  async reboot(id: string, graceMs: number): Promise<void> {
    return this.#call(() => this.#machine(id).reboot(graceMs))
  }

  async pause(id: string): Promise<void> {
    return this.#call(() => this.#machine(id).pause())
  }

  async resume(id: string): Promise<void> {
    return this.#call(() => this.#machine(id).resume())
  }

  async consoleLog(id: string, bytes: number): Promise<Uint8Array> {
    return this.#call(() => this.#machine(id).consoleLog(bytes))
  }

  async serial(id: string): Promise<Duplex> {
    return this.#call(() => this.#machine(id).serial())
  }

  async seal(id: string, quiesceMs: number, options: SealOptions = {}): Promise<Sealed> {
    return this.#call(() => this.#machine(id).seal(quiesceMs, options))
  }

  async openLayer(id: string, disk: string, layer: number): Promise<BlockSource> {
    return this.#call(() => this.#machine(id).openLayer(disk, layer))
  }

  async rebase(id: string, bases: Readonly<Record<string, NewBase>>): Promise<void> {
    return this.#call(() => this.#machine(id).rebase(structuredClone(bases)))
  }

  async hydrate(id: string, disk: string, options: HydrateOptions = {}): Promise<void> {
    return this.#call(() => this.#machine(id).hydrate(disk, options))
  }

  async attach(id: string, disk: MachineDisk): Promise<void> {
    return this.#call(() => this.#machine(id).attach(structuredClone(disk)))
  }

  async detach(id: string, diskName: string, graceMs: number): Promise<void> {
    return this.#call(() => this.#machine(id).detach(diskName, graceMs))
  }

  async saveMemory(
    id: string,
    sink: (body: AsyncIterable<Uint8Array>) => Promise<void>,
    options: SaveOptions = {},
  ): Promise<SavedMemory> {
    return this.#call(() => this.#machine(id).saveMemory(sink, options))
  }

  async assertResumable(spec: MachineSpec): Promise<void> {
    return this.#call(async () => {
      assertSpec(spec, this.abilities)
      await Machine.planned(this.#host, spec, choose(spec, this.#program, this.#host.firmwares)).assertFits(spec.memory)
    })
  }

  async receive(spec: MachineSpec): Promise<MigrationTarget> {
    return this.#call(async () => {
      const { seed: _itsOwn, memory: _comes, ...machine } = spec
      assertSpec(machine, this.abilities)
      choose(machine, this.#program, this.#host.firmwares)
      if (this.#isTaken(spec.id)) throw taken(spec.id)
      this.#expected.set(spec.id, structuredClone(machine))
      return this.#arrivals!.expect(spec.id)
    })
  }

  async withdraw(id: string): Promise<void> {
    return this.#call(async () => this.#arrivals?.withdraw(id))
  }

  async specOf(id: string): Promise<MachineSpec> {
    return this.#call(async () => this.#machine(id).spec)
  }

  async migrateTo(id: string, target: MigrationTarget, { signal }: { readonly signal?: AbortSignal } = {}): Promise<Migrated> {
    return this.#call(async () => {
      const machine = this.#machine(id)
      const migrated = await machine.migrateTo(target, signal)
      await this.#hasLeft(machine, target)
      return migrated
    })
  }

  async remove(id: string): Promise<void> {
    return this.#call(async () => {
      await this.#arrivals?.withdraw(id)
      const machine = this.#machines.get(id)
      if (machine?.arrivalToken) await this.#arrivals?.mark(machine.arrivalToken)
      await machine?.remove()
      if (this.#unreadable.has(id)) await Machine.removeUnread(this.#host, id)
      this.#unreadable.delete(id)
      if (machine && this.#machines.get(id) === machine) this.#machines.delete(id)
    })
  }

  watch(listener: (machine: FoundMachine) => void): () => void {
    this.#assertOpen()
    const own = (machine: FoundMachine) => listener(machine) // the same listener may watch twice
    this.#watchers.add(own)
    return () => this.#watchers.delete(own)
  }

  async close(): Promise<void> {
    this.#closing.abort()
    clearInterval(this.#trimming)
    this.#watchers.clear()
    await Promise.allSettled(this.#calls)
    await this.#arrivals?.close()
    await Promise.all([...this.#machines.values()].map((machine) => machine.letGo()))
  }

  async #find(): Promise<void> {
    const ids = (await readdir(this.#host.root)).filter(isMachineId)
    await Promise.all(
      ids.map(async (id) => {
        try {
          const machine = await Machine.found(this.#host, id)
          if (machine) this.#machines.set(id, machine)
        } catch (error) {
          this.#host.onProblem(error) // one that cannot be read must not keep the others from being found
          this.#unreadable.set(id, unreadable(id, error))
        }
      }),
    )
  }

  /** Where machines of other hypervisors come to. */
  async #listen(): Promise<void> {
    this.#arrivals = await Arrivals.listen({
      root: this.#host.root,
      make: (id, offer) => this.#makeArriving(id, offer),
      forget: (id) => {
        this.#expected.delete(id)
        if (this.#machines.get(id)?.isLaunched === false) this.#machines.delete(id)
      },
      arrivedBy: (token) => this.#arrivedBy(token),
      onProblem: this.#host.onProblem,
    })
    for (const machine of this.#machines.values()) void this.#settleGiven(machine)
  }

  /** @throws ServiceError `unavailable` where it may be one whose record cannot be read: who is told "no" lets its own copy go on */
  #arrivedBy(token: string): Machine | undefined {
    const found = [...this.#machines.values()].find((machine) => machine.arrivalToken === token)
    if (found || this.#unreadable.size === 0) return found
    const ids = [...this.#unreadable.keys()].join(', ')
    throw new ServiceError('unavailable', `Of machines here the records cannot be read: mend or remove ${ids}.`)
  }

  async #makeArriving(id: string, said: unknown): Promise<Machine> {
    const spec = this.#expected.get(id)
    if (!spec) throw new ServiceError('not-found', `The machine ${id} is not expected here.`, { id })
    const offer = checkedOffer(said, spec.disks)
    const seedDisc = offer.seedDisc === null ? null : Buffer.from(offer.seedDisc, 'base64')
    const memory = { shape: offer.shape, seedDisc, open: () => nothing() }
    assertSpec({ ...spec, memory }, this.abilities)
    const machine = Machine.planned(
      this.#host,
      { ...spec, memory },
      choose({ ...spec, memory }, this.#program, this.#host.firmwares),
      offer.layers,
    )
    this.#machines.set(id, machine)
    try {
      await machine.makeForArrival(memory)
      this.#expected.delete(id)
      return machine
    } catch (error) {
      this.#machines.delete(id)
      throw error
    }
  }

  /** It goes on there, and nothing stays of it here. */
  async #hasLeft(machine: Machine, target: MigrationTarget): Promise<void> {
    if (machine.arrivalToken) await this.#arrivals?.mark(machine.arrivalToken) // who sent it here may ask yet
    await machine.remove()
    if (this.#machines.get(machine.id) === machine) this.#machines.delete(machine.id)
    failpoint('migration:removed')
    await asked(target, { say: 'done' }, this.#closing.signal).catch(() => {}) // it then remembers for longer what nobody asks
  }

  /** Of a machine that was given away when an earlier service ended. */
  async #settleGiven(machine: Machine): Promise<void> {
    const { givenTo } = machine
    if (!givenTo) return
    const settled = machine.hearLastWord(givenTo).then(() => this.#hasLeft(machine, givenTo))
    await settled.catch((error) => {
      if (machine.givenTo && !this.#closing.signal.aborted) this.#host.onProblem(error)
    })
  }

  async #trim(): Promise<void> {
    for (const machine of this.#machines.values()) await machine.trim().catch(this.#host.onProblem)
  }

  #tell(machine: FoundMachine): void {
    for (const watcher of [...this.#watchers]) watcher(machine)
  }

  async #call<T>(work: () => Promise<T>): Promise<T> {
    this.#assertOpen()
    const call = work()
    this.#calls.add(call)
    try {
      return await call
    } finally {
      this.#calls.delete(call)
    }
  }

  #isTaken(id: string): boolean {
    return this.#machines.has(id) || this.#expected.has(id) || this.#unreadable.has(id)
  }

  /** One that is being launched is not there yet. */
  #machine(id: string): Machine {
    const machine = this.#machines.get(id)
    if (machine?.isLaunched) return machine
    const problem = this.#unreadable.get(id)
    if (problem) throw problem
    throw new ServiceError('not-found', `There is no machine ${id} on this host.`, { id })
  }

  #assertOpen(): void {
    if (this.#closing.signal.aborted)
      throw new ServiceError('unavailable', 'The hypervisor is closed; ask again when it is open.')
  }
}

/** It is somebody's, and whether it runs nobody can say. */
const asCrashed = (id: string, reason: string): FoundMachine => ({ id, power: 'crashed', reason, disks: [], diskBytes: 0 })

const unreadable = (id: string, cause: unknown): ServiceError => {
  const message = `What is known of the machine ${id} cannot be read; restore its record and start the service anew, or remove it.`
  return new ServiceError('corrupt', message, { id }, { cause })
}

async function* nothing(): AsyncIterable<Uint8Array> {}

const taken = (id: string): ServiceError =>
  new ServiceError('conflict', `The machine ${id} is there already; remove it first.`, { id })

async function makeRoot(folder: string, user: ProcessUser | undefined): Promise<void> {
  const longest = join(folder, '00000000-0000-0000-0000-000000000000', 'run', files.serial)
  if (Buffer.byteLength(longest) > MAX_SOCKET_PATH_BYTES) {
    const most = MAX_SOCKET_PATH_BYTES - (Buffer.byteLength(longest) - Buffer.byteLength(folder))
    throw new ServiceError(
      'invalid-request',
      `The folder of machines has a name too long for sockets in it: ${most} bytes at most.`,
    )
  }
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await chmod(folder, user ? 0o711 : 0o700)
}

const abilitiesOf = (
  { version, machineTypes }: QemuProgram,
  accelerators: readonly ('kvm' | 'tcg')[],
  firmwares: readonly Firmware[],
): HypervisorAbilities => {
  const usable = firmwares.filter((firmware) => firmware.architecture === 'x86_64')
  return {
    version,
    architectures: ARCHITECTURES,
    accelerators,
    firmwares: usable.some((firmware) => !firmware.needsSmm) ? ['bios', 'uefi'] : ['bios'],
    secureBoot: usable.some((firmware) => firmware.secureBoot),
    cpus: availableParallelism(),
    memoryBytes: totalmem(),
    maxCpus: machineTypes.get('pc')?.maxCpus ?? 1,
  }
}
