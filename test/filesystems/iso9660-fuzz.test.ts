import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { iso9660 } from '../../src/disk/guest/filesystems/iso9660/iso9660.ts'
import { missingTool } from '../peers/command.ts'
import { type Ability, fillAged } from './aged-tree.ts'
import { fuzzFileSystem } from './fuzz.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 1000)
const plain: readonly Ability[] = ['owners', 'devices', 'attributes', 'acl', 'bytes', 'holes', 'times']
const forms: readonly { readonly options: readonly string[]; readonly without: readonly Ability[] }[] = [
  { options: ['-R', '-J'], without: plain },
  { options: ['-J', '--norock'], without: [...plain, 'symlinks', 'links'] },
]

for (const [seed, { options, without }] of forms.entries()) {
  test(`whatever ISO 9660 bytes say, files or typed errors: ${options.join(' ')}`, { skip: missingTool('xorriso') }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'imprint-fuzz-'))
    const [tree, disc] = [join(folder, 'tree'), join(folder, 'disc.iso')]
    await mkdir(tree)
    fillAged(tree, { seed: seed + 3, names: 14, maxBytes: 5000, without })
    execFileSync('xorriso', ['-as', 'mkisofs', '-quiet', ...options, '-no-pad', '-o', disc, tree], { stdio: 'pipe' })
    const volume = await readFile(disc)
    const opened = await fuzzFileSystem(iso9660, { volume, runs: RUNS / forms.length, seed })
    assert.ok(opened > RUNS / forms.length / 4, `${opened} opened`)
    await rm(folder, { recursive: true })
  })
}
