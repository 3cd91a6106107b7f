import { randomUUID } from 'node:crypto'
import { GiB, MiB } from '../../../base/units.ts'
import { hypervisorSuite, type TestHost } from '../hypervisor.suite.ts'
import type { MachineSpec } from '../hypervisor.ts'
import { MemoryHost, plainGuest } from './memory-host.ts'
import { MemoryHypervisor } from './memory-hypervisor.ts'

const spec = (changes: Partial<MachineSpec> = {}): MachineSpec => ({
  id: randomUUID(),
  name: 'a machine',
  cpus: 1,
  memoryBytes: 128 * MiB,
  hardware: {
    architecture: 'x86_64',
    machineType: null,
    firmware: 'bios',
    secureBoot: false,
    diskBus: 'virtio',
    networkModel: 'virtio',
    cpuModel: null,
    qemuGuestAgent: false,
    randomness: true,
  },
  disks: [{ name: 'root', bytes: GiB, serial: '' }],
  networks: [],
  ...changes,
})

function testHost(): TestHost {
  const deaf = new Set<string>()
  const host = new MemoryHost({
    guest: { ...plainGuest, powerButton: (machine) => deaf.has(machine.spec.id) || machine.powerOff() },
  })
  return {
    open: async () => new MemoryHypervisor(host),
    spec,
    powerOff: async (_hypervisor, id) => host.machine(id).powerOff(),
    kill: async (id) => host.machine(id).crash('killed by the test'),
    deafSpec: () => {
      const machine = spec()
      deaf.add(machine.id)
      return machine
    },
    close: async () => {},
  }
}

hypervisorSuite('memory', async () => testHost())
