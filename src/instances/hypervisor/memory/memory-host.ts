import { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import type { BlockSource } from '../../../disk/block/block-source.ts'
import type { BlockWriter } from '../../../disk/block/block-writer.ts'
import { memorySource } from '../../../disk/block/memory-source.ts'
import type { DiskAddress, FoundMachine, MachineDisk, MachineSpec, PowerState } from '../hypervisor.ts'

/** Of each console, as the port lets an adapter choose. */
const MAX_CONSOLE_BYTES = 1024 * 1024
const SECTOR_BYTES = 512

/** What plays the guest of every machine of a host. */
export interface MemoryGuest {
  booted(machine: MemoryMachine): void
  typed(machine: MemoryMachine, bytes: Uint8Array): void
  powerButton(machine: MemoryMachine): void
  /** Asked to let go of a disk, it answers whether it does. */
  letsGo(machine: MemoryMachine, disk: string): boolean
}

/** Says that it is ready, echoes what is typed, and goes off when its button is pressed. */
export const plainGuest: MemoryGuest = {
  booted: (machine) => machine.print('ready\n'),
  typed: (machine, bytes) => machine.print(bytes),
  powerButton: (machine) => machine.powerOff(),
  letsGo: () => true,
}

export interface MemoryHostOptions {
  readonly guest?: MemoryGuest
  /** Comes before each launch and start: a test holds it up here, or lets it fail. */
  readonly beforeStart?: (spec: MachineSpec) => Promise<void> | void
  /** Hosts with the same one reach each other. */
  readonly network?: MemoryNetwork
}

/** By token, who expects a machine and takes it in. */
export type MemoryNetwork = Map<string, { readonly spec: MachineSpec; readonly take: (machine: MemoryMachine) => void }>

interface MemoryLayer {
  readonly number: number
  /** By their offsets in bytes. */
  readonly sectors: Map<number, Uint8Array>
}

/** What stays when a MemoryHypervisor is closed and another one opened: the machines. What happens to them, a test does here. */
export class MemoryHost {
  readonly machines = new Map<string, MemoryMachine>()
  /** Ids of launches and starts under way. */
  readonly starting = new Map<string, AbortController>()
  readonly watchers = new Set<(machine: FoundMachine) => void>()
  /** What bases read as, by the names of their exports; others are zeros. */
  readonly bases = new Map<string, BlockSource>()
  /** What disks are written through to, by the names of their exports. */
  readonly stores = new Map<string, { readonly source: BlockSource; readonly writer: BlockWriter }>()
  guest: MemoryGuest
  beforeStart: (spec: MachineSpec) => Promise<void> | void
  readonly network: MemoryNetwork

  constructor({ guest = plainGuest, beforeStart = () => {}, network = new Map() }: MemoryHostOptions = {}) {
    this.network = network
    this.guest = guest
    this.beforeStart = beforeStart
  }

  base({ exportName }: DiskAddress): BlockSource {
    return this.bases.get(exportName) ?? memorySource(Number.MAX_SAFE_INTEGER, [])
  }

  /** For tests; throws for one that is not there. */
  machine(id: string): MemoryMachine {
    const machine = this.machines.get(id)
    if (!machine) throw new Error(`the host in memory has no machine ${id}`)
    return machine
  }
}

/** One machine of a host. Its methods are what a guest, or fate, does to it. */
export class MemoryMachine {
  readonly #host: MemoryHost
  spec: MachineSpec
  #power: PowerState = 'shutdown'
  #reason: string | null = null
  #console = Buffer.alloc(0)
  #serial: Duplex | null = null
  /** By disk name, its layers, the lowest first. */
  readonly #disks = new Map<string, MemoryLayer[]>()
  /** What was copied from bases, by disk name. */
  readonly #own = new Map<string, BlockSource>()
  /** A disk is being made whole. */
  isCopying = false
  /** How often its guest was started, by power or by reset. */
  boots = 0
  /** All that its guest has in memory: a number, 0 when it starts. */
  memory = 0

  constructor(host: MemoryHost, spec: MachineSpec) {
    this.#host = host
    this.spec = spec
  }

  get power(): PowerState {
    return this.#power
  }
  get isOn(): boolean {
    return this.#power === 'running' || this.#power === 'paused'
  }
  get console(): Buffer {
    return this.#console
  }
  get found(): FoundMachine {
    const disks = this.spec.disks.map(({ name }) => name)
    return { id: this.spec.id, power: this.#power, reason: this.#reason, disks, diskBytes: 0 }
  }

  /** On its first serial port. */
  print(text: string | Uint8Array): void {
    const bytes = Buffer.from(text)
    this.#console = Buffer.concat([this.#console, bytes]).subarray(-MAX_CONSOLE_BYTES)
    this.#serial?.push(bytes)
  }

  /** Takes the guest's own poweroff from the machine, while somebody waits for it. */
  onPowerOff: (() => void) | null = null

  /** The guest turns itself off. */
  powerOff(): void {
    if (this.onPowerOff) this.onPowerOff()
    else this.become('shutdown')
  }

  /** The process ends. */
  crash(reason: string): void {
    this.become('crashed', reason)
  }

  boot(): void {
    this.boots += 1
    this.memory = 0
    this.become('running')
    this.#host.guest.booted(this)
  }

  /** Its guest does not start: it was there before. */
  goOn(memory: number): void {
    this.memory = memory
    this.become('running')
  }

  /** Itself as a machine of another host, which nobody has been told of. */
  movedTo(host: MemoryHost, spec: MachineSpec): MemoryMachine {
    const moved = new MemoryMachine(host, spec)
    for (const [name, layers] of this.#disks) moved.#disks.set(name, structuredClone(layers))
    moved.#console = this.#console
    moved.memory = this.memory
    return moved
  }

  become(power: PowerState, reason: string | null = null): void {
    if (this.#power === power && this.#reason === reason) return
    this.#power = power
    this.#reason = reason
    if (!this.isOn) this.#unplugSerial()
    for (const watcher of [...this.#host.watchers]) watcher(this.found)
  }

  /** The guest writes to one of its disks. @param offset, and the length of `bytes`: multiples of 512 */
  async write(disk: string, offset: number, bytes: Uint8Array): Promise<void> {
    const store = this.#store(disk)
    if (store) {
      await store.writer.write(offset, bytes)
      await store.writer.flush()
      return
    }
    const { sectors } = this.#layers(disk).at(-1)!
    for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
      sectors.set(offset + at, Uint8Array.from(bytes.subarray(at, at + SECTOR_BYTES)))
    }
  }

  /** What its guest wrote there last; where it did not, what the base has there. */
  async read(disk: string, offset: number, length: number): Promise<Uint8Array> {
    const store = this.#store(disk)
    if (store) return store.source.read(offset, length)
    const base = this.#ground(disk)
    const answer = base ? Buffer.from(await base.read(offset, length)) : Buffer.alloc(length)
    for (const { sectors } of this.#layers(disk)) {
      for (let at = 0; at < length; at += SECTOR_BYTES) answer.set(sectors.get(offset + at) ?? [], at)
    }
    return answer
  }

  /** An empty layer on top of each disk. @returns how many lie beneath it */
  seal(): Readonly<Record<string, readonly number[]>> {
    return Object.fromEntries(
      this.#layered.map(({ name }) => {
        const layers = this.#layers(name)
        const sealed = layers.map(({ number }) => number)
        layers.push({ number: sealed.at(-1)! + 1, sectors: new Map() })
        return [name, sealed]
      }),
    )
  }

  /** The lowest first; all but the last are sealed. */
  layerNumbers(disk: string): readonly number[] {
    return this.#layers(disk).map(({ number }) => number)
  }

  /** What is under its top layer is in it, and its base is its own. */
  hydrate(disk: string): void {
    const sectors = new Map(this.#layers(disk).flatMap((layer) => [...layer.sectors]))
    const ground = this.#ground(disk)
    if (ground) this.#own.set(disk, ground)
    this.#disks.set(disk, [{ number: this.layerNumbers(disk).at(-1)!, sectors }])
    const disks = this.spec.disks.map(({ base, ...each }) => (each.name === disk || !base ? each : { ...each, base }))
    this.spec = { ...this.spec, disks }
  }

  /** As a copy of it does, which takes its time. */
  async readGround(disk: string): Promise<void> {
    await this.#ground(disk)?.read(0, SECTOR_BYTES)
    await turn()
  }

  isWhole(disk: string): boolean {
    return this.#own.has(disk) && this.layerNumbers(disk).length === 1
  }

  forgetDisk(disk: string): void {
    this.#disks.delete(disk)
    this.#own.delete(disk)
    this.spec = { ...this.spec, disks: this.spec.disks.filter(({ name }) => name !== disk) }
  }

  get #layered(): readonly MachineDisk[] {
    return this.spec.disks.filter(({ store }) => !store)
  }

  /** Undefined for a disk that is not written through. */
  #store(disk: string) {
    const store = this.spec.disks.find(({ name }) => name === disk)?.store
    if (!store) return undefined
    const found = this.#host.stores.get(store.exportName)
    if (!found) throw new Error(`the host in memory has no store for the disk ${disk}`)
    return found
  }

  /** What the layers lie on. */
  #ground(disk: string): BlockSource | undefined {
    const base = this.spec.disks.find(({ name }) => name === disk)?.base
    return base ? this.#host.base(base) : this.#own.get(disk)
  }

  /** Only those layers are left, on that base. */
  rebase(disk: string, base: DiskAddress, layers: readonly number[]): void {
    this.#disks.set(
      disk,
      this.#layers(disk).filter(({ number }) => layers.includes(number)),
    )
    this.spec = { ...this.spec, disks: this.spec.disks.map((each) => (each.name === disk ? { ...each, base } : each)) }
  }

  /** Undefined for one that is not sealed. */
  layer(disk: string, number: number): BlockSource | undefined {
    const spec = this.spec.disks.find((each) => each.name === disk)
    const layer =
      spec &&
      this.#layers(disk)
        .slice(0, -1)
        .find((each) => each.number === number)
    if (!layer) return undefined
    const pieces = [...layer.sectors].map(([offset, bytes]) => ({ offset, bytes })).sort((a, b) => a.offset - b.offset)
    return memorySource(spec.bytes, pieces)
  }

  #layers(disk: string): MemoryLayer[] {
    const layers = this.#disks.get(disk) ?? [{ number: 0, sectors: new Map() }]
    this.#disks.set(disk, layers)
    return layers
  }

  plugSerial(): Duplex {
    this.#unplugSerial()
    this.#serial = new Duplex({
      read() {},
      write: (bytes: Buffer, _encoding, done) => {
        this.#host.guest.typed(this, bytes)
        done()
      },
    })
    return this.#serial
  }

  #unplugSerial(): void {
    this.#serial?.push(null)
    this.#serial?.destroy()
    this.#serial = null
  }
}
