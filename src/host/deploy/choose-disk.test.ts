import assert from 'node:assert/strict'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { scratch } from '../../../test/fixtures/disk/tools.ts'
import type { KernelFolders } from './block-device.ts'
import { chosenDisk } from './choose-disk.ts'

const SECTORS_A_GIB = 2 ** 21
interface Shown {
  readonly gib: number
  readonly files?: Readonly<Record<string, string>>
  /** False: a loop device, or one that is mapped. */
  readonly hasHardware?: boolean
  /** Of the controller that it hangs on. */
  readonly under?: string
}
const scsi = (serial: string, wwn: string) => ({
  'device/vpd_pg80': `\0\x80\0${String.fromCharCode(serial.length)}${serial}`,
  'device/wwid': `naa.${wwn}\n`,
})

/** Folders as the kernel shows these disks. */
async function machine(t: TestContext, disks: Readonly<Record<string, Shown>>): Promise<KernelFolders> {
  const path = await scratch(t)
  const kernel = { sys: path('sys'), proc: path('proc') }
  for (const [index, [name, shown]] of Object.entries(disks).entries()) await plug(kernel, name, index, shown)
  return kernel
}
async function plug({ sys }: KernelFolders, name: string, index: number, shown: Shown): Promise<void> {
  const { gib, files = {}, hasHardware = true, under = 'pci0000:00' } = shown
  const folder = join(sys, 'devices', under, name)
  const all = {
    size: `${gib * SECTORS_A_GIB}\n`,
    dev: `8:${index * 16}\n`,
    ...(hasHardware ? { 'device/model': 'DISK\n' } : {}),
    ...files,
  }
  for (const [file, content] of Object.entries(all)) {
    await mkdir(dirname(join(folder, file)), { recursive: true })
    await writeFile(join(folder, file), content, 'latin1')
  }
  for (const link of [`block/${name}`, `dev/block/8:${index * 16}`]) {
    await mkdir(dirname(join(sys, link)), { recursive: true })
    await symlink(folder, join(sys, link))
  }
}

const server = {
  sda: { gib: 447, files: scsi('S-A', '5000c500aaaaaaaa') },
  sdb: { gib: 3726, files: scsi('S-B', '5000c500bbbbbbbb') },
  sdc: { gib: 3726, files: scsi('S-C', '5000c500cccccccc') },
  nvme0n1: { gib: 238, files: { 'device/serial': 'NV-1\n', wwid: 'eui.0025385b71b0b3a1\n' } },
  sdd: { gib: 1, files: { removable: '1\n', ...scsi('STICK', '5000c500dddddddd') } },
  // none of these has a medium that can be taken out of it: the kernel says `removable` 0
  sde: { gib: 7000, under: 'pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6', files: { removable: '0\n', ...scsi('USB', '1') } },
  mmcblk0: { gib: 29, files: { removable: '0\n', 'device/type': 'SD\n', 'device/serial': 'CARD\n' } },
  sr0: { gib: 1 },
  loop0: { gib: 9000, hasHardware: false },
}

const atOnce = async () => {}

const chosen: readonly [string, string][] = [
  ['/dev/disk/by-path/x', '/dev/disk/by-path/x'],
  ['serial=S-B', '/dev/sdb'],
  ['serial=NV-1', '/dev/nvme0n1'],
  ['serial=STICK', '/dev/sdd'],
  ['serial=USB', '/dev/sde'],
  ['serial=CARD', '/dev/mmcblk0'],
  ['wwn=naa.5000c500cccccccc', '/dev/sdc'],
  ['wwn=0x5000C500CCCCCCCC', '/dev/sdc'],
  ['wwn=50:00:c5:00:cc:cc:cc:cc', '/dev/sdc'],
  ['wwn=eui.0025385b71b0b3a1', '/dev/nvme0n1'],
  ['size=447', '/dev/sda'],
  ['size=447GiB', '/dev/sda'],
  ['smallest', '/dev/nvme0n1'],
]
for (const [choice, path] of chosen) {
  test(`${choice} is ${path}`, async (t) => {
    assert.equal(await chosenDisk(choice, atOnce, await machine(t, server)), path)
  })
}

const refused: readonly [string, string, RegExp][] = [
  ['largest', 'conflict', /largest may be one of 2 disks, sdb \(.*serial=S-B, wwn=naa.5000c500bbbbbbbb\); sdc \(/],
  ['size=3726', 'conflict', /one of 2 disks/],
  ['size=29', 'not-found', /no disk with size=29/],
  ['size=1', 'not-found', /no disk with size=1: it has mmcblk0 .*; nvme0n1 \(238 GiB/],
  ['serial=', 'invalid-request', /a disk is named by/],
  ['serial=S-Z', 'not-found', /no disk with serial=S-Z/],
  ['wwn=', 'invalid-request', /a disk is named by/],
  ['sda', 'invalid-request', /a disk is named by its path/],
]
for (const [choice, code, says] of refused) {
  test(`${choice} is refused as ${code}`, async (t) => {
    await assert.rejects(chosenDisk(choice, atOnce, await machine(t, server)), { code, message: says })
  })
}

test('two disks that say the same serial number are told apart by nobody', async (t) => {
  const twins = await machine(t, { sda: { gib: 1, files: scsi('TWIN', '1') }, sdb: { gib: 2, files: scsi('TWIN', '2') } })
  await assert.rejects(chosenDisk('serial=TWIN', atOnce, twins), { code: 'conflict' })
  assert.equal(await chosenDisk('largest', atOnce, twins), '/dev/sdb')
})

test('a machine without disks says so', async (t) => {
  await assert.rejects(chosenDisk('largest', atOnce, await machine(t, {})), { code: 'not-found', message: /it has none/ })
})

/** What is plugged in before a look, by how many there were before. */
async function settled(t: TestContext, choice: string, comes: Readonly<Record<number, Readonly<Record<string, Shown>>>>) {
  const kernel = await machine(t, comes[0] ?? {})
  let looks = 1
  const pause = async () => {
    for (const [name, shown] of Object.entries(comes[looks] ?? {})) await plug(kernel, name, looks, shown)
    looks += 1
  }
  const chosen = await chosenDisk(choice, pause, kernel).catch((error: unknown) => error)
  return { chosen, looks }
}

test('of disks that come one after another, one is chosen when no more have come for a while', async (t) => {
  const large = { gib: 900, files: scsi('LATE', '2') }
  const done = await settled(t, 'largest', { 0: { sda: { gib: 400 } }, 4: { sdb: large } })
  assert.deepEqual(done, { chosen: '/dev/sdb', looks: 10 })
  const emmc = { mmcblk1: { gib: 14, files: { 'device/type': 'MMC\n' } } }
  assert.deepEqual(await settled(t, 'smallest', { 0: emmc }), { chosen: '/dev/mmcblk1', looks: 6 })
})

test('a disk that is not there yet is looked for, for a while', async (t) => {
  const late = { 40: { sdb: { gib: 900, files: scsi('LATE', '2') } } }
  assert.deepEqual(await settled(t, 'serial=LATE', { 0: { sda: { gib: 1 } }, ...late }), { chosen: '/dev/sdb', looks: 46 })
  const { chosen, looks } = await settled(t, 'wwn=77', { 0: { sda: { gib: 1 } } })
  assert.equal((chosen as { code: string }).code, 'not-found')
  assert.equal(looks, 60)
})

test('while disks go on coming none is the largest', async (t) => {
  const comes = Object.fromEntries(Array.from({ length: 20 }, (_, n) => [n * 3, { [`sd${n}`]: { gib: n + 1 } }]))
  const { chosen } = await settled(t, 'largest', comes)
  assert.match(String(chosen), /go on coming and going: sd0 /)
})
