import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFile, rm } from 'node:fs/promises'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'
import { fillAged, type TreeWish } from './aged-tree.ts'
import { assertSameFacts, factsOf, factsOfMounted } from './same-as-mounted.ts'
import { cannotMount, mounted, newVolume } from './volumes.ts'

interface Case {
  readonly name: string
  readonly mkfs: readonly string[]
  readonly type: string
  readonly tree?: Partial<TreeWish>
}
const ext4 = ['mkfs.ext4', '-q', '-F', '-L', 'Volume one']
const cases: readonly Case[] = [
  { name: 'ext4 as it comes', mkfs: ext4, type: 'ext4' },
  { name: 'blocks of 1 KiB', mkfs: [...ext4, '-b', '1024'], type: 'ext4' },
  {
    name: 'blocks of 2 KiB, inodes of 128 bytes',
    mkfs: [...ext4, '-b', '2048', '-I', '128'],
    type: 'ext4',
    tree: { without: ['times'] },
  },
  { name: 'inodes of 1 KiB with data in them', mkfs: [...ext4, '-I', '1024', '-O', 'inline_data'], type: 'ext4' },
  { name: 'inline data in inodes of 256 bytes', mkfs: [...ext4, '-O', 'inline_data'], type: 'ext4' },
  { name: 'no extents', mkfs: [...ext4, '-O', '^extents,^64bit'], type: 'ext4' },
  { name: 'meta block groups', mkfs: [...ext4, '-b', '1024', '-g', '1024', '-O', 'meta_bg,^resize_inode'], type: 'ext4' },
  { name: 'attributes in inodes', mkfs: [...ext4, '-O', 'ea_inode'], type: 'ext4' },
  { name: 'clusters', mkfs: [...ext4, '-O', 'bigalloc', '-C', '65536'], type: 'ext4' },
  {
    name: 'no journal, large directories',
    mkfs: [...ext4, '-O', '^has_journal,large_dir,metadata_csum_seed'],
    type: 'ext4',
  },
  { name: 'no checksums', mkfs: [...ext4, '-O', '^metadata_csum'], type: 'ext4' },
  { name: 'two superblocks', mkfs: [...ext4, '-O', 'sparse_super2'], type: 'ext4' },
  { name: 'ext3', mkfs: ['mkfs.ext3', '-q', '-F'], type: 'ext3', tree: { without: ['times'] } },
  { name: 'ext3 of 1 KiB', mkfs: ['mkfs.ext3', '-q', '-F', '-b', '1024'], type: 'ext3', tree: { without: ['times'] } },
  { name: 'ext2', mkfs: ['mkfs.ext2', '-q', '-F', '-b', '1024'], type: 'ext2', tree: { without: ['times'] } },
  {
    name: 'revision 0',
    mkfs: ['mkfs.ext2', '-q', '-F', '-r', '0'],
    type: 'ext2',
    tree: { without: ['times', 'acl', 'attributes'] },
  },
]

for (const [index, { name, mkfs, type, tree }] of cases.entries()) {
  test(`${name}: every fact is what the kernel says`, { skip: cannotMount(mkfs[0]!) }, async () => {
    await using volume = await newVolume(96 * MiB, mkfs)
    await mounted(volume.path, '', (root) => fillAged(root, { seed: index, names: 300, maxBytes: MiB, ...tree }))
    const theirs = await mounted(volume.path, 'ro', factsOfMounted)
    const disk = await openFileSource(volume.path)
    const files = await openFileSystem(disk)
    assert.equal(files?.type, type)
    assert.deepEqual(files.notes, [])
    assertSameFacts(await factsOf(files), theirs)
    await disk.close()
  })
}

test('a journal that was not replayed is read as the kernel replays it', { skip: cannotMount('mkfs.ext4') }, async () => {
  for (const options of ['', 'journal_checksum', 'data=journal']) {
    await using volume = await newVolume(96 * MiB, ext4)
    const copy = `${volume.path}.crashed`
    await mounted(volume.path, options, async (root) => {
      fillAged(root, { seed: 3, names: 200, maxBytes: MiB })
      execFileSync('sync')
      fillAged(`${root}/many`, { seed: 4, names: 100, maxBytes: 10_000 })
      execFileSync('sync', ['-f', root])
      await copyFile(volume.path, copy)
    })
    const disk = await openFileSource(copy)
    const files = await openFileSystem(disk)
    assert.match(files!.notes.join(), /not unmounted: \d+ transaction/)
    const ours = await factsOf(files!)
    await disk.close()
    assertSameFacts(ours, await mounted(copy, '', factsOfMounted))
    await rm(copy)
  }
})
