import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { missingTool, must } from '../../../../test/peers/command.ts'
import { bytesSource } from '../../block/memory-source.ts'
import { openOva } from './open-ova.ts'
import { type NewAppliance, type NewDisk, ovaBytes, writeOva } from './write-ova.ts'

let folder = ''
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ova-'))
})
after(() => rm(folder, { recursive: true, force: true }))

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const diskOf = (bytes: Uint8Array, capacityBytes: number): NewDisk => ({
  diskFormat: 'vmdk',
  capacityBytes,
  fileBytes: bytes.length,
  sha256: sha256(bytes),
  file: bytesSource(bytes),
})
const box = (disks: readonly NewDisk[]): NewAppliance => ({
  name: 'Büro <1> & "2"',
  disks,
  vcpus: 4,
  memoryMiB: 3000,
  firmware: 'uefi',
  secureBoot: true,
  scsiModel: 'VirtualSCSI',
  networkModels: ['VmxNet3', 'E1000'],
  system: { id: 96, vendorType: 'debian12_64Guest' },
})

test('a package with disks made by qemu-img is read back, and Debian’s tar and sha256sum agree', {
  skip: missingTool('qemu-img', 'tar', 'sha256sum'),
}, async () => {
  const raw = Buffer.concat([randomBytes(200_000), Buffer.alloc(2 ** 20)]).subarray(0, 2 ** 20)
  const [rawPath, vmdkPath] = [join(folder, 'disk.raw'), join(folder, 'disk.vmdk')]
  await writeFile(rawPath, raw)
  await must(['qemu-img', 'convert', '-O', 'vmdk', '-o', 'subformat=streamOptimized', rawPath, vmdkPath])
  const vmdk = await readFile(vmdkPath)
  const appliance = box([
    diskOf(vmdk, 2 ** 20),
    {
      ...diskOf(raw, 2 ** 20),
      diskFormat: 'raw',
      file: async function* () {
        yield raw
      },
    },
  ])
  const written = await buffer(writeOva(appliance))
  assert.equal(written.length, ovaBytes(appliance))
  assert.ok(written.equals(await buffer(writeOva(appliance))), 'the same bytes each time')

  const read = await openOva(bytesSource(written))
  await read.verify()
  assert.deepEqual([read.name, read.hasManifest, read.warnings], [appliance.name, true, []])
  assert.deepEqual(
    read.disks.map(({ capacityBytes, diskFormat }) => [capacityBytes, diskFormat]),
    [
      [2 ** 20, 'vmdk'],
      [2 ** 20, 'raw'],
    ],
  )
  assert.deepEqual(read.hints, {
    minRamMiB: 3000,
    minDiskGiB: 1,
    vcpus: 4,
    coresPerSocket: undefined,
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

  const out = join(folder, 'out')
  await mkdir(out)
  await writeFile(join(folder, 'box.ova'), written)
  await must(['tar', '-xf', join(folder, 'box.ova'), '-C', out])
  await must(['sh', '-c', 'sed -E "s/^SHA256\\((.*)\\)= (.*)/\\2  \\1/" *.mf | sha256sum -c --strict -'], { cwd: out })
  const names = read.disks.map((disk) => disk.file?.name ?? '')
  await must(['qemu-img', 'compare', '-f', 'vmdk', '-F', 'raw', join(out, names[0]!), join(out, names[1]!)])
})

test('the descriptor is well-formed for another reader', { skip: missingTool('python3') }, async () => {
  const written = await buffer(writeOva(box([diskOf(randomBytes(10), 512)])))
  const [descriptor] = (await import('../archives/tar.ts').then(({ listTar }) => listTar(bytesSource(written)))).members
  const script =
    'import sys,xml.etree.ElementTree as e; r=e.fromstring(sys.stdin.buffer.read()); print(r.tag, len(list(r.iter())))'
  const said = await must(['python3', '-c', script], { input: await buffer(descriptor!.stream()) })
  assert.match(said, /^\{http:\/\/schemas\.dmtf\.org\/ovf\/envelope\/1\}Envelope \d+/)
})

for (const [diskBus, disks] of [
  ['ide', 5],
  ['scsi', 17],
  ['sata', 3],
] as const) {
  test(`${disks} disks on ${diskBus}: each has a place of its own, on a controller that there is`, async () => {
    const all = Array.from({ length: disks }, () => diskOf(randomBytes(10), 512))
    const { descriptor } = await openOva(bytesSource(await buffer(writeOva({ ...box(all), diskBus }))))
    const drives = descriptor.machine.items.filter(({ type }) => type === 17)
    const ids = new Set(descriptor.machine.items.map(({ id }) => id))
    assert.equal(drives.length, disks)
    assert.equal(ids.size, descriptor.machine.items.length)
    const controllers = new Set(
      descriptor.machine.items.filter(({ type }) => type === { ide: 5, scsi: 6, sata: 20 }[diskBus]).map(({ id }) => id),
    )
    assert.ok(drives.every(({ parent }) => controllers.has(parent)))
  })
}

test('a disk that is not what was promised ends the writing', async () => {
  const bytes = randomBytes(2000)
  const written = (change: Partial<NewDisk>) => buffer(writeOva(box([{ ...diskOf(bytes, 4096), ...change }])))
  await assert.rejects(written({ sha256: '0'.repeat(64) }), { code: 'corrupt', message: /was promised/ })
  await assert.rejects(written({ file: bytesSource(randomBytes(1000)) }), { code: 'corrupt' })
  await assert.rejects(written({ fileBytes: 1999 }), { code: 'corrupt', message: /has more/ })
  const signal = AbortSignal.abort()
  await assert.rejects(buffer(writeOva(box([diskOf(bytes, 4096)]), { signal })), { code: 'cancelled' })
})
