/** How a server's disk is attached: `hw_disk_bus`, with `hw_scsi_model` where that is scsi, and the controllers of real servers. */
export type DiskBus =
  | 'virtio'
  | 'virtio-scsi'
  | 'nvme'
  | 'sata'
  | 'ide'
  | 'usb'
  | 'xen'
  | 'hyperv'
  | 'vmpvscsi'
  | 'lsilogic'
  | 'lsisas1068'
  | 'buslogic'
  | 'megaraid_sas'
  | 'mpt3sas'
  | 'hpsa'
  | 'smartpqi'
  | 'aacraid'

/** Of each group one must be there. Names of Linux's modules, by the devices of their Kconfig. */
type Needs = readonly (readonly string[])[]

const DISK = ['sd_mod']
export const diskDrivers: Readonly<Record<DiskBus, Needs>> = {
  virtio: [['virtio_pci', 'virtio_mmio'], ['virtio_blk']],
  'virtio-scsi': [['virtio_pci', 'virtio_mmio'], ['virtio_scsi'], DISK],
  nvme: [['nvme']],
  sata: [['ahci'], DISK],
  ide: [['ata_piix', 'pata_acpi', 'ata_generic'], DISK],
  usb: [['xhci_pci', 'ehci_pci', 'uhci_hcd'], ['usb_storage', 'uas'], DISK],
  xen: [['xen_blkfront']],
  hyperv: [['hv_storvsc'], DISK],
  vmpvscsi: [['vmw_pvscsi'], DISK],
  lsilogic: [['mptspi'], DISK],
  lsisas1068: [['mptsas'], DISK],
  buslogic: [['BusLogic'], DISK],
  megaraid_sas: [['megaraid_sas'], DISK],
  mpt3sas: [['mpt3sas'], DISK],
  hpsa: [['hpsa'], DISK],
  smartpqi: [['smartpqi'], DISK],
  aacraid: [['aacraid'], DISK],
}

/** By `hw_vif_model` as Glance has it, or the name of the driver. */
const networkDrivers: Readonly<Record<string, Needs>> = {
  virtio: [['virtio_pci', 'virtio_mmio'], ['virtio_net']],
  rtl8139: [['8139cp', '8139too']],
  pcnet: [['pcnet32']],
  ne2k_pci: [['ne2k_pci']],
  VirtualVmxnet3: [['vmxnet3']],
  hyperv: [['hv_netvsc']],
  xen: [['xen_netfront']],
  netfront: [['xen_netfront']],
}

/** A model that is not in the list is the name of its driver: e1000, e1000e, igb, ixgbe, i40e, ice, mlx5_core, bnxt_en, tg3 … */
export const networkNeeds = (model: string): Needs =>
  Object.hasOwn(networkDrivers, model) ? networkDrivers[model]! : [[model.replaceAll('-', '_')]]

/** What a Linux calls the first disk on it. */
export const diskName = (bus: DiskBus): string =>
  bus === 'virtio' ? 'vda' : bus === 'nvme' ? 'nvme0n1' : bus === 'xen' ? 'xvda' : 'sda'
