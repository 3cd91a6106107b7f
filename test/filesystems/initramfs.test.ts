import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { memorySource } from '../../src/disk/block/memory-source.ts'
import { readEfiProgram, sectionText } from '../../src/disk/guest/boot/efi-program.ts'
import { readInitramfs } from '../../src/disk/guest/boot/initramfs.ts'
import { readKernelImage } from '../../src/disk/guest/boot/kernel-image.ts'
import { moduleName, moduleVersions, readModules } from '../../src/disk/guest/boot/modules.ts'
import { missingTool } from '../peers/command.ts'
import { withTree } from './guest-tree.ts'
import { peProgram } from './pe-program.ts'

const file = (bytes: Uint8Array) => memorySource(bytes.length, [{ offset: 0, bytes }])

/** Made by cpio(1) of real files. */
async function archive(files: Readonly<Record<string, string>>): Promise<Buffer> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-cpio-'))
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), content)
  }
  const made = execFileSync('sh', ['-c', 'find . | sort | cpio --quiet -o -H newc'], { cwd: folder })
  await rm(folder, { recursive: true })
  return made
}

const VERSION = '6.1.0-18-amd64'
const MODULES = ['kernel/drivers/block/virtio_blk.ko', 'kernel/drivers/scsi/sd_mod.ko.xz', 'updates/xen-blkfront.ko.zst']
const main = () =>
  archive({
    init: '#!/bin/sh',
    'conf/initramfs.conf': 'MODULES=most',
    ...Object.fromEntries(MODULES.map((path) => [`usr/lib/modules/${VERSION}/${path}`, 'x'.repeat(5001)])),
    'usr/lib/firmware/not.kos': '',
  })
const packers: readonly (readonly [name: string, command: readonly string[]])[] = [
  ['none', ['cat']],
  ['gzip', ['gzip']],
  ['zstd', ['zstd', '-q', '-c']],
  ['xz', ['xz', '--check=crc32']],
  ['bzip2', ['bzip2']],
  ['lz4', ['lz4', '-l', '-c']],
]

for (const [compression, [tool, ...options]] of packers) {
  test(`an initramfs with microcode before it, compressed with ${compression}`, {
    skip: missingTool('cpio', tool!),
  }, async () => {
    const early = await archive({ 'kernel/x86/microcode/GenuineIntel.bin': 'y'.repeat(3001) })
    const packed = execFileSync(tool!, options, { input: await main(), maxBuffer: 2 ** 24, stdio: ['pipe', 'pipe', 'ignore'] })
    const read = await readInitramfs(file(Buffer.concat([early, packed])))
    assert.deepEqual(
      { ...read, modules: [...read.modules].sort() },
      {
        compression,
        modules: ['sd_mod', 'virtio_blk', 'xen_blkfront'],
        kernels: [VERSION],
        madeBy: 'initramfs-tools',
        hasInit: true,
        isWhole: true,
        notes: [],
      },
    )
  })
}

test('what of an initramfs cannot be read is said, and the rest counts', { skip: missingTool('cpio') }, async () => {
  const whole = await main()
  const cut = await readInitramfs(file(whole.subarray(0, whole.length - 1500)))
  assert.equal(cut.isWhole, false)
  assert.ok(cut.modules.size > 0)
  assert.match(cut.notes.join(), /^the cpio archive is damaged: it ends in /)
  const lzma = await readInitramfs(file(Buffer.concat([whole, Buffer.from([0x5d, 0, 0, 0x80, 0, 0xff])])))
  assert.deepEqual([lzma.modules.size, lzma.notes], [3, ['it is compressed with lzma, which is not read']])
  const small = Buffer.concat([Buffer.from('02214c18', 'hex'), ...Array(1000).fill(Buffer.from([2, 0, 0, 0, 0x10, 0x41]))])
  assert.match((await readInitramfs(file(small))).notes.join(), /^the lz4 data are damaged|^the cpio archive is damaged/)
  const junk = await readInitramfs(file(Buffer.from('no archive at all')))
  assert.deepEqual([junk.compression, junk.isWhole, junk.notes.length], ['unknown', false, 1])
  const header = (name: string) => Buffer.from(`070701${'0'.repeat(88)}${name}${'0'.repeat(8)}`)
  const endless = await readInitramfs(file(header('ffffffff')))
  assert.match(endless.notes.join(), /a name of 4294967295 bytes \(c_namesize\)/)
  assert.equal((await readInitramfs(file(Buffer.alloc(100_000)))).isWhole, true)
})

test('which drivers a kernel has, built in or as modules', { skip: missingTool('mke2fs') }, async () => {
  const files = {
    'usr/lib/modules/6.1/modules.builtin': 'kernel/fs/ext4/ext4.ko\nkernel/drivers/nvme/host/nvme.ko\n',
    'usr/lib/modules/6.1/modules.dep':
      'kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio.ko.xz\nkernel/drivers/block/xen-blkfront.ko:\n',
    'usr/lib/modules/broken/x': '',
  }
  await withTree(files, async (tree) => {
    const { builtIn, modules, isKnown } = await readModules(tree, '6.1')
    assert.deepEqual([[...builtIn], [...modules], isKnown], [['ext4', 'nvme'], ['virtio_blk', 'xen_blkfront'], true])
    assert.deepEqual([...(await moduleVersions(tree))].sort(), ['6.1', 'broken'])
    assert.equal((await readModules(tree, 'broken')).notes.length, 2)
    assert.equal((await readModules(tree, '../../../etc')).isKnown, false)
  })
  assert.equal(moduleName('kernel/drivers/scsi/vmw_pvscsi.ko.zst'), 'vmw_pvscsi')
})

test('a kernel of Debian says which version it is', async (t) => {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'imprint-tests')
  const found = (await readdir(cache).catch(() => [])).find((name) => /^linux-image-.*_amd64\.deb$/.test(name))
  if (!found || missingTool('dpkg-deb')) return t.skip('no package of a kernel was loaded here by the tests of instances')
  const folder = await mkdtemp(join(tmpdir(), 'imprint-kernel-'))
  execFileSync('dpkg-deb', ['-x', join(cache, found), folder])
  const version = /^linux-image-([^_]+)_/.exec(found)![1]!
  const kernel = await readFile(join(folder, 'boot', `vmlinuz-${version}`))
  await rm(folder, { recursive: true })
  assert.deepEqual(await readKernelImage(file(kernel)), {
    kind: 'bzImage',
    version,
    architecture: 'x86_64',
    hasEfiStub: true,
    isSigned: true,
  })
})

test('kernels of other kinds, and what is none', async () => {
  const arm = Buffer.from(peProgram({ machine: 0xaa64 }))
  arm.write('ARM\x64', 56, 'latin1')
  const kinds = async (bytes: Uint8Array) => {
    const { kind, architecture, hasEfiStub } = await readKernelImage(file(bytes))
    return [kind, architecture, hasEfiStub]
  }
  assert.deepEqual(await kinds(arm), ['Image', 'aarch64', true])
  assert.deepEqual(await kinds(peProgram({ machine: 0x8664 })), ['efi', 'x86_64', true])
  assert.deepEqual(await kinds(Buffer.from([0x1f, 0x8b, 8, 0])), ['gzip', null, false])
  assert.deepEqual(await kinds(Buffer.alloc(0)), ['unknown', null, false])
  const old = Buffer.alloc(1024)
  old.writeUInt16LE(0xaa55, 0x1fe)
  old.write('HdrS', 0x202)
  old.writeUInt16LE(0xffff, 0x20e)
  assert.deepEqual(await kinds(old), ['bzImage', 'i686', false])
})

test('the sections of an EFI program', async () => {
  const program = peProgram({
    machine: 0x8664,
    sections: { '.cmdline': 'root=UUID=1 quiet\0\0', '.sbat': 'sbat,1\ngrub,3' },
    isSigned: true,
  })
  const read = (await readEfiProgram(file(program)))!
  assert.deepEqual(
    [read.architecture, read.isSigned, read.sections.map(({ name }) => name)],
    ['x86_64', true, ['.cmdline', '.sbat']],
  )
  assert.equal(await sectionText(file(program), read, '.cmdline', 4096), 'root=UUID=1 quiet')
  assert.equal(await readEfiProgram(file(program.subarray(0, 70))), undefined)
})
