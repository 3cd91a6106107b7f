import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { copyFile, open, rm } from 'node:fs/promises'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'
import { Log } from '../../src/disk/guest/filesystems/xfs/log.ts'
import { offsetOf, readSuperblock } from '../../src/disk/guest/filesystems/xfs/superblock.ts'
import { fillAged } from './aged-tree.ts'
import { assertSameFacts, factsOf, factsOfMounted } from './same-as-mounted.ts'
import { cannotMount, mounted, newVolume } from './volumes.ts'

const mkfs = ['mkfs.xfs', '-q', '-f', '--unsupported']
const cases = [
  { name: 'as it comes', words: [], options: '' },
  {
    name: 'blocks of 1 KiB and many extents',
    words: ['-b', 'size=1024', '-n', 'size=8192', '-i', 'nrext64=1'],
    options: 'logbsize=256k',
  },
  {
    name: 'no wide times, a log that was gone round',
    words: ['-m', 'bigtime=0', '-l', 'size=10m'],
    options: 'logbsize=64k',
    rounds: 16,
  },
]

for (const [seed, { name, words, options, rounds = 0 }] of cases.entries()) {
  test(`a log that was not replayed is read as the kernel replays it: ${name}`, { skip: cannotMount('mkfs.xfs') }, async () => {
    await using volume = await newVolume(192 * MiB, [...mkfs, ...words])
    const copy = `${volume.path}.crashed`
    await mounted(volume.path, options, async (root) => {
      fillAged(root, { seed, names: 150, maxBytes: MiB })
      execFileSync('sync')
      for (let round = 0; round < rounds; round += 1) goRound(root, round)
      fillAged(`${root}/many`, { seed: seed + 10, names: 100, maxBytes: 10_000 })
      execFileSync('setfattr', ['-n', 'user.long', '-v', 'value '.repeat(2000), `${root}/many/many`])
      execFileSync('sync', ['-f', root])
      await copyFile(volume.path, copy)
    })
    if (rounds > 0) assert.ok(await isGoneRound(copy), 'its head is before its tail')
    const torn = `${volume.path}.torn`
    await copyFile(copy, torn)
    await tear(torn)
    for (const path of [copy, torn]) {
      const disk = await openFileSource(path)
      const files = await openFileSystem(disk)
      assert.match(files!.notes.join(), /^it was not unmounted: [1-9]\d* transactions? of its log (is|are) read as if replayed$/)
      const ours = await factsOf(files!)
      await disk.close()
      assertSameFacts(ours, await mounted(path, '', factsOfMounted))
      await rm(path)
    }
  })
}

/** Fills the log, and frees blocks of inodes and of directories that it changes. */
function goRound(root: string, round: number): void {
  const folder = `${root}/round ${round}`
  mkdirSync(folder)
  for (let index = 0; index < 1500; index += 1) writeFileSync(`${folder}/${'name '.repeat(index % 9)}${index}`, '')
  execFileSync('sync', ['-f', root])
  if (round % 4 !== 0) rmSync(folder, { recursive: true })
  execFileSync('sync', ['-f', root])
}

async function isGoneRound(path: string): Promise<boolean> {
  const disk = await openFileSource(path)
  const { head, tail } = await new Log(disk, (await readSuperblock(disk))!).state()
  await disk.close()
  return head < tail
}

/** A byte in the last sector that was written of the log: what came last did not come whole. */
async function tear(path: string): Promise<void> {
  const disk = await openFileSource(path)
  const superblock = (await readSuperblock(disk))!
  const { head } = await new Log(disk, superblock).state()
  const at = offsetOf(superblock, disk, superblock.logStart, 1, 'the log') + head * 512 - 77
  const before = await disk.read(at, 1)
  await disk.close()
  const file = await open(path, 'r+')
  await file.write(Uint8Array.of(before[0]! ^ 0x55), 0, 1, at)
  await file.close()
}
