import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdirSync, openSync, rmSync, symlinkSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB, TiB } from '../../src/base/units.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'
import { fillAged } from './aged-tree.ts'
import { assertSameFacts, factsOf, factsOfMounted } from './same-as-mounted.ts'
import { cannotMount, mounted, newVolume } from './volumes.ts'

interface Case {
  readonly name: string
  readonly words: readonly string[]
  readonly bytes?: number
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
  { name: 'numbers of inodes beyond 32 bits', words: [], bytes: 8 * TiB },
]
const mkfs = ['mkfs.xfs', '-q', '-f', '-L', 'Volume one', '--unsupported'] // smaller than its users should have them

for (const [index, { name, words, bytes = 192 * MiB, pieces = 1000 }] of cases.entries()) {
  test(`${name}: every fact is what the kernel says`, { skip: cannotMount('mkfs.xfs') }, async () => {
    await using volume = await newVolume(bytes, [...mkfs, ...words])
    const disk = await openFileSource(volume.path)
    const { blockBytes } = (await openFileSystem(disk))!
    await disk.close()
    await mounted(volume.path, '', (root) => {
      fillAged(root, { seed: index, names: 200, maxBytes: MiB })
      fillOwnWays(root, blockBytes, pieces)
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

/** What XFS keeps in a way of its own: each form of a fork, with a tree of two levels and more. */
function fillOwnWays(root: string, blockBytes: number, pieces: number): void {
  const at = (name: string) => join(root, name)
  const file = openSync(at('of many pieces'), 'w')
  for (let index = 0; index < pieces; index += 1)
    writeSync(file, Buffer.alloc(blockBytes, `${index}`), 0, undefined, index * 2 * blockBytes)
  ftruncateSync(file, (pieces * 2 + 5) * blockBytes - 77)
  closeSync(file)
  execFileSync('fallocate', ['-l', '2000000', at('never written')])
  const partly = openSync(at('never written'), 'r+')
  writeSync(partly, Buffer.from('but here'), 0, undefined, 999_999)
  closeSync(partly)
  symlinkSync('far/'.repeat(255), at('a long link'))
  for (const [count, bytes] of [
    [3, 20],
    [40, 30],
    [400, 200],
    [6, 60_000],
  ] as const) {
    const path = at(`with ${count} attributes of ${bytes}`)
    writeFileSync(path, '')
    setAttributes(path, count, bytes)
  }
  execFileSync('setfattr', ['-n', 'trusted.one', '-v', 'its value', at('a long link'), '-h'])
  execFileSync('setfattr', ['-n', 'security.two', '-v', 'its value', at('of many pieces')])
  mkdirSync(at('inherits'))
  execFileSync('setfacl', ['-m', 'd:u:5:rwx,d:g:6:r,u:7:x', at('inherits')])
  mkdirSync(at('large'))
  for (let index = 0; index < 1500; index += 1) writeFileSync(at(`large/${'name '.repeat(1 + (index % 30))}${index}`), '')
  for (let index = 0; index < 1500; index += 1)
    if (index % 700 > 300) rmSync(at(`large/${'name '.repeat(1 + (index % 30))}${index}`))
}

function setAttributes(path: string, count: number, bytes: number): void {
  const lines = Array.from({ length: count }, (_, index) => `user.name-${index}="${'v'.repeat(bytes - (index % 7))}"`)
  execFileSync('setfattr', ['--restore=-'], { input: `# file: ${path.slice(1)}\n${lines.join('\n')}\n`, cwd: '/' })
}
