import assert from 'node:assert/strict'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
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
}
const scsi = (serial: string, wwn: string) => ({
  'device/vpd_pg80': `\0\x80\0${String.fromCharCode(serial.length)}${serial}`,
  'device/wwid': `naa.${wwn}\n`,
})

/** Folders as the kernel shows these disks. */
async function machine(t: TestContext, disks: Readonly<Record<string, Shown>>): Promise<KernelFolders> {
  const path = await scratch(t)
  for (const [index, [name, { gib, files = {}, hasHardware = true }]] of Object.entries(disks).entries()) {
    const all = {
      size: `${gib * SECTORS_A_GIB}\n`,
      dev: `8:${index * 16}\n`,
      ...(hasHardware ? { 'device/model': 'DISK\n' } : {}),
      ...files,
    }
    for (const [file, content] of Object.entries(all)) {
      const at = path(`sys/devices/${name}/${file}`)
      await mkdir(dirname(at), { recursive: true })
      await writeFile(at, content, 'latin1')
    }
    for (const link of [`sys/block/${name}`, `sys/dev/block/8:${index * 16}`]) {
      await mkdir(dirname(path(link)), { recursive: true })
      await symlink(path(`sys/devices/${name}`), path(link))
    }
  }
  return { sys: path('sys'), proc: path('proc') }
}

const server = {
  sda: { gib: 447, files: scsi('S-A', '5000c500aaaaaaaa') },
  sdb: { gib: 3726, files: scsi('S-B', '5000c500bbbbbbbb') },
  sdc: { gib: 3726, files: scsi('S-C', '5000c500cccccccc') },
  nvme0n1: { gib: 238, files: { 'device/serial': 'NV-1\n', wwid: 'eui.0025385b71b0b3a1\n' } },
  sdd: { gib: 1, files: { removable: '1\n', ...scsi('STICK', '5000c500dddddddd') } },
  sr0: { gib: 1 },
  loop0: { gib: 9000, hasHardware: false },
}

const chosen: readonly [string, string][] = [
  ['/dev/disk/by-path/x', '/dev/disk/by-path/x'],
  ['serial=S-B', '/dev/sdb'],
  ['serial=NV-1', '/dev/nvme0n1'],
  ['serial=STICK', '/dev/sdd'],
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
    assert.equal(await chosenDisk(choice, await machine(t, server)), path)
  })
}

const refused: readonly [string, string, RegExp][] = [
  ['largest', 'conflict', /largest may be one of 2 disks, sdb \(.*serial=S-B, wwn=naa.5000c500bbbbbbbb\); sdc \(/],
  ['size=3726', 'conflict', /one of 2 disks/],
  ['size=1', 'not-found', /no disk with size=1: it has nvme0n1 \(238 GiB/],
  ['serial=', 'invalid-request', /a disk is named by/],
  ['serial=S-Z', 'not-found', /no disk with serial=S-Z/],
  ['wwn=', 'invalid-request', /a disk is named by/],
  ['sda', 'invalid-request', /a disk is named by its path/],
]
for (const [choice, code, says] of refused) {
  test(`${choice} is refused as ${code}`, async (t) => {
    await assert.rejects(chosenDisk(choice, await machine(t, server)), { code, message: says })
  })
}

test('two disks that say the same serial number are told apart by nobody', async (t) => {
  const twins = await machine(t, { sda: { gib: 1, files: scsi('TWIN', '1') }, sdb: { gib: 2, files: scsi('TWIN', '2') } })
  await assert.rejects(chosenDisk('serial=TWIN', twins), { code: 'conflict' })
  assert.equal(await chosenDisk('largest', twins), '/dev/sdb')
})

test('a machine without disks says so', async (t) => {
  await assert.rejects(chosenDisk('largest', await machine(t, {})), { code: 'not-found', message: /it has none/ })
})
