/** The parsers of what a disk boots from, for the thread of fuzz.ts. */
import { gzipSync } from 'node:zlib'
import { cpioParts } from '../../src/cli/netboot/cpio.ts'
import { readEfiProgram, sectionText } from '../../src/disk/guest/boot/efi-program.ts'
import { parseGrubEnvironment, readGrubConfig } from '../../src/disk/guest/boot/grub-config.ts'
import { readInitramfs } from '../../src/disk/guest/boot/initramfs.ts'
import { readKernelImage } from '../../src/disk/guest/boot/kernel-image.ts'
import { readLoaderEntries, readSystemdBoot } from '../../src/disk/guest/boot/loader-entries.ts'
import { readSyslinuxConfig } from '../../src/disk/guest/boot/syslinux-config.ts'
import { type FuzzTarget, fuzzTarget } from '../fixtures/fuzz/target.ts'
import { peProgram } from './pe-program.ts'

const grub = `load_env
if [ "\${next_entry}" ]; then set default="\${next_entry}"; else set default='1>old'; fi
function video { if [ x$grub_platform = xefi ]; then insmod efi_gop; else insmod vbe; fi }
for i in a b; do set k=$i; done
menuentry 'one' --class x $menuentry_id_option 'id' {
  video
  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 1111-2222
  linux /boot/vmlinuz root=UUID=1 "a b" \\
    $k
  initrd /boot/a /boot/b
}
submenu more { menuentry old --id old { linux /old; }; menuentry w { chainloader +1; } }
blscfg
configfile $prefix/x.cfg
`
const entry = 'title T\nversion 1.2~rc3\nsort-key a\nmachine-id b\nlinux /k $x\ninitrd /i $y\noptions root=UUID=1 $z\n'
const syslinux =
  'DEFAULT menu.c32\nAPPEND a=1\nINCLUDE x\nLABEL a\n MENU LABEL ^A\n MENU DEFAULT\n KERNEL k\n APPEND initrd=a,b c\n INITRD d\nLABEL b\n LOCALBOOT 0\n'
const words = [
  '{',
  '}',
  'if ',
  'then\n',
  'fi\n',
  '$',
  '${',
  '"',
  "'",
  '\\',
  ';',
  'menuentry ',
  'function f {',
  'f\n',
  'set default=',
  '>',
  '[',
  ']',
  'linux ',
  'blscfg\n',
  '\n',
]
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('utf8')

const entries = [
  { path: 'kernel', mode: 0o040755, content: '' },
  { path: 'lib/modules/6.1/kernel/virtio_blk.ko', mode: 0o100644, content: 'x'.repeat(333) },
  { path: 'init', mode: 0o100755, content: '#!/bin/sh' },
]
const archive = Buffer.concat(await Array.fromAsync(cpioParts(entries)))
const kernel = Buffer.concat([
  peProgram({ sections: { '.linux': 'x', '.cmdline': 'a=b', '.initrd': archive } }),
  Buffer.alloc(4096),
])
kernel.writeUInt16LE(0xaa55, 0x1fe)
kernel.write('HdrS', 0x202)
kernel.writeUInt16LE(0x20f, 0x206)
kernel.writeUInt16LE(0x400, 0x20e)
const lz4 = Buffer.from('02214c180d000000f00161616161616161616161616161616161', 'hex')

export const targets: readonly FuzzTarget[] = [
  fuzzTarget({
    name: 'configurations of boot loaders',
    bases: [grub, entry, syslinux].map((each) => ({ bytes: new Uint8Array(Buffer.from(each)), words })),
    leastTaken: 99,
    use({ bytes }) {
      const said = text(bytes)
      const loaderEntries = readLoaderEntries([
        { name: 'a-1.conf', text: said },
        { name: 'a-2.conf', text: entry },
      ])
      for (const firmware of ['bios', 'uefi'] as const)
        readGrubConfig(said, { firmware, environment: parseGrubEnvironment(said), loaderEntries })
      readSystemdBoot(said, loaderEntries, loaderEntries)
      readSyslinuxConfig(said)
    },
  }),
  fuzzTarget({
    name: 'initramfs',
    bases: [archive, gzipSync(archive), Buffer.concat([archive, Buffer.alloc(64), gzipSync(archive)]), lz4].map((each) => ({
      bytes: new Uint8Array(each),
    })),
    leastTaken: 99,
    async use(file) {
      await readInitramfs(file)
    },
  }),
  fuzzTarget({
    name: 'kernels and EFI programs',
    bases: [{ bytes: new Uint8Array(kernel), isLittleEndian: true, regions: [[0, 1024 + 200]] }],
    leastTaken: 90,
    async use(file) {
      await readKernelImage(file)
      const program = await readEfiProgram(file)
      if (program) await sectionText(file, program, '.cmdline', 4096)
    },
  }),
]
