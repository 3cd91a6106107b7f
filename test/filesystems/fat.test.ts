import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'
import { missingTool } from '../peers/command.ts'
import { fillAged } from './aged-tree.ts'
import { identityOf } from './identity.ts'
import { assertSameFacts, factsOf, factsOfMounted } from './same-as-mounted.ts'
import { newVolume } from './volumes.ts'

interface Case {
  readonly name: string
  readonly mkfs: readonly string[]
  readonly bytes: number
  readonly maxBytes?: number
}
const vfat = ['mkfs.vfat', '-i', '1234abcd']
const cases: readonly Case[] = [
  { name: 'FAT12, a floppy', mkfs: [...vfat, '-n', 'FLOPPY'], bytes: 1.44 * 1000 * 1024, maxBytes: 60_000 },
  { name: 'FAT12 of one table, 16 KiB clusters', mkfs: [...vfat, '-F', '12', '-s', '32', '-f', '1'], bytes: 20 * MiB },
  { name: 'FAT16 of 2 KiB clusters', mkfs: [...vfat, '-F', '16', '-n', 'volume two'], bytes: 40 * MiB },
  { name: 'FAT16, sectors of 2 KiB', mkfs: [...vfat, '-F', '16', '-S', '2048'], bytes: 40 * MiB },
  { name: 'FAT16 with 1,024 places in the root', mkfs: [...vfat, '-F', '16', '-r', '1024', '-R', '8'], bytes: 24 * MiB },
  { name: 'FAT32 of 512 byte clusters', mkfs: [...vfat, '-F', '32', '-s', '1', '-n', 'ESP'], bytes: 40 * MiB },
  { name: 'FAT32 without a backup', mkfs: [...vfat, '-F', '32', '-s', '8', '-b', '0', '-R', '40'], bytes: 300 * MiB },
  { name: 'FAT32, sectors of 4 KiB', mkfs: [...vfat, '-F', '32', '-S', '4096', '-s', '1'], bytes: 300 * MiB },
]

for (const [seed, { name, mkfs, bytes, maxBytes = 300_000 }] of cases.entries()) {
  test(`${name}: every fact is what mtools say`, { skip: missingTool('mkfs.vfat', 'mcopy', 'blkid') }, async () => {
    await using volume = await newVolume(bytes, mkfs)
    const folder = await mkdtemp(join(tmpdir(), 'imprint-fat-'))
    const [first, second, theirs] = ['first', 'second', 'theirs'].map((part) => join(folder, part)) as [string, string, string]
    for (const [index, part] of [first, second].entries()) {
      await mkdir(part)
      const without = ['links', 'symlinks', 'owners', 'devices', 'attributes', 'acl', 'bytes', 'times'] as const
      fillAged(part, { seed: seed * 2 + index, names: 60, maxBytes, without })
    }
    const copyIn = async (part: string) =>
      mtools('mcopy', volume.path, ['-Q', '-s', '-m', ...(await readdir(part)).sort().map((each) => join(part, each)), '::/'])
    await copyIn(first)
    const files = (await readdir(first, { withFileTypes: true })).filter((each) => each.isFile() && !each.name.includes('🐧')) // mtools do not find these again
    mtools(
      'mdel',
      volume.path,
      files.filter((_, index) => index % 2 === 0).map((each) => `::/${each.name}`),
    )
    mtools('mmd', volume.path, ['-D', 'o', '::/later', '::/UPPER', '::/lower.ext', '::/MIXED.low'])
    await copyIn(second).catch(() => {}) // a floppy becomes full
    await mkdir(theirs)
    mtools('mcopy', volume.path, ['-s', '-n', '-m', '::/', theirs])

    const disk = await openFileSource(volume.path)
    const ours = await openFileSystem(disk)
    assert.equal(ours?.type, 'vfat')
    assert.deepEqual(
      ours.notes.filter((note) => !/fields of FAT32/.test(note)),
      [],
    )
    assert.deepEqual({ type: ours.type, label: ours.label, uuid: ours.uuid }, identityOf(volume.path))
    const free = /([\d ]+) bytes free/.exec(mtools('mdir', volume.path, ['::/']))![1]!
    assert.equal(ours.freeBytes, Number(free.replaceAll(' ', '')))
    const facts = ['modified'] as const
    const [mine, others] = [await factsOf(ours, facts), factsOfMounted(theirs, facts)]
    for (const each of [mine, others]) for (const [, one] of each) if (one.kind === 'directory') delete one.modified
    assertSameFacts(mine, others)
    assert.equal((await ours.find(ours.root, 'LATER'))?.name, 'later')
    await disk.close()
    await rm(folder, { recursive: true })
  })
}

function mtools(program: string, volume: string, words: readonly string[]): string {
  const env = { ...process.env, LC_ALL: 'C.UTF-8', TZ: 'UTC', MTOOLS_SKIP_CHECK: '1' }
  return execFileSync(program, ['-i', volume, ...words], { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}
