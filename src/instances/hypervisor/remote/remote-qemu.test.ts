import { machineHost } from '../../../../test/fixtures/guest/machine-host.ts'
import { noTinyGuest } from '../../../../test/fixtures/guest/tiny-guest.ts'
import { machineMigrationSuite } from '../machine-migration.suite.ts'
import { byAgent } from './agent-host.suite.ts'

/** Of all suites the one that asks the most of both ends: memory, layers, serial ports and two agents. */
machineMigrationSuite('remote qemu', async () => [await byAgent(await machineHost()), await byAgent(await machineHost())], {
  skip: noTinyGuest(),
})
