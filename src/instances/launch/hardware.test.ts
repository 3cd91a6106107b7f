import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { HypervisorAbilities } from '../hypervisor/hypervisor.ts'
import { hardwareFrom } from './hardware.ts'

const abilities: HypervisorAbilities = {
  version: '7.2.0',
  architectures: ['x86_64', 'i686'],
  accelerators: ['tcg'],
  firmwares: ['bios'],
  secureBoot: false,
  cpus: 2,
  maxCpus: 255,
  memoryBytes: 2 ** 34,
}

for (const architecture of ['x86_64', 'i686']) {
  test(`a PC of architecture ${architecture} starts by its BIOS where nothing else is said`, () => {
    assert.equal(hardwareFrom({ hw_architecture: architecture }, abilities).firmware, 'bios')
    assert.equal(hardwareFrom({ hw_architecture: architecture, hw_firmware_type: 'bios' }, abilities).firmware, 'bios')
    const wish = { hw_architecture: architecture, hw_firmware_type: 'uefi' }
    assert.throws(() => hardwareFrom(wish, abilities), { code: 'invalid-request', message: /hw_firmware_type/ })
  })
}
