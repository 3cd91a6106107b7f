import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { ext4 } from '../../src/disk/guest/filesystems/ext4/ext4.ts'
import { missingTool } from '../peers/command.ts'
import { fillAged } from './aged-tree.ts'
import { fuzzFileSystem } from './fuzz.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 1000)
const forms: readonly (readonly string[])[] = [
  ['-t', 'ext4', '-b', '1024', '-O', 'inline_data,^has_journal,^resize_inode'],
  ['-t', 'ext2', '-b', '1024', '-O', '^resize_inode'],
]

for (const [seed, form] of forms.entries()) {
  test(`whatever ext4 bytes say, files or typed errors: ${form.join(' ')}`, {
    skip: missingTool('mke2fs', 'setfattr'),
  }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'imprint-fuzz-'))
    fillAged(folder, { seed, names: 8, maxBytes: 20_000, without: ['devices', 'owners', 'acl', 'bytes'] })
    const path = `${folder}.img`
    execFileSync('/usr/sbin/mke2fs', ['-q', '-F', ...form, '-d', folder, path, '4M'])
    const volume = await readFile(path)
    const opened = await fuzzFileSystem(ext4, { volume, runs: RUNS / forms.length, seed })
    assert.ok(opened > RUNS / forms.length / 4, `${opened} opened`)
    await rm(folder, { recursive: true })
    await rm(path)
  })
}
