/** Disks inside compression, archives and packages, by the system's own tools; and packages that are written. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { randomDisk, writeSource } from '../../../test/fixtures/disk/disks.ts'
import { lacking, run as runTool } from '../../../test/fixtures/disk/tools.ts'
import { MiB } from '../../base/units.ts'
import { smallTar, smallZip } from '../../disk/containers/archives/small-archives.suite.ts'
import { descriptor, manifestOf, ova } from '../../disk/containers/ova/small-packages.suite.ts'
import { ended, imprint, started } from '../disk-file/child.suite.ts'
import { run, type Said } from '../run-cli.suite.ts'

const DISK_BYTES = 6 * MiB
const skip = lacking('qemu-img', 'tar', 'zip', 'xz', 'gzip', 'bzip2', 'zstd')
let folder = ''
const path = (name: string) => join(folder, name)
const cli = (...words: string[]): Promise<Said> => run(words, { environment: { HOME: '/nonexistent' } })
async function told(...words: string[]) {
  const said = await cli(...words, '--json')
  assert.equal(said.status, 0, said.err)
  return said.json
}
const shell = (line: string) => runTool('sh', '-c', `cd "$1" && ${line}`, 'sh', folder)

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'imprint-inside-'))
  if (skip) return
  await writeSource(randomDisk(DISK_BYTES, 7, 21), path('disk.raw'))
  await mkdir(path('vm'))
  await writeFile(path('vm/notes.txt'), 'not a disk')
  await shell('qemu-img convert -O qcow2 disk.raw vm/disk.qcow2')
  await mkdir(path('split'))
  await shell('qemu-img convert -O vmdk -o subformat=twoGbMaxExtentSparse disk.raw split/parts.vmdk')
  await mkdir(path('flat'))
  await shell('qemu-img convert -O vmdk -o subformat=monolithicFlat disk.raw flat/whole.vmdk')
})
after(() => rm(folder, { recursive: true, force: true }))

const packed: readonly (readonly [file: string, line: string, format: string, layers: readonly string[]])[] = [
  ['disk.raw.gz', 'gzip -k disk.raw', 'raw', ['gzip']],
  ['disk.raw.bz2', 'bzip2 -k disk.raw', 'raw', ['bzip2']],
  ['disk.raw.xz', 'xz -k disk.raw', 'raw', ['xz']],
  ['disk.raw.zst', 'zstd -q disk.raw', 'raw', ['zstd']],
  ['disk.qcow2.xz', 'xz -kc vm/disk.qcow2 > disk.qcow2.xz', 'qcow2', ['xz']],
  ['vm.tar', 'tar -cf vm.tar vm', 'qcow2', ['tar vm/disk.qcow2']],
  ['vm.tar.xz', 'tar -cJf vm.tar.xz vm', 'qcow2', ['xz', 'tar vm/disk.qcow2']],
  ['vm.tar.gz', 'tar -czf vm.tar.gz --format=posix vm', 'qcow2', ['gzip', 'tar vm/disk.qcow2']],
  ['vm.zip', 'zip -qr vm.zip vm', 'qcow2', ['zip vm/disk.qcow2']],
  ['stored.zip', 'zip -q0r stored.zip vm', 'qcow2', ['zip vm/disk.qcow2']],
  ['split.tar', 'tar -cf split.tar split', 'vmdk', ['tar split/parts.vmdk']],
  ['split.zip', 'zip -qr split.zip split', 'vmdk', ['zip split/parts.vmdk']],
  ['flat.tar.gz', 'tar -czf flat.tar.gz flat', 'vmdk', ['gzip', 'tar flat/whole.vmdk']],
]
for (const [file, line, format, layers] of packed) {
  test(`${file}: the disk in it is found, converted and compared`, { skip }, async () => {
    await shell(line)
    const { disk, layers: seen, verdict } = await told('inspect', path(file))
    const said = seen.map(({ kind, member }: { kind: string; member?: string }) => (member ? `${kind} ${member}` : kind))
    assert.deepEqual([disk?.format, said, verdict], [format, layers, { accepted: true }])
    const converted = await told('convert', path(file), path(`${file}.out.raw`))
    assert.deepEqual(converted.source.layers, seen)
    assert.ok((await readFile(path(`${file}.out.raw`))).equals(await readFile(path('disk.raw'))))
    assert.equal((await told('compare', path(file), path('disk.raw'))).equal, true)
    await rm(path(`${file}.out.raw`))
  })
}

test('people are told of each layer', { skip }, async () => {
  await shell('tar -cJf people.tar.xz vm')
  const said = await cli('inspect', path('people.tar.xz'))
  assert.match(said.out, /format +xz, then tar \(vm\/disk\.qcow2\), then qcow2/)
  const converted = await cli('convert', path('people.tar.xz'), path('people.raw'))
  assert.match(converted.err, /Found xz, then tar \(vm\/disk\.qcow2\), then qcow2\./)
})

test('of several disks one is chosen; without a choice they are listed', { skip }, async () => {
  await writeFile(
    path('two.tar'),
    smallTar([
      { name: 'a.raw', body: 'A'.repeat(512) },
      { name: 'b.raw', body: 'B'.repeat(512) },
    ]),
  )
  const refused = await cli('convert', path('two.tar'), path('two.raw'))
  assert.equal(refused.status, 1)
  assert.match(refused.err, /holds 2 disks, "a\.raw", "b\.raw": choose one with --member NAME/)
  await told('convert', path('two.tar'), path('two.raw'), '--member', 'b.raw')
  assert.equal(await readFile(path('two.raw'), 'latin1'), 'B'.repeat(512))
  assert.equal((await cli('map', path('two.tar'), '--member', 'c.raw')).status, 3)
  const compared = ['compare', path('two.tar'), path('two.tar'), '--member-a', 'a.raw']
  assert.match((await cli(...compared)).err, /choose one with --member-b NAME/)
  assert.equal((await cli(...compared, '--member-b', 'a.raw')).status, 0)
  assert.equal((await cli(...compared, '--member-b', 'b.raw')).status, 1)
  assert.match((await cli('map', path('disk.raw'), '--member', 'x')).err, /the file is none/)
})

test('what is given as a part is never unpacked: its bytes are the guest’s', { skip }, async () => {
  const flat = Buffer.concat([gzipSync('not for us'), Buffer.alloc(DISK_BYTES)]).subarray(0, DISK_BYTES)
  await mkdir(path('parts'))
  await writeFile(path('parts/whole-flat.vmdk'), flat)
  await writeFile(path('parts/whole.vmdk'), await readFile(path('flat/whole.vmdk')))
  await told('convert', path('parts/whole.vmdk'), path('parts/out.raw'), '--part', path('parts/whole-flat.vmdk'))
  assert.ok((await readFile(path('parts/out.raw'))).equals(flat))
  await shell('tar -cf parts.tar parts/whole.vmdk parts/whole-flat.vmdk')
  await told('convert', path('parts.tar'), path('parts/again.raw'))
  assert.ok((await readFile(path('parts/again.raw'))).equals(flat))
})

test('an OVA is written from any source, the same each time, and qemu-img, tar and sha256sum agree with it', {
  skip: skip || lacking('sha256sum'),
}, async () => {
  await told('convert', path('disk.raw'), path('box.ova'))
  await mkdir(path('again'))
  await told('convert', path('vm/disk.qcow2'), path('again/box.ova'))
  assert.ok((await readFile(path('box.ova'))).equals(await readFile(path('again/box.ova'))))
  const piped = await imprint(['convert', path('disk.raw'), '-', '--to', 'ova'])
  assert.equal(piped.code, 0, piped.stderr)
  await mkdir(path('unpacked'))
  const names = await shell('tar -xvf box.ova -C unpacked')
  assert.deepEqual(names.trim().split('\n'), ['box.ovf', 'box.mf', 'box-disk1.vmdk'])
  await shell("cd unpacked && sed -E 's/^SHA256\\((.*)\\)= (.*)$/\\2  \\1/' box.mf | sha256sum -c --strict")
  await shell('qemu-img compare -f raw -F vmdk disk.raw unpacked/box-disk1.vmdk')
  assert.match(await shell('qemu-img info unpacked/box-disk1.vmdk'), /create type: streamOptimized/)
  assert.equal((await told('compare', path('box.ova'), path('disk.raw'))).equal, true)
  const { machine, layers, verdict } = await told('inspect', path('box.ova'))
  assert.deepEqual(layers, [{ kind: 'ova', member: 'box-disk1.vmdk' }])
  assert.deepEqual(verdict, { accepted: true })
  assert.deepEqual([machine.name, machine.vcpus, machine.isVerified, machine.image.minRamMb], ['box', 1, true, 1024])
  assert.match((await cli('inspect', path('box.ova'))).out, /manifest +every digest is right[\s\S]*min_ram +1024/)
})

test('from OVA to OVA the machine stays what it was', { skip }, async () => {
  await told('convert', path('disk.raw'), path('first.ova'))
  await shell('mkdir -p first && tar -xf first.ova -C first')
  const vmdk = (await readFile(path('first/first-disk1.vmdk'))).toString('latin1')
  const files = `<File ovf:href="d.vmdk" ovf:id="f"/>`
  const disks = `<Disk ovf:capacity="${DISK_BYTES}" ovf:diskId="vmdisk1" ovf:fileRef="f" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>`
  const text = descriptor({ files, disks })
  await writeFile(
    path('rich.ova'),
    smallTar([
      { name: 'b.ovf', body: text },
      { name: 'd.vmdk', body: Buffer.from(vmdk, 'latin1') },
    ]),
  )
  await told('convert', path('rich.ova'), path('rich-again.ova'))
  const [before, after] = [
    (await told('inspect', path('rich.ova'))).machine,
    (await told('inspect', path('rich-again.ova'))).machine,
  ]
  assert.deepEqual(after.image, before.image)
  assert.deepEqual([after.vcpus, after.isVerified, before.isVerified], [2, true, false])
  assert.equal(after.image.properties.hw_firmware_type, 'uefi')
})

const zeros = Buffer.alloc(40 * MiB)
const hostile: readonly { readonly name: string; readonly bytes: () => Uint8Array; readonly reason: string }[] = [
  { name: 'a name that leads elsewhere', bytes: () => smallTar([{ name: '../../evil.raw', body: 'x' }]), reason: 'hostile-name' },
  { name: 'a link', bytes: () => smallTar([{ name: 'disk.raw', type: '2', body: '' }]), reason: 'not-a-file' },
  {
    name: 'five layers',
    bytes: () => gzipSync(smallTar([{ name: 'a.gz', body: gzipSync(smallTar([{ name: 'b.gz', body: gzipSync('x') }])) }])),
    reason: 'nested',
  },
  { name: 'gzip in gzip', bytes: () => gzipSync(gzipSync('x')), reason: 'nested' },
  { name: 'a damaged gzip', bytes: () => gzipSync(randomBytes(9000)).subarray(0, 5000), reason: 'malformed' },
  { name: 'an encrypted zip', bytes: () => smallZip([{ name: 'disk.raw', body: 'x' }], { flags: 1 }), reason: 'encrypted' },
  {
    name: 'an OVA with another disk than its manifest says',
    bytes: () =>
      ova({
        'box.ovf': descriptor(),
        'box.mf': manifestOf({ 'box.ovf': descriptor(), 'box-disk1.vmdk': 'another' }),
        'box-disk1.vmdk': 'the disk.',
      }),
    reason: 'wrong-digest',
  },
  {
    name: 'an OVA whose disk is none of the format that it says',
    bytes: () => ova({ 'box.ovf': descriptor(), 'box-disk1.vmdk': 'the disk.' }),
    reason: 'format-mismatch',
  },
  {
    name: 'a VMDK whose extents are not all there',
    bytes: () =>
      smallTar([
        {
          name: 'x.vmdk',
          body: '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 2 FLAT "../x-flat.vmdk" 0\n',
        },
      ]),
    reason: 'external-reference',
  },
]
for (const { name, bytes, reason } of hostile) {
  test(`${name}: refused with its reason, and nothing is written`, async () => {
    await writeFile(path('hostile'), bytes())
    const before = await readdir(folder)
    const said = await cli('inspect', path('hostile'), '--json')
    assert.deepEqual([said.status, said.json.verdict.reason], [1, reason])
    assert.equal((await cli('convert', path('hostile'), path('out.raw'))).status, 1)
    assert.deepEqual(await readdir(folder), before)
  })
}

test('what is unpacked has a limit, and is in no folder, nor left after an interruption', { skip }, async () => {
  await writeFile(path('zeros.gz'), gzipSync(zeros))
  const said = await cli('map', path('zeros.gz'), '--spool-bytes', '39M')
  assert.equal(said.status, 6)
  assert.match(said.err, /more than 39 MiB .* say more with --spool-bytes/)
  const temporary = path('tmp')
  await mkdir(temporary)
  await writeFile(path('noise.raw'), randomBytes(64 * MiB))
  await shell('xz -0 -k noise.raw')
  const before = await readdir(folder)
  for (const phase of ['Unpacking', 'Packing']) {
    const child = await started(['convert', path('noise.raw.xz'), path('noise.ova'), '--json'], new RegExp(`"phase":"${phase}"`))
    assert.equal(await ended(child, 'SIGINT'), 130)
    assert.deepEqual(await readdir(folder), before)
  }
  const words = ['convert', path('noise.raw.xz'), path('noise.ova')]
  const whole = await imprint(words, { env: { TMPDIR: temporary } })
  assert.equal(whole.code, 0, whole.stderr)
  assert.deepEqual(await readdir(temporary), [])
  assert.ok((await stat(path('noise.ova'))).size > 64 * MiB)
})
