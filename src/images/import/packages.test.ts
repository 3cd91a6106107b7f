import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { after, before, type TestContext, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { bytesSource } from '../../disk/block/memory-source.ts'
import { smallTar, smallZip } from '../../disk/containers/archives/small-archives.suite.ts'
import { descriptor, item } from '../../disk/containers/ova/small-packages.suite.ts'
import { wrapDisk, writerOf } from '../../disk/formats/index.ts'
import { parseProtections } from '../protections/protections.ts'
import { stage } from '../stage.ts'
import { upload } from '../upload.ts'
import { hostileServer, ok, reply } from './hostile-server.suite.ts'
import { importService, importStores } from './import-service.suite.ts'

let stores: Awaited<ReturnType<typeof importStores>>
before(async () => {
  stores = await importStores()
})
after(() => stores.close())

const disk = Buffer.concat([randomBytes(300_032), Buffer.alloc(748_544)])
const filed = async (format: string): Promise<Buffer> => {
  const file = await wrapDisk(format, bytesSource(disk))
  return Buffer.from(await file.read(0, file.size))
}
async function streamOptimized(): Promise<Buffer> {
  const writer = writerOf('vmdk', 'streamOptimized')
  assert.ok('pack' in writer)
  return buffer(writer.pack(bytesSource(disk)))
}

const items = (scsi: string, network: string) =>
  [
    item({ AllocationUnits: 'byte * 2^20', InstanceID: 2, ResourceType: 4, VirtualQuantity: 2048 }),
    item({ InstanceID: 3, ResourceSubType: scsi, ResourceType: 6 }),
    item({ HostResource: 'ovf:/disk/vmdisk1', InstanceID: 4, Parent: 3, ResourceType: 17 }),
    item({ InstanceID: 5, ResourceSubType: network, ResourceType: 10 }),
  ].join('\n')
const ovf = (bytes: number, parts: Parameters<typeof descriptor>[0] = {}) =>
  descriptor({
    files: `<File ovf:href="box-disk1.vmdk" ovf:id="file1" ovf:size="${bytes}"/>`,
    items: items('lsilogic', 'VmxNet3'),
    ...parts,
  })
function ovaOf(file: Buffer, { text = ovf(file.length), digest = createHash('sha256').update(file).digest('hex') } = {}): Buffer {
  const manifest = `SHA256(box.ovf)= ${createHash('sha256').update(text).digest('hex')}\nSHA256(box-disk1.vmdk)= ${digest}\n`
  return smallTar([
    { name: 'box.ovf', body: text },
    { name: 'box.mf', body: manifest },
    { name: 'box-disk1.vmdk', body: file },
  ])
}

async function serving(t: TestContext, body: Uint8Array, options: Omit<Parameters<typeof importService>[1], 'ports'> = {}) {
  const server = await hostileServer((socket) => reply(socket, ok(body, 'etag: "v1"'), body))
  const service = await importService(stores, { ports: [server.port], ...options })
  t.after(async () => {
    await service.close()
    assert.equal((await service.collected()).chunks, 0, 'nothing is left')
    await server.close()
  })
  return { service, web: { name: 'web-download', uri: `http://127.0.0.1:${server.port}/box.ova` } }
}
const ovaFields = { diskFormat: 'vmdk', containerFormat: 'ova' }

test('an OVA becomes the disk in it, with what it says of the machine', async (t) => {
  const { service, web } = await serving(t, ovaOf(await streamOptimized()))
  const id = await service.image(ovaFields)
  const { image, task } = await service.import(id, web)
  assert.deepEqual(
    [image.status, image.containerFormat, image.diskFormat, image.size, image.virtualSize, task.status],
    ['active', 'bare', 'raw', disk.length, disk.length, 'success'],
    String(image.notes.failure),
  )
  assert.ok(disk.equals(await service.bytesOf(id)))
  assert.deepEqual([image.minRam, image.minDisk], [2048, 1])
  const { hw_disk_bus, hw_scsi_model, hw_vif_model, hw_firmware_type, os_distro } = image.properties
  assert.deepEqual(
    [hw_disk_bus, hw_scsi_model, hw_vif_model, hw_firmware_type, os_distro],
    ['sata', undefined, 'e1000e', 'uefi', 'debian'],
  )
  assert.match(String(image.notes.warnings), /lsilogic.*SATA.*VirtualVmxnet3.*e1000e/)
  assert.deepEqual(
    [image.notes.originContainer, image.notes.originMember, image.notes.originFormat],
    ['ova', 'box-disk1.vmdk', 'vmdk'],
  )
})

test('what the image says already holds against the package', async (t) => {
  const file = await streamOptimized()
  const { service } = await serving(t, Buffer.alloc(0))
  const properties = { hw_disk_bus: 'virtio', hw_vif_model: 'e1000', mine: 'x' }
  const id = await service.image({ ...ovaFields, properties, minRam: 7, minDisk: 9 })
  const body = ovaOf(file)
  await stage(service.ports(), service.caller, id, { bytes: [body] as never, declaredBytes: body.length })
  const { image } = await service.import(id, { name: 'glance-direct' })
  assert.equal(image.status, 'active', String(image.notes.failure))
  assert.deepEqual({ ...image.properties, ...properties }, image.properties)
  assert.deepEqual([image.minRam, image.minDisk, image.properties.hw_firmware_type], [7, 9, 'uefi'])
  assert.equal(image.stagedManifest, null)
})

test('properties that are protected are not set by a package', async (t) => {
  const rules = [
    { property: 'hw_*', create: ['admin'], read: ['@'], update: ['@'], delete: ['@'] },
    { property: '*', create: ['@'], read: ['@'], update: ['@'], delete: ['@'] },
  ]
  const { service, web } = await serving(t, ovaOf(await streamOptimized()), {
    protections: parseProtections(JSON.stringify({ rules })),
  })
  const { image } = await service.import(await service.image(ovaFields), web)
  assert.deepEqual(
    Object.keys(image.properties).filter((name) => name.startsWith('hw_')),
    [],
  )
  assert.equal(image.properties.os_distro, 'debian')
  assert.match(String(image.notes.warnings), /hw_disk_bus.*protected/)
})

const wrapped: readonly (readonly [name: string, format: string, wrap: (file: Buffer) => Buffer, layers: string])[] = [
  ['a tar', 'qcow2', (file) => smallTar([{ name: 'a/disk.qcow2', body: file }]), 'tar'],
  ['a stored zip', 'vhd', (file) => smallZip([{ name: 'disk.vhd', body: file }]), 'zip'],
  ['a zip', 'vdi', (file) => smallZip([{ name: 'disk.vdi', body: file }], { method: 8 }), 'zip'],
  ['a raw disk in a zip', 'raw', (file) => smallZip([{ name: 'disk.img', body: file }], { method: 8 }), 'zip'],
  ['a tar with a gzip in it', 'qcow2', (file) => smallTar([{ name: 'disk.qcow2.gz', body: gzipSync(file) }]), 'tar > gzip'],
  [
    'a zip of a tar',
    'qcow2',
    (file) => smallZip([{ name: 'x.tar', body: smallTar([{ name: 'd.qcow2', body: file }]) }], { method: 8 }),
    'zip > tar',
  ],
]
for (const [name, format, wrap, layers] of wrapped) {
  test(`of ${name} the one disk is taken, downloaded or staged`, async (t) => {
    const file = wrap(format === 'raw' ? disk : await filed(format))
    const { service, web } = await serving(t, file)
    const [fetched, staged] = [await service.image({ diskFormat: format }), await service.image({ diskFormat: format })]
    await stage(service.ports(), service.caller, staged, { bytes: [file] as never, declaredBytes: file.length })
    for (const [id, method] of [
      [fetched, web],
      [staged, { name: 'glance-direct' }],
    ] as const) {
      const { image } = await service.import(id, method)
      assert.deepEqual([image.status, image.diskFormat, image.size], ['active', 'raw', disk.length], String(image.notes.failure))
      assert.ok(disk.equals(await service.bytesOf(id)))
      assert.deepEqual([image.notes.originContainer, image.notes.originFormat, image.minRam], [layers, format, 0])
    }
  })
}

test('of several disks the one that is named is taken', async (t) => {
  const other = { name: 'other.qcow2', body: await filed('qcow2') }
  const { service, web } = await serving(t, smallZip([{ name: 'disk.img', body: disk }, other], { method: 8 }))
  const unnamed = await service.import(await service.image(), web)
  assert.match(String(unnamed.image.notes.failure), /2 disks.*"member" in "method"/)
  const id = await service.image()
  const { image } = await service.import(id, { ...web, member: 'disk.img' })
  assert.equal(image.status, 'active', String(image.notes.failure))
  assert.ok(disk.equals(await service.bytesOf(id)))
  const absent = await service.import(await service.image(), { ...web, member: 'no.img' })
  assert.match(String(absent.image.notes.failure), /no member "no.img"/)
})

const refused: readonly (readonly [name: string, make: () => Promise<Buffer>, says: RegExp, fields?: object])[] = [
  ['a descriptor with a DOCTYPE', async () => ovaOf(await streamOptimized(), { text: `<!DOCTYPE x>${ovf(1)}` }), /document type/],
  ['a wrong digest', async () => ovaOf(await streamOptimized(), { digest: '0'.repeat(64) }), /SHA-256|sha256/i],
  [
    'a reference out of the package',
    async () => ovaOf(disk, { text: ovf(1).replaceAll('box-disk1.vmdk', '../etc/passwd') }),
    /etc\/passwd|name/,
  ],
  ['a disk of another format than declared', async () => ovaOf(await filed('qcow2')), /declared as vmdk.*qcow2/],
  [
    'a member that leaves the archive',
    async () => smallTar([{ name: '../disk.img', body: disk }]),
    /\.\./,
    { diskFormat: 'raw' },
  ],
  [
    'no disk',
    async () =>
      smallZip([
        { name: 'a.txt', body: 'x' },
        { name: 'b.txt', body: 'y' },
      ]),
    /holds no disk/,
    { diskFormat: 'raw' },
  ],
  [
    'a bomb',
    async () => smallZip([{ name: 'a.img', body: Buffer.alloc(60_000_000) }], { method: 8 }),
    /larger|more than/,
    { diskFormat: 'raw' },
  ],
  [
    'a truncated archive',
    async () => smallTar([{ name: 'a.img', body: disk }]).subarray(0, 4096),
    /are there/,
    { diskFormat: 'raw' },
  ],
]
for (const [name, make, says, fields = ovaFields] of refused) {
  test(`an import with ${name} is refused, and leaves nothing`, async (t) => {
    const { service, web } = await serving(t, await make(), { maxImageBytes: 2 ** 25 })
    const { image, task } = await service.import(await service.image(fields), web)
    assert.deepEqual([image.status, task.status, image.properties], ['queued', 'failure', {}])
    assert.match(String(image.notes.failure), says)
    assert.equal((await service.collected()).chunks, 0)
  })
}

test('an OVA that is uploaded stays as it is, and is refused where it is none', async (t) => {
  const { service } = await serving(t, Buffer.alloc(0))
  const send = async (body: Buffer) => {
    const id = await service.image(ovaFields)
    await upload(service.ports(), service.caller, id, { bytes: [body] as never, declaredBytes: body.length })
    return id
  }
  const body = ovaOf(await streamOptimized())
  const id = await send(body)
  const image = await service.show(id)
  assert.deepEqual([image.containerFormat, image.diskFormat, image.size, image.properties], ['ova', 'vmdk', body.length, {}])
  await assert.rejects(send(ovaOf(disk, { text: '<Envelope>' })), { code: 'invalid-image' })
  await assert.rejects(send(ovaOf(disk, { text: `<!DOCTYPE x>${ovf(1)}` })), { code: 'invalid-image', message: /document type/ })
})
