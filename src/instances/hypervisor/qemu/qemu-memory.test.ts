import { machineHost } from '../../../../test/fixtures/guest/machine-host.ts'
import { noTinyGuest } from '../../../../test/fixtures/guest/tiny-guest.ts'
import { machineMemorySuite } from '../machine-memory.suite.ts'

machineMemorySuite('qemu', () => machineHost(), { skip: noTinyGuest() })
