import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hardwareFrom } from '../../../instances/launch/hardware.ts'
import { startable } from './startable.ts'

const abilities = { architectures: ['x86_64'], firmwares: ['bios', 'uefi'], secureBoot: true } as unknown as Parameters<
  typeof hardwareFrom
>[1]
const nothing = { minRamMiB: 0, minDiskGiB: 0, vcpus: undefined, coresPerSocket: undefined, properties: {} }

const scsi = [undefined, 'buslogic', 'lsilogic', 'lsisas1068', 'vmpvscsi', 'virtio-scsi']
const buses = [
  ...['ide', 'sata', undefined].map((bus) => ({ bus, model: undefined })),
  ...scsi.map((model) => ({ bus: 'scsi', model })),
]
const adapters = [undefined, 'e1000', 'e1000e', 'pcnet', 'virtio', 'vmxnet', 'VirtualVmxnet3', 'constructor']

test('whatever a package asks for, an instance can be started of what is made of it', () => {
  for (const { bus, model } of buses) {
    for (const adapter of adapters) {
      const asked = {
        ...(bus === undefined ? {} : { hw_disk_bus: bus }),
        ...(model === undefined ? {} : { hw_scsi_model: model }),
        ...(adapter === undefined ? {} : { hw_vif_model: adapter }),
        hw_firmware_type: 'uefi',
        os_secure_boot: 'required',
        os_distro: 'debian',
      }
      const { properties, warnings } = startable({ ...nothing, properties: asked })
      const hardware = hardwareFrom(properties, abilities)
      assert.deepEqual([hardware.firmware, hardware.secureBoot, properties.os_distro], ['uefi', true, 'debian'])
      const isOther = properties.hw_disk_bus !== bus || properties.hw_vif_model !== adapter
      assert.equal(warnings.length > 0, isOther, 'what is not as it was asked for is said')
      for (const name of [model, adapter].filter((each) => each !== undefined && !Object.values(properties).includes(each)))
        assert.match(warnings.join(), new RegExp(String(name)))
    }
  }
})

test('memory that no machine has is left out, and said', () => {
  assert.deepEqual(startable({ ...nothing, minRamMiB: 2048 }), { minRamMiB: 2048, properties: {}, warnings: [] })
  const { minRamMiB, warnings } = startable({ ...nothing, minRamMiB: 2 ** 52 })
  assert.equal(minRamMiB, 0)
  assert.match(warnings.join(), /min_ram/)
})

test('what was said beside the package holds', () => {
  const properties = { hw_disk_bus: 'scsi', hw_scsi_model: 'lsilogic', hw_vif_model: 'vmxnet' }
  const bus = startable({ ...nothing, properties }, { hw_disk_bus: 'virtio', hw_vif_model: 'virtio' })
  assert.deepEqual([bus.properties, bus.warnings], [{}, []])
  const model = startable({ ...nothing, properties }, { hw_scsi_model: 'virtio-scsi', hw_vif_model: 'e1000' })
  assert.deepEqual([model.properties, model.warnings], [{ hw_disk_bus: 'scsi' }, []])
})
