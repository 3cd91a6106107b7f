import { machineHost } from '../../../../test/fixtures/guest/machine-host.ts'
import { noTinyGuest } from '../../../../test/fixtures/guest/tiny-guest.ts'
import { machineMigrationSuite } from '../machine-migration.suite.ts'

machineMigrationSuite('qemu', async () => [await machineHost(), await machineHost()], { skip: noTinyGuest() })
