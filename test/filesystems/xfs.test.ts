import assert from 'node:assert/strict'
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import { crc32c } from '../../src/base/crc32c.ts'
import { MiB, TiB } from '../../src/base/units.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'
import { fillAged } from './aged-tree.ts'
import { assertSameFacts, factsOf, factsOfMounted } from './same-as-mounted.ts'
import { cannotMount, mounted, newVolume } from './volumes.ts'
import { fillXfs } from './xfs-tree.ts'

interface Case {
  readonly name: string
  readonly words: readonly string[]
  readonly bytes?: number
  /** Incompatible features beyond what mkfs.xfs knows, which kernels do. */
  readonly flags?: number
  /** Of the file of many pieces. */
  readonly pieces?: number
}
const cases: readonly Case[] = [
  { name: 'as it comes', words: [] },
  { name: 'blocks of 1 KiB, directories of 8 KiB', words: ['-b', 'size=1024', '-n', 'size=8192'] },
  { name: 'blocks of 2 KiB, inodes of 1 KiB', words: ['-b', 'size=2048', '-i', 'size=1024'] },
  { name: 'blocks of 16 KiB, inodes of 2 KiB', words: ['-b', 'size=16384', '-i', 'size=2048'], pieces: 500 },
  { name: 'blocks of 64 KiB', words: ['-b', 'size=65536'], pieces: 200 },
  { name: 'directories of 64 KiB', words: ['-n', 'size=65536'] },
  { name: 'many extents', words: ['-i', 'nrext64=1', '-m', 'rmapbt=1'] },
  {
    name: 'what version 5 began with',
    words: ['-m', 'finobt=0,reflink=0,bigtime=0,inobtcount=0', '-i', 'sparse=0', '-s', 'size=4096'],
  },
  { name: 'attributes that name the parents, which are hidden', words: ['-l', 'size=16m'], flags: 0xc0 },
  { name: 'numbers of inodes beyond 32 bits', words: [], bytes: 8 * TiB },
]
const mkfs = ['mkfs.xfs', '-q', '-f', '-L', 'Volume one', '--unsupported'] // smaller than its users should have them

for (const [index, { name, words, bytes = 192 * MiB, pieces = 1000, flags }] of cases.entries()) {
  test(`${name}: every fact is what the kernel says`, { skip: cannotMount('mkfs.xfs') }, async () => {
    await using volume = await newVolume(bytes, [...mkfs, ...words])
    if (flags) addFlags(volume.path, flags)
    const disk = await openFileSource(volume.path)
    const { blockBytes } = (await openFileSystem(disk))!
    await disk.close()
    await mounted(volume.path, '', (root) => {
      fillAged(root, { seed: index, names: 200, maxBytes: MiB })
      fillXfs(root, blockBytes, pieces)
    })
    const theirs = await mounted(volume.path, 'ro', factsOfMounted)
    const aged = await openFileSource(volume.path)
    const files = await openFileSystem(aged)
    assert.equal(files?.type, 'xfs')
    assert.equal(files.label, 'Volume one')
    assert.deepEqual(files.notes, [])
    assertSameFacts(await factsOf(files), theirs)
    await aged.close()
  })
}

function addFlags(path: string, flags: number): void {
  const file = openSync(path, 'r+')
  const superblock = Buffer.alloc(512)
  readSync(file, superblock, 0, 512, 0)
  superblock.writeUInt32BE(superblock.readUInt32BE(216) | flags, 216)
  superblock.writeUInt32LE(0, 224)
  superblock.writeUInt32LE(crc32c(superblock), 224)
  writeSync(file, superblock, 0, 512, 0)
  closeSync(file)
}
