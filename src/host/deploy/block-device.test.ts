import assert from 'node:assert/strict'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type TestContext, test } from 'node:test'
import { scratch } from '../../../test/fixtures/disk/tools.ts'
import { assertUnused, describeDevice, type KernelFolders } from './block-device.ts'

/** Folders as the kernel shows a SCSI disk with two partitions. */
async function kernel(t: TestContext, changes: Readonly<Record<string, string>> = {}): Promise<KernelFolders> {
  const path = await scratch(t)
  const disk = 'sys/devices/pci0/host0/block/sda'
  const files: Record<string, string> = {
    [`${disk}/size`]: '41943040\n',
    [`${disk}/ro`]: '0\n',
    [`${disk}/queue/logical_block_size`]: '4096\n',
    [`${disk}/device/model`]: 'FAST \x1b[2JDISK   \n',
    [`${disk}/device/vpd_pg80`]: '\0\x80\0\x08SER-0042',
    [`${disk}/sda1/partition`]: '1\n',
    [`${disk}/sda1/dev`]: '8:1\n',
    [`${disk}/sda1/size`]: '2048\n',
    [`${disk}/sda2/partition`]: '2\n',
    [`${disk}/sda2/dev`]: '8:2\n',
    'proc/self/mountinfo': '22 1 9:9 / / rw - ext4 /dev/none rw\n',
    'proc/swaps': 'Filename\tType\tSize\tUsed\tPriority\n',
    ...changes,
  }
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(path(name)), { recursive: true })
    await writeFile(path(name), content, 'latin1')
  }
  await mkdir(path('sys/dev/block'), { recursive: true })
  await symlink('../../devices/pci0/host0/block/sda', path('sys/dev/block/8:0'))
  await symlink('../../devices/pci0/host0/block/sda/sda1', path('sys/dev/block/8:1'))
  return { sys: path('sys'), proc: path('proc') }
}

test('a disk is what the kernel says of it, without what would steer a terminal', async (t) => {
  const folders = await kernel(t)
  const { numbers, ...disk } = await describeDevice('8:0', folders)
  assert.deepEqual(disk, {
    name: 'sda',
    bytes: 20 * 2 ** 30,
    sectorBytes: 4096,
    isReadOnly: false,
    model: 'FAST [2JDISK',
    serial: 'SER-0042',
    holders: [],
  })
  assert.deepEqual([...numbers].sort(), ['8:0', '8:1', '8:2'])
  await assertUnused(await describeDevice('8:0', folders), '/dev/sda', folders)
  const part = await describeDevice('8:1', folders)
  assert.deepEqual([part.name, part.bytes, part.sectorBytes, part.serial], ['sda1', 2 ** 20, 4096, 'SER-0042'])
  await assert.rejects(describeDevice('8:77', folders), { code: 'unavailable' })
})

const disk = 'sys/devices/pci0/host0/block/sda'
const used = [
  {
    what: 'a partition is mounted',
    changes: { 'proc/self/mountinfo': '30 22 8:2 / /mnt/a\\040b rw - ext4 /dev/sda2 rw\n' },
    says: /mounted at \/mnt\/a b\./,
  },
  {
    what: 'the system runs from it',
    changes: { 'proc/self/mountinfo': '22 1 8:1 / / rw shared:1 - ext4 /dev/root rw\n' },
    says: /this system runs from it/,
  },
  { what: 'RAID stands on it', changes: { [`${disk}/holders/md0`]: '' }, says: /md0 stands on it/ },
  { what: 'LVM stands on a partition', changes: { [`${disk}/sda2/holders/dm-3`]: '' }, says: /dm-3 stands on it/ },
]
for (const { what, changes, says } of used) {
  test(`a disk is in use where ${what}`, async (t) => {
    const folders = await kernel(t, changes)
    const device = await describeDevice('8:0', folders)
    await assert.rejects(assertUnused(device, '/dev/sda', folders), { code: 'conflict', message: says })
  })
}
