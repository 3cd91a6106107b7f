import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { before, test } from 'node:test'
import { ServiceError } from '../../src/base/errors.ts'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import type { FileNode, FileSystem } from '../../src/disk/guest/filesystems/file-system.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { squashfs } from '../../src/disk/guest/filesystems/squashfs/squashfs.ts'
import { missingTool } from '../peers/command.ts'

const skip = missingTool('mksquashfs', 'setfattr')
const INODE_TABLE_AT = 64
const HEADER_BYTES = 2 // of a block of metadata
let volume = Buffer.alloc(0)

/** One with nothing packed, so that what is changed in it is what is met. */
before(() => {
  if (skip) return
  const folder = mkdtempSync(join(tmpdir(), 'imprint-hostile-'))
  const at = (name: string) => join(folder, 'tree', name)
  mkdirSync(at('folder/inner'), { recursive: true })
  writeFileSync(at('folder/whole'), 'as it was')
  writeFileSync(at('blocks'), Buffer.alloc(20_000, 'text that goes on '))
  writeFileSync(at('with an attribute'), '')
  execFileSync('setfattr', ['-n', 'user.one', '-v', 'value', at('with an attribute')])
  symlinkSync('near', at('link'))
  const words = ['-noI', '-noD', '-noF', '-noX', '-b', '4096', '-quiet', '-no-progress']
  execFileSync('mksquashfs', [join(folder, 'tree'), join(folder, 'volume'), ...words], { stdio: 'ignore' })
  volume = readFileSync(join(folder, 'volume'))
  rmSync(folder, { recursive: true })
})

type Poke = readonly [at: number, value: number | bigint, bytes: number]

/** Changes the volume until the test has ended. */
function poked([at, value, bytes]: Poke): Disposable {
  const old = Buffer.from(volume.subarray(at, at + bytes))
  for (let index = 0; index < bytes; index += 1) volume[at + index] = Number((BigInt(value) >> BigInt(8 * index)) & 0xffn)
  return { [Symbol.dispose]: () => old.copy(volume, at) }
}

const superblocks: readonly { name: string; poke: Poke; code?: string; says: RegExp }[] = [
  { name: 'block_log of 0', poke: [22, 0, 2], says: /block_log/ },
  { name: 'block_log of 31', poke: [22, 31, 2], says: /block_log/ },
  { name: 'block_log of 63', poke: [22, 63, 2], says: /block_log/ },
  { name: 'blocks of no bytes', poke: [12, 0, 4], says: /block_size/ },
  { name: 'version 3', poke: [28, 3, 2], code: 'unsupported', says: /s_major/ },
  { name: 'lzma', poke: [20, 2, 2], code: 'unsupported', says: /lzma/ },
  { name: 'a compression of the future', poke: [20, 99, 2], code: 'unsupported', says: /99/ },
  { name: '2^63 bytes', poke: [40, 2n ** 63n, 8], says: /2\^53/ },
  { name: 'fewer bytes than a superblock', poke: [40, 95, 8], says: /bytes_used/ },
  { name: 'its ids at 0', poke: [48, 0, 8], says: /id_table_start/ },
  { name: 'its ids beyond the end', poke: [48, 2n ** 40n, 8], says: /id_table_start/ },
  { name: 'no ids', poke: [26, 0, 2], says: /ids/ },
  { name: 'its inodes behind its directories', poke: [64, 2n ** 40n, 8], says: /inode_table_start/ },
  { name: 'its directories beyond the end', poke: [72, 2n ** 40n, 8], says: /directory_table_start/ },
  { name: 'its fragments in the superblock', poke: [80, 1, 8], says: /fragment_table_start/ },
  { name: 'its attributes beyond the end', poke: [56, 2n ** 50n, 8], says: /xattr_id_table_start/ },
  { name: 'a root that is no inode', poke: [32, 2n ** 50n, 8], says: /no inode/ },
]

for (const { name, poke, code = 'invalid-image', says } of superblocks) {
  test(`a superblock with ${name} is refused`, { skip }, async () => {
    using _ = poked(poke)
    await assert.rejects(squashfs.open(bytesSource(volume)), { name: 'ServiceError', code, message: says })
  })
}

type Work = (files: FileSystem, node: FileNode) => Promise<unknown>
const list: Work = (files, node) => Array.fromAsync(files.list(node))
const read: Work = async (files, node) => {
  const data = await files.data(node)
  return data.read(0, Math.min(data.size, 2 ** 20))
}
const attributes: Work = (files, node) => files.attributes(node)
/** Of a directory, where its entries begin in the table. */
const entriesOf = (inode: number): number =>
  Number(volume.readBigUInt64LE(72)) + volume.readUInt32LE(inode + 16) + HEADER_BYTES + volume.readUInt16LE(inode + 26)

interface Case {
  readonly name: string
  readonly path: string
  /** Places from the beginning of its inode, or of its entries. */
  readonly poke: Poke
  readonly inEntries?: true
  readonly work?: Work
  readonly says: RegExp
}
const cases: readonly Case[] = [
  { name: 'an inode of type 0', path: 'folder/whole', poke: [0, 0, 2], says: /type 0/ },
  { name: 'an inode of type 99', path: 'folder/whole', poke: [0, 99, 2], says: /type 99/ },
  { name: 'an owner that is not among the ids', path: 'folder/whole', poke: [4, 0xffff, 2], says: /id 65535/ },
  { name: 'a fragment that is none', path: 'folder/whole', poke: [20, 1_000_000, 4], work: read, says: /fragment 1000000/ },
  { name: 'a place beyond its fragment', path: 'folder/whole', poke: [24, 0xfffffff0, 4], work: read, says: /has \d+ bytes/ },
  {
    name: 'more bytes than there are sizes',
    path: 'blocks',
    poke: [28, 0xffffffff, 4],
    work: read,
    says: /more than the last block has/,
  },
  { name: 'a block of 16 MiB', path: 'blocks', poke: [32, 0x1ffffff, 4], work: read, says: /0x1ffffff/ },
  { name: 'a block with flags of the future', path: 'blocks', poke: [32, 0x80001000, 4], work: read, says: /0x80001000/ },
  { name: 'a block that is too short', path: 'blocks', poke: [32, 0x1000010, 4], work: read, says: /16 bytes/ },
  { name: 'a block that cannot be unpacked', path: 'blocks', poke: [32, 0x1000, 4], work: read, says: /unpacked/ },
  { name: 'blocks beyond the end', path: 'blocks', poke: [16, 0xfffffff0, 4], work: read, says: /beyond bytes_used/ },
  { name: 'a link of 4 GiB', path: 'link', poke: [20, 0xffffffff, 4], says: /4294967295 bytes/ },
  { name: 'attributes that are none', path: 'with an attribute', poke: [52, 77, 4], work: attributes, says: /attributes 77/ },
  { name: 'entries beyond the end', path: 'folder', poke: [16, 0xfffffff0, 4], work: list, says: /beyond bytes_used/ },
  { name: 'entries at a byte that is none', path: 'folder', poke: [26, 0xffff, 2], work: list, says: /begins at byte/ },
  { name: 'more entries than bytes', path: 'folder', poke: [24, 20, 2], work: list, says: /size is/ },
  { name: 'a header that is cut off', path: 'folder', poke: [24, 10, 2], work: list, says: /cut off/ },
  { name: '2^32 entries', path: 'folder', poke: [0, 0xffffffff, 4], inEntries: true, work: list, says: /count is/ },
  { name: 'a name of 64 KiB', path: 'folder', poke: [12 + 6, 0xffff, 2], inEntries: true, work: list, says: /size is/ },
  { name: 'a name with a slash', path: 'folder', poke: [12 + 8, 0x2f, 1], inEntries: true, work: list, says: /slash/ },
]

for (const {
  name,
  path,
  poke: [at, value, bytes],
  inEntries,
  work,
  says,
} of cases) {
  test(`${name} is refused, and the rest is there`, { skip }, async () => {
    const tree = new FileTree((await squashfs.open(bytesSource(volume)))!)
    const { id } = (await tree.find(`/${path}`, false))!.node
    const inode = Number(volume.readBigUInt64LE(INODE_TABLE_AT)) + Math.floor(id / 0x10000) + HEADER_BYTES + (id % 0x10000)
    using _ = poked([(inEntries ? entriesOf(inode) : inode) + at, value, bytes])
    const files = (await squashfs.open(bytesSource(volume)))!
    const attempt = async () => {
      const node = await files.node(id)
      return work?.(files, node)
    }
    await assert.rejects(attempt(), { name: 'ServiceError', code: 'invalid-image', message: says })
    const seen: string[] = []
    for await (const { path: there } of new FileTree(files).walk('/', { onDamage: () => {} })) seen.push(there)
    assert.ok(seen.includes(path === 'link' ? '/blocks' : '/link'), seen.join())
  })
}

test('a directory that is in itself is damage, and ends', { skip }, async () => {
  const tree = new FileTree((await squashfs.open(bytesSource(volume)))!)
  const folder = (await tree.find('/folder'))!.node.id
  const inode = Number(volume.readBigUInt64LE(INODE_TABLE_AT)) + HEADER_BYTES + folder
  using _ = poked([entriesOf(inode) + 12, folder, 2])
  const damaged: string[] = []
  const files = (await squashfs.open(bytesSource(volume)))!
  for await (const { path } of new FileTree(files).walk('/', { onDamage: (path) => damaged.push(path) }))
    assert.ok(path.length < 100)
  assert.deepEqual(damaged, ['/folder/inner'])
})

test('a volume of any length up to a superblock is none or is refused', { skip }, async () => {
  for (let bytes = 0; bytes < 200; bytes += 5) {
    const files = await squashfs.open(bytesSource(volume.subarray(0, bytes))).catch((error: unknown) => error)
    assert.ok(files === undefined || files instanceof ServiceError, `${bytes} bytes`)
  }
})
