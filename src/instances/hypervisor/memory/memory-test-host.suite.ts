import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { memoryDisk } from '../../../../test/fixtures/nbd/memory-disk.ts'
import { memorySource } from '../../../disk/block/memory-source.ts'
import type { PlugsHost } from '../disk-plugs.suite.ts'
import { plainSpec } from '../hypervisor.suite.ts'
import type { MachineSpec } from '../hypervisor.ts'
import type { MigrationHost } from '../machine-migration.suite.ts'
import { MemoryHost, type MemoryHostOptions, plainGuest } from './memory-host.ts'
import { MemoryHypervisor } from './memory-hypervisor.ts'

const spec = (changes: Partial<MachineSpec> = {}): MachineSpec => ({ ...plainSpec(), ...changes })

/** A host whose machines are in memory, for the suites. */
export function memoryTestHost(
  options: Pick<MemoryHostOptions, 'network'> = {},
): MigrationHost & PlugsHost & { open(): Promise<MemoryHypervisor> } {
  const deaf = new Set<string>()
  const host = new MemoryHost({
    ...options,
    guest: {
      ...plainGuest,
      powerButton: (machine) => deaf.has(machine.spec.id) || machine.powerOff(),
      letsGo: (machine) => !deaf.has(machine.spec.id),
    },
  })
  const named = (id: string, serial?: string) =>
    serial === undefined ? 'root' : host.machine(id).spec.disks.find((disk) => disk.serial === serial)!.name
  return {
    open: async () => new MemoryHypervisor(host),
    spec,
    powerOff: async (_hypervisor, id) => host.machine(id).powerOff(),
    kill: async (id) => host.machine(id).crash('killed by the test'),
    deafSpec: () => {
      const machine = spec({ disks: [] })
      deaf.add(machine.id)
      return machine
    },
    write: async (_hypervisor, id, offset, bytes, serial) => host.machine(id).write(named(id, serial), offset, bytes),
    read: async (_hypervisor, id, offset, length, serial) => host.machine(id).read(named(id, serial), offset, length),
    async untilSeen(_hypervisor, id, serial, isThere) {
      assert.equal(
        host.machine(id).spec.disks.some((disk) => disk.serial === serial),
        isThere,
      )
    },
    async makeStore(bytes) {
      const store = memoryDisk(bytes)
      const address = newAddress()
      host.stores.set(address.exportName, store)
      return { ...store, address }
    },
    async moveStore({ exportName }) {
      const moved = newAddress()
      host.stores.set(moved.exportName, host.stores.get(exportName)!)
      host.stores.delete(exportName)
      return moved
    },
    openBase: async () => memorySource(2 ** 30, []),
    lend: async (disk) => {
      const address = newAddress()
      host.bases.set(address.exportName, disk)
      return address
    },
    endLoan: async ({ exportName }) => void host.bases.delete(exportName),
    startCounting: async (_hypervisor, id) => {
      host.machine(id).memory = 1
    },
    count: async (_hypervisor, id) => {
      const machine = host.machine(id)
      if (machine.memory > 0 && machine.power === 'running') machine.memory += 1 // it had time
      return machine.memory
    },
    close: async () => {},
  }
}

const newAddress = () => ({ socketPath: '/run/nbd.sock', exportName: randomUUID() })
