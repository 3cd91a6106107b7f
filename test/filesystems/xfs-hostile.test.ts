import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, test } from 'node:test'
import { ServiceError } from '../../src/base/errors.ts'
import { MiB } from '../../src/base/units.ts'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import type { FileNode, FileSystem } from '../../src/disk/guest/filesystems/file-system.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { offsetOf, readSuperblock } from '../../src/disk/guest/filesystems/xfs/superblock.ts'
import { xfs } from '../../src/disk/guest/filesystems/xfs/xfs.ts'
import { cannotMount, mounted, newVolume } from './volumes.ts'
import { fillXfs } from './xfs-tree.ts'

const BLOCK_BYTES = 1024
const CORE_BYTES = 176
const skip = cannotMount('mkfs.xfs')
let volume = Buffer.alloc(0)
/** Where inodes are, and the first block of their data, in bytes. */
let places: Record<string, { readonly inode: number; readonly block: number; readonly attributes: number }> = {}

before(async () => {
  if (skip) return
  await using made = await newVolume(48 * MiB, [
    'mkfs.xfs',
    '-q',
    '-f',
    '--unsupported',
    '-b',
    'size=1024',
    '-n',
    'size=4096',
    '-i',
    'nrext64=1',
  ])
  await mounted(made.path, '', (root) => {
    const at = (name: string) => join(root, name)
    fillXfs(root, BLOCK_BYTES, 300)
    mkdirSync(at('small'))
    writeFileSync(at('small/whole'), 'as it was')
    mkdirSync(at('block'))
    for (let index = 0; index < 40; index += 1) writeFileSync(at(`block/${'n'.repeat(20)}${index}`), '')
    symlinkSync('near', at('link'))
  })
  volume = await readFile(made.path)
  places = await placesOf([
    'small',
    'small/whole',
    'block',
    'link',
    'a long link',
    'of many pieces',

    'with 6 attributes of 60000',
  ])
})

async function placesOf(paths: readonly string[]): Promise<typeof places> {
  const disk = bytesSource(volume)
  const superblock = (await readSuperblock(disk))!
  const blockAt = (list: number) => {
    if (list + 16 > volume.length) return 0
    const block = ((volume.readBigUInt64BE(list) & 0x1ffn) << 43n) | (volume.readBigUInt64BE(list + 8) >> 21n)
    return block >> 20n === 0n ? offsetOf(superblock, disk, block, 1, 'a block') : 0
  }
  const tree = new FileTree((await xfs.open(disk))!)
  const found: typeof places = {}
  for (const path of paths) {
    const { id } = (await tree.find(`/${path}`, false))!.node
    const perBlock = BLOCK_BYTES / superblock.inodeBytes
    const inBlock = id % perBlock
    const inode = offsetOf(superblock, disk, BigInt((id - inBlock) / perBlock), 1, path) + inBlock * superblock.inodeBytes
    const format = volume[inode + 5]
    const fork = volume[inode + 83] === 2 ? inode + CORE_BYTES + volume[inode + 82]! * 8 : Number.POSITIVE_INFINITY
    found[path] = { inode, block: format === 2 ? blockAt(inode + CORE_BYTES) : 0, attributes: blockAt(fork) }
  }
  return found
}

type Poke = readonly [at: number, value: number | bigint, bytes: number]

/** Changes the volume until the test has ended. */
function poked(pokes: readonly Poke[]): Disposable & { open(): Promise<FileSystem | undefined> } {
  const undo = pokes.map(([at, value, bytes]) => {
    const old = Buffer.from(volume.subarray(at, at + bytes))
    for (let index = 0; index < bytes; index += 1)
      volume[at + index] = Number((BigInt(value) >> BigInt(8 * (bytes - 1 - index))) & 0xffn)
    return () => old.copy(volume, at)
  })
  return {
    open: async () => xfs.open(bytesSource(volume)),
    [Symbol.dispose]: () => {
      for (const each of undo.reverse()) each()
    },
  }
}

const superblocks: readonly { name: string; poke: Poke; code?: string; says: RegExp }[] = [
  { name: 'a block of 0 bytes', poke: [4, 0, 4], says: /sb_blocksize/ },
  { name: 'a block of 2^31 bytes', poke: [4, 2 ** 31, 4], says: /sb_blocksize/ },
  { name: 'another sb_blocklog', poke: [120, 13, 1], says: /sb_blocklog/ },
  { name: 'another sb_sectlog', poke: [121, 31, 1], says: /sb_sectlog/ },
  { name: 'a sector of 513 bytes', poke: [102, 513, 2], says: /sb_sectsize/ },
  { name: 'another sb_inodelog', poke: [122, 255, 1], says: /sb_inodelog/ },
  { name: 'inodes of 0 bytes', poke: [104, 0, 2], says: /sb_inodesize/ },
  { name: 'no inodes in a block', poke: [106, 0, 2], says: /sb_inopblock/ },
  { name: 'another sb_inopblog', poke: [123, 250, 1], says: /sb_inopblog/ },
  { name: 'sb_agblklog of 0', poke: [124, 0, 1], says: /sb_agblklog/ },
  { name: 'sb_agblklog of 63', poke: [124, 63, 1], says: /sb_agblklog/ },
  { name: 'groups of no blocks', poke: [84, 0, 4], says: /sb_agblocks/ },
  { name: 'groups of 2^32 - 1 blocks', poke: [84, 0xffffffff, 4], says: /sb_agblocks/ },
  { name: '2^32 - 1 groups', poke: [88, 0xffffffff, 4], says: /sb_agcount/ },
  { name: 'no groups', poke: [88, 0, 4], says: /sb_agcount/ },
  { name: '2^50 blocks', poke: [8, 2n ** 50n, 8], says: /sb_dblocks/ },
  { name: '2^63 blocks', poke: [8, 2n ** 63n, 8], says: /2\^53/ },
  { name: 'sb_dirblklog of 200', poke: [192, 200, 1], says: /sb_dirblklog/ },
  { name: 'a root that is no inode', poke: [56, 2n ** 63n, 8], says: /no inode/ },
  { name: 'a root in another group', poke: [56, 2n ** 40n, 8], says: /there are none/ },
  { name: 'a making that did not end', poke: [126, 1, 1], says: /sb_inprogress/ },
  { name: 'version 6', poke: [100, 0xb4a6, 2], code: 'unsupported', says: /sb_versionnum/ },
  { name: 'directories of metadata', poke: [216, 0x100, 4], code: 'unsupported', says: /0x100/ },
  { name: 'a feature of the future', poke: [216, 2 ** 31, 4], code: 'unsupported', says: /0x80000000/ },
]

for (const { name, poke, code = 'invalid-image', says } of superblocks) {
  test(`a superblock with ${name} is refused`, { skip }, async () => {
    using changed = poked([poke])
    await assert.rejects(changed.open(), { name: 'ServiceError', code, message: says })
  })
}

const logs: readonly { name: string; poke: Poke; says: RegExp }[] = [
  { name: 'of 2^32 - 1 blocks', poke: [96, 0xffffffff, 4], says: /sb_logblocks/ },
  { name: 'of no blocks', poke: [96, 0, 4], says: /sb_logblocks/ },
  { name: 'beyond the end', poke: [48, 2n ** 60n, 8], says: /the log is at block/ },
  { name: 'on another device', poke: [48, 0, 8], says: /another device/ },
]

for (const { name, poke, says } of logs) {
  test(`a log ${name} is said, and the files are there`, { skip }, async () => {
    using changed = poked([poke])
    const files = (await changed.open())!
    assert.match(files.notes.join(), /what was written last may be missing/)
    assert.match(files.notes.join(), says)
    assert.ok(await new FileTree(files).find('/small/whole'))
  })
}

type Work = (files: FileSystem, node: FileNode) => Promise<unknown>
const list: Work = (files, node) => Array.fromAsync(files.list(node))
const read: Work = async (files, node) => {
  const data = await files.data(node)
  return data.read(0, Math.min(data.size, 2 ** 20))
}
const link: Work = (files, node) => files.readLink(node)
const attributes: Work = (files, node) => files.attributes(node)

interface Case {
  readonly name: string
  readonly path: string
  /** Places from the beginning of the inode, of its first block of data, or of attributes. */
  readonly from?: 'inode' | 'block' | 'attributes'
  readonly poke: Poke
  readonly work?: Work
  readonly code?: string
  readonly says: RegExp
}
const pieces = 'of many pieces'
const cases: readonly Case[] = [
  { name: 'an inode without its magic', path: 'small/whole', poke: [0, 0, 2], says: /magic/ },
  { name: 'an inode of version 2', path: 'small/whole', poke: [4, 2, 1], says: /di_version/ },
  { name: 'an inode that is another', path: 'small/whole', poke: [152, 64, 8], says: /di_ino/ },
  { name: 'a free inode', path: 'small/whole', poke: [2, 0, 2], says: /free/ },
  { name: 'a kind that is none', path: 'small/whole', poke: [2, 0xf000, 2], says: /di_mode/ },
  { name: 'a size of 2^63 - 1', path: 'small/whole', poke: [56, 2n ** 63n - 1n, 8], says: /2\^53/ },
  { name: 'a fork of a format that is none', path: 'small/whole', poke: [5, 77, 1], says: /di_format/ },
  { name: 'attributes beyond the inode', path: 'small/whole', poke: [82, 255, 1], says: /di_forkoff/ },
  { name: '2^48 - 1 extents in an inode', path: 'small/whole', poke: [24, 2n ** 48n - 1n, 8], says: /extents in/ },
  { name: '2^64 - 1 extents', path: pieces, poke: [24, 2n ** 64n - 1n, 8], says: /di_big_nextents/ },
  {
    name: 'data on the realtime device',
    path: 'small/whole',
    poke: [90, 1, 2],
    work: read,
    code: 'unsupported',
    says: /realtime/,
  },
  { name: 'data in the inode of a file', path: 'small/whole', poke: [5, 1, 1], work: read, says: /neither extents nor btree/ },
  {
    name: 'an extent beyond the volume',
    path: 'small/whole',
    poke: [CORE_BYTES + 8, 2n ** 62n + 1n, 8],
    work: read,
    says: /there are none/,
  },
  { name: 'an extent of no blocks', path: 'small/whole', poke: [CORE_BYTES + 8, 0, 8], work: read, says: /no blocks/ },
  { name: 'a root of level 0', path: pieces, poke: [CORE_BYTES, 0, 2], work: read, says: /bb_level/ },
  { name: 'a root of level 255', path: pieces, poke: [CORE_BYTES, 255, 2], work: read, says: /bb_level/ },
  { name: 'a root that is higher than what is below it', path: pieces, poke: [CORE_BYTES, 3, 2], work: read, says: /bb_level/ },
  { name: '65,535 entries in a root', path: pieces, poke: [CORE_BYTES + 2, 0xffff, 2], work: read, says: /bb_numrecs/ },
  { name: 'no entries in a root', path: pieces, poke: [CORE_BYTES + 2, 0, 2], work: read, says: /bb_numrecs/ },
  { name: '255 entries in an inode', path: 'small', poke: [CORE_BYTES, 255, 1], work: list, says: /cut off/ },
  { name: 'a name longer than the inode', path: 'small', poke: [CORE_BYTES + 6, 255, 1], work: list, says: /cut off/ },
  { name: 'a name with a slash', path: 'small', poke: [CORE_BYTES + 9, 0x2f, 1], work: list, says: /slash/ },
  { name: 'a directory longer than its inode', path: 'small', poke: [56, 500, 8], work: list, says: /di_size/ },
  { name: 'a directory of 2^50 bytes', path: 'block', poke: [56, 2n ** 50n, 8], work: list, says: /bytes/ },
  { name: 'a directory of half a block', path: 'block', poke: [56, 2048, 8], work: list, says: /bytes/ },
  { name: 'a block without its magic', path: 'block', from: 'block', poke: [0, 0, 4], work: list, says: /magic/ },
  { name: 'a block of another directory', path: 'block', from: 'block', poke: [40, 1, 8], work: list, says: /inode 1$/ },
  { name: 'a name longer than its block', path: 'block', from: 'block', poke: [4096 - 8, 0x1f6, 4], work: list, says: /namelen/ },
  {
    name: '2^32 - 1 entries in the tail',
    path: 'block',
    from: 'block',
    poke: [4096 - 8, 0xffffffff, 4],
    work: list,
    says: /tail/,
  },
  { name: 'free room of no bytes', path: 'block', from: 'block', poke: [64, 0xffff0000, 4], work: list, says: /length is 0/ },
  { name: 'an inode number of 2^63', path: 'block', from: 'block', poke: [64 + 32, 2n ** 63n, 8], work: list, says: /inumber/ },
  { name: 'a link of no bytes', path: 'link', poke: [56, 0, 8], work: link, says: /has 0 bytes/ },
  { name: 'a link longer than its inode', path: 'link', poke: [56, 1000, 8], work: link, says: /room for/ },
  { name: 'a link of 4 MiB', path: 'a long link', poke: [56, 2 ** 22, 8], work: link, says: /4194304 bytes/ },
  {
    name: 'a link in a block of another',
    path: 'a long link',
    from: 'block',
    poke: [32, 1, 8],
    work: link,
    says: /none of its own/,
  },
  {
    name: 'a link in blocks of no bytes',
    path: 'a long link',
    from: 'block',
    poke: [8, 0, 4],
    work: link,
    says: /none of its own/,
  },
  {
    name: '65,535 attributes in a leaf',
    path: 'with 6 attributes of 60000',
    from: 'attributes',
    poke: [56, 0xffff, 2],
    work: attributes,
    says: /count of a leaf/,
  },
  {
    name: 'a leaf that is followed by a value',
    path: 'with 6 attributes of 60000',
    from: 'attributes',
    poke: [0, 1, 4],
    work: attributes,
    says: /an extended attribute|is of inode/,
  },
  {
    name: 'a leaf of another inode',
    path: 'with 6 attributes of 60000',
    from: 'attributes',
    poke: [48, 1, 8],
    work: attributes,
    says: /inode 1$/,
  },
  {
    name: 'an attribute beyond its block',
    path: 'with 6 attributes of 60000',
    from: 'attributes',
    poke: [80 + 4, 0xffff, 2],
    work: attributes,
    says: /nameidx/,
  },
]

for (const {
  name,
  path,
  from = 'inode',
  poke: [at, value, bytes],
  work,
  code = 'invalid-image',
  says,
} of cases) {
  test(`${name} is refused, and the rest is there`, { skip }, async () => {
    const known = (await xfs.open(bytesSource(volume)))!
    const { id } = (await new FileTree(known).find(`/${path}`, false))!.node
    places = { ...(await placesOf([path])), ...places }
    using changed = poked([[places[path]![from] + at, value, bytes]])
    const files = (await changed.open())!
    const attempt = async () => {
      const node = await files.node(id)
      return work?.(files, node)
    }
    await assert.rejects(attempt(), { name: 'ServiceError', code, message: says })
    const damaged: string[] = []
    const seen: string[] = []
    for await (const { path: there } of new FileTree(files).walk('/', { onDamage: (there) => damaged.push(there) }))
      seen.push(there)
    assert.ok(seen.includes(path === 'block' ? '/small' : '/block'), `${seen.length} are seen`)
  })
}

test('a volume of any length up to a superblock is none or is refused', { skip }, async () => {
  for (let bytes = 0; bytes < 300; bytes += 7) {
    const files = await xfs.open(bytesSource(volume.subarray(0, bytes))).catch((error: unknown) => error)
    assert.ok(files === undefined || files instanceof ServiceError, `${bytes} bytes`)
  }
})

test('a volume that was cut off says so, and shows what is left', { skip }, async () => {
  const files = (await xfs.open(bytesSource(volume.subarray(0, 8 * MiB))))!
  assert.match(files.notes.join(), /it was cut off/)
  const found: string[] = []
  for await (const { path } of new FileTree(files).walk('/', { onDamage: () => {} })) found.push(path)
  assert.ok(found.includes('/'))
})

test('a checksum that is wrong is not looked at', { skip }, async () => {
  using changed = poked([[224, 0xdeadbeef, 4]])
  assert.ok(await new FileTree((await changed.open())!).find('/small/whole'))
})
