import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chownSync, lstatSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { hashOfName } from '../../src/disk/guest/filesystems/btrfs/directory.ts'
import type { FileSystem } from '../../src/disk/guest/filesystems/file-system.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'
import { findSystems } from '../../src/disk/guest/system/systems.ts'
import { readLayout } from '../../src/disk/guest/volumes/volumes.ts'
import { fillAged, type TreeWish } from './aged-tree.ts'
import { assertSameFacts, type Facts, factsOf, factsOfMounted } from './same-as-mounted.ts'
import { cannotMount, mounted, newVolume } from './volumes.ts'

interface Case {
  readonly name: string
  readonly mkfs: readonly string[]
  readonly mount?: string
  readonly bytes?: number
  readonly tree?: Partial<TreeWish>
}
const plain = ['mkfs.btrfs', '-q', '-L', 'Volume one']
const cases: readonly Case[] = [
  { name: 'btrfs as it comes', mkfs: plain },
  { name: 'nodes of 4 KiB', mkfs: [...plain, '-n', '4096'] },
  {
    name: 'nodes of 64 KiB, one copy of metadata, zlib',
    mkfs: [...plain, '-n', '65536', '-m', 'single'],
    mount: 'compress-force=zlib',
  },
  {
    name: 'mixed groups in two copies, lzo',
    mkfs: [...plain, '-M', '-m', 'dup', '-d', 'dup'],
    mount: 'compress-force=lzo',
    bytes: 256 * MiB,
  },
  {
    name: 'data in two copies, zstd',
    mkfs: [...plain, '-d', 'dup', '-n', '32768'],
    mount: 'compress-force=zstd',
    bytes: 256 * MiB,
  },
  {
    name: 'zlib at its best, holes as extents, SHA-256',
    mkfs: [...plain, '-O', '^no-holes', '--csum', 'sha256'],
    mount: 'compress-force=zlib:9',
  },
  {
    name: 'xxhash, no free space tree, no skinny metadata',
    mkfs: [...plain, '-R', '^free-space-tree', '-O', '^skinny-metadata,^extref', '--csum', 'xxhash'],
    mount: 'max_inline=0',
  },
  {
    name: 'blake2, lzo, small inline extents',
    mkfs: [...plain, '--csum', 'blake2', '-n', '8192'],
    mount: 'compress-force=lzo,max_inline=2048',
  },
]

for (const [index, { name, mkfs, mount = '', bytes = 192 * MiB, tree }] of cases.entries()) {
  test(`${name}: every fact is what the kernel says`, { skip: cannotMount('mkfs.btrfs') }, async () => {
    await using volume = await newVolume(bytes, mkfs)
    await mounted(volume.path, mount, (root) => fillAged(root, { seed: index, names: 200, maxBytes: MiB, ...tree }))
    const { facts: theirs, freeBytes } = await mounted(volume.path, 'ro', (root) => ({
      facts: factsOfMounted(root),
      freeBytes: freeBytesOf(root),
    }))
    const disk = await openFileSource(volume.path)
    const files = await openFileSystem(disk)
    assert.equal(files?.type, 'btrfs')
    assert.equal(files.label, 'Volume one')
    assert.deepEqual(files.notes, [])
    assert.equal(files.freeBytes, freeBytes)
    assertSameFacts(await factsOf(files), theirs)
    await disk.close()
  })
}

/** What is left of the volume when every block group's use is taken off, in all its copies. */
function freeBytesOf(root: string): number {
  const text = execFileSync('btrfs', ['filesystem', 'df', '-b', root], { encoding: 'utf8' })
  const used = [...text.matchAll(/^(\S+), (\S+): total=\d+, used=(\d+)$/gm)]
  const size = Number(
    execFileSync('btrfs', ['filesystem', 'usage', '-b', root], { encoding: 'utf8' }).match(/Device size:\s+(\d+)/)![1],
  )
  return used.reduce(
    (left, [, kind, profile, bytes]) => left - (kind === 'GlobalReserve' ? 0 : Number(bytes) * (profile === 'DUP' ? 2 : 1)),
    size,
  )
}

/** Runs one command of btrfs. */
const btrfs = (...words: string[]): string =>
  execFileSync('btrfs', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })

/** Subvolumes in subvolumes, snapshots, extents that are shared and cut, and entries of a snapshot for what stayed where it was. */
function fillSubvolumes(root: string): void {
  for (const path of ['home', 'home/inner', 'home/gone', 'home/folder']) btrfs('subvolume', 'create', `${root}/${path}`)
  fillAged(`${root}/home`, { seed: 1, names: 40, maxBytes: 300_000 })
  fillAged(`${root}/home/inner`, { seed: 2, names: 40, maxBytes: 300_000 })
  chownSync(`${root}/home`, 17, 18)
  btrfs('subvolume', 'snapshot', `${root}/home`, `${root}/snapshot`)
  btrfs('subvolume', 'snapshot', '-r', `${root}/home/inner`, `${root}/home/still`)
  btrfs('subvolume', 'delete', '-c', `${root}/home/gone`)
  renameSync(`${root}/home/folder`, `${root}/moved`)
  mkdirSync(`${root}/snapshot/more`)
  fillAged(`${root}/snapshot/more`, { seed: 3, names: 30, maxBytes: 300_000, without: ['bytes'] })
  execFileSync('cp', ['--reflink=always', '-a', `${root}/snapshot/more`, `${root}/copied`])
  for (const name of readdirSync(`${root}/copied`).filter((each) => each.includes('file'))) {
    const path = `${root}/copied/${name}`
    if (!lstatSync(path).isFile()) continue
    execFileSync('dd', ['if=/dev/urandom', `of=${path}`, 'bs=5000', 'seek=7', 'count=3', 'conv=notrunc', 'status=none'])
    execFileSync('fallocate', ['-n', '-o', '600000', '-l', '100000', path])
    execFileSync('fallocate', ['-p', '-o', '8192', '-l', '8192', path])
  }
}

/** The kernel gives those directories the time at which they are asked for. */
function withoutTimesOfNow(ours: Facts, theirs: Facts): void {
  for (const [path, facts] of ours) {
    if (facts.modified === null)
      for (const key of ['modified', 'changed']) for (const side of [facts, theirs.get(path)]) delete side?.[key]
  }
}

async function sameAsMounted(files: FileSystem, path: string, options: string): Promise<void> {
  const [ours, theirs] = [await factsOf(files), await mounted(path, options, (root) => factsOfMounted(root))]
  withoutTimesOfNow(ours, theirs)
  assertSameFacts(ours, theirs)
}

test('subvolumes and snapshots are what the kernel shows, from wherever they are mounted', {
  skip: cannotMount('mkfs.btrfs'),
}, async () => {
  await using volume = await newVolume(256 * MiB, plain)
  await mounted(volume.path, 'compress-force=zstd', fillSubvolumes)
  const disk = await openFileSource(volume.path)
  const files = (await openFileSystem(disk))!
  await sameAsMounted(files, volume.path, 'ro')
  for (const place of ['home', '/snapshot/', 'home/inner', 'home/still']) {
    await sameAsMounted((await files.subvolume!(place))!, volume.path, `ro,subvol=${place}`)
  }
  await sameAsMounted((await files.subvolume!(257))!, volume.path, 'ro,subvolid=257')
  for (const nowhere of ['absent', 'home/many', 'home/gone', 2, 4, 999])
    assert.equal(await files.subvolume!(nowhere), undefined, String(nowhere))
  assert.equal((await files.subvolume!('/'))?.root.id, files.root.id)
  await disk.close()
})

test('the default subvolume is the root', { skip: cannotMount('mkfs.btrfs') }, async () => {
  await using volume = await newVolume(256 * MiB, plain)
  await mounted(volume.path, '', (root) => {
    fillSubvolumes(root)
    btrfs('subvolume', 'set-default', `${root}/home/inner`)
  })
  const disk = await openFileSource(volume.path)
  const files = (await openFileSystem(disk))!
  await sameAsMounted(files, volume.path, 'ro')
  await sameAsMounted((await files.subvolume!('/'))!, volume.path, 'ro,subvolid=5')
  await disk.close()
})

test('an entry is found by its name, also among names of one hash', { skip: cannotMount('mkfs.btrfs') }, async () => {
  const names = namesOfOneHash()
  await using volume = await newVolume(128 * MiB, plain)
  await mounted(volume.path, '', (root) => {
    for (const name of names) writeFileSync(`${root}/${name}`, name)
    for (const name of names) execFileSync('setfattr', ['-n', `user.${name}`, '-v', name, `${root}/${names[0]}`])
  })
  const disk = await openFileSource(volume.path)
  const files = (await openFileSystem(disk))!
  const tree = new FileTree(files)
  for (const name of names) assert.equal(Buffer.from((await tree.read(`/${name}`, 100))!).toString(), name)
  assert.equal(await files.find(files.root, 'absent'), undefined)
  const listed = (await Array.fromAsync(files.list(files.root))).map(({ name }) => name)
  assert.deepEqual(listed, names)
  await sameAsMounted(files, volume.path, 'ro')
  await disk.close()
})

/** By the birthday of 32 bits. */
function namesOfOneHash(): string[] {
  const known = new Map<number, string>()
  for (let index = 0; ; index += 1) {
    const name = `name-${index.toString(36)}-${(index * 7919).toString(36)}`
    const hash = hashOfName(Buffer.from(name))
    const other = known.get(hash)
    if (other) return [other, name]
    known.set(hash, name)
  }
}

test('the names of a directory come in the order of readdir', { skip: cannotMount('mkfs.btrfs') }, async () => {
  await using volume = await newVolume(128 * MiB, plain)
  const theirs = await mounted(volume.path, '', (root) => {
    fillAged(root, { seed: 9, names: 300, maxBytes: 1000 })
    return execFileSync('ls', ['-U', `${root}/many`], { encoding: 'utf8' })
      .trim()
      .split('\n')
  })
  const disk = await openFileSource(volume.path)
  const ours = (await Array.fromAsync(new FileTree((await openFileSystem(disk))!).list('/many'))).map(({ name }) => name)
  assert.deepEqual(ours, theirs)
  await disk.close()
})

test('what fstab mounts by subvol= is found from the top, whatever the default is', {
  skip: cannotMount('mkfs.btrfs'),
}, async () => {
  await using volume = await newVolume(256 * MiB, plain)
  await mounted(volume.path, '', (root) => {
    for (const path of ['@', '@/home', '@/root-1', '@logs']) btrfs('subvolume', 'create', `${root}/${path}`)
    const system = `${root}/@/root-1`
    for (const folder of ['etc', 'home', 'var', 'odd']) mkdirSync(`${system}/${folder}`)
    writeFileSync(`${system}/etc/os-release`, 'ID=some\n')
    const line = (path: string, option: string) => `LABEL=Volume\\040one ${path} btrfs defaults,${option} 0 0\n`
    const [, number] = /ID (\d+) .* path @logs$/m.exec(btrfs('subvolume', 'list', root))!
    writeFileSync(
      `${system}/etc/fstab`,
      line('/home', 'subvol=/@/home') + line('/var', `subvolid=${number}`) + line('/odd', 'subvol=absent'),
    )
    writeFileSync(`${root}/@/home/someone`, 'at home')
    writeFileSync(`${root}/@logs/log`, 'a line')
    btrfs('subvolume', 'set-default', system)
  })
  const disk = await openFileSource(volume.path)
  const [system] = await findSystems(await readLayout(disk))
  assert.equal(Buffer.from((await system!.tree.read('/home/someone', 100))!).toString(), 'at home')
  assert.equal(Buffer.from((await system!.tree.read('/var/log', 100))!).toString(), 'a line')
  assert.deepEqual(system!.notes, ['/odd is subvolume absent, which is not there'])
  await disk.close()
})

test('btrfs restore takes the same files out of it', { skip: cannotMount('mkfs.btrfs') }, async () => {
  await using volume = await newVolume(192 * MiB, plain)
  await mounted(volume.path, 'compress-force=lzo', (root) =>
    fillAged(root, { seed: 5, names: 100, maxBytes: 400_000, without: ['devices', 'bytes'] }),
  )
  const folder = `${volume.path}.restored`
  mkdirSync(folder)
  btrfs('restore', '-mSi', volume.path, folder)
  const disk = await openFileSource(volume.path)
  const ours = await factsOf((await openFileSystem(disk))!, ['mode', 'owner'])
  await disk.close()
  assertSameFacts(ours, factsOfMounted(folder, ['mode', 'owner']))
})
