import type { Duplex } from 'node:stream'
import { isServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../../disk/block/block-source.ts'
import type { HydrateOptions, NewBase, Sealed, SealOptions } from '../disk-layers.ts'
import { HostAway } from '../host-away.ts'
import type { FoundMachine, HypervisorAbilities, MachineChanges, MachineDisk, MachineSpec } from '../hypervisor.ts'
import { abilitiesOf, type MachineHost, type Machines, type NamedHost } from '../machine-host.ts'
import type { SavedMemory, SaveOptions } from '../machine-memory.ts'

export interface HostsOptions {
  /** The service's own first. */
  readonly hosts: readonly [NamedHost, ...NamedHost[]]
  /** The name of the host that has a machine, or shall have it; null: the service's own, and what nobody knows. */
  readonly placeOf: (id: string) => Promise<string | null>
}

/** The machines of several hosts. What concerns one machine is asked of its host; where that is away the answer is `unavailable`. */
export class Hosts implements Machines {
  readonly #hosts: HostsOptions['hosts']
  readonly #placeOf: HostsOptions['placeOf']

  constructor({ hosts, placeOf }: HostsOptions) {
    this.#hosts = hosts
    this.#placeOf = placeOf
  }

  get type(): string {
    return this.#able.type
  }

  /** Of the first host that can run machines. @throws ServiceError `unavailable` where none can */
  get abilities(): HypervisorAbilities {
    return this.#able.abilities
  }

  async launch(machine: MachineSpec, signal?: AbortSignal): Promise<void> {
    return (await this.#hostOf(machine.id)).launch(machine, signal)
  }

  async start(id: string, changes?: MachineChanges, signal?: AbortSignal): Promise<void> {
    return (await this.#hostOf(id)).start(id, changes, signal)
  }

  /** Those of hosts that are there. @throws ServiceError `unavailable` where none is */
  async list(): Promise<readonly FoundMachine[]> {
    const up = this.#hosts.filter((host) => abilitiesOf(host) !== null)
    const asked = up.length > 0 ? up : this.#hosts.slice(0, 1) // which says why it is not
    const lists = await Promise.allSettled(asked.map(({ machines }) => machines.list()))
    const failed = lists.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []))
    const worse = failed.find((error) => !isServiceError(error, 'unavailable'))
    if (worse !== undefined || failed.length === lists.length) throw worse ?? failed[0]
    return lists.flatMap((each) => (each.status === 'fulfilled' ? each.value : []))
  }

  async show(id: string): Promise<FoundMachine> {
    return (await this.#hostOf(id)).show(id)
  }

  async stop(id: string, graceMs: number): Promise<void> {
    return (await this.#hostOf(id)).stop(id, graceMs)
  }

  async reboot(id: string, graceMs: number): Promise<void> {
    return (await this.#hostOf(id)).reboot(id, graceMs)
  }

  async pause(id: string): Promise<void> {
    return (await this.#hostOf(id)).pause(id)
  }

  async resume(id: string): Promise<void> {
    return (await this.#hostOf(id)).resume(id)
  }

  async consoleLog(id: string, bytes: number): Promise<Uint8Array> {
    return (await this.#hostOf(id)).consoleLog(id, bytes)
  }

  async serial(id: string): Promise<Duplex> {
    return (await this.#hostOf(id)).serial(id)
  }

  async remove(id: string): Promise<void> {
    return (await this.#hostOf(id)).remove(id)
  }

  async seal(id: string, quiesceMs: number, options?: SealOptions): Promise<Sealed> {
    return (await this.#hostOf(id)).seal(id, quiesceMs, options)
  }

  async openLayer(id: string, disk: string, layer: number): Promise<BlockSource> {
    return (await this.#hostOf(id)).openLayer(id, disk, layer)
  }

  async rebase(id: string, bases: Readonly<Record<string, NewBase>>): Promise<void> {
    return (await this.#hostOf(id)).rebase(id, bases)
  }

  async hydrate(id: string, disk: string, options?: HydrateOptions): Promise<void> {
    return (await this.#hostOf(id)).hydrate(id, disk, options)
  }

  async attach(id: string, disk: MachineDisk): Promise<void> {
    return (await this.#hostOf(id)).attach(id, disk)
  }

  async detach(id: string, diskName: string, graceMs: number): Promise<void> {
    return (await this.#hostOf(id)).detach(id, diskName, graceMs)
  }

  async saveMemory(
    id: string,
    sink: (body: AsyncIterable<Uint8Array>) => Promise<void>,
    options?: SaveOptions,
  ): Promise<SavedMemory> {
    return (await this.#hostOf(id)).saveMemory(id, sink, options)
  }

  async assertResumable(machine: MachineSpec): Promise<void> {
    return (await this.#hostOf(machine.id)).assertResumable(machine)
  }

  watch(listener: (machine: FoundMachine) => void): () => void {
    const ends = this.#hosts.map(({ machines }) => machines.watch(listener))
    return () => {
      for (const end of ends) end()
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#hosts.map(({ machines }) => machines.close()))
  }

  get #able(): MachineHost {
    const able = this.#hosts.find((host) => abilitiesOf(host) !== null) ?? this.#hosts[0]
    return able.machines
  }

  async #hostOf(id: string): Promise<MachineHost> {
    const name = await this.#placeOf(id)
    if (name === null) return this.#hosts[0].machines
    const host = this.#hosts.find((each) => each.name === name)
    if (host) return host.machines
    const message = `The machine ${id} is on the host "${name}", which this service does not know any more; name it among the hosts again.`
    throw new HostAway(message, { details: { id, host: name } })
  }
}
