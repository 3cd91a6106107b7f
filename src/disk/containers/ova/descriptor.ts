import { bytesFrom, unitBytes, wholeNumber } from './units.ts'
import { attributeOf, childOf, childrenOf, type Element, parseXml, refuseOvf, textOf } from './xml.ts'

/**
 * What an OVF descriptor says of its disks and of the machine that they are for.
 * Source: DMTF DSP0243 1.1.1 and 2.1.1; resource types from CIM_ResourceAllocationSettingData.
 */
export interface OvfDescriptor {
  readonly version: 1 | 2
  readonly files: readonly OvfFile[]
  readonly disks: readonly OvfDisk[]
  readonly machine: OvfMachine
  /** What was seen and is of no use here, one sentence each. */
  readonly warnings: readonly string[]
}
export interface OvfFile {
  readonly id: string
  /** A name without folders. */
  readonly href: string
  /** As the descriptor says; of the file as it is referred to, all parts together. */
  readonly bytes: number | undefined
  readonly compression: 'identity' | 'gzip' | 'bzip2'
  /** The file is in parts of so many bytes, `href.000000000` and so on; 0: it is whole. */
  readonly chunkBytes: number
}
export interface OvfDisk {
  readonly id: string
  /** Of a file; undefined: the disk is empty. */
  readonly fileId: string | undefined
  readonly capacityBytes: number
  readonly populatedBytes: number | undefined
  /** A URI that says what the file is, or empty. */
  readonly format: string
}
export interface OvfMachine {
  readonly name: string
  /** As the descriptor has them: 102, `Debian GNU/Linux (64-bit)`, `debian10_64Guest`. */
  readonly system: { readonly id: number | undefined; readonly description: string; readonly vendorType: string }
  /** `vmx-19`, `virtualbox-2.2` … */
  readonly hardwareTypes: readonly string[]
  readonly items: readonly OvfItem[]
  readonly firmware: 'bios' | 'uefi' | undefined
  readonly secureBoot: boolean
}
/** One piece of hardware. */
export interface OvfItem {
  readonly id: string
  readonly type: number
  readonly subtypes: readonly string[]
  readonly parent: string
  readonly quantity: number | undefined
  /** Of a quantity, in bytes; undefined where the unit is none of sizes. */
  readonly unit: string
  readonly coresPerSocket: number | undefined
  /** `ovf:/disk/ID`, `ovf:/file/ID` */
  readonly hosts: readonly string[]
}

const namespaces: Readonly<Record<string, 1 | 2>> = {
  'http://schemas.dmtf.org/ovf/envelope/1': 1,
  'http://schemas.dmtf.org/ovf/envelope/2': 2,
}
const MAX_FILES = 1024
const MAX_ITEMS = 1024
const VMWARE_SPACE = 'http://www.vmware.com/schema/ovf'
const VIRTUALBOX_SPACE = 'http://www.virtualbox.org/ovf/machine'

/**
 * Reads the descriptor of one machine. References are looked at, never followed.
 * @throws ServiceError `invalid-image`; `unsupported` for several machines, for differences to other disks and for capacities that are to be filled in
 */
export function parseDescriptor(bytes: Uint8Array): OvfDescriptor {
  const envelope = parseXml(bytes)
  const version = namespaces[envelope.space]
  if (envelope.name !== 'Envelope')
    throw refuseOvf('malformed', `the descriptor is "${envelope.name.slice(0, 60)}", not "Envelope"`)
  if (!version)
    throw refuseOvf('unsupported', `the descriptor is of "${envelope.space.slice(0, 100)}"; OVF 1 and 2 of the DMTF are read`)
  const warnings: string[] = []
  const files = filesOf(childOf(envelope, 'References'))
  const disks = disksOf(childOf(envelope, 'DiskSection'), new Set(files.map(({ id }) => id)))
  const collection = childOf(envelope, 'VirtualSystemCollection')
  const systems = [...childrenOf(envelope, 'VirtualSystem'), ...childrenOf(collection, 'VirtualSystem')]
  if (systems.length !== 1 || childrenOf(collection, 'VirtualSystemCollection').length > 0) {
    throw refuseOvf(
      'unsupported',
      `the package has ${systems.length === 1 ? 'nested collections' : `${systems.length} machines`}; one is read`,
    )
  }
  const machine = machineOf(systems[0] as Element, new Set(disks.map(({ id }) => id)), warnings)
  return { version, files, disks, machine, warnings }
}

function filesOf(references: Element | undefined): OvfFile[] {
  const files = childrenOf(references, 'File').map((file): OvfFile => {
    const id = needed(file, 'id')
    const compression = attributeOf(file, 'compression') ?? 'identity'
    if (compression !== 'identity' && compression !== '' && compression !== 'gzip' && compression !== 'bzip2') {
      throw refuseOvf(
        'unsupported',
        `the file "${id.slice(0, 60)}" is compressed by ${JSON.stringify(compression.slice(0, 60))}; gzip and bzip2 are read`,
      )
    }
    const size = attributeOf(file, 'size')
    const chunk = attributeOf(file, 'chunkSize')
    return {
      id,
      href: localName(needed(file, 'href')),
      bytes: size === undefined || size === '' ? undefined : wholeNumber('ovf:size', size),
      compression: compression === '' ? 'identity' : compression,
      chunkBytes: chunk === undefined ? 0 : wholeNumber('ovf:chunkSize', chunk),
    }
  })
  if (files.length > MAX_FILES)
    throw refuseOvf('malformed', `the descriptor refers to ${files.length} files; ${MAX_FILES} is the limit`)
  assertDistinct('files', files)
  return files
}

/**
 * A reference may be any URL; one that leads out of the package is refused.
 * @throws ServiceError `invalid-image`
 */
function localName(href: string): string {
  let name = href
  try {
    name = decodeURIComponent(href)
  } catch {
    // a percent sign that stands for itself
  }
  for (const form of [href, name]) {
    const isInert = form.length <= 255 && !/[/\\\p{Cc}]|^[a-z][a-z0-9+.-]*:|^\.{1,2}$|^$/iu.test(form)
    if (!isInert) {
      const problem = `ovf:href ${JSON.stringify(href.slice(0, 100))} leads out of the package: it must be the name of a file in it`
      throw refuseOvf('external-reference', problem)
    }
  }
  return name
}

function disksOf(section: Element | undefined, fileIds: ReadonlySet<string>): OvfDisk[] {
  const disks = childrenOf(section, 'Disk').map((disk): OvfDisk => {
    const id = needed(disk, 'diskId')
    const fileId = attributeOf(disk, 'fileRef')
    const capacity = needed(disk, 'capacity')
    const populated = attributeOf(disk, 'populatedSize')
    if (fileId !== undefined && !fileIds.has(fileId))
      throw refuseOvf(
        'malformed',
        `the disk "${id.slice(0, 60)}" is in the file "${fileId.slice(0, 60)}", which is none of the references`,
      )
    if (attributeOf(disk, 'parentRef') !== undefined)
      throw refuseOvf('unsupported', `the disk "${id.slice(0, 60)}" is a difference to another one`)
    if (capacity.startsWith('${'))
      throw refuseOvf('unsupported', `the capacity of the disk "${id.slice(0, 60)}" is to be filled in at deployment`)
    return {
      id,
      fileId,
      capacityBytes: bytesFrom(
        `the capacity of the disk "${id.slice(0, 60)}"`,
        capacity,
        attributeOf(disk, 'capacityAllocationUnits') ?? 'byte',
      ),
      populatedBytes: populated === undefined || populated === '' ? undefined : wholeNumber('ovf:populatedSize', populated),
      format: attributeOf(disk, 'format') ?? '',
    }
  })
  if (disks.length > MAX_FILES)
    throw refuseOvf('malformed', `the descriptor has ${disks.length} disks; ${MAX_FILES} is the limit`)
  assertDistinct('disks', disks)
  return disks
}

function machineOf(system: Element, diskIds: ReadonlySet<string>, warnings: string[]): OvfMachine {
  const os = childOf(system, 'OperatingSystemSection')
  const sections = childrenOf(system, 'VirtualHardwareSection')
  if (sections.length > 1) warnings.push(`Of ${sections.length} hardware descriptions, the first is used.`)
  const [hardware] = sections
  const id = (os && attributeOf(os, 'id')) ?? ''
  const items = itemsOf(hardware, warnings)
  for (const { hosts } of items) {
    for (const host of hosts) {
      const disk = /^(?:ovf:)?\/disk\/(.*)$/.exec(host)?.[1]
      if (disk !== undefined && !diskIds.has(disk))
        throw refuseOvf('malformed', `a drive holds the disk ${JSON.stringify(disk.slice(0, 60))}, which there is not`)
    }
  }
  return {
    name: textOf(system, 'Name') || (attributeOf(system, 'id') ?? ''),
    system: {
      id: /^\d{1,5}$/.test(id) ? Number(id) : undefined,
      description: textOf(os, 'Description'),
      vendorType: (os && attributeOf(os, 'osType')) ?? textOf(os, 'OSType'),
    },
    hardwareTypes: textOf(childOf(hardware, 'System'), 'VirtualSystemType').split(/\s+/).filter(Boolean),
    items,
    ...firmwareOf(system, hardware),
  }
}

/** Neither version of OVF says what firmware a machine has; VMware and VirtualBox do, each in its own elements. */
function firmwareOf(system: Element, hardware: Element | undefined): Pick<OvfMachine, 'firmware' | 'secureBoot'> {
  const settings = new Map<string, string>()
  for (const config of childrenOf(hardware, 'Config')) {
    if (config.space === VMWARE_SPACE)
      settings.set(attributeOf(config, 'key') ?? '', (attributeOf(config, 'value') ?? '').toLowerCase())
  }
  const box = childrenOf(system, 'Machine').find(({ space }) => space === VIRTUALBOX_SPACE)
  const boxFirmware =
    childOf(childOf(box, 'Hardware'), 'Firmware') ?? childOf(childOf(childOf(box, 'Hardware'), 'BIOS'), 'Firmware')
  const said = settings.get('firmware') ?? (boxFirmware ? (attributeOf(boxFirmware, 'type') ?? '') : '').toLowerCase()
  const firmware = said.startsWith('efi') ? 'uefi' : said === 'bios' ? 'bios' : undefined
  const secureBoot =
    firmware === 'uefi' &&
    (settings.get('bootOptions.efiSecureBootEnabled') ?? settings.get('uefi.secureBoot.enabled')) === 'true'
  return { firmware, secureBoot }
}

function itemsOf(hardware: Element | undefined, warnings: string[]): OvfItem[] {
  const found =
    hardware?.children.filter(({ name }) => name === 'Item' || name === 'StorageItem' || name === 'EthernetPortItem') ?? []
  if (found.length > MAX_ITEMS) throw refuseOvf('malformed', `the hardware has ${found.length} items; ${MAX_ITEMS} is the limit`)
  const usual = found.filter(
    (item) => attributeOf(item, 'configuration') === undefined && attributeOf(item, 'bound') === undefined,
  )
  if (usual.length < found.length) warnings.push('Items of single configurations, and bounds of others, are not used.')
  return usual.map((item) => {
    const quantity = textOf(item, 'VirtualQuantity')
    const cores = textOf(item, 'CoresPerSocket')
    return {
      id: textOf(item, 'InstanceID') || textOf(item, 'InstanceId'),
      type: wholeNumber('a ResourceType', textOf(item, 'ResourceType') || '0'),
      subtypes: textOf(item, 'ResourceSubType').split(/\s+/).filter(Boolean),
      parent: textOf(item, 'Parent'),
      quantity: quantity === '' ? undefined : wholeNumber('a VirtualQuantity', quantity),
      unit: textOf(item, 'AllocationUnits'),
      coresPerSocket: cores === '' ? undefined : wholeNumber('CoresPerSocket', cores),
      hosts: childrenOf(item, 'HostResource').map(({ text }) => text.trim()),
    }
  })
}

/** Bytes of memory that an item is; MiB where no unit is said, as CIM has it. */
export const memoryBytes = (item: OvfItem): number =>
  (item.quantity ?? 0) * unitBytes(item.unit === '' ? 'byte * 2^20' : item.unit)

function needed(element: Element, name: string): string {
  const value = attributeOf(element, name)
  if (value !== undefined && value !== '') return value
  throw refuseOvf('malformed', `a "${element.name}" has no attribute "${name}"`)
}
function assertDistinct(what: string, all: readonly { readonly id: string }[]): void {
  if (new Set(all.map(({ id }) => id)).size < all.length) throw refuseOvf('malformed', `two ${what} have the same id`)
}
