import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'
import { fillAged } from './aged-tree.ts'
import { identityOf } from './identity.ts'
import { assertSameFacts, type Fact, factsOf, factsOfMounted } from './same-as-mounted.ts'
import { cannotMount, mountedByFuse, newVolume } from './volumes.ts'

interface Case {
  readonly name: string
  readonly mkfs: readonly string[]
  /** Everything is written compressed. */
  readonly isCompressed?: boolean
}
const mkfs = ['mkfs.ntfs', '-q', '-F', '-L', 'Volume 1']
const cases: readonly Case[] = [
  { name: 'NTFS as it comes', mkfs: [...mkfs, '-f'] },
  { name: 'clusters of 512 bytes', mkfs: [...mkfs, '-f', '-c', '512'] },
  { name: 'clusters of 64 KiB', mkfs: [...mkfs, '-f', '-c', '65536'] },
  { name: 'sectors of 4 KiB', mkfs: [...mkfs, '-f', '-s', '4096'] },
  { name: 'compressed', mkfs: [...mkfs, '-f', '-C'], isCompressed: true },
  { name: 'compressed, clusters of 1 KiB', mkfs: [...mkfs, '-f', '-C', '-c', '1024'], isCompressed: true },
]
const ntfs3g = ['ntfs-3g', '-o', 'streams_interface=xattr,compression'] as const
const facts: readonly Fact[] = ['mode', 'owner', 'links', 'modified', 'changed', 'attributes', 'device']

for (const [seed, { name, mkfs, isCompressed = false }] of cases.entries()) {
  test(`${name}: every fact is what ntfs-3g says`, {
    skip: cannotMount('ntfs-3g', 'mkfs.ntfs', 'losetup', 'blkid'),
  }, async () => {
    await using volume = await newVolume(64 * MiB, mkfs)
    await mountedByFuse(ntfs3g, volume.path, (root) => {
      if (isCompressed) setAttributes(root, 0x810) // a directory, compressed: what is made in it is so too
      fillAged(root, { seed, names: 200, maxBytes: MiB, without: ['owners', 'devices', 'acl', 'bytes'] })
      for (const [kind, numbers] of [
        ['b', '8'],
        ['c', '250'],
      ] as const)
        execFileSync('mknod', [join(root, `device-${kind}`), kind, numbers, '3'])
      inPieces(root)
    })
    const theirs = await mountedByFuse(['ntfs-3g', '-o', `ro,${ntfs3g[2]}`], volume.path, (root) => factsOfMounted(root, facts))
    const disk = await openFileSource(volume.path)
    const ours = await openFileSystem(disk)
    assert.deepEqual({ type: ours?.type, label: ours?.label, uuid: ours?.uuid }, identityOf(volume.path))
    assert.deepEqual(ours!.notes, [])
    const mine = await factsOf(ours!, facts)
    assertSameFacts(mine, theirs)
    for (const name of ['MANY', 'many', 'Many']) assert.equal((await ours!.find(ours!.root, name))?.name, 'many')
    const many = await ours!.node((await ours!.find(ours!.root, 'many'))!.id)
    for await (const entry of ours!.list(many)) assert.deepEqual((await ours!.find(many, entry.name.toUpperCase()))?.id, entry.id)
    await disk.close()
  })
}

/** One file with so many runs that its attributes take more than one record. */
function inPieces(root: string): void {
  const [all, kept] = [join(root, 'pieces'), join(root, 'in-pieces')]
  mkdirSync(all)
  for (let index = 0; index < 400; index += 1) {
    writeFileSync(kept, Buffer.alloc(5000, index), { flag: 'a' })
    writeFileSync(join(all, String(index)), Buffer.alloc(5000, 1))
  }
  assert.equal(statSync(kept).size, 2_000_000)
  assert.equal(readdirSync(all).length, 400)
}

function setAttributes(path: string, bits: number): void {
  const value = Buffer.alloc(4)
  value.writeUInt32LE(bits)
  execFileSync('setfattr', ['-h', '-n', 'system.ntfs_attrib', '-v', `0x${value.toString('hex')}`, path])
}
