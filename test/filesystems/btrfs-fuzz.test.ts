import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
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
const forms: readonly { readonly mkfs: readonly string[]; readonly ofNodes: boolean }[] = [
  { mkfs: ['-M', '--csum', 'xxhash', '-m', 'single', '-d', 'single'], ofNodes: true },
  { mkfs: ['--csum', 'xxhash', '-m', 'dup'], ofNodes: false },
  { mkfs: ['-m', 'dup'], ofNodes: false },
]

for (const [seed, { mkfs, ofNodes }] of forms.entries()) {
  const where = ofNodes ? 'in nodes' : 'anywhere'
  test(`whatever btrfs bytes say, files or typed errors: ${mkfs.join(' ')}, ${where}`, {
    skip: cannotMount('mkfs.btrfs'),
  }, async () => {
    await using made = await newVolume(128 * MiB, ['mkfs.btrfs', '-q', '-n', '4096', ...mkfs])
    await mounted(made.path, '', fillSmall)
    const volume = await readFile(made.path)
    const runs = Math.ceil(RUNS / forms.length)
    const opened = await fuzzFileSystem(btrfs, { volume, runs, seed, sectors: sectorsOf(volume, ofNodes) })
    assert.ok(opened > runs / 4, `${opened} opened`)
  })
}

/** Those with something in them; of nodes alone, or of whatever there is. */
function sectorsOf(volume: Buffer, ofNodes: boolean): number[] {
  const zeros = Buffer.alloc(NODE_BYTES)
  const fsid = volume.subarray(65_536 + 32, 65_536 + 48)
  const found: number[] = []
  for (let at = 0; at < volume.length; at += NODE_BYTES) {
    const block = volume.subarray(at, at + NODE_BYTES)
    const isNode = at !== 65_536 && block.subarray(32, 48).equals(fsid)
    if (ofNodes ? !isNode : block.equals(zeros)) continue
    for (let sector = at / SECTOR_BYTES; sector < (at + NODE_BYTES) / SECTOR_BYTES; sector += 1) found.push(sector)
  }
  return found
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
