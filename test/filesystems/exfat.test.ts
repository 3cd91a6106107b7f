import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { GiB, MiB } from '../../src/base/units.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'
import { fillAged } from './aged-tree.ts'
import { identityOf } from './identity.ts'
import { assertSameFacts, type Fact, factsOf, factsOfMounted } from './same-as-mounted.ts'
import { cannotMount, mountedByFuse, newVolume } from './volumes.ts'

interface Case {
  readonly name: string
  readonly mkfs: readonly string[]
  readonly bytes?: number
}
const cases: readonly Case[] = [
  { name: 'exFAT as it comes', mkfs: ['mkfs.exfat', '-L', 'Volume 1'] },
  { name: 'clusters of 512 bytes', mkfs: ['mkfs.exfat', '-c', '512', '-L', 'elevenchars'] },
  { name: 'clusters of 128 KiB', mkfs: ['mkfs.exfat', '-c', '128K', '-b', '1M'] },
  { name: 'a packed bitmap', mkfs: ['mkfs.exfat', '--pack-bitmap', '-c', '4K'] },
  { name: 'a large volume', mkfs: ['mkfs.exfat', '-c', '32K'], bytes: 40 * GiB },
]
const facts: readonly Fact[] = ['modified']
const skip = cannotMount('mount.exfat-fuse', 'mkfs.exfat', 'fsck.exfat', 'losetup', 'blkid')

for (const [seed, { name, mkfs, bytes = 96 * MiB }] of cases.entries()) {
  test(`${name}: every fact is what exfat-fuse says`, { skip }, async () => {
    await using volume = await newVolume(bytes, mkfs)
    const without = ['links', 'symlinks', 'owners', 'devices', 'attributes', 'acl', 'bytes'] as const
    await mountedByFuse(['mount.exfat-fuse'], volume.path, (root) => fillAged(root, { seed, names: 200, maxBytes: MiB, without }))
    const theirs = await mountedByFuse(['mount.exfat-fuse', '-o', 'ro'], volume.path, (root) => {
      const [blockBytes = 0, free = 0] = execFileSync('stat', ['-f', '-c', '%S %f', root], { encoding: 'utf8' })
        .split(' ')
        .map(Number)
      return { facts: factsOfMounted(root, facts), freeBytes: blockBytes * free }
    })
    const disk = await openFileSource(volume.path)
    const ours = await openFileSystem(disk)
    assert.deepEqual({ type: ours?.type, label: ours?.label, uuid: ours?.uuid }, identityOf(volume.path))
    assert.deepEqual(ours!.notes, [])
    assert.equal(ours!.freeBytes, theirs.freeBytes)
    const mine = await factsOf(ours!, facts)
    for (const each of [mine, theirs.facts]) delete each.get('/')!.modified // which nobody keeps
    assertSameFacts(mine, theirs.facts)
    for (const name of ['MANY', 'many', 'Many']) assert.equal((await ours!.find(ours!.root, name))?.name, 'many')
    await disk.close()
  })
}
