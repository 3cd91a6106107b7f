import { MiB } from '../../../base/units.ts'
import { memoryBytes, type OvfDescriptor } from './descriptor.ts'
import { DISK, ETHERNET, IDE, imageHints, MEMORY, OTHER_STORAGE, SCSI } from './properties.ts'
import type { NewAppliance } from './write-ova.ts'

export type NewMachine = Omit<NewAppliance, 'name' | 'disks'>

/** What is asked for a disk of which nothing more is known. */
export const plainMachine: NewMachine = { vcpus: 1, memoryMiB: 1024 }
const MAX_ADAPTERS = 10 // of VMware; more would be refused there

/** The machine of a package for a new package: processors, memory, firmware, controller of the first disk, adapters, system. */
export function sameMachine(descriptor: OvfDescriptor): NewMachine {
  const { machine } = descriptor
  const { vcpus } = imageHints(descriptor)
  const memory = machine.items.find(({ type }) => type === MEMORY)
  const drive = machine.items.find(({ type }) => type === DISK)
  const controller = machine.items.find(({ id, type }) => id === drive?.parent && [IDE, SCSI, OTHER_STORAGE].includes(type))
  const diskBus = controller?.type === IDE ? 'ide' : controller?.type === OTHER_STORAGE ? 'sata' : 'scsi'
  const scsiModel = diskBus === 'scsi' ? controller?.subtypes[0] : undefined
  const adapters = machine.items.filter(({ type }) => type === ETHERNET).slice(0, MAX_ADAPTERS)
  const { id, vendorType } = machine.system
  return {
    vcpus: vcpus || plainMachine.vcpus,
    memoryMiB: memory ? Math.ceil(memoryBytes(memory) / MiB) || plainMachine.memoryMiB : plainMachine.memoryMiB,
    ...(machine.firmware ? { firmware: machine.firmware } : {}),
    secureBoot: machine.secureBoot,
    diskBus,
    ...(scsiModel === undefined ? {} : { scsiModel }),
    networkModels: adapters.map(({ subtypes }) => subtypes[0] ?? 'E1000'),
    ...(id === undefined ? {} : { system: { id, ...(vendorType === '' ? {} : { vendorType }) } }),
  }
}
