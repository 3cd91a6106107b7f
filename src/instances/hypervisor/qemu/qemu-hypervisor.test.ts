import { machineHost } from '../../../../test/fixtures/guest/machine-host.ts'
import { noTinyGuest } from '../../../../test/fixtures/guest/tiny-guest.ts'
import { hypervisorSuite } from '../hypervisor.suite.ts'

hypervisorSuite('qemu', () => machineHost(), { skip: noTinyGuest() })
