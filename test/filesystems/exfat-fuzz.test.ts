import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { exfat } from '../../src/disk/guest/filesystems/exfat/exfat.ts'
import { fillAged } from './aged-tree.ts'
import { fuzzFileSystem } from './fuzz.ts'
import { cannotMount, mountedByFuse, newVolume } from './volumes.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 1000)

const sums = new URL('./exfat-sums.ts', import.meta.url)
const forms: readonly (readonly [name: string, wish: { readonly summedBy?: URL }])[] = [
  ['as they are', {}],
  ['with right checksums', { summedBy: sums }],
]
for (const [seed, [name, wish]] of forms.entries()) {
  test(`whatever exFAT bytes say, files or typed errors: ${name}`, {
    skip: cannotMount('mount.exfat-fuse', 'mkfs.exfat', 'losetup'),
  }, async () => {
    await using volume = await newVolume(2 * MiB, ['mkfs.exfat', '-c', '512', '-b', '4K'])
    const without = ['links', 'symlinks', 'owners', 'devices', 'attributes', 'acl', 'bytes', 'times'] as const
    await mountedByFuse(['mount.exfat-fuse'], volume.path, (root) =>
      fillAged(root, { seed, names: 10, maxBytes: 20_000, without }),
    )
    const opened = await fuzzFileSystem(exfat, {
      volume: new Uint8Array(await readFile(volume.path)),
      runs: RUNS / 2,
      seed,
      ...wish,
    })
    assert.ok(opened > RUNS / 8, `${opened} opened`)
  })
}
