import { diskLayersSuite } from '../disk-layers.suite.ts'
import { diskPlugsSuite } from '../disk-plugs.suite.ts'
import { hypervisorSuite } from '../hypervisor.suite.ts'
import { machineMemorySuite } from '../machine-memory.suite.ts'
import { machineMigrationSuite } from '../machine-migration.suite.ts'
import type { MemoryNetwork } from './memory-host.ts'
import { memoryTestHost } from './memory-test-host.suite.ts'

hypervisorSuite('memory', async () => memoryTestHost())
diskLayersSuite('memory', async () => memoryTestHost())
machineMemorySuite('memory', async () => memoryTestHost())
machineMigrationSuite('memory', async () => {
  const network: MemoryNetwork = new Map()
  return [memoryTestHost({ network }), memoryTestHost({ network })]
})
diskPlugsSuite('memory', async () => memoryTestHost())
