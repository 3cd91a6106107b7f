import { createHash } from 'node:crypto'
import { ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { StreamOptions } from '../archives/archive.ts'
import { bytesOf } from '../archives/part.ts'
import { type NewMember, tarBytes, writeTar } from '../archives/write-tar.ts'
import { escaped } from './xml.ts'

/** A disk of a new package, already in the format that it is to have there. */
export interface NewDisk {
  /** What the file is: `vmdk`, streamOptimized, is what all who read OVA know. */
  readonly diskFormat: 'vmdk' | 'qcow2' | 'vhd' | 'raw'
  /** Of the disk in it. */
  readonly capacityBytes: number
  /** Of the file: its size and its SHA-256, in hex. The manifest comes before the disks, so that both must be known. */
  readonly fileBytes: number
  readonly sha256: string
  /** The file: a source, or a stream that is made when its turn comes. */
  readonly file: BlockSource | (() => AsyncIterable<Uint8Array>)
}
export interface NewAppliance {
  /** Of the machine; names of files are made of it. */
  readonly name: string
  /** The first is the one that it starts from. */
  readonly disks: readonly NewDisk[]
  readonly vcpus: number
  readonly memoryMiB: number
  readonly firmware?: 'bios' | 'uefi'
  readonly secureBoot?: boolean
  readonly diskBus?: 'ide' | 'sata' | 'scsi'
  /** Words of VMware: `lsilogic`, `lsilogicsas`, `VirtualSCSI`. */
  readonly scsiModel?: string
  /** One for each adapter: `E1000`, `VmxNet3`. */
  readonly networkModels?: readonly string[]
  /** `ovf:id` of the operating system, 1 (other) where absent, and VMware's word for it. */
  readonly system?: { readonly id: number; readonly vendorType?: string }
}

/** URIs that stand for the formats; nobody fetches them. */
const formatUris: Readonly<Record<NewDisk['diskFormat'], string>> = {
  vmdk: 'http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized',
  qcow2: 'http://www.gnome.org/~markmc/qcow-image-format.html',
  vhd: 'http://go.microsoft.com/fwlink/p/?linkid=137171',
  raw: 'urn:imprint:raw',
}

/**
 * An OVA from its first byte to its last: descriptor, manifest (SHA-256), disks. The same package gives the same bytes.
 * @throws ServiceError `corrupt` where a disk's file is not as long as it says, or has another digest: the last bytes are not given then
 */
export function writeOva(appliance: NewAppliance, options: StreamOptions = {}): AsyncIterable<Uint8Array> {
  return writeTar(membersOf(appliance, options))
}
/** Bytes of the OVA, known before any is made. */
export const ovaBytes = (appliance: NewAppliance): number => tarBytes(membersOf(appliance, {}))

function membersOf(appliance: NewAppliance, options: StreamOptions): NewMember[] {
  const base = fileNameOf(appliance.name)
  const names = appliance.disks.map(({ diskFormat }, index) => `${base}-disk${index + 1}.${diskFormat}`)
  const descriptor = Buffer.from(descriptorOf(appliance, names))
  const digests = [createHash('sha256').update(descriptor).digest('hex'), ...appliance.disks.map(({ sha256 }) => sha256)]
  const manifest = Buffer.from([`${base}.ovf`, ...names].map((name, index) => `SHA256(${name})= ${digests[index]}\n`).join(''))
  return [
    textMember(`${base}.ovf`, descriptor),
    textMember(`${base}.mf`, manifest),
    ...appliance.disks.map((disk, index) => ({
      name: names[index] as string,
      bytes: disk.fileBytes,
      stream: () => fileOf(disk, options),
    })),
  ]
}

/** Letters, digits, `.`, `_` and `-` of the name; at most 60. */
function fileNameOf(name: string): string {
  const plain = name
    .normalize('NFKD')
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[-.]+|[-.]+$/g, '')
    .slice(0, 60)
  return plain === '' ? 'machine' : plain
}
const textMember = (name: string, bytes: Uint8Array): NewMember => ({
  name,
  bytes: bytes.length,
  async *stream() {
    yield bytes
  },
})

async function* fileOf({ file, sha256 }: NewDisk, options: StreamOptions): AsyncGenerator<Uint8Array, void, undefined> {
  const hash = createHash('sha256')
  for await (const piece of typeof file === 'function' ? file() : bytesOf(file, options)) {
    if (options.signal?.aborted) throw new ServiceError('cancelled', 'the writing was cancelled')
    hash.update(piece)
    yield piece
  }
  const digest = hash.digest('hex')
  if (digest !== sha256)
    throw new ServiceError('corrupt', `a disk of the OVA has the SHA-256 ${digest}, where ${sha256} was promised`)
}

function descriptorOf(appliance: NewAppliance, names: readonly string[]): string {
  const { name, disks, system = { id: 1 } } = appliance
  const references = disks.map(
    ({ fileBytes }, index) => `    <File ovf:href="${names[index]}" ovf:id="file${index + 1}" ovf:size="${fileBytes}"/>\n`,
  )
  const diskLines = disks.map(
    ({ capacityBytes, diskFormat }, index) =>
      `    <Disk ovf:capacity="${capacityBytes}" ovf:capacityAllocationUnits="byte" ovf:diskId="disk${index + 1}" ovf:fileRef="file${index + 1}" ovf:format="${formatUris[diskFormat]}"/>\n`,
  )
  const networks =
    (appliance.networkModels ?? []).length === 0
      ? ''
      : '  <NetworkSection>\n    <Info>Networks</Info>\n    <Network ovf:name="network"/>\n  </NetworkSection>\n'
  const vendor = system.vendorType === undefined ? '' : ` vmw:osType="${escaped(system.vendorType)}"`
  return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>
${references.join('')}  </References>
  <DiskSection>
    <Info>Disks</Info>
${diskLines.join('')}  </DiskSection>
${networks}  <VirtualSystem ovf:id="${escaped(fileNameOf(name))}">
    <Info>A machine</Info>
    <Name>${escaped(name)}</Name>
    <OperatingSystemSection ovf:id="${system.id}"${vendor}>
      <Info>The operating system</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>
      </System>
${itemsOf(appliance).map(itemXml).join('')}${firmwareXml(appliance)}    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`
}

/** Elements of one item. CIM's schema wants them in the order of the alphabet. */
type Item = Readonly<Record<string, string | number>>

function itemsOf({
  disks,
  vcpus,
  memoryMiB,
  diskBus = 'scsi',
  scsiModel = 'lsilogic',
  networkModels = [],
}: NewAppliance): Item[] {
  const controllers = {
    ide: { ResourceType: 5 },
    scsi: { ResourceSubType: scsiModel, ResourceType: 6 },
    sata: { ResourceSubType: 'AHCI', ResourceType: 20 },
  }
  const perController = diskBus === 'ide' ? 2 : 15 // of a SCSI bus, the controller takes the 16th place
  const count = Math.max(1, Math.ceil(disks.length / perController))
  /** SCSI skips the controller's own place, 7. */
  const placeOf = (index: number) =>
    diskBus === 'scsi' && index % perController >= 7 ? (index % perController) + 1 : index % perController
  const items: Item[] = [
    { AllocationUnits: 'hertz * 10^6', ElementName: `${vcpus} virtual processors`, ResourceType: 3, VirtualQuantity: vcpus },
    { AllocationUnits: 'byte * 2^20', ElementName: `${memoryMiB} MiB of memory`, ResourceType: 4, VirtualQuantity: memoryMiB },
    ...Array.from({ length: count }, (_, index) => ({
      Address: index,
      ElementName: `${diskBus} controller ${index}`,
      ...controllers[diskBus],
    })),
    ...disks.map((_, index) => ({
      AddressOnParent: placeOf(index),
      ElementName: `Disk ${index + 1}`,
      HostResource: `ovf:/disk/disk${index + 1}`,
      Parent: 3 + Math.floor(index / perController),
      ResourceType: 17,
    })),
    ...networkModels.map((model, index) => ({
      AddressOnParent: index,
      AutomaticAllocation: 'true',
      Connection: 'network',
      ElementName: `Network adapter ${index + 1}`,
      ResourceSubType: model,
      ResourceType: 10,
    })),
  ]
  return items.map((item, index) => ({ ...item, InstanceID: index + 1 }))
}

function itemXml(item: Item): string {
  const fields = Object.keys(item)
    .toSorted()
    .map((name) => `        <rasd:${name}>${escaped(String(item[name]))}</rasd:${name}>\n`)
  return `      <Item>\n${fields.join('')}      </Item>\n`
}

function firmwareXml({ firmware, secureBoot }: NewAppliance): string {
  const config = (key: string, value: string) =>
    `      <vmw:Config ovf:required="false" vmw:key="${key}" vmw:value="${value}"/>\n`
  if (firmware === undefined) return ''
  return (
    config('firmware', firmware === 'uefi' ? 'efi' : 'bios') +
    (secureBoot ? config('bootOptions.efiSecureBootEnabled', 'true') : '')
  )
}
