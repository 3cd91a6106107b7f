import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { xfs } from '../../src/disk/guest/filesystems/xfs/xfs.ts'
import { missingTool } from '../peers/command.ts'
import { fuzzFileSystem } from './fuzz.ts'
import { cannotMount, mounted, newVolume } from './volumes.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 1000)
const SECTOR_BYTES = 512
const forms = [
  { name: 'version 5', words: ['-b', 'size=1024'] },
  { name: 'version 4', words: ['-m', 'crc=0', '-b', 'size=512', '-n', 'size=4096'] },
]

for (const [seed, { name, words }] of forms.entries()) {
  test(`whatever XFS bytes say, files or typed errors: ${name}`, { skip: missingTool('mkfs.xfs', 'xfs_db') }, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'imprint-fuzz-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const list = join(folder, 'list')
    writeFileSync(join(folder, 'text'), 'text '.repeat(900))
    writeFileSync(list, `-\n0 0\nd--755 0 0\n${entries(folder).join('\n')}\n$\n`)
    await using made = await newVolume(24 * MiB, ['mkfs.xfs', '-q', '-f', '--unsupported', ...words, '-p', list])
    for (const [path, count] of [
      ['/few', 2],
      ['/many', 40],
      ['/dir', 8],
    ] as const) {
      const attributes = Array.from({ length: count }, (_, index) => ['-c', `attr_set -u -v ${1 + index * 29} name-${index}`])
      execFileSync('/usr/sbin/xfs_db', ['-x', '-c', `path ${path}`, ...attributes.flat(), made.path])
    }
    const volume = readFileSync(made.path)
    const opened = await fuzzFileSystem(xfs, { volume, runs: RUNS / forms.length, seed, sectors: sectorsOfInterest(volume) })
    assert.ok(opened > RUNS / forms.length / 4, `${opened} opened`)
  })
}

test('whatever a log of XFS says that was not replayed, files or typed errors', { skip: cannotMount('mkfs.xfs') }, async () => {
  await using made = await newVolume(24 * MiB, ['mkfs.xfs', '-q', '-f', '--unsupported', '-b', 'size=1024'])
  const volume = await mounted(made.path, '', (root) => {
    for (let index = 0; index < 30; index += 1) writeFileSync(join(root, `${'name '.repeat(30)}${index}`), 'text')
    execFileSync('sync', ['-f', root])
    symlinkSync('far/'.repeat(200), join(root, 'link'))
    execFileSync('setfattr', ['-h', '-n', 'trusted.one', '-v', 'value '.repeat(200), join(root, 'link')])
    mkdirSync(join(root, 'folder'))
    execFileSync('sync', ['-f', root])
    return readFileSync(made.path)
  })
  const runs = RUNS / 4
  const opened = await fuzzFileSystem(xfs, { volume, runs, seed: 9, sectors: sectorsOfInterest(volume) })
  assert.ok(opened > runs / 4, `${opened} opened`)
})

/** A few of each kind; `/dir` has entries in many blocks. */
function entries(folder: string): string[] {
  const file = `---644 0 0 ${join(folder, 'text')}`
  const many = Array.from(
    { length: 40 },
    (_, index) => `name-of-an-entry-that-takes-room-${index}-${'x'.repeat(150)} ---644 0 0 /dev/null`,
  )
  return [
    `few ${file}`,
    `many ${file}`,
    'link l--777 0 0 dir/few',
    `far l--777 0 0 ${'far/'.repeat(250)}`,
    'device b--644 0 0 7 8',
    'dir d--755 0 0',
    ...many,
    '$',
    'small d--755 0 0',
    `a ${file}`,
    '$',
  ]
}

/** All that has data, the text left out. */
function sectorsOfInterest(volume: Uint8Array): number[] {
  const found: number[] = []
  for (let at = 0; at < volume.length; at += SECTOR_BYTES) {
    const sector = Buffer.from(volume.buffer, volume.byteOffset + at, SECTOR_BYTES)
    if (sector.some((byte) => byte !== 0) && !sector.includes('text text')) found.push(at / SECTOR_BYTES)
  }
  return found
}
