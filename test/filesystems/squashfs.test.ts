import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'
import { fillAged } from './aged-tree.ts'
import { allFacts, assertSameFacts, factsOf, factsOfMounted } from './same-as-mounted.ts'
import { cannotMount, mounted } from './volumes.ts'

const skip = cannotMount('mksquashfs')
const cases: readonly { readonly name: string; readonly words: readonly string[] }[] = [
  { name: 'zlib', words: ['-comp', 'gzip'] },
  { name: 'xz', words: ['-comp', 'xz'] },
  { name: 'lzo', words: ['-comp', 'lzo', '-b', '65536'] },
  { name: 'zstd in blocks of 1 MiB', words: ['-comp', 'zstd', '-b', '1M'] },
  { name: 'lz4 in blocks of 4 KiB', words: ['-comp', 'lz4', '-b', '4096'] },
  { name: 'lz4 as tight as it can be', words: ['-comp', 'lz4', '-Xhc'] },
  { name: 'every end in a fragment', words: ['-comp', 'zstd', '-always-use-fragments'] },
  { name: 'no fragments', words: ['-comp', 'gzip', '-no-fragments', '-no-exports', '-no-duplicates'] },
  { name: 'nothing packed', words: ['-noI', '-noD', '-noF', '-noX'] },
  { name: 'no attributes', words: ['-no-xattrs', '-b', '8192'] },
]

let folder = ''
before(() => {
  if (skip) return
  folder = mkdtempSync(join(tmpdir(), 'imprint-squashfs-'))
  const tree = join(folder, 'tree')
  mkdirSync(tree)
  fillAged(tree, { seed: 5, names: 200, maxBytes: MiB, without: ['acl'] })
  const path = join(tree, 'with attributes')
  writeFileSync(path, Buffer.alloc(300_000, 'text that goes on '))
  const value = `0x${'ab'.repeat(900)}`
  for (const name of ['user.one', 'trusted.two', 'security.three']) execFileSync('setfattr', ['-n', name, '-v', value, path])
  writeFileSync(join(tree, 'the same attribute'), '')
  execFileSync('setfattr', ['-n', 'user.one', '-v', value, join(tree, 'the same attribute')])
})
after(() => {
  if (folder) rmSync(folder, { recursive: true })
})

for (const [index, { name, words }] of cases.entries()) {
  test(`${name}: every fact is what the kernel says`, { skip }, async () => {
    const path = join(folder, `volume-${index}`)
    execFileSync('mksquashfs', [join(folder, 'tree'), path, '-quiet', '-no-progress', ...words], { stdio: 'ignore' })
    const facts = words.includes('-no-xattrs') ? allFacts.filter((each) => each !== 'attributes') : allFacts // which the kernel has not, then
    const theirs = await mounted(path, 'ro', (root) => factsOfMounted(root, facts))
    const disk = await openFileSource(path)
    const files = await openFileSystem(disk)
    assert.equal(files?.type, 'squashfs')
    assert.deepEqual(files.notes, [])
    assertSameFacts(await factsOf(files, facts), theirs)
    await disk.close()
  })
}
