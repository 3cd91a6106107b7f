import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { findSystems, volumeNamed } from '../../src/disk/guest/system/systems.ts'
import { readLayout } from '../../src/disk/guest/volumes/volumes.ts'
import { missingTool } from '../peers/command.ts'

const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }
const ROOT = '11111111-2222-4333-8444-555555555501'
const BOOT = '11111111-2222-4333-8444-555555555502'
const SWAP = '11111111-2222-4333-8444-555555555503'
const LATER = '11111111-2222-4333-8444-5555555555ff'

async function folderOf(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-root-'))
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), text)
  }
  return folder
}

const fstab = [
  '# made by hand',
  `UUID=${ROOT}  /      ext4 defaults 0 1`,
  `UUID="${BOOT}"\t/boot\text4\tdefaults\t0 2`,
  `UUID=${SWAP} none swap sw 0 0`,
  `UUID=${LATER} /srv/a\\040b ext4 defaults 0 2`,
  'UUID=ffff /mnt/usb auto nofail 0 0',
  'server:/home /home nfs defaults 0 0',
].join('\n')

test('a Linux is found by its root, with what it mounts', { skip: missingTool('sfdisk', 'mke2fs', 'mkswap') }, async () => {
  const root = await folderOf({ 'etc/os-release': 'ID=debian\n', 'etc/fstab': fstab, 'boot/hidden': '', 'usr/bin/true': '' })
  const boot = await folderOf({ 'vmlinuz-6.1': 'kernel', 'grub/grub.cfg': 'linux /vmlinuz-6.1' })
  const folder = await folderOf({ disk: '', swap: '' })
  const [disk, swap] = [join(folder, 'disk'), join(folder, 'swap')]
  await truncate(disk, 64 * MiB)
  await truncate(swap, 4 * MiB)
  execFileSync('mkswap', ['-q', '-U', SWAP, swap], { env, stdio: 'pipe' })
  const plan =
    'label: gpt\nstart=2048, size=32768\nstart=34816, size=32768, name=boot\nstart=67584, size=8192, type=S\nstart=75776, size=8192\n'
  execFileSync('sfdisk', ['-q', disk], { env, input: plan })
  const ext4 = (uuid: string, from: string, at: number) =>
    execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-U', uuid, '-d', from, '-E', `offset=${at * 512}`, disk, '16384k'], {
      env,
      stdio: 'pipe',
    })
  ext4(ROOT, root, 2048)
  ext4(BOOT, boot, 34_816)
  execFileSync('dd', [`if=${swap}`, `of=${disk}`, 'seek=67584', 'conv=notrunc'], { stdio: 'ignore' })

  const source = await openFileSource(disk)
  const layout = await readLayout(source)
  assert.deepEqual(
    layout.volumes.map(({ content }) =>
      content.kind === 'files' ? content.files.type : content.kind === 'other' ? content.type : content.kind,
    ),
    ['ext4', 'ext4', 'swap', 'unknown'],
  )
  const [system, ...others] = await findSystems(layout)
  assert.deepEqual(others, [])
  assert.equal(system?.volume.name, 'partition 1')
  assert.deepEqual(system.notes, [`/srv/a b is on UUID=${LATER}, which is not on this disk`])
  assert.deepEqual(
    system.mounts.map(({ entry, volume }) => [entry.path, volume?.name ?? null]),
    [
      ['/boot', 'partition 2'],
      ['/srv/a b', null],
      ['/mnt/usb', null],
    ],
  )
  assert.equal(Buffer.from((await system.tree.read('/boot/grub/grub.cfg', 1000))!).toString(), 'linux /vmlinuz-6.1')
  assert.equal(await system.tree.find('/boot/hidden'), undefined)
  const partitionId = layout.table!.partitions[1]!.id
  assert.match(execFileSync('sfdisk', ['-d', disk], { env, encoding: 'utf8' }), new RegExp(`uuid=${partitionId}`, 'i'))
  for (const name of [
    `PARTUUID=${partitionId.toUpperCase()}`,
    'PARTLABEL=boot',
    `/dev/disk/by-uuid/${BOOT}`,
    '/dev/vda2',
    '/dev/nvme0n1p2',
  ]) {
    assert.equal(volumeNamed(name, layout.volumes)?.name, 'partition 2', name)
  }
  await source.close()
  for (const each of [root, boot, folder]) await rm(each, { recursive: true })
})
