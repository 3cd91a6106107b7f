import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { setTimeout as pause } from 'node:timers/promises'
import { ServiceError } from '../../../base/errors.ts'
import { GiB } from '../../../base/units.ts'
import type { BlockSource } from '../../../disk/block/block-source.ts'
import { seedDisc } from '../../seed/seed-disc.ts'
import { type DiskLayers, type HydrateOptions, type NewBase, notQuiet, type Sealed, type SealOptions } from '../disk-layers.ts'
import type { DiskPlugs } from '../disk-plugs.ts'
import type { FoundMachine, Hypervisor, HypervisorAbilities, MachineChanges, MachineDisk, MachineSpec } from '../hypervisor.ts'
import type { MachineMemory, MemoryState, SavedMemory, SaveOptions } from '../machine-memory.ts'
import type { MachineMigration, Migrated, MigrationTarget } from '../machine-migration.ts'
import { assertDisks, assertSpec, changed, rebased } from '../machine-spec.ts'
import { assertSameShape, type Shape, shapeText } from '../memory-shape.ts'
import { MemoryHost, MemoryMachine } from './memory-host.ts'

const MAX_SEALED_LAYERS = 32
const hotPlugged: ReadonlySet<string> = new Set(['virtio', 'scsi'])
const everything: HypervisorAbilities = {
  version: '1',
  architectures: ['x86_64'],
  accelerators: ['tcg'],
  firmwares: ['bios', 'uefi'],
  secureBoot: true,
  cpus: 16,
  memoryBytes: 64 * GiB,
  maxCpus: 64,
}

/** Machines that are records only, for tests. Opened again on the same host, it finds them. */
export class MemoryHypervisor implements Hypervisor, DiskLayers, DiskPlugs, MachineMemory, MachineMigration {
  readonly type = 'memory'
  readonly abilities: HypervisorAbilities
  readonly host: MemoryHost
  readonly #watchers = new Set<(machine: FoundMachine) => void>()
  readonly #serials = new Set<Duplex>()
  readonly #closing = new AbortController()
  /** By id, the tokens of those that may come. */
  readonly #expected = new Map<string, string>()

  constructor(host = new MemoryHost(), abilities: Partial<HypervisorAbilities> = {}) {
    this.host = host
    this.abilities = { ...everything, ...abilities }
  }

  async launch({ memory, ...spec }: MachineSpec, signal?: AbortSignal): Promise<void> {
    this.#assertOpen()
    assertSpec({ ...spec, ...(memory ? { memory } : {}) }, this.abilities)
    if (memory) assertSameShape(memory.shape, shapeOf(spec))
    if (this.host.machines.has(spec.id) || this.host.starting.has(spec.id) || this.#expected.has(spec.id)) {
      throw new ServiceError('conflict', `The machine ${spec.id} is there already; remove it first.`, { id: spec.id })
    }
    const machine = new MemoryMachine(this.host, structuredClone(spec))
    await this.#powerOn(machine, machine.spec, memory, signal)
  }

  async start(id: string, { memory, ...changes }: MachineChanges = {}, signal?: AbortSignal): Promise<void> {
    const machine = this.#machine(id)
    if (machine.isOn || this.host.starting.has(id)) throw wrongPower(id, 'is on already; stop it first')
    if (memory) assertSameShape(memory.shape, shapeOf(machine.spec))
    await this.#powerOn(machine, changed(machine.spec, structuredClone(changes)), memory, signal)
  }

  async list(): Promise<readonly FoundMachine[]> {
    this.#assertOpen()
    return [...this.host.machines.values()].map((machine) => machine.found)
  }

  async show(id: string): Promise<FoundMachine> {
    return this.#machine(id).found
  }

  async stop(id: string, graceMs: number): Promise<void> {
    const machine = this.#machine(id)
    if (machine.power === 'running' && graceMs > 0) await this.#pressAndWait(machine, graceMs)
    machine.become('shutdown')
  }

  async reboot(id: string, graceMs: number): Promise<void> {
    const machine = this.#machine(id)
    if (!machine.isOn) throw wrongPower(id, 'is not on; start it')
    if (machine.power === 'running' && graceMs > 0) await this.#pressAndWait(machine, graceMs)
    if (!machine.isOn) throw wrongPower(id, 'went off meanwhile; start it')
    machine.boot()
  }

  async pause(id: string): Promise<void> {
    const machine = this.#machine(id)
    if (machine.power !== 'running') throw wrongPower(id, 'is not running')
    machine.become('paused')
  }

  async resume(id: string): Promise<void> {
    const machine = this.#machine(id)
    if (machine.power !== 'paused') throw wrongPower(id, 'is not paused')
    machine.become('running')
  }

  async consoleLog(id: string, bytes: number): Promise<Uint8Array> {
    const all = this.#machine(id).console
    return new Uint8Array(all.subarray(Math.max(0, all.length - bytes)))
  }

  async serial(id: string): Promise<Duplex> {
    const machine = this.#machine(id)
    if (!machine.isOn) throw wrongPower(id, 'is not on; start it')
    const serial = machine.plugSerial()
    this.#serials.add(serial)
    serial.once('close', () => this.#serials.delete(serial))
    return serial
  }

  /** Its guests do no more than they are told: they stand still wherever they are asked to. */
  async seal(id: string, quiesceMs: number, { whileStill, mustBeQuiet = false }: SealOptions = {}): Promise<Sealed> {
    const machine = this.#machine(id)
    assertNotCopying(machine)
    const has = Math.max(0, ...machine.spec.disks.map(({ name }) => machine.layerNumbers(name).length - 1))
    if (has >= MAX_SEALED_LAYERS) {
      throw new ServiceError('too-large', `The machine ${id} has ${has} layers already; make a new one from its snapshot.`, {
        id,
      })
    }
    const isQuiet = quiesceMs > 0 && machine.power === 'running' && machine.spec.hardware.qemuGuestAgent
    if (mustBeQuiet && machine.isOn && !isQuiet) throw notQuiet(id, 'nobody asked it to')
    const consistency = isQuiet ? 'file-system' : 'crash'
    const layers = machine.seal()
    await whileStill?.()
    return { layers, consistency, evidence: `the guest was ${isQuiet ? '' : 'not '}asked to stand still` }
  }

  async openLayer(id: string, disk: string, layer: number): Promise<BlockSource> {
    const source = this.#machine(id).layer(disk, layer)
    if (!source)
      throw new ServiceError('not-found', `The disk "${disk}" of the machine ${id} has no sealed layer ${layer}.`, { id })
    return source
  }

  async rebase(id: string, bases: Readonly<Record<string, NewBase>>): Promise<void> {
    const machine = this.#machine(id)
    assertNotCopying(machine)
    const disks = machine.spec.disks.map((disk) => ({ ...disk, layers: machine.layerNumbers(disk.name) }))
    const wanted = Object.entries(bases).map(([name, base]) => rebased(id, disks, name, base))
    for (const { name, base, layers } of wanted) machine.rebase(name, base, layers)
  }

  async attach(id: string, disk: MachineDisk): Promise<void> {
    const machine = this.#machine(id)
    assertNotCopying(machine)
    const { disks, hardware } = machine.spec
    if (disks.some(({ name }) => name === disk.name)) throw wrongPower(id, `has a disk "${disk.name}" already; detach it first`)
    assertDisks([...disks, disk])
    if (machine.isOn && !hotPlugged.has(hardware.diskBus)) throw wrongPower(id, 'takes this disk only while it is off')
    machine.spec = { ...machine.spec, disks: [...disks, structuredClone(disk)] }
  }

  /** A guest lets go at once, or never. */
  async detach(id: string, diskName: string, _graceMs: number): Promise<void> {
    const machine = this.#machine(id)
    assertNotCopying(machine)
    const { disks, hardware } = machine.spec
    if (!disks.some(({ name }) => name === diskName)) return
    if (machine.isOn && !hotPlugged.has(hardware.diskBus)) throw wrongPower(id, 'loses this disk only while it is off')
    const holdsOn = machine.power === 'paused' || (machine.power === 'running' && !this.host.guest.letsGo(machine, diskName))
    if (holdsOn) throw wrongPower(id, `has a guest that does not let go of its disk "${diskName}"`)
    machine.forgetDisk(diskName)
  }

  /** Takes as long as its base does to be read. */
  async hydrate(id: string, disk: string, { signal, onProgress }: HydrateOptions = {}): Promise<void> {
    const machine = this.#machine(id)
    const spec = machine.spec.disks.find(({ name }) => name === disk)
    if (!spec) throw new ServiceError('not-found', `The machine ${id} has no disk "${disk}".`, { id })
    if (spec.store) throw wrongPower(id, `has a store for its disk "${disk}": nothing of it is copied`)
    assertNotCopying(machine)
    if (machine.isWhole(disk)) return
    machine.isCopying = true
    try {
      if (!machine.isOn) throw wrongPower(id, 'is off; start it, and ask again')
      onProgress?.({ doneBytes: 0, totalBytes: spec.bytes })
      await Promise.race([machine.readGround(disk), ...(signal ? [whenAborted(signal)] : [])])
      if (signal?.aborted || this.#closing.signal.aborted) throw cancelled(id)
      if (!machine.isOn) throw wrongPower(id, 'went off meanwhile; start it')
      machine.hydrate(disk)
    } finally {
      machine.isCopying = false
    }
  }

  /** At once: nobody but the sink waits. */
  async saveMemory(
    id: string,
    sink: (body: AsyncIterable<Uint8Array>) => Promise<void>,
    { signal, whileStill }: SaveOptions = {},
  ): Promise<SavedMemory> {
    const machine = this.#machine(id)
    if (!machine.isOn) throw wrongPower(id, 'is not on; start it')
    if (signal?.aborted) throw cancelled(id)
    const bytes = Buffer.from(JSON.stringify({ memory: machine.memory }))
    const sealed = await this.seal(id, 0)
    await whileStill?.()
    const isOver = () => signal?.aborted || this.#closing.signal.aborted
    const body = async function* (): AsyncIterable<Uint8Array> {
      yield bytes
      if (isOver()) throw cancelled(id)
      if (!machine.isOn) throw wrongPower(id, 'went off meanwhile; start it')
    }
    await sink(body())
    const disc = machine.spec.seed ? seedDisc(machine.spec.seed) : null
    return { ...sealed, pausedMs: 0, shape: shapeText(shapeOf(machine.spec)), seedDisc: disc }
  }

  async assertResumable({ memory, ...spec }: MachineSpec): Promise<void> {
    this.#assertOpen()
    assertSpec({ ...spec, ...(memory ? { memory } : {}) }, this.abilities)
    if (memory) assertSameShape(memory.shape, shapeOf(spec))
  }

  async receive({ seed: _its, memory: _comes, ...spec }: MachineSpec): Promise<MigrationTarget> {
    this.#assertOpen()
    assertSpec(spec, this.abilities)
    const { id } = spec
    if (this.host.machines.has(id) || this.#expected.has(id)) {
      throw new ServiceError('conflict', `The machine ${id} is there already; remove it first.`, { id })
    }
    const token = randomUUID()
    const take = (machine: MemoryMachine) => {
      this.#withdraw(id)
      const { power } = machine
      const moved = machine.movedTo(this.host, structuredClone(spec))
      this.host.machines.set(id, moved)
      moved.become(power)
    }
    this.#expected.set(id, token)
    this.host.network.set(token, { spec, take })
    return { socketPath: 'memory', token }
  }

  async migrateTo(id: string, target: MigrationTarget, { signal }: { readonly signal?: AbortSignal } = {}): Promise<Migrated> {
    const machine = this.#machine(id)
    if (!machine.isOn) throw wrongPower(id, 'is not on; start it')
    if (signal?.aborted) throw cancelled(id)
    const expected = this.host.network.get(target.token)
    if (expected?.take === closed)
      throw new ServiceError('unavailable', 'The hypervisor where the machine shall go does not listen.')
    if (expected?.spec.id !== id) throw new ServiceError('not-found', 'No machine is expected by that word.')
    assertSameShape(shapeText(shapeOf(machine.spec)), shapeOf(expected.spec))
    machine.seal()
    expected.take(machine)
    this.host.machines.delete(id)
    machine.become('shutdown')
    return { downtimeMs: 0, layerBytes: 0, memoryBytes: 1 }
  }

  async withdraw(id: string): Promise<void> {
    this.#assertOpen()
    this.#withdraw(id)
  }

  async specOf(id: string): Promise<MachineSpec> {
    const { seed: _its, memory: _comes, ...spec } = this.#machine(id).spec
    return structuredClone(spec)
  }

  #withdraw(id: string): void {
    const token = this.#expected.get(id)
    if (token) this.host.network.delete(token)
    this.#expected.delete(id)
  }

  async remove(id: string): Promise<void> {
    this.#assertOpen()
    this.#withdraw(id)
    this.host.starting.get(id)?.abort()
    const machine = this.host.machines.get(id)
    this.host.machines.delete(id)
    machine?.become('shutdown')
  }

  watch(listener: (machine: FoundMachine) => void): () => void {
    this.#assertOpen()
    const own = (machine: FoundMachine) => listener(machine) // the same listener may watch twice
    this.#watchers.add(own)
    this.host.watchers.add(own)
    return () => {
      this.#watchers.delete(own)
      this.host.watchers.delete(own)
    }
  }

  async close(): Promise<void> {
    this.#closing.abort()
    for (const token of this.#expected.values()) {
      const expected = this.host.network.get(token)
      if (expected) this.host.network.set(token, { ...expected, take: closed })
    }
    for (const watcher of this.#watchers) this.host.watchers.delete(watcher)
    for (const serial of this.#serials) serial.destroy()
  }

  /** A machine joins the host's when it runs, and not before. */
  async #powerOn(machine: MemoryMachine, spec: MachineSpec, memory?: MemoryState, signal?: AbortSignal): Promise<void> {
    this.#assertPortsFree(spec)
    const { id } = spec
    const cut = new AbortController()
    this.host.starting.set(id, cut)
    const ended = AbortSignal.any([cut.signal, this.#closing.signal, ...(signal ? [signal] : [])])
    let known: number | null = null
    try {
      await Promise.race([Promise.resolve(this.host.beforeStart(spec)), whenAborted(ended)])
      if (memory && !ended.aborted) known = await read(memory, id, ended)
      if (ended.aborted) throw cancelled(id)
    } finally {
      this.host.starting.delete(id)
    }
    machine.spec = spec
    this.host.machines.set(id, machine)
    if (known === null) machine.boot()
    else machine.goOn(known)
  }

  async #pressAndWait(machine: MemoryMachine, graceMs: number): Promise<void> {
    const off = Promise.withResolvers<void>()
    const watcher = ({ id, power }: FoundMachine) => {
      if (id === machine.spec.id && power !== 'running') off.resolve()
    }
    this.host.watchers.add(watcher)
    machine.onPowerOff = off.resolve
    const tooLate = new AbortController()
    try {
      this.host.guest.powerButton(machine)
      const patience = pause(graceMs, undefined, { signal: AbortSignal.any([tooLate.signal, this.#closing.signal]) })
      await Promise.race([off.promise, patience.catch(() => {})])
    } finally {
      tooLate.abort()
      machine.onPowerOff = null
      this.host.watchers.delete(watcher)
    }
    if (this.#closing.signal.aborted) throw cancelled(machine.spec.id)
  }

  #assertPortsFree({ id, networks }: MachineSpec): void {
    const wanted = new Set(networks.flatMap((network) => network.forwards).map(portName))
    for (const other of this.host.machines.values()) {
      if (!other.isOn || other.spec.id === id) continue
      const taken = other.spec.networks.flatMap((network) => network.forwards).find((forward) => wanted.has(portName(forward)))
      if (taken) throw new ServiceError('conflict', `The port ${portName(taken)} of the host is taken; choose another.`, { id })
    }
  }

  #machine(id: string): MemoryMachine {
    this.#assertOpen()
    const machine = this.host.machines.get(id)
    if (!machine) throw new ServiceError('not-found', `There is no machine ${id} on this host.`, { id })
    return machine
  }

  #assertOpen(): void {
    if (this.#closing.signal.aborted)
      throw new ServiceError('unavailable', 'The hypervisor is closed; ask again when it is open.')
  }
}

const shapeOf = ({ cpus, memoryBytes, hardware, disks, networks }: MachineSpec): Shape => ({
  cpus,
  memoryBytes,
  hardware,
  diskBytes: disks.map(({ bytes }) => bytes),
  networks: networks.map(({ mac }) => mac),
})

/** @throws ServiceError `unavailable` for a stream that is not whole; what the stream throws */
async function read({ open }: MemoryState, id: string, signal: AbortSignal): Promise<number> {
  const parts: Uint8Array[] = []
  try {
    for await (const part of open(signal)) parts.push(part)
  } catch (error) {
    throw signal.aborted ? cancelled(id) : error
  }
  try {
    return Number(JSON.parse(Buffer.concat(parts).toString()).memory)
  } catch (error) {
    throw new ServiceError('unavailable', `What came is no memory of the machine ${id}.`, { id }, { cause: error })
  }
}

/** Of a hypervisor that listens no more. */
const closed = (): void => {}

const portName = ({ protocol, hostAddress, hostPort }: { protocol: string; hostAddress: string; hostPort: number }): string =>
  `${protocol} ${hostAddress}:${hostPort}`

function assertNotCopying({ isCopying, spec: { id } }: MemoryMachine): void {
  if (isCopying) throw wrongPower(id, 'is copying a disk; wait for its end, or cancel it')
}

const wrongPower = (id: string, how: string): ServiceError => new ServiceError('conflict', `The machine ${id} ${how}.`, { id })

const cancelled = (id: string): ServiceError =>
  new ServiceError('cancelled', `What was asked of the machine ${id} was cut short; see how it is, and ask again.`, { id })

/** Settles when `signal` is aborted, at once where it is. */
function whenAborted(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) done()
    else signal.addEventListener('abort', () => done(), { once: true })
  })
}
