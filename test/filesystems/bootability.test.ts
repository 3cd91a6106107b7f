import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { type CpioEntry, cpioParts } from '../../src/cli/netboot/cpio.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { readBoot } from '../../src/disk/guest/boot/boot.ts'
import { type BootSubject, type BootTarget, bootability } from '../../src/disk/guest/boot/bootability.ts'
import { readCloudInit } from '../../src/disk/guest/boot/cloud-init.ts'
import { diskDrivers } from '../../src/disk/guest/boot/drivers.ts'
import { findSystems } from '../../src/disk/guest/system/systems.ts'
import { readLayout } from '../../src/disk/guest/volumes/volumes.ts'
import { missingTool } from '../peers/command.ts'
import { withTree } from './guest-tree.ts'
import { peProgram } from './pe-program.ts'

const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`, MTOOLS_SKIP_CHECK: '1' }
const skip = missingTool('sfdisk', 'mke2fs', 'mkfs.vfat', 'mcopy', 'mmd')
const ROOT = '11111111-2222-4333-8444-555555555501'
const VERSION = '6.1.0-18-amd64'

type Files = Readonly<Record<string, string | Uint8Array>>
interface Parts {
  readonly root: Files
  readonly esp?: Files
  /** GRUB's words in the first sector, and what they load. */
  readonly hasBootCode?: boolean
}

/** A kernel as far as its header. */
function kernel(): Buffer {
  const image = Buffer.from(peProgram({ isSigned: true }))
  const whole = Buffer.concat([image, Buffer.alloc(4096)])
  whole.writeUInt16LE(0xaa55, 0x1fe)
  whole.write('HdrS', 0x202)
  whole.writeUInt16LE(0x20f, 0x206)
  whole.writeUInt16LE(0x400, 0x20e)
  whole.writeUInt16LE(1, 0x236)
  whole.write(`${VERSION} (maker@host) #1 SMP\0`, 0x600)
  return whole
}

async function initramfs(modules: readonly string[]): Promise<Buffer> {
  const entries: CpioEntry[] = [
    { path: 'init', mode: 0o100755, content: '#!/bin/sh' },
    { path: 'conf/initramfs.conf', mode: 0o100644, content: 'MODULES=most' },
    ...modules.map((name) => ({ path: `usr/lib/modules/${VERSION}/kernel/${name}.ko`, mode: 0o100644, content: 'module' })),
  ]
  return Buffer.concat(await Array.fromAsync(cpioParts(entries)))
}

const elf = Buffer.from('7f454c4602010100000000000000000003003e00', 'hex') // x86-64
const grubConfig = `set default=0
menuentry Debian --id debian {
  search --no-floppy --fs-uuid --set=root ${ROOT}
  linux /boot/vmlinuz-${VERSION} root=UUID=${ROOT} ro console=tty0 console=ttyS0,115200
  initrd /boot/initrd.img-${VERSION}
}
`
async function rootFiles(changes: Files = {}): Promise<Files> {
  return {
    'etc/os-release': 'ID=debian\nVERSION_ID="12"\n',
    'etc/fstab': `UUID=${ROOT} / ext4 defaults 0 1\n`,
    'usr/bin/env': elf,
    'usr/bin/cloud-init': '#!/usr/bin/python3',
    'etc/cloud/cloud.cfg': 'users: []\n',
    'boot/grub/grub.cfg': grubConfig,
    [`boot/vmlinuz-${VERSION}`]: kernel(),
    [`boot/initrd.img-${VERSION}`]: await initramfs(['virtio_pci', 'virtio_blk', 'sd_mod', 'ahci']),
    [`lib/modules/${VERSION}/modules.builtin`]: 'kernel/fs/ext4/ext4.ko\n',
    [`lib/modules/${VERSION}/modules.dep`]: ['virtio_pci', 'virtio_blk', 'sd_mod', 'ahci', 'nvme', 'virtio_net', 'e1000']
      .map((name) => `kernel/${name}.ko:\n`)
      .join(''),
    ...changes,
  }
}

async function filled(files: Files): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-boot-'))
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), content)
  }
  return folder
}

/** A real disk: an ESP of 8 MiB where there are files for it, and a root. */
async function withDisk<Result>(parts: Parts, work: (subject: BootSubject) => Promise<Result> | Result): Promise<Result> {
  const [root, esp, home] = [await filled(parts.root), await filled(parts.esp ?? {}), await filled({})]
  const disk = join(home, 'disk')
  await writeFile(disk, '')
  await truncate(disk, 48 * MiB)
  const espPart = parts.esp ? 'start=4096, size=16384, type=U\n' : ''
  execFileSync('sfdisk', ['-q', disk], {
    env,
    input: `label: gpt\nstart=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649\n${espPart}start=20480, size=65536\n`,
  })
  execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-U', ROOT, '-d', root, '-E', `offset=${20_480 * 512}`, disk, '32768k'], {
    env,
    stdio: 'pipe',
  })
  if (parts.esp) {
    const volume = join(home, 'esp')
    await writeFile(volume, '')
    await truncate(volume, 8 * MiB)
    execFileSync('mkfs.vfat', [volume], { env, stdio: 'ignore' })
    const tops = new Set(Object.keys(parts.esp).map((path) => path.split('/')[0]!))
    for (const top of tops) execFileSync('mcopy', ['-i', volume, '-s', join(esp, top), '::/'], { env })
    execFileSync('dd', [`if=${volume}`, `of=${disk}`, 'bs=1M', 'seek=2', 'conv=notrunc'], { stdio: 'ignore' })
  }
  if (parts.hasBootCode) {
    const file = await open(disk, 'r+')
    await file.write(Buffer.from('Geom\0Hard Disk\0Read\0 Error', 'latin1'), 0, 26, 0x180)
    await file.write(Buffer.from([0, 8, 0, 0, 0, 0, 0, 0]), 0, 8, 0x5c)
    await file.write(Buffer.from('core image'), 0, 10, 2048 * 512)
    await file.close()
  }
  const source = await openFileSource(disk)
  try {
    const layout = await readLayout(source)
    const [system] = await findSystems(layout)
    const notes = { add: (note: string) => assert.fail(note) }
    return await work({
      boot: await readBoot(source, layout, system),
      layout,
      system,
      architecture: 'x86_64',
      cloudInit: system && (await readCloudInit(system.tree, notes)),
    })
  } finally {
    await source.close()
    for (const folder of [root, esp, home]) await rm(folder, { recursive: true })
  }
}

const usual: BootTarget = {
  firmware: 'bios',
  secureBoot: false,
  architecture: 'x86_64',
  diskBus: 'virtio',
  networkModel: 'virtio',
  consoles: ['serial', 'vga'],
  metadata: ['ConfigDrive', 'OpenStack'],
  diskBytes: null,
}
const codes = (subject: BootSubject, change: Partial<BootTarget> = {}) =>
  bootability(subject, { ...usual, ...change }).reasons.map(
    ({ code, severity }) => `${severity === 'warn' ? 'warn ' : ''}${code}`,
  )

test('a disk for BIOS: what it starts, and where it will', { skip }, async () => {
  await withDisk({ root: await rootFiles(), hasBootCode: true }, (subject) => {
    const start = subject.boot.starts.bios!
    assert.equal(start.loader, 'grub')
    assert.equal(start.config, 'partition 2:/boot/grub/grub.cfg')
    assert.equal(start.kernel?.version, VERSION)
    assert.equal(start.kernel.path, `partition 2:/boot/vmlinuz-${VERSION}`)
    assert.deepEqual([...start.initramfs!.modules], ['virtio_pci', 'virtio_blk', 'sd_mod', 'ahci'])
    assert.deepEqual([start.missing, start.notes, subject.boot.starts.uefi], [[], [], null])
    assert.deepEqual(bootability(subject, usual), { answer: 'yes', reasons: [] })
    assert.deepEqual(codes(subject, { diskBus: 'sata', networkModel: 'e1000' }), [])
    assert.deepEqual(bootability(subject, { ...usual, diskBus: 'nvme' }), {
      answer: 'no',
      reasons: [
        {
          code: 'disk-driver-not-in-initramfs',
          severity: 'will-not',
          found: `partition 2:/boot/initrd.img-${VERSION} lacks the module nvme, which nvme needs`,
          change: 'add nvme to /etc/initramfs-tools/modules and run update-initramfs -u',
        },
      ],
    })
    assert.deepEqual(codes(subject, { diskBus: 'megaraid_sas' }), ['disk-driver-missing'])
    assert.deepEqual(codes(subject, { networkModel: 'mlx5_core' }), ['warn network-driver-missing'])
    assert.deepEqual(codes(subject, { firmware: 'uefi' }), ['no-boot-loader'])
    assert.deepEqual(codes(subject, { architecture: 'aarch64' }), ['architecture'])
    assert.deepEqual(codes(subject, { diskBytes: 20 * MiB }), ['disk-too-small'])
    for (const diskBus of Object.keys(diskDrivers) as BootTarget['diskBus'][]) codes(subject, { diskBus })
  })
})

test('a disk for UEFI: shim, GRUB beside it, and its configuration by way of the ESP', { skip }, async () => {
  const stub = `search.fs_uuid ${ROOT} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n`
  const shim = peProgram({ sections: { '.sbat': 'sbat,1,x\nshim,3,x\n', '.vendor_cert': 'x' }, isSigned: true })
  const grub = peProgram({ sections: { mods: 'x', '.sbat': 'sbat,1\ngrub,3\n' }, isSigned: true })
  const esp = {
    'EFI/BOOT/BOOTX64.EFI': shim,
    'EFI/BOOT/grubx64.efi': grub,
    'EFI/debian/grub.cfg': stub,
    'EFI/debian/shimx64.efi': shim,
  }
  await withDisk({ root: await rootFiles(), esp }, (subject) => {
    assert.deepEqual(
      subject.boot.efi.map(({ path, kind, isFallback, isSigned }) => [path, kind, isFallback, isSigned]),
      [
        ['/EFI/BOOT/BOOTX64.EFI', 'shim', true, true],
        ['/EFI/BOOT/grubx64.efi', 'grub', false, true],
        ['/EFI/debian/shimx64.efi', 'shim', false, true],
      ],
    )
    assert.equal(subject.boot.starts.uefi?.config, 'partition 3:/boot/grub/grub.cfg')
    assert.equal(subject.boot.starts.uefi.kernel?.version, VERSION)
    assert.deepEqual(codes(subject, { firmware: 'uefi', secureBoot: true }), [])
    assert.deepEqual(codes(subject), ['no-boot-loader'])
  })
  const vendorOnly = { 'EFI/debian/grubx64.efi': grub, 'EFI/debian/grub.cfg': stub }
  await withDisk({ root: await rootFiles(), esp: vendorOnly }, (subject) =>
    assert.deepEqual(codes(subject, { firmware: 'uefi' }), ['no-fallback-loader']),
  )
  const arm = { 'EFI/BOOT/BOOTAA64.EFI': peProgram({ machine: 0xaa64, sections: { mods: 'x' } }), 'EFI/debian/grub.cfg': stub }
  await withDisk({ root: await rootFiles(), esp: arm }, (subject) =>
    assert.deepEqual(codes(subject, { firmware: 'uefi' }), ['loader-architecture']),
  )
})

test('systemd-boot with entries, and a kernel in one program', { skip }, async () => {
  const loader = peProgram({ sections: { '.sbat': 'sbat,1\nsystemd-boot,1\n', '.sdmagic': 'x' } })
  const entry = `title Debian\nlinux /${VERSION}/linux\ninitrd /${VERSION}/initrd\noptions root=UUID=${ROOT} console=ttyS0 console=tty0\n`
  const esp = {
    'EFI/BOOT/BOOTX64.EFI': loader,
    'EFI/Linux/own.efi': peProgram({
      sections: { '.linux': 'x', '.cmdline': `root=LABEL=gone`, '.initrd': await initramfs(['virtio_blk']) },
    }),
    'loader/entries/debian.conf': entry,
    'loader/loader.conf': 'timeout 3\ndefault debian*\n',
    [`${VERSION}/linux`]: kernel(),
    [`${VERSION}/initrd`]: await initramfs(['virtio_pci', 'virtio_blk']),
  }
  await withDisk({ root: await rootFiles(), esp }, (subject) => {
    const start = subject.boot.starts.uefi!
    assert.deepEqual([start.loader, start.menu?.entries.length, start.kernel?.version], ['systemd-boot', 2, VERSION])
    assert.deepEqual(codes(subject, { firmware: 'uefi' }), [])
    assert.deepEqual(codes(subject, { firmware: 'uefi', secureBoot: true }), ['not-signed'])
  })
  await withDisk({ root: await rootFiles(), esp: { ...esp, 'loader/loader.conf': 'default own.efi\n' } }, (subject) => {
    assert.equal(subject.boot.starts.uefi?.entry?.arguments, 'root=LABEL=gone')
    assert.deepEqual([...subject.boot.starts.uefi.initramfs!.modules], ['virtio_blk'])
    assert.deepEqual(codes(subject, { firmware: 'uefi' }), ['root-missing', 'disk-driver-not-in-initramfs'])
  })
})

const gone = '99999999-2222-4333-8444-555555555501'
const amiss: readonly (readonly [what: string, changes: Files, target: Partial<BootTarget>, codes: readonly string[]])[] = [
  [
    'a root that is not there',
    { 'boot/grub/grub.cfg': grubConfig.replace(`root=UUID=${ROOT}`, `root=UUID=${gone}`) },
    {},
    ['root-missing'],
  ],
  [
    'a root by the name of another bus',
    { 'boot/grub/grub.cfg': grubConfig.replace(`root=UUID=${ROOT}`, 'root=/dev/sda2') },
    {},
    ['root-by-device'],
  ],
  [
    'a kernel that is not there',
    { 'boot/grub/grub.cfg': grubConfig.replace('/boot/vmlinuz', '/boot/gone') },
    {},
    ['file-missing'],
  ],
  [
    'an initramfs that is not there',
    { 'boot/grub/grub.cfg': grubConfig.replace('/boot/initrd', '/boot/gone') },
    {},
    ['file-missing', 'warn not-looked-at'],
  ],
  [
    'a kernel without an initramfs',
    { 'boot/grub/grub.cfg': grubConfig.replace(/initrd .*/, '') },
    {},
    ['disk-driver-not-in-initramfs', 'disk-driver-not-in-initramfs'],
  ],
  ['an initramfs that cannot be read', { [`boot/initrd.img-${VERSION}`]: 'garbage' }, {}, ['warn not-looked-at']],
  [
    'modules that are not there',
    { [`lib/modules/${VERSION}/modules.builtin`]: '', [`boot/initrd.img-${VERSION}`]: 'garbage' },
    { networkModel: null },
    ['warn not-looked-at'],
  ],
  [
    'a menu that only the machine decides',
    { 'boot/grub/grub.cfg': `set default=$cmdpath\n${grubConfig.replace('set default=0', '')}` },
    {},
    ['warn start-unknown'],
  ],
  [
    'a mount that is not on the disk',
    { 'etc/fstab': `UUID=${ROOT} / ext4 defaults 0 1\nUUID=${gone} /srv ext4 defaults 0 2\n/dev/sdb1 /opt ext4 nofail 0 2\n` },
    {},
    ['warn mount-missing'],
  ],
  [
    'the screen alone',
    { 'boot/grub/grub.cfg': grubConfig.replace(/console=\S+/g, '') },
    { consoles: ['serial'] },
    ['warn console'],
  ],
  [
    'the serial console alone',
    { 'boot/grub/grub.cfg': grubConfig.replace('console=tty0', '') },
    { consoles: ['vga'] },
    ['warn console'],
  ],
  ['no cloud-init', { 'usr/bin/cloud-init': '', 'etc/cloud/cloud-init.disabled': '' }, {}, ['warn cloud-init-disabled']],
  [
    'cloud-init that asks elsewhere',
    { 'etc/cloud/cloud.cfg.d/90.cfg': 'datasource_list: [ NoCloud, "None" ]\n' },
    {},
    ['warn metadata-source'],
  ],
  [
    'cloud-init that asks here, too',
    { 'etc/cloud/cloud.cfg.d/90.cfg': 'datasource_list:\n  - NoCloud\n  - ConfigDrive # here\n' },
    {},
    [],
  ],
]
for (const [what, changes, target, expected] of amiss) {
  test(`${what}: ${expected.join(', ') || 'nothing amiss'}`, { skip }, async () => {
    const root = await rootFiles(changes)
    await withDisk({ root, hasBootCode: true }, (subject) => {
      assert.deepEqual(codes(subject, target), expected)
      for (const { found, change } of bootability(subject, { ...usual, ...target }).reasons)
        assert.ok(found !== '' && change !== '')
    })
  })
}

test('Windows: that its drivers were not looked at', { skip }, async () => {
  const esp = { 'EFI/BOOT/BOOTX64.EFI': peProgram(), 'EFI/Microsoft/Boot/bootmgfw.efi': peProgram() }
  await withDisk({ root: {}, esp }, (subject) => {
    assert.deepEqual(
      subject.boot.efi.map(({ kind }) => kind),
      ['unknown', 'windows'],
    )
    assert.deepEqual(codes(subject, { firmware: 'uefi' }), ['warn not-looked-at'])
  })
})

test('no cloud-init at all, and no system', { skip }, async () => {
  const { 'usr/bin/cloud-init': _, ...root } = await rootFiles()
  await withDisk({ root, hasBootCode: true }, (subject) => assert.deepEqual(codes(subject), ['warn no-cloud-init']))
  await withDisk({ root: {} }, (subject) => assert.deepEqual(codes(subject), ['no-boot-loader']))
})

test('which sources cloud-init asks, by the last file that says so', { skip: missingTool('mke2fs') }, async () => {
  const files = {
    'usr/bin/cloud-init': '',
    'etc/cloud/cloud.cfg': 'datasource_list: [ NoCloud ]\n',
    'etc/cloud/cloud.cfg.d/10.cfg': 'datasource_list: [ Ec2, None ]\n',
    'etc/cloud/cloud.cfg.d/20.cfg': '# datasource_list: [ Azure ]\n',
  }
  const notes = { add: (note: string) => assert.fail(note) }
  assert.deepEqual(await withTree(files, (tree) => readCloudInit(tree, notes)), {
    disabledBy: null,
    sources: ['Ec2', 'None'],
    path: '/etc/cloud/cloud.cfg.d/10.cfg',
  })
})
