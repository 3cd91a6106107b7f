import { ServiceError } from '../../../base/errors.ts'
import { MAX_DISKS } from '../machine-spec.ts'
import { topNode } from './disk-nodes.ts'
import type { KeptDisk, KeptSpec } from './machine-folder.ts'

/** Buses and what hangs on them, as QEMU's `-device` takes them. Source: QEMU docs/system, qdev of 7.2. */

export type Device = Readonly<Record<string, string | number | boolean>> & { readonly driver: string }

/** `pc` has an IDE controller, `q35` has none. */
export type Chipset = 'pc' | 'q35'

/** What the machine keeps of how its disks are placed. */
export interface Places {
  readonly chipset: Chipset
  readonly hasSlots: boolean
}

/** Of a PCI bus; those below hold what else a machine has, at most 13 devices. Behind the disks comes the seed. */
const FIRST_DISK_SLOT = 15
const SATA_PORTS = 6 // of one ich9-ahci
const IDE_UNITS = 4 // two on each of two channels

/**
 * The disks in order of boot, then the seed: guests name disks in the order in which they find them, and the first one is the root disk. A disk that may come and go has its place by its slot, so that no other one moves;
 * where none can while the machine runs, and in machines of before there were slots, it is in the next free place.
 * @throws ServiceError `invalid-request` where the bus has not as many places
 */
export function storageDevices({ hardware, disks, hasSeed }: KeptSpec, { chipset, hasSlots }: Places): readonly Device[] {
  const nodes = disks.map((disk, index) => ({
    drive: topNode(disk),
    id: deviceOf(disk),
    bootindex: index,
    // where there is no room the guest waits until there is; other failures it is told of, as by a disk that breaks
    werror: 'enospc',
    rerror: 'report',
    ...(disk.serial ? { serial: disk.serial } : {}),
  }))
  const seedNode = { drive: 'seed', id: 'seed' }
  const places = nodes.length + (hasSeed ? 1 : 0)
  switch (hardware.diskBus) {
    case 'virtio':
      // As a disk: a guest that starts from virtio can read that, and cloud kernels drive no CD-ROM. cloud-init goes by its label
      return [
        ...(hasSlots && chipset === 'q35' ? rootPorts : []),
        ...nodes.map((node, index) => ({
          driver: 'virtio-blk-pci',
          ...(hasSlots ? pciPlace(disks[index]!.slot, chipset) : {}),
          ...node,
        })),
        ...(hasSeed ? [{ driver: 'virtio-blk-pci', ...(hasSlots ? pciPlace(MAX_DISKS, chipset) : {}), ...seedNode }] : []),
      ]
    case 'scsi':
      return [
        { driver: 'virtio-scsi-pci', id: 'scsi' },
        ...nodes.map((node, index) => ({
          driver: 'scsi-hd',
          bus: 'scsi.0',
          'scsi-id': hasSlots ? disks[index]!.slot : index,
          ...node,
        })),
        ...(hasSeed ? [{ driver: 'scsi-cd', bus: 'scsi.0', 'scsi-id': hasSlots ? MAX_DISKS : nodes.length, ...seedNode }] : []),
      ]
    case 'sata': {
      const controllers = Array.from({ length: Math.ceil(places / SATA_PORTS) }, (_, index) => ({
        driver: 'ich9-ahci',
        id: `sata${index}`,
      }))
      const port = (index: number) => ({ bus: `sata${Math.floor(index / SATA_PORTS)}.${index % SATA_PORTS}` })
      return [...controllers, ...onIde(nodes, hasSeed ? seedNode : null, port)]
    }
    case 'ide':
      must(chipset === 'pc', 'its machine type has no IDE bus; take "sata", or machine type "pc"')
      must(places <= IDE_UNITS, `an IDE bus has ${IDE_UNITS} places, and it needs ${places}; take another bus`)
      return onIde(nodes, hasSeed ? seedNode : null, (index) => ({ bus: `ide.${index >> 1}`, unit: index & 1 }))
  }
}

/** The device of a disk that comes while the machine runs; the guest starts from those that it had. Undefined: its bus takes none. */
export function comingDevice(spec: KeptSpec, places: Places, disk: KeptDisk): Device | undefined {
  const { diskBus } = spec.hardware
  if (diskBus === 'sata' || diskBus === 'ide' || !places.hasSlots) return undefined
  const device = storageDevices(spec, places).find(({ id }) => id === deviceOf(disk))
  if (!device) return undefined
  const { bootindex, ...coming } = device
  return coming
}

export const deviceOf = ({ slot }: Pick<KeptDisk, 'slot'>): string => `disk${slot}`

function pciAddress(slot: number, number: number): string {
  return `${slot.toString(16)}.${number}`
}

/** One to a disk, and one to the seed: on its root bus, q35 takes nothing while it runs. Eight functions fill a slot of it. */
const rootPorts: readonly Device[] = Array.from({ length: MAX_DISKS + 1 }, (_, index) => ({
  driver: 'pcie-root-port',
  id: `port${index}`,
  bus: 'pcie.0',
  addr: pciAddress(FIRST_DISK_SLOT + Math.floor(index / 8), index % 8),
  multifunction: index % 8 === 0,
  chassis: index + 1,
}))

const pciPlace = (slot: number, chipset: Chipset) =>
  chipset === 'q35' ? { bus: `port${slot}` } : { addr: pciAddress(FIRST_DISK_SLOT + slot, 0) }

type Node = Readonly<Record<string, string | number>>

const onIde = (nodes: readonly Node[], seed: Node | null, place: (index: number) => Node): readonly Device[] => [
  ...nodes.map((node, index) => ({ driver: 'ide-hd', ...place(index), ...node })),
  ...(seed ? [{ driver: 'ide-cd', ...place(nodes.length), ...seed }] : []),
]

const networkDrivers = { virtio: 'virtio-net-pci', e1000: 'e1000', e1000e: 'e1000e', rtl8139: 'rtl8139' } as const

/** No boot ROM: machines start from their disks. */
export const networkDevices = ({ hardware, networks }: KeptSpec): readonly Device[] =>
  networks.map(({ mac }, index) => ({
    driver: networkDrivers[hardware.networkModel],
    netdev: `net${index}`,
    mac,
    romfile: '',
  }))

export const otherDevices = ({ hardware }: KeptSpec): readonly Device[] => [
  { driver: 'isa-serial', chardev: 'serial', index: 0 },
  { driver: 'VGA' }, // boot loaders of people's images draw menus
  ...(hardware.randomness ? [{ driver: 'virtio-rng-pci', rng: 'randomness' }] : []),
  ...(hardware.qemuGuestAgent
    ? [{ driver: 'virtio-serial-pci' }, { driver: 'virtserialport', chardev: 'agent', name: 'org.qemu.guest_agent.0' }]
    : []),
]

function must(holds: boolean, problem: string): asserts holds {
  if (!holds) throw new ServiceError('invalid-request', `the machine cannot be made: ${problem}`)
}
