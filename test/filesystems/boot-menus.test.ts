import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseGrubEnvironment, readGrubConfig } from '../../src/disk/guest/boot/grub-config.ts'
import { compareVersions, readLoaderEntries, readSystemdBoot } from '../../src/disk/guest/boot/loader-entries.ts'
import { readSyslinuxConfig } from '../../src/disk/guest/boot/syslinux-config.ts'

const ROOT = '11111111-2222-4333-8444-555555555501'

/** As grub-mkconfig of a distribution writes it, with the parts that decide. */
const generated = `
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "\${next_entry}" ] ; then
   set default="\${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="DEFAULT"
fi
if [ x"\${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function savedefault {
  if [ -z "\${boot_once}" ]; then
    saved_entry="\${chosen}"
  fi
}
function load_video {
  if [ x$grub_platform = xefi ]; then insmod efi_gop; else insmod vbe; fi
}
if [ x$feature_default_font_path = xy ] ; then
   font=unicode
else
search --no-floppy --fs-uuid --set=root  ffffffff-2222-4333-8444-555555555501
    font="/usr/share/grub/unicode.pf2"
fi
if loadfont $font ; then
  set gfxmode=auto
fi
terminal_output gfxterm serial
if [ "$grub_platform" = "efi" ]; then set linux_suffix=efi; fi
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux $menuentry_id_option 'gnulinux-simple-${ROOT}' {
	load_video
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	set root='hd0,gpt1'
	if [ x$feature_platform_search_hint = xy ]; then
	  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 --hint-efi=hd0,gpt1  ${ROOT}
	else
	  search --no-floppy --fs-uuid --set=root ${ROOT}
	fi
	echo	'Loading Linux 6.1.0-18 ...'
	linux$linux_suffix	/boot/vmlinuz-6.1.0-18 root=UUID=${ROOT} ro quiet "a=b c" \\
	  console=ttyS0
	initrd	/boot/early.cpio /boot/initrd.img-6.1.0-18
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced' {
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-18' --class debian $menuentry_id_option 'new' {
		linux	/boot/vmlinuz-6.1.0-18 root=UUID=${ROOT}
	}
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-17' --class debian $menuentry_id_option 'old' {
		linux	/boot/vmlinuz-6.1.0-17 root=UUID=${ROOT}
	}
}
if [ "$grub_platform" = "efi" ]; then
	menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' { fwsetup; }
fi
menuentry Windows { chainloader (hd0,gpt1)/EFI/Microsoft/Boot/bootmgfw.efi; }
`
const grub = (text: string, environment?: Record<string, string>, firmware: 'bios' | 'uefi' = 'bios') =>
  readGrubConfig(text, {
    firmware,
    environment: environment && new Map(Object.entries(environment)),
    loaderEntries: [],
  })
const withDefault = (value: string) => generated.replace('DEFAULT', value)

test('the default of a grub.cfg as grub-mkconfig writes it', () => {
  const { entries, chosen, consoles } = grub(withDefault('0'))
  assert.deepEqual(
    entries.map(({ title, kind, kernel }) => [title, kind, kernel]),
    [
      ['Debian GNU/Linux', 'linux', '/boot/vmlinuz-6.1.0-18'],
      ['Debian GNU/Linux, with Linux 6.1.0-18', 'linux', '/boot/vmlinuz-6.1.0-18'],
      ['Debian GNU/Linux, with Linux 6.1.0-17', 'linux', '/boot/vmlinuz-6.1.0-17'],
      ['Windows', 'chain', '(hd0,gpt1)/EFI/Microsoft/Boot/bootmgfw.efi'],
    ],
  )
  assert.deepEqual(chosen, {
    title: 'Debian GNU/Linux',
    id: `gnulinux-simple-${ROOT}`,
    kernel: '/boot/vmlinuz-6.1.0-18',
    kind: 'linux',
    arguments: `root=UUID=${ROOT} ro quiet a=b c console=ttyS0`,
    initramfs: ['/boot/early.cpio', '/boot/initrd.img-6.1.0-18'],
    root: `UUID=${ROOT}`,
    notes: [],
  })
  assert.deepEqual(consoles, ['gfxterm', 'serial'])
  assert.equal(grub(withDefault('0'), undefined, 'uefi').entries.length, 5)
})

const defaults: readonly (readonly [value: string, environment: Record<string, string> | undefined, kernel: string | null])[] = [
  ['', undefined, '/boot/vmlinuz-6.1.0-18'],
  ['1>1', undefined, '/boot/vmlinuz-6.1.0-17'],
  ['1', undefined, '/boot/vmlinuz-6.1.0-18'],
  ['gnulinux-advanced>old', undefined, '/boot/vmlinuz-6.1.0-17'],
  ['Advanced options for Debian GNU/Linux>1', undefined, '/boot/vmlinuz-6.1.0-17'],
  [`\${saved_entry}`, { saved_entry: 'gnulinux-advanced>old' }, '/boot/vmlinuz-6.1.0-17'],
  [`\${saved_entry}`, {}, '/boot/vmlinuz-6.1.0-18'],
  [`\${saved_entry}`, undefined, '/boot/vmlinuz-6.1.0-18'],
  ['0', { next_entry: '1>1' }, '/boot/vmlinuz-6.1.0-17'],
  ['no such entry', undefined, '/boot/vmlinuz-6.1.0-18'],
  ['9', undefined, '/boot/vmlinuz-6.1.0-18'],
  ['$root', undefined, null],
]
for (const [value, environment, kernel] of defaults) {
  test(`the default "${value}" with ${JSON.stringify(environment)} starts ${kernel}`, () => {
    const { chosen, notes } = grub(withDefault(value), environment)
    assert.equal(chosen?.kernel ?? null, kernel)
    if (['no such entry', '9', '$root'].includes(value)) assert.equal(notes.length, 1, notes.join())
  })
}

test('what only the machine knows is a note, not a guess', () => {
  const text = `if [ "$net_x" -gt 3 ]; then set default=0; set k=/a; else set default=1; set k=/b; fi
menuentry one { linux $k root=$root; }
menuentry two { linux /two; }`
  const { chosen, notes, entries } = grub(text)
  assert.equal(chosen, null)
  assert.deepEqual(notes, ['which entry is started is decided when it starts'])
  assert.deepEqual([entries[0]!.kernel, entries[0]!.arguments], [`\${k}`, `root=\${root}`])
  assert.deepEqual(entries[0]!.notes, [`\${k} is known only when it starts`, `\${root} is known only when it starts`])
})

test('a short grub.cfg on the ESP leads to another', () => {
  const debian = grub(`search.fs_uuid ${ROOT} root hd0,gpt2 \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n`)
  assert.deepEqual(debian.next, { path: `(UUID=${ROOT})/boot/grub/grub.cfg`, root: `UUID=${ROOT}` })
})

test('entries of blscfg, with variables of grubenv, the newest first', () => {
  const loaderEntries = readLoaderEntries([
    {
      name: 'a-5.14.0-9.conf',
      text: 'title Nine\nversion 5.14.0-9\nlinux /vmlinuz-9\ninitrd /initramfs-9.img $tuned_initrd\noptions $kernelopts $tuned_params\n',
    },
    {
      name: 'a-5.14.0-10.conf',
      text: '# newer\ntitle Ten\nversion 5.14.0-10\nlinux /vmlinuz-10\ninitrd /initramfs-10.img\noptions root=/dev/vda1 ro\noptions quiet',
    },
    { name: 'empty.conf', text: 'title nothing\n' },
  ])
  const environment = new Map([
    ['saved_entry', 'a-5.14.0-9'],
    ['kernelopts', 'root=UUID=x ro'],
  ])
  const menu = readGrubConfig(`load_env\nset default="\${saved_entry}"\nblscfg\n`, {
    firmware: 'uefi',
    environment,
    loaderEntries,
  })
  assert.deepEqual(
    menu.entries.map(({ title }) => title),
    ['Ten', 'Nine'],
  )
  assert.deepEqual(
    [menu.chosen?.kernel, menu.chosen?.arguments, menu.chosen?.initramfs],
    ['/vmlinuz-9', 'root=UUID=x ro', ['/initramfs-9.img']],
  )
})

test('grubenv as grub-editenv writes it', () => {
  const text = `# GRUB Environment Block\nsaved_entry=a b\nkernelopts=root=UUID=1 ro\\\\x\n${'#'.repeat(900)}`
  assert.deepEqual(
    [...parseGrubEnvironment(text)],
    [
      ['saved_entry', 'a b'],
      ['kernelopts', 'root=UUID=1 ro\\x'],
    ],
  )
})

test('versions in the order of the specification', () => {
  // the list of UAPI.10, "Examples"
  const ascending = [
    '',
    '~rc1',
    '122.1~rc',
    '122.1',
    '122.1-1',
    '123~rc1-1',
    '123',
    '123-a',
    '123-a.1',
    '123-1',
    '123-1.1',
    '123^post1',
    '123.a-1',
    '123.1-1',
    '123a-1',
    '124-1',
  ]
  for (const [index, older] of ascending.entries()) {
    for (const newer of ascending.slice(index + 1)) {
      if ([older, newer].includes('') || older === '~rc1') continue
      assert.ok(compareVersions(older, newer) < 0, `${older} < ${newer}`)
      assert.ok(compareVersions(newer, older) > 0, `${newer} > ${older}`)
    }
  }
  assert.equal(compareVersions('1.02', '1.2'), 0)
})

test('systemd-boot: a pattern, an exact name, or the first', () => {
  const entries = readLoaderEntries([
    { name: 'debian-6.1.0-18.conf', text: 'title D\nversion 6.1.0-18\nlinux /debian/6.1.0-18/linux\noptions root=LABEL=x\n' },
    { name: 'debian-6.1.0-9.conf', text: 'title D\nversion 6.1.0-9\nlinux /debian/6.1.0-9/linux\n' },
  ])
  const uki = [{ ...entries[0]!, id: 'own.efi', kernel: '/EFI/Linux/own.efi', kind: 'efi' as const }]
  const chosen = (conf: string) => readSystemdBoot(conf, entries, uki).chosen?.id
  assert.equal(chosen(''), 'debian-6.1.0-18')
  assert.equal(chosen('timeout 3\ndefault debian-*-9.conf\n'), 'debian-6.1.0-9')
  assert.equal(chosen('default own.efi'), 'own.efi')
  assert.equal(chosen('default gone*'), 'debian-6.1.0-18')
})

test('syslinux: a label, the marked one of a menu, a command', () => {
  const text = `SERIAL 0 115200
DEFAULT menu.c32
APPEND common=1
LABEL one
  MENU LABEL ^One
  KERNEL /vmlinuz
  APPEND initrd=/a.img,/b.img root=/dev/sda1 console=ttyS0
LABEL two
  MENU DEFAULT
  LINUX ../vmlinuz-2
  INITRD ../initrd-2
`
  const menu = readSyslinuxConfig(text)
  assert.deepEqual(menu.consoles, ['serial'])
  assert.deepEqual(
    menu.entries.map(({ title, kernel, arguments: args, initramfs }) => [title, kernel, args, initramfs]),
    [
      ['One', '/vmlinuz', 'root=/dev/sda1 console=ttyS0', ['/a.img', '/b.img']],
      ['two', '../vmlinuz-2', 'common=1', ['../initrd-2']],
    ],
  )
  assert.equal(menu.chosen?.id, 'two')
  assert.equal(readSyslinuxConfig(text.replace('menu.c32', 'ONE').replace('MENU DEFAULT', '')).chosen?.id, 'one')
  assert.equal(readSyslinuxConfig('default vmlinuz root=/dev/sda\n').chosen?.arguments, 'root=/dev/sda')
})

test('scripts made to cost are cut short', () => {
  const bomb = `set a=x\n${'set a="$a$a$a$a"\n'.repeat(50)}${'menuentry $a { linux $a $a $a; }\n'.repeat(5_000)}`
  assert.ok(grub(bomb).notes.length > 0)
  const calls = `${Array.from({ length: 50 }, (_, i) => `function f${i} { ${'f0; f1; f2; f3; '.repeat(5)} }\n`).join('')}f0\nmenuentry a { linux /a; }`
  assert.ok(grub(calls).entries.length <= 1)
  assert.equal(grub('if '.repeat(100_000)).chosen, null)
  assert.equal(grub(`\${`.repeat(200_000)).chosen, null)
  assert.equal(grub(`menuentry a {`.repeat(10_000)).chosen?.kernel ?? null, null)
  assert.equal(grub(`${'if [ $root = a ]; then set x=1; fi\n'.repeat(10_000)}`).chosen, null)
})
