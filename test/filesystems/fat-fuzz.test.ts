import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { KiB, MiB } from '../../src/base/units.ts'
import { fat } from '../../src/disk/guest/filesystems/fat/fat.ts'
import { missingTool } from '../peers/command.ts'
import { fillAged } from './aged-tree.ts'
import { fuzzFileSystem } from './fuzz.ts'
import { newVolume } from './volumes.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 1000)
const forms: readonly { readonly mkfs: readonly string[]; readonly bytes: number }[] = [
  { mkfs: ['mkfs.vfat', '-F', '12'], bytes: 720 * KiB },
  { mkfs: ['mkfs.vfat', '-F', '16', '-s', '1'], bytes: 3 * MiB },
  { mkfs: ['mkfs.vfat', '-F', '32', '-s', '1'], bytes: 34 * MiB },
]

for (const [seed, { mkfs, bytes }] of forms.entries()) {
  test(`whatever FAT bytes say, files or typed errors: ${mkfs.join(' ')}`, {
    skip: missingTool('mkfs.vfat', 'mcopy'),
  }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'imprint-fuzz-'))
    const without = ['links', 'symlinks', 'owners', 'devices', 'attributes', 'acl', 'bytes', 'times'] as const
    fillAged(folder, { seed, names: 10, maxBytes: 20_000, without })
    await using volume = await newVolume(bytes, mkfs)
    const names = (await readdir(folder)).map((name) => join(folder, name))
    execFileSync('mcopy', ['-i', volume.path, '-Q', '-s', ...names, '::/'], { stdio: 'pipe' })
    const opened = await fuzzFileSystem(fat, { volume: await readFile(volume.path), runs: RUNS / forms.length, seed })
    assert.ok(opened > RUNS / forms.length / 4, `${opened} opened`)
    await rm(folder, { recursive: true })
  })
}
