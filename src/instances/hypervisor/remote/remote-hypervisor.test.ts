import { diskLayersSuite } from '../disk-layers.suite.ts'
import { diskPlugsSuite } from '../disk-plugs.suite.ts'
import { hypervisorSuite } from '../hypervisor.suite.ts'
import { machineMemorySuite } from '../machine-memory.suite.ts'
import { machineMigrationSuite } from '../machine-migration.suite.ts'
import type { MemoryNetwork } from '../memory/memory-host.ts'
import { memoryTestHost } from '../memory/memory-test-host.suite.ts'
import { byAgent } from './agent-host.suite.ts'

hypervisorSuite('remote', () => byAgent(memoryTestHost()))
diskLayersSuite('remote', () => byAgent(memoryTestHost()))
machineMemorySuite('remote', () => byAgent(memoryTestHost()))
machineMigrationSuite('remote', async () => {
  const network: MemoryNetwork = new Map()
  return [await byAgent(memoryTestHost({ network })), await byAgent(memoryTestHost({ network }))]
})
diskPlugsSuite('remote', () => byAgent(memoryTestHost()))
