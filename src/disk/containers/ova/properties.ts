import { GiB, MiB } from '../../../base/units.ts'
import { memoryBytes, type OvfDescriptor, type OvfItem, type OvfMachine } from './descriptor.ts'
import { systemOf } from './systems.ts'

/** What an image made of a package should say, in Glance's words. */
export interface ImageHints {
  /** Glance's `min_ram`, MiB; 0: the package does not say. */
  readonly minRamMiB: number
  /** Glance's `min_disk`, GiB: the disk that the machine starts from. */
  readonly minDiskGiB: number
  /** For choosing a flavor; images have no word for it. */
  readonly vcpus: number | undefined
  readonly coresPerSocket: number | undefined
  /** `hw_disk_bus`, `hw_scsi_model`, `hw_vif_model`, `hw_firmware_type`, `os_secure_boot`, `os_type`, `os_distro`, `os_version`, as far as they are known. */
  readonly properties: Readonly<Record<string, string>>
}

/** CIM_ResourceAllocationSettingData, ResourceType. */
const PROCESSOR = 3
export const MEMORY = 4
export const IDE = 5
export const SCSI = 6
export const ETHERNET = 10
export const DISK = 17
export const OTHER_STORAGE = 20
const LOGICAL_DISK = 31
const ETHERNET_PORT = 33

/** Words of VMware, VirtualBox and QEMU's world, in lower case, and what Glance calls them. */
const scsiModels: Readonly<Record<string, string>> = {
  buslogic: 'buslogic',
  lsilogic: 'lsilogic',
  lsilogicsas: 'lsisas1068',
  virtualscsi: 'vmpvscsi',
  virtioscsi: 'virtio-scsi',
  'virtio-scsi': 'virtio-scsi',
}
const networkModels: Readonly<Record<string, string>> = {
  e1000: 'e1000',
  e1000e: 'e1000e',
  pcnet32: 'pcnet',
  virtio: 'virtio',
  'virtio-net': 'virtio',
  vmxnet: 'vmxnet',
  vmxnet2: 'vmxnet',
  vmxnet3: 'VirtualVmxnet3',
}

/** Turns the hardware that a package asks for into an image's properties. What has no name there is left out. */
export function imageHints({ disks, machine }: OvfDescriptor): ImageHints {
  const processor = machine.items.find(({ type }) => type === PROCESSOR)
  const memory = machine.items.find(({ type }) => type === MEMORY)
  const drive = bootDrive(machine)
  const bootId = drive && diskIdOf(drive)
  const boot = disks.find(({ id }) => id === bootId) ?? disks.find(({ fileId }) => fileId !== undefined)
  const adapter = machine.items.find(({ type }) => type === ETHERNET || type === ETHERNET_PORT)
  const model = adapter && firstOf(adapter.subtypes, networkModels)
  return {
    minRamMiB: memory ? Math.ceil(memoryBytes(memory) / MiB) : 0,
    minDiskGiB: boot ? Math.ceil(boot.capacityBytes / GiB) : 0,
    vcpus: processor?.quantity,
    coresPerSocket: processor?.coresPerSocket,
    properties: {
      ...busOf(drive && machine.items.find(({ id }) => id !== '' && id === drive.parent)),
      ...(model === undefined ? {} : { hw_vif_model: model }),
      ...(machine.firmware === undefined ? {} : { hw_firmware_type: machine.firmware }),
      ...(machine.secureBoot ? { os_secure_boot: 'required' } : {}),
      ...systemOf(machine.system),
    },
  }
}

/** The first drive with a disk in it: OVF has no other order, but for a section that nobody writes. */
const bootDrive = ({ items }: OvfMachine): OvfItem | undefined =>
  items.find((item) => (item.type === DISK || item.type === LOGICAL_DISK) && diskIdOf(item) !== undefined)
const diskIdOf = ({ hosts }: OvfItem): string | undefined =>
  hosts.map((host) => /^(?:ovf:)?\/disk\/(.+)$/.exec(host)?.[1]).find((id) => id !== undefined)

function busOf(controller: OvfItem | undefined): Record<string, string> {
  if (!controller) return {}
  const { type, subtypes } = controller
  const words = subtypes.map((word) => word.toLowerCase())
  const model = firstOf(words, scsiModels)
  if (type === IDE) return { hw_disk_bus: 'ide' }
  if (type === SCSI || (type === OTHER_STORAGE && model !== undefined)) {
    return { hw_disk_bus: 'scsi', ...(model === undefined ? {} : { hw_scsi_model: model }) }
  }
  if (type === OTHER_STORAGE && words.some((word) => word.includes('ahci') || word.includes('sata')))
    return { hw_disk_bus: 'sata' }
  return {}
}

const firstOf = (words: readonly string[], names: Readonly<Record<string, string>>): string | undefined =>
  words.map((word) => word.toLowerCase()).flatMap((word) => (Object.hasOwn(names, word) ? [names[word]] : []))[0]
