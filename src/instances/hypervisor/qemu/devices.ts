import { ServiceError } from '../../../base/errors.ts'
import { layerNode } from './disk-nodes.ts'
import type { KeptSpec } from './machine-folder.ts'

/** Buses and what hangs on them, as QEMU's `-device` takes them. Source: QEMU docs/system, qdev of 7.2. */

export type Device = Readonly<Record<string, string | number | boolean>> & { readonly driver: string }

/** `pc` has an IDE controller, `q35` has none. */
export type Chipset = 'pc' | 'q35'

const SATA_PORTS = 6 // of one ich9-ahci
const IDE_UNITS = 4 // two on each of two channels

/**
 * The disks in order of boot, then the seed.
 * @throws ServiceError `invalid-request` where the bus has not as many places
 */
export function storageDevices({ hardware, disks, hasSeed }: KeptSpec, chipset: Chipset): readonly Device[] {
  const nodes = disks.map(({ slot, layers, serial }, index) => ({
    drive: layerNode(slot, layers.at(-1)!),
    id: `disk${slot}`,
    bootindex: index,
    ...(serial ? { serial } : {}),
  }))
  const seedNode = { drive: 'seed', id: 'seed' }
  const places = nodes.length + (hasSeed ? 1 : 0)
  switch (hardware.diskBus) {
    case 'virtio':
      // As a disk: a guest that starts from virtio can read that, and cloud kernels drive no CD-ROM. cloud-init goes by its label
      return [...nodes, ...(hasSeed ? [seedNode] : [])].map((node) => ({ driver: 'virtio-blk-pci', ...node }))
    case 'scsi':
      return [
        { driver: 'virtio-scsi-pci', id: 'scsi' },
        ...nodes.map((node, index) => ({ driver: 'scsi-hd', bus: 'scsi.0', 'scsi-id': index, ...node })),
        ...(hasSeed ? [{ driver: 'scsi-cd', bus: 'scsi.0', 'scsi-id': nodes.length, ...seedNode }] : []),
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
