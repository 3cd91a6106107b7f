/** Descriptors and packages of a few lines, made here so that each defect can be put in. */
import { createHash } from 'node:crypto'
import { type SmallMember, smallTar } from '../archives/small-archives.suite.ts'

export interface DescriptorParts {
  readonly files?: string
  readonly disks?: string
  readonly system?: string
  readonly items?: string
  readonly after?: string
}

export const item = (fields: Readonly<Record<string, string | number>>): string =>
  `<Item>${Object.entries(fields)
    .map(([name, value]) => `<rasd:${name}>${value}</rasd:${name}>`)
    .join('')}</Item>`

const usualItems = [
  item({ AllocationUnits: 'hertz * 10^6', InstanceID: 1, ResourceType: 3, VirtualQuantity: 2 }).replace(
    '</Item>',
    '<vmw:CoresPerSocket ovf:required="false">1</vmw:CoresPerSocket></Item>',
  ),
  item({ AllocationUnits: 'byte * 2^20', InstanceID: 2, ResourceType: 4, VirtualQuantity: 2048 }),
  item({ InstanceID: 3, ResourceSubType: 'VirtualSCSI', ResourceType: 6 }),
  item({ HostResource: 'ovf:/disk/vmdisk1', InstanceID: 4, Parent: 3, ResourceType: 17 }),
  item({ InstanceID: 5, ResourceSubType: 'VmxNet3', ResourceType: 10 }),
].join('\n')

/** As ovftool writes it, much shortened. */
export function descriptor(parts: DescriptorParts = {}): string {
  return `<?xml version="1.0" encoding="UTF-8"?>
<!-- a comment -->
<Envelope vmw:buildId="build-1" xmlns="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:vmw="http://www.vmware.com/schema/ovf"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
  xmlns:vbox="http://www.virtualbox.org/ovf/machine">
  <References>${parts.files ?? '<File ovf:href="box-disk1.vmdk" ovf:id="file1" ovf:size="9"/>'}</References>
  <DiskSection><Info>Disks</Info>${
    parts.disks ??
    '<Disk ovf:capacity="10" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" ovf:populatedSize="123"/>'
  }</DiskSection>
  <VirtualSystem ovf:id="box">
    <Info>A machine</Info><Name>R&amp;D &#66;ox</Name>
    <OperatingSystemSection ovf:id="96" ${parts.system ?? 'vmw:osType="debian12_64Guest"'}><Info>x</Info></OperatingSystemSection>
    <VirtualHardwareSection>
      <System><vssd:VirtualSystemType>vmx-19 vmx-13</vssd:VirtualSystemType></System>
      ${parts.items ?? usualItems}
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
      <vmw:Config ovf:required="false" vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>
    </VirtualHardwareSection>
    ${parts.after ?? ''}
  </VirtualSystem>
</Envelope>
`
}

export function manifestOf(files: Readonly<Record<string, string>>, algorithm = 'sha256'): string {
  const lines = Object.entries(files).map(([name, body]) => {
    const digest = createHash(algorithm).update(body).digest('hex')
    return `${algorithm.toUpperCase()}(${name})= ${digest}\n`
  })
  return lines.join('')
}

export const ova = (files: Readonly<Record<string, string>>): Buffer =>
  smallTar(Object.entries(files).map(([name, body]): SmallMember => ({ name, body })))

/** Descriptor, manifest and one disk. */
export function smallOva(text = descriptor(), algorithm = 'sha256'): Buffer {
  const files = { 'box.ovf': text, 'box-disk1.vmdk': 'the disk.' }
  return ova({ 'box.ovf': text, 'box.mf': manifestOf(files, algorithm), 'box-disk1.vmdk': 'the disk.' })
}
