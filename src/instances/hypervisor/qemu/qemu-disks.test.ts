import { machineHost } from '../../../../test/fixtures/guest/machine-host.ts'
import { noTinyGuest } from '../../../../test/fixtures/guest/tiny-guest.ts'
import { diskLayersSuite } from '../disk-layers.suite.ts'
import { diskPlugsSuite } from '../disk-plugs.suite.ts'

const skip = noTinyGuest()
diskLayersSuite('qemu', () => machineHost(), { skip })
diskPlugsSuite('qemu', () => machineHost(), { skip })
