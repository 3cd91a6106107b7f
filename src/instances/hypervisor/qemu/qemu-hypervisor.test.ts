import { machineHost } from '../../../../test/fixtures/guest/machine-host.ts'
import { noTinyGuest } from '../../../../test/fixtures/guest/tiny-guest.ts'
import { diskLayersSuite } from '../disk-layers.suite.ts'
import { diskPlugsSuite } from '../disk-plugs.suite.ts'
import { hypervisorSuite } from '../hypervisor.suite.ts'
import { machineMemorySuite } from '../machine-memory.suite.ts'
import { machineMigrationSuite } from '../machine-migration.suite.ts'

const skip = noTinyGuest()
hypervisorSuite('qemu', () => machineHost(), { skip })
diskLayersSuite('qemu', () => machineHost(), { skip })
machineMemorySuite('qemu', () => machineHost(), { skip })
machineMigrationSuite('qemu', async () => [await machineHost(), await machineHost()], { skip })
diskPlugsSuite('qemu', () => machineHost(), { skip })
