import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFileSync, linkSync, mkdirSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { btrfs } from '../../src/disk/guest/filesystems/btrfs/btrfs.ts'
import { fillAged } from './aged-tree.ts'
import { fuzzFileSystem } from './fuzz.ts'
import { cannotMount, mounted, newVolume } from './volumes.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 1000)
const NODE_BYTES = 4096
const SECTOR_BYTES = 512
/** Checksums of xxhash are not looked at, so that mutants get past them; with crc32c the other copy is read. */
const forms: readonly { readonly mkfs: readonly string[]; readonly where: 'in nodes' | 'in the log' | 'anywhere' }[] = [
  { mkfs: ['-M', '--csum', 'xxhash', '-m', 'single', '-d', 'single'], where: 'in nodes' },
  { mkfs: ['--csum', 'xxhash', '-m', 'dup'], where: 'anywhere' },
  { mkfs: ['-m', 'dup'], where: 'anywhere' },
  { mkfs: ['--csum', 'xxhash', '-m', 'single'], where: 'in the log' },
]

for (const [seed, { mkfs, where }] of forms.entries()) {
  test(`whatever btrfs bytes say, files or typed errors: ${mkfs.join(' ')}, ${where}`, {
    skip: cannotMount('mkfs.btrfs'),
  }, async () => {
    await using made = await newVolume(128 * MiB, ['mkfs.btrfs', '-q', '-n', '4096', ...mkfs])
    const crashed = `${made.path}.crashed`
    await mounted(made.path, 'commit=300', (root) => {
      fillSmall(root)
      if (where !== 'in the log') return
      execFileSync('sync', ['-f', root])
      fillLog(root)
      copyFileSync(made.path, crashed)
    })
    const volume = await readFile(where === 'in the log' ? crashed : made.path)
    const runs = Math.ceil(RUNS / forms.length)
    const opened = await fuzzFileSystem(btrfs, { volume, runs, seed, sectors: sectorsOf(volume, where) })
    assert.ok(opened > runs / 4, `${opened} opened`)
  })
}

/** Those with something in them. */
function sectorsOf(volume: Buffer, where: string): number[] {
  const zeros = Buffer.alloc(NODE_BYTES)
  const fsid = volume.subarray(65_536 + 32, 65_536 + 48)
  const found: number[] = []
  for (let at = 0; at < volume.length; at += NODE_BYTES) {
    const block = volume.subarray(at, at + NODE_BYTES)
    const isNode = at !== 65_536 && block.subarray(32, 48).equals(fsid)
    const isOfLog = isNode && block.readBigInt64LE(88) === -6n // BTRFS_TREE_LOG_OBJECTID
    if (where === 'anywhere' ? block.equals(zeros) : where === 'in nodes' ? !isNode : !isOfLog) continue
    for (let sector = at / SECTOR_BYTES; sector < (at + NODE_BYTES) / SECTOR_BYTES; sector += 1) found.push(sector)
  }
  return found
}

/** Of every kind of item that a log has. */
function fillLog(root: string): void {
  for (let index = 0; index < 6; index += 1) {
    const path = `${root}/zlib/new-${index}`
    writeFileSync(path, 'new '.repeat(index * 300))
    linkSync(path, `${root}/home/../lzo/other-${index}`)
    execFileSync('setfattr', ['-n', 'user.note', '-v', 'new', path])
    execFileSync('sync', [path])
  }
  truncateSync(`${root}/zlib/large`, 5000)
  renameSync(`${root}/zstd/small`, `${root}/zstd/renamed`)
  rmSync(`${root}/zlib/new-1`)
  for (const path of ['zlib/large', 'zstd/renamed', 'zlib']) execFileSync('sync', [`${root}/${path}`])
}

/** All that there is to read, in few bytes: a folder of each compression, a subvolume, its snapshot, in which one is not entered. */
function fillSmall(root: string): void {
  for (const compression of ['zlib', 'lzo', 'zstd']) {
    const folder = `${root}/${compression}`
    mkdirSync(folder)
    execFileSync('btrfs', ['property', 'set', folder, 'compression', compression])
    writeFileSync(`${folder}/small`, 'some text, packed in its inode. '.repeat(30))
    writeFileSync(`${folder}/large`, Array.from({ length: 1000 }, (_, index) => `line ${index * index}\n`).join(''))
  }
  const quiet = { stdio: 'ignore' } as const
  execFileSync('btrfs', ['subvolume', 'create', `${root}/home`], quiet)
  execFileSync('btrfs', ['subvolume', 'create', `${root}/home/inner`], quiet)
  fillAged(`${root}/home`, { seed: 1, names: 5, maxBytes: 9000, without: ['devices', 'acl'] })
  execFileSync('btrfs', ['subvolume', 'snapshot', `${root}/home`, `${root}/then`], quiet)
}
