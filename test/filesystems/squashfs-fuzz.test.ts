import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { squashfs } from '../../src/disk/guest/filesystems/squashfs/squashfs.ts'
import { missingTool } from '../peers/command.ts'
import { fillAged } from './aged-tree.ts'
import { fuzzFileSystem } from './fuzz.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 1000)
const INODE_TABLE_AT = 64 // what lies before is what files hold
const forms: readonly (readonly string[])[] = [
  ['-noI', '-noD', '-noF', '-noX', '-b', '4096'],
  ['-comp', 'lz4', '-noI', '-b', '4096'],
]

for (const [seed, form] of forms.entries()) {
  test(`whatever squashfs bytes say, files or typed errors: ${form.join(' ')}`, {
    skip: missingTool('mksquashfs', 'setfattr'),
  }, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'imprint-fuzz-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const tree = join(folder, 'tree')
    mkdirSync(tree)
    fillAged(tree, { seed, names: 12, maxBytes: 20_000, without: ['devices', 'owners', 'acl', 'bytes'] })
    execFileSync('mksquashfs', [tree, join(folder, 'volume'), '-quiet', '-no-progress', ...form], { stdio: 'ignore' })
    const volume = readFileSync(join(folder, 'volume'))
    const tables = Math.floor(volume.readUInt32LE(INODE_TABLE_AT) / 512)
    const sectors = [0, ...Array.from({ length: Math.floor(volume.length / 512) - tables }, (_, index) => tables + index)]
    const opened = await fuzzFileSystem(squashfs, { volume, sectors, runs: RUNS / forms.length, seed })
    assert.ok(opened > RUNS / forms.length / 4, `${opened} opened`)
  })
}
