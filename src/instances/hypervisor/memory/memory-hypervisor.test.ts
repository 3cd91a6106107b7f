import { randomUUID } from 'node:crypto'
import { memorySource } from '../../../disk/block/memory-source.ts'
import { diskLayersSuite } from '../disk-layers.suite.ts'
import { hypervisorSuite, plainSpec } from '../hypervisor.suite.ts'
import type { MachineSpec } from '../hypervisor.ts'
import { machineMemorySuite } from '../machine-memory.suite.ts'
import { type MigrationHost, machineMigrationSuite } from '../machine-migration.suite.ts'
import { MemoryHost, type MemoryNetwork, plainGuest } from './memory-host.ts'
import { MemoryHypervisor } from './memory-hypervisor.ts'

const spec = (changes: Partial<MachineSpec> = {}): MachineSpec => ({ ...plainSpec(), ...changes })

function testHost(network: MemoryNetwork = new Map()): MigrationHost {
  const deaf = new Set<string>()
  const host = new MemoryHost({
    network,
    guest: { ...plainGuest, powerButton: (machine) => deaf.has(machine.spec.id) || machine.powerOff() },
  })
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
    write: async (_hypervisor, id, offset, bytes) => host.machine(id).write('root', offset, bytes),
    read: async (_hypervisor, id, offset, length) => host.machine(id).read('root', offset, length),
    openBase: async () => memorySource(2 ** 30, []),
    lend: async (disk) => {
      const exportName = randomUUID()
      host.bases.set(exportName, disk)
      return { socketPath: '/run/nbd.sock', exportName }
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

hypervisorSuite('memory', async () => testHost())
diskLayersSuite('memory', async () => testHost())
machineMemorySuite('memory', async () => testHost())
machineMigrationSuite('memory', async () => {
  const network: MemoryNetwork = new Map()
  return [testHost(network), testHost(network)]
})
