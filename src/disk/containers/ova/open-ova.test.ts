import assert from 'node:assert/strict'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import type { BlockSource } from '../../block/block-source.ts'
import { bytesSource } from '../../block/memory-source.ts'
import { openOva, openOvf } from './open-ova.ts'
import { descriptor, item, manifestOf, ova, smallOva } from './small-packages.suite.ts'

const open = (bytes: Uint8Array) => openOva(bytesSource(bytes))
const given = (files: Readonly<Record<string, string | Uint8Array>>): ReadonlyMap<string, BlockSource> =>
  new Map(Object.entries(files).map(([name, body]) => [name, bytesSource(Buffer.from(body))]))

test('an OVA says what is in it, and shows its disk where it lies', async () => {
  const bytes = smallOva()
  const appliance = await open(bytes)
  assert.equal(appliance.name, 'R&D Box')
  assert.deepEqual(appliance.warnings, [])
  const [disk] = appliance.disks
  assert.deepEqual([disk?.capacityBytes, disk?.diskFormat, disk?.file?.name], [10 * 2 ** 30, 'vmdk', 'box-disk1.vmdk'])
  const file = disk!.file!.open()
  assert.equal(Buffer.from(await file.read(0, file.size)).toString(), 'the disk.')
  await appliance.verify()
  assert.deepEqual(appliance.hints, {
    minRamMiB: 2048,
    minDiskGiB: 10,
    vcpus: 2,
    coresPerSocket: 1,
    properties: {
      hw_disk_bus: 'scsi',
      hw_scsi_model: 'vmpvscsi',
      hw_vif_model: 'VirtualVmxnet3',
      hw_firmware_type: 'uefi',
      os_secure_boot: 'required',
      os_type: 'linux',
      os_distro: 'debian',
      os_version: '12',
    },
  })
})

for (const algorithm of ['sha1', 'sha256', 'sha512']) {
  test(`a manifest with ${algorithm} is verified, and a change of the disk is noticed`, async () => {
    const bytes = smallOva(descriptor(), algorithm)
    await (await open(bytes)).verify()
    bytes.write('The', bytes.indexOf('the disk.'))
    await assert.rejects((await open(bytes)).verify(), { code: 'invalid-image', message: /box-disk1\.vmdk.* is .*damaged/ })
  })
}

const hardware: readonly { name: string; items?: string; system?: string; wanted: Readonly<Record<string, string>> }[] = [
  {
    name: 'IDE and E1000 of VirtualBox, Windows',
    items:
      item({ InstanceID: 3, ResourceType: 5 }) +
      item({ HostResource: '/disk/vmdisk1', InstanceID: 4, Parent: 3, ResourceType: 17 }) +
      item({ ResourceSubType: 'E1000', ResourceType: 10 }),
    system: 'vmw:osType="windows2019srv_64Guest"',
    wanted: { hw_disk_bus: 'ide', hw_vif_model: 'e1000', os_type: 'windows', os_distro: 'windows' },
  },
  {
    name: 'AHCI and PCNet',
    items:
      item({ InstanceID: 3, ResourceSubType: 'vmware.sata.ahci', ResourceType: 20 }) +
      item({ HostResource: 'ovf:/disk/vmdisk1', Parent: 3, ResourceType: 17 }) +
      item({ ResourceSubType: 'PCNet32', ResourceType: 10 }),
    system: 'vmw:osType="rhel9_64Guest"',
    wanted: { hw_disk_bus: 'sata', hw_vif_model: 'pcnet', os_type: 'linux', os_distro: 'rhel', os_version: '9' },
  },
  {
    name: 'LSI Logic SAS and virtio, by the number of the standard',
    items:
      item({ InstanceID: 3, ResourceSubType: 'lsilogicsas', ResourceType: 6 }) +
      item({ HostResource: 'ovf:/disk/vmdisk1', Parent: 3, ResourceType: 17 }) +
      item({ ResourceSubType: 'virtio', ResourceType: 10 }),
    system: 'vmw:osType="somethingNew"',
    wanted: { hw_disk_bus: 'scsi', hw_scsi_model: 'lsisas1068', hw_vif_model: 'virtio', os_type: 'linux', os_distro: 'debian' },
  },
  {
    name: 'nothing that is known',
    items: item({ ResourceSubType: 'constructor', ResourceType: 10 }),
    system: '',
    wanted: { os_type: 'linux', os_distro: 'debian' },
  },
]
for (const { name, items, system, wanted } of hardware) {
  test(`hardware: ${name}`, async () => {
    const appliance = await open(
      ova({ 'a.ovf': descriptor({ items: items ?? '', system: system ?? '' }), 'box-disk1.vmdk': 'the disk.' }),
    )
    assert.deepEqual(appliance.hints.properties, { ...wanted, hw_firmware_type: 'uefi', os_secure_boot: 'required' })
  })
}

test('memory in old units, and firmware as VirtualBox has it', async () => {
  const text = descriptor({
    items: item({ AllocationUnits: 'MegaBytes', ResourceType: 4, VirtualQuantity: 512 }),
    after: '<vbox:Machine uuid="{1}" name="x"><vbox:Hardware><vbox:Firmware type="EFI"/></vbox:Hardware></vbox:Machine>',
  }).replace(/<vmw:Config .*\/>/g, '')
  const { hints } = await open(ova({ 'a.ovf': text, 'box-disk1.vmdk': 'the disk.' }))
  assert.deepEqual(
    [hints.minRamMiB, hints.properties.hw_firmware_type, hints.properties.os_secure_boot],
    [512, 'uefi', undefined],
  )
})

test('version 2 of OVF, with its own items', async () => {
  const text = descriptor({
    items:
      '<StorageItem><rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>17</rasd:ResourceType></StorageItem><EthernetPortItem><rasd:ResourceSubType>E1000e</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></EthernetPortItem>',
  }).replaceAll('/ovf/envelope/1', '/ovf/envelope/2')
  const appliance = await open(ova({ 'a.ovf': text, 'box-disk1.vmdk': 'the disk.' }))
  assert.equal(appliance.descriptor.version, 2)
  assert.equal(appliance.hints.properties.hw_vif_model, 'e1000e')
})

test('an OVF with its files given: parts are put together, and what is compressed is a stream', async () => {
  const text = descriptor({
    files:
      '<File ovf:href="a.raw" ovf:id="file1" ovf:chunkSize="4" ovf:size="9"/><File ovf:href="b%20c.gz" ovf:id="file2" ovf:compression="gzip"/>',
    disks:
      '<Disk ovf:capacity="9" ovf:diskId="vmdisk1" ovf:fileRef="file1"/><Disk ovf:capacity="9" ovf:diskId="d2" ovf:fileRef="file2"/><Disk ovf:capacity="5" ovf:capacityAllocationUnits="GigaBytes" ovf:diskId="d3"/>',
  })
  const files = given({
    'x.ovf': text,
    'a.raw.000000000': 'the ',
    'a.raw.000000001': 'disk',
    'a.raw.000000002': '.',
    'b c.gz': gzipSync('another'),
  })
  const { disks, hasManifest } = await openOvf(files)
  assert.equal(hasManifest, false)
  const [whole, packed, empty] = disks
  const source = whole!.file!.open()
  assert.equal(Buffer.from(await source.read(2, 6)).toString(), 'e disk')
  assert.equal((await buffer(whole!.file!.stream({ maxBytes: 100 }))).toString(), 'the disk.')
  assert.throws(() => packed!.file!.open(), { code: 'unsupported', message: /is compressed/ })
  assert.equal((await buffer(packed!.file!.stream({ maxBytes: 100 }))).toString(), 'another')
  await assert.rejects(buffer(packed!.file!.stream({ maxBytes: 3 })), { code: 'too-large' })
  assert.deepEqual([empty?.file, empty?.capacityBytes], [undefined, 5 * 2 ** 30])
})

test('a signature is not verified, and files that nothing refers to are left alone: both are said', async () => {
  const appliance = await open(ova({ 'a.ovf': descriptor(), 'box-disk1.vmdk': 'the disk.', 'a.cert': 'junk', 'readme.txt': 'x' }))
  assert.deepEqual(appliance.warnings, [
    'The package is signed; its signature was not verified.',
    '1 files of the package are referred to by nothing, the first is "readme.txt".',
  ])
})

const withFile = (attributes: string) => descriptor({ files: `<File ovf:id="file1" ${attributes}/>` })
const withDisk = (attributes: string) => descriptor({ disks: `<Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ${attributes}/>` })
const refusedDescriptors: readonly { name: string; text: string; says: RegExp; code?: string }[] = [
  { name: 'a document type', text: descriptor().replace('<!--', '<!DOCTYPE x><!--'), says: /document type/ },
  {
    name: 'an entity bomb',
    text: descriptor().replace(
      '<!--',
      `<!DOCTYPE x [<!ENTITY a "aaaa">${Array.from({ length: 9 }, (_, at) => `<!ENTITY a${at} "&a;&a;">`).join('')}]><!--`,
    ),
    says: /document type/,
  },
  {
    name: 'an external entity',
    text: descriptor().replace('<!--', '<!DOCTYPE x SYSTEM "file:///etc/passwd"><!--'),
    says: /document type/,
  },
  { name: 'an entity that is not declared', text: descriptor().replace('&amp;', '&passwd;'), says: /none of the five/ },
  { name: 'an entity by the name of a method', text: descriptor().replace('&amp;', '&constructor;'), says: /none of the five/ },
  { name: 'a reference to half a character', text: descriptor().replace('&amp;', '&#xd800;'), says: /none of the five/ },
  { name: 'a processing instruction', text: descriptor().replace('<!--', '<?php x?><!--'), says: /processing instruction/ },
  { name: 'a depth of 10^5', text: descriptor({ after: '<a>'.repeat(100_000) }), says: /64 deep/ },
  {
    name: '10^6 attributes',
    text: descriptor({ after: `<a ${Array.from({ length: 80_000 }, (_, at) => `b${at}=""`).join(' ')}/>` }),
    says: /64 attributes/,
  },
  { name: '10^5 elements', text: descriptor({ after: '<a/>'.repeat(100_000) }), says: /20000 elements/ },
  {
    name: '1,000 prefixes',
    text: descriptor({
      after: Array.from(
        { length: 50 },
        (_, at) => `<a ${Array.from({ length: 20 }, (__, own) => `xmlns:p${at}x${own}="x"`).join(' ')}>`,
      ).join(''),
    }),
    says: /prefixes are declared/,
  },
  { name: '2 MiB', text: descriptor({ after: ' '.repeat(2 ** 21) }), says: /1048576 is the limit/ },
  { name: 'one attribute twice', text: withFile('ovf:href="a" ovf:href="b"'), says: /there twice/ },
  { name: 'a prefix that is not declared', text: withFile('x:href="a"'), says: /not declared/ },
  { name: 'an element that is not closed', text: descriptor().replace('</References>', ''), says: /is not closed/ },
  { name: 'no end', text: descriptor().slice(0, -20), says: /is not closed|ends in the middle/ },
  { name: 'something after the end', text: `${descriptor()}<x/>`, says: /follows the end/ },
  { name: 'a control character', text: descriptor({ after: '\u0001' }), says: /XML forbids/ },
  { name: 'UTF-7', text: descriptor().replace('UTF-8', 'UTF-7'), says: /UTF-7; UTF-8 is read/ },
  { name: 'another root', text: '<x xmlns="http://schemas.dmtf.org/ovf/envelope/1"/>', says: /not "Envelope"/ },
  {
    name: 'another namespace',
    text: descriptor().replaceAll('schemas.dmtf.org', 'example.org'),
    says: /OVF 1 and 2/,
    code: 'unsupported',
  },
  ...[
    '../x',
    '/etc/passwd',
    'http://169.254.169.254/',
    'file:///etc/passwd',
    'a/b.vmdk',
    '%2e%2e%2fx',
    '..',
    'a\\b',
    'data:,x',
  ].map((href) => ({
    name: `the reference ${href}`,
    text: withFile(`ovf:href="${href}"`),
    says: /leads out of the package/,
  })),
  { name: 'a file that is missing', text: withFile('ovf:href="other.vmdk"'), says: /"other\.vmdk", which is not in the package/ },
  { name: 'another size', text: withFile('ovf:href="box-disk1.vmdk" ovf:size="10"'), says: /has 9 bytes; ovf:size says 10/ },
  { name: 'a size that is no number', text: withFile('ovf:href="box-disk1.vmdk" ovf:size="1e3"'), says: /no whole number/ },
  {
    name: 'an unknown compression',
    text: withFile('ovf:href="box-disk1.vmdk" ovf:compression="lzma"'),
    says: /gzip and bzip2/,
    code: 'unsupported',
  },
  {
    name: 'parts of other sizes',
    text: withFile('ovf:href="box-disk1.vmdk" ovf:chunkSize="5" ovf:size="10"'),
    says: /ovf:size says 10/,
  },
  { name: 'a capacity of 10^30', text: withDisk(`ovf:capacity="1${'0'.repeat(30)}"`), says: /no whole number below 2\^53/ },
  {
    name: 'a capacity of 2^53',
    text: withDisk('ovf:capacity="8388608" ovf:capacityAllocationUnits="byte * 2^30"'),
    says: /2\^53 bytes or more/,
  },
  {
    name: 'an impossible unit',
    text: withDisk('ovf:capacity="1" ovf:capacityAllocationUnits="byte * 10^99"'),
    says: /no number of bytes/,
  },
  { name: 'a capacity to be filled in', text: withDisk(`ovf:capacity="\${size}"`), says: /filled in/, code: 'unsupported' },
  { name: 'a difference', text: withDisk('ovf:capacity="1" ovf:parentRef="x"'), says: /difference/, code: 'unsupported' },
  {
    name: 'a disk in no file of the package',
    text: descriptor({ disks: '<Disk ovf:diskId="vmdisk1" ovf:fileRef="f" ovf:capacity="1"/>' }),
    says: /none of the references/,
  },
  {
    name: 'a drive with a disk that there is not',
    text: descriptor({ items: item({ HostResource: 'ovf:/disk/x', ResourceType: 17 }) }),
    says: /which there is not/,
  },
  {
    name: 'two machines',
    text: descriptor({ after: '</VirtualSystem><VirtualSystem>' }),
    says: /2 machines/,
    code: 'unsupported',
  },
]
for (const { name, text, says, code = 'invalid-image' } of refusedDescriptors) {
  test(`ovf: refused is ${name}`, async () => {
    await assert.rejects(open(ova({ 'box.ovf': text, 'box-disk1.vmdk': 'the disk.' })), { code, message: says })
  })
}

const disk = { 'box-disk1.vmdk': 'the disk.' }
const refusedPackages: readonly { name: string; files: Readonly<Record<string, string>>; says: RegExp }[] = [
  { name: 'a disk before the descriptor', files: { ...disk, 'box.ovf': descriptor() }, says: /first member/ },
  { name: 'two descriptors', files: { 'box.ovf': descriptor(), 'other.ovf': descriptor(), ...disk }, says: /two descriptors/ },
  { name: 'two manifests', files: { 'box.ovf': descriptor(), 'a.mf': '', 'b.mf': '', ...disk }, says: /2 manifests/ },
  {
    name: 'a manifest of something else',
    files: { 'box.ovf': descriptor(), 'a.mf': 'junk', ...disk },
    says: /line 1 of the manifest/,
  },
  {
    name: 'a manifest with MD5',
    files: { 'box.ovf': descriptor(), 'a.mf': `MD5(box.ovf)= ${'0'.repeat(32)}`, ...disk },
    says: /SHA1, SHA256 and SHA512/,
  },
  {
    name: 'a manifest with half a digest',
    files: { 'box.ovf': descriptor(), 'a.mf': `SHA256(box.ovf)= ${'0'.repeat(32)}`, ...disk },
    says: /32 digits/,
  },
  {
    name: 'a manifest that names a file twice',
    files: { 'box.ovf': descriptor(), 'a.mf': manifestOf(disk).repeat(2), ...disk },
    says: /second time/,
  },
  {
    name: 'a manifest of a file that is missing',
    files: { 'box.ovf': descriptor(), 'a.mf': manifestOf({ x: '' }), ...disk },
    says: /names "x", which is not/,
  },
  {
    name: 'a descriptor in UTF-16',
    files: { 'box.ovf': Buffer.from(descriptor(), 'utf16le').toString('latin1'), ...disk },
    says: /XML forbids/,
  },
]
for (const { name, files, says } of refusedPackages) {
  test(`ova: refused is ${name}`, async () => {
    await assert.rejects(open(ova(files)), { code: 'invalid-image', message: says })
  })
}

test('a manifest that does not name the disk is refused when it is verified', async () => {
  const text = descriptor()
  const appliance = await open(ova({ 'box.ovf': text, 'a.mf': manifestOf({ 'box.ovf': text }), ...disk }))
  await assert.rejects(appliance.verify(), { code: 'invalid-image', message: /does not name "box-disk1\.vmdk"/ })
})
