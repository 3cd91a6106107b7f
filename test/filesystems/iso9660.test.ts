import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'
import { bootImages } from '../../src/disk/guest/filesystems/iso9660/boot-catalog.ts'
import { missingTool } from '../peers/command.ts'
import { type Ability, fillAged } from './aged-tree.ts'
import { identityOf } from './identity.ts'
import { assertSameFacts, type Fact, factsOf, factsOfMounted } from './same-as-mounted.ts'

interface Case {
  readonly name: string
  readonly make: readonly string[]
  /** Options of xorriso with which it takes the files out again; absent: the disc keeps all facts of the files that it was made of. */
  readonly read?: readonly string[]
}
const genisoimage = ['genisoimage', '-quiet', '-l', '-V', 'Volume one'] // with names of 8.3 it compares for ever
const xorriso = ['xorriso', '-as', 'mkisofs', '-quiet', '-V', 'Volume one']
const cases: readonly Case[] = [
  { name: 'Rock Ridge by genisoimage', make: [...genisoimage, '-R'] },
  { name: 'Rock Ridge and Joliet by genisoimage', make: [...genisoimage, '-R', '-J', '-joliet-long'] },
  { name: 'Rock Ridge without relocated directories', make: [...genisoimage, '-R', '-D'] },
  { name: 'Rock Ridge by xorriso', make: [...xorriso, '-R', '-J'] },
  { name: 'Rock Ridge by xorriso, relocated', make: [...xorriso, '-R', '-rr_reloc_dir', '/moved', '-iso-level', '3'] },
  { name: 'Joliet', make: [...xorriso, '-J', '-joliet-long', '--norock'], read: ['-read_fs', 'norock'] },
  {
    name: 'nothing but the standard',
    make: [...xorriso, '--norock', '-iso-level', '3'],
    read: ['-ecma119_map', 'lowercase'],
  },
]

for (const [seed, { name, make, read }] of cases.entries()) {
  const skip = process.getuid?.() === 0 ? missingTool('genisoimage', 'xorriso', 'blkid') : 'devices and owners need root'
  test(`${name}: every fact is what was put there`, { skip }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'imprint-iso-'))
    const [tree, theirs, disc] = ['tree', 'theirs', 'disc.iso'].map((part) => join(folder, part)) as [string, string, string]
    await mkdir(tree)
    const plain: readonly Ability[] = ['attributes', 'acl', 'bytes', 'holes']
    const without: readonly Ability[] = read ? [...plain, 'links', 'symlinks', 'owners', 'devices', 'times'] : plain
    fillAged(tree, { seed, names: 80, maxBytes: 300_000, without })
    deepTree(tree, read ? 6 : 14)
    run([...make, '-o', disc, tree])
    if (read) {
      await mkdir(theirs)
      run(['xorriso', ...read, '-osirrox', 'on', '-indev', disc, '-extract', '/', theirs])
    }
    const source = await openFileSource(disc)
    const ours = await openFileSystem(source)
    assert.deepEqual({ type: ours?.type, label: ours?.label, uuid: ours?.uuid }, identityOf(disc))
    assert.deepEqual(ours!.notes, [])
    const facts: readonly Fact[] = read ? ['modified'] : ['mode', 'owner', 'modified', 'changed', 'device']
    const mine = await factsOf(ours!, facts)
    mine.delete('/rr_moved') // where genisoimage puts what is too deep
    const others = factsOfMounted(read ? theirs : tree, facts)
    for (const [, one] of others) {
      for (const key of ['modified', 'changed']) if (typeof one[key] === 'bigint') one[key] -= one[key] % 1_000_000_000n
    }
    assertSameFacts(mine, others)
    await source.close()
    await rm(folder, { recursive: true })
  })
}

/** Deeper than the eight levels of the standard, with names and links that one record does not hold. */
function deepTree(root: string, depth: number): void {
  let at = root
  for (let level = 0; level < depth; level += 1) {
    at = join(at, `level-${level}`)
    mkdirSync(at)
    writeFileSync(join(at, 'here.txt'), `level ${level}`)
  }
}

test('the boot catalogue says what firmware starts', { skip: missingTool('xorriso', 'mkfs.vfat') }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-iso-'))
  const [tree, disc] = [join(folder, 'tree'), join(folder, 'disc.iso')]
  await mkdir(tree)
  await mkdir(join(tree, 'boot'))
  const [bios, efi] = [Buffer.alloc(2048, 'bios '), Buffer.alloc(1_474_560, 'efi ')]
  writeFileSync(join(tree, 'boot/bios.img'), bios)
  writeFileSync(join(tree, 'boot/efi.img'), efi)
  const ofBios = ['-b', 'boot/bios.img', '-no-emul-boot', '-boot-load-size', '4']
  const ofEfi = ['-eltorito-alt-boot', '-e', 'boot/efi.img', '-no-emul-boot', '-isohybrid-gpt-basdat']
  run(['xorriso', '-as', 'mkisofs', '-quiet', '-R', '-c', 'boot/catalog', ...ofBios, ...ofEfi, '-o', disc, tree])
  const source = await openFileSource(disc)
  const [first, second, ...others] = await bootImages(source)
  assert.deepEqual(others, [])
  const { offset: atBios, ...facts } = first!
  assert.deepEqual(facts, { platform: 0, isBootable: true, emulation: 'none', bytes: 2048 })
  const { offset: atEfi, ...factsOfEfi } = second!
  assert.deepEqual(factsOfEfi, { platform: 0xef, isBootable: true, emulation: 'none', bytes: 1_474_560 })
  const whole = await readFile(disc)
  assert.ok(whole.subarray(atBios, atBios + 2048).equals(bios))
  assert.ok(whole.subarray(atEfi, atEfi + efi.length).equals(efi))
  await source.close()
  await rm(folder, { recursive: true })
})

function run(line: readonly string[]): void {
  const [program = '', ...words] = line
  execFileSync(program, words, {
    timeout: 60_000,
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, LC_ALL: 'C.UTF-8', TZ: 'UTC' },
  })
}
