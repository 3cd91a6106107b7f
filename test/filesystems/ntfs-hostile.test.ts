import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { isCleanLog } from '../../src/disk/guest/filesystems/ntfs/log-file.ts'
import { unpackLznt1 } from '../../src/disk/guest/filesystems/ntfs/lznt1.ts'
import { ntfs } from '../../src/disk/guest/filesystems/ntfs/ntfs.ts'
import { cannotMount, mountedByFuse, newVolume } from './volumes.ts'

const RECORD = 1024
const CLUSTER = 4096
const TYPE = { list: 0x20, name: 0x30, information: 0x70, data: 0x80, root: 0x90 } as const
const NOT_LINKED = { symlink: 0xa000000c, junction: 0xa0000003, wof: 0x80000017, dedup: 0x80000013, other: 0x9000001a } as const
const skip = cannotMount('ntfs-3g', 'mkfs.ntfs', 'losetup')

/** Made once: small files of every kind that these tests change. */
const whole = skip ? new Uint8Array(0) : await made()
async function made(): Promise<Uint8Array> {
  await using volume = await newVolume(8 * MiB, ['mkfs.ntfs', '-q', '-F', '-f', '-c', String(CLUSTER)])
  await mountedByFuse(['ntfs-3g', '-o', 'compression'], volume.path, (root) => {
    const at = (name: string) => join(root, name)
    const attribute = (name: string, kind: string, value: Buffer) =>
      execFileSync('setfattr', ['-h', '-n', `system.ntfs_${kind}`, '-v', `0x${value.toString('hex')}`, at(name)])
    writeFileSync(at('other.txt'), 'other')
    writeFileSync(at('data'), Buffer.alloc(40_000, 'data of several clusters '))
    mkdirSync(at('many'))
    for (let index = 0; index < 120; index += 1) writeFileSync(at(`many/entry number ${index}`), '')
    mkdirSync(at('packed'))
    attribute('packed', 'attrib', Buffer.from([0x10, 0x08, 0, 0]))
    writeFileSync(at('packed/text'), Buffer.alloc(200_000, 'what is said again and again '))
    writeFileSync(at('Long file name.text'), 'long')
    attribute('Long file name.text', 'dos_name', Buffer.from('LONGFI~1.TEX'))
    for (const [name, tag] of Object.entries(NOT_LINKED)) {
      if (name === 'junction') mkdirSync(at(name))
      else writeFileSync(at(name), '')
      attribute(name, 'reparse_data', reparse(tag))
    }
  })
  return new Uint8Array(readFileSync(volume.path))
}

function reparse(tag: number): Buffer {
  const path = Buffer.from(tag === NOT_LINKED.symlink ? '..\\many\\entry' : '\\??\\C:\\many\\entry', 'utf16le')
  const head = Buffer.alloc(tag === NOT_LINKED.symlink ? 20 : 16)
  head.writeUInt32LE(tag)
  head.writeUInt16LE(head.length - 8 + path.length, 4)
  head.writeUInt16LE(path.length, 10)
  head.writeUInt16LE(path.length, 12)
  if (tag === NOT_LINKED.symlink) head.writeUInt32LE(1, 16)
  return Buffer.concat([head, path])
}

const opened = async (bytes: Uint8Array) => new FileTree((await ntfs.open(bytesSource(bytes)))!)
const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer)
const mftOffset = (bytes: Uint8Array) => Number(viewOf(bytes).getBigUint64(48, true)) * CLUSTER
/** Where the record of a path begins. */
const recordOf = async (path: string) =>
  mftOffset(whole) + Math.floor((await (await opened(whole)).find(path, false))!.node.id / 65_536) * RECORD
/** Where its attribute of a type does. */
function attributeAt(bytes: Uint8Array, record: number, type: number): number {
  const view = viewOf(bytes)
  let at = record + view.getUint16(record + 20, true)
  while (view.getUint32(at, true) !== type) {
    assert.notEqual(view.getUint32(at, true), 0xffff_ffff)
    at += view.getUint32(at + 4, true)
  }
  return at
}

test('the volume of these tests is right, and a file with a DOS name is there once', { skip }, async () => {
  const tree = await opened(whole)
  assert.deepEqual(
    (await Array.fromAsync(tree.list('/'))).map(({ name }) => name),
    ['data', 'dedup', 'junction', 'Long file name.text', 'many', 'other', 'other.txt', 'packed', 'symlink', 'wof'],
  )
  assert.equal((await Array.fromAsync(tree.list('/many'))).length, 120)
  const long = (await tree.find('/longfi~1.tex'))!
  assert.equal(long.node.links, 1)
  assert.equal(String(Buffer.from((await tree.read('/LONG FILE NAME.TEXT', 10))!)), 'long')
  assert.deepEqual(
    (await tree.read('/packed/text', MiB))!,
    new Uint8Array(Buffer.alloc(200_000, 'what is said again and again ')),
  )
})

test('links and junctions are links; what is packed elsewhere is named and not read', { skip }, async () => {
  const tree = await opened(whole)
  const linkOf = async (path: string) => tree.root.readLink((await tree.find(path, false))!.node)
  assert.equal(await linkOf('/symlink'), '../many/entry')
  assert.equal(await linkOf('/junction'), '/many/entry')
  for (const [name, says] of [
    ['wof', /WOF/],
    ['dedup', /deduplication/],
    ['other', /0x9000001a/],
  ] as const) {
    await assert.rejects(tree.read(`/${name}`, MiB), { code: 'unsupported', message: says })
  }
})

const refused: readonly [name: string, change: (view: DataView) => void, says: RegExp][] = [
  ['file records of 0 clusters', (view) => view.setUint8(64, 0), /a file record has 0 bytes/],
  ['file records of 2^31 bytes', (view) => view.setInt8(64, -31), /a file record has 2147483648/],
  ['file records of 127 clusters', (view) => view.setUint8(64, 127), /a file record has/],
  ['index blocks of 2^31 bytes', (view) => view.setInt8(68, -31), /an index block has/],
  ['sectors of 513 bytes', (view) => view.setUint16(11, 513, true), /sector has 513/],
  ['clusters of 3 sectors', (view) => view.setUint8(13, 3), /cluster has 3 sectors/],
  ['clusters of 0 sectors', (view) => view.setUint8(13, 0), /cluster has 0 sectors/],
  ['no sectors', (view) => view.setBigUint64(40, 0n, true), /0 sectors/],
  ['2^63 sectors', (view) => view.setBigUint64(40, 1n << 63n, true), /2\^53/],
  ['$MFT beyond the end', (view) => view.setBigUint64(48, 99_999n, true), /\$MFT is at cluster 99999/],
]
for (const [name, change, says] of refused) {
  test(`refused: ${name}`, { skip }, async () => {
    const bytes = whole.slice()
    change(viewOf(bytes))
    await assert.rejects(ntfs.open(bytesSource(bytes)), { code: 'invalid-image', message: says })
  })
}

/** Changes of the record of `/data`, each of which leaves `/other.txt` as it is. */
const broken: readonly [name: string, change: (view: DataView, record: number, data: number) => void, says: RegExp][] = [
  ['another magic', (view, at) => view.setUint32(at, 0x44414142, true), /begin with FILE/],
  ['an update sequence of 65,535 numbers', (view, at) => view.setUint16(at + 6, 65_535, true), /update sequence/],
  ['an update sequence outside', (view, at) => view.setUint16(at + 4, 2000, true), /update sequence/],
  ['a sector of another write', (view, at) => view.setUint16(at + 510, 0x7777, true), /of another write/],
  ['not in use', (view, at) => view.setUint16(at + 22, 0, true), /not in use/],
  ['attributes beyond the record', (view, at) => view.setUint16(at + 20, 1020, true), /an attribute at 1020/],
  ['an attribute of 0 bytes', (view, _, at) => view.setUint32(at + 4, 0, true), /an attribute of 0 bytes/],
  ['an attribute of 16 bytes', (view, _, at) => view.setUint32(at + 4, 16, true), /an attribute of 16 bytes/],
  ['an attribute of 4 GiB', (view, _, at) => view.setUint32(at + 4, 0xffff_fff8, true), /an attribute of 4294967288/],
  ['a name beyond its attribute', (view, _, at) => view.setUint8(at + 9, 255), /whose name ends/],
  ['runs beyond their attribute', (view, _, at) => view.setUint16(at + 32, 999, true), /runs at 999/],
  ['a run of no bytes', (view, _, at) => view.setUint8(at + 64, 0x30), /its first byte is 0x30/],
  ['a run of −1 clusters', (view, _, at) => view.setUint8(at + 65, 0xff), /-1 clusters/],
  ['a run outside the volume', (view, _, at) => view.setUint8(at + 67, 0x7f), /of 2047|clusters \d+ to/],
  [
    'more bytes than runs',
    (view, _, at) => [48, 56].map((part) => view.setBigUint64(at + part, 900_000n, true)),
    /in none of its runs/,
  ],
  ['2^63 bytes', (view, _, at) => view.setBigUint64(at + 48, 1n << 63n, true), /2\^53/],
  ['clusters that end before they begin', (view, _, at) => view.setBigInt64(at + 24, -9n, true), /clusters 0 to -9/],
  ['a part that is not the first', (view, _, at) => view.setBigUint64(at + 16, 5n, true), /begins with cluster 5|clusters 5 to/],
  ['a compression unit of 2^200 clusters', (view, _, at) => view.setUint8(at + 34, 200), /unit of 2\^200/],
]
for (const [name, change, says] of broken) {
  test(`only the file is damaged: ${name}`, { skip }, async () => {
    const bytes = whole.slice()
    const record = await recordOf('/data')
    change(viewOf(bytes), record, attributeAt(bytes, record, TYPE.data))
    const tree = await opened(bytes)
    await assert.rejects(
      async () => {
        const source = (await tree.open('/data'))!
        await source.read(0, Math.min(source.size, MiB))
        if (source.size > 40_000) await source.read(source.size - 10, 10)
      },
      { code: 'invalid-image', message: says },
    )
    assert.equal(String(Buffer.from((await tree.read('/other.txt', 10))!)), 'other')
  })
}

test('a file that is encrypted, and one packed in another way, are refused when read', { skip }, async () => {
  const record = await recordOf('/data')
  for (const [flags, says] of [
    [0x4000, /EFS/],
    [2, /in way 2/],
  ] as const) {
    const bytes = whole.slice()
    viewOf(bytes).setUint16(attributeAt(bytes, record, TYPE.data) + 12, flags, true)
    await assert.rejects((await opened(bytes)).read('/data', MiB), { code: 'unsupported', message: says })
  }
})

test('an index that goes in a circle, or names another block, ends in an error after what can be read', { skip }, async () => {
  const record = await recordOf('/many')
  const view = viewOf(whole)
  const root = attributeAt(whole, record, TYPE.root)
  const value = root + view.getUint16(root + 20, true)
  const ofRoot = value + 16 + view.getUint32(value + 16, true) + 16 // its only entry is the last one, with all below it
  const top = view.getBigUint64(ofRoot, true)
  let block = 0
  while (view.getUint32(block, true) !== 0x58444e49 || view.getBigUint64(block + 16, true) !== top || top === 0n) block += CLUSTER
  const first = block + 24 + view.getUint32(block + 24, true)
  const child = first + view.getUint16(first + 8, true) - 8
  const second = first + view.getUint16(first + 8, true)
  const next = view.getBigUint64(second + view.getUint16(second + 8, true) - 8, true)
  for (const [to, says] of [
    [top, /met twice/],
    [next, /met twice/],
    [77n, /there is no index block 77/],
    [1n << 60n, /no index block/],
  ] as const) {
    const bytes = whole.slice()
    viewOf(bytes).setBigUint64(child, to, true)
    const names: string[] = []
    await assert.rejects(
      async () => {
        for await (const { name } of (await opened(bytes)).list('/many')) names.push(name)
      },
      { code: 'invalid-image', message: says },
    )
    assert.ok(names.length > 20 && names.length < 130, `${names.length}`)
  }
})

test('an entry whose key goes on beyond its node', { skip }, async () => {
  const bytes = whole.slice()
  const view = viewOf(bytes)
  const root = attributeAt(bytes, await recordOf('/many'), TYPE.root)
  const value = root + view.getUint16(root + 20, true)
  const only = value + 16 + view.getUint32(value + 16, true)
  view.setUint16(only + 10, 1000, true)
  view.setUint16(only + 12, 1, true) // not the last any more
  const all = async () => Array.fromAsync((await opened(bytes)).list('/many'))
  await assert.rejects(all, { code: 'invalid-image', message: /with a key of 1000/ })
})

test('an entry for a file that is another by now leads nowhere', { skip }, async () => {
  const bytes = whole.slice()
  const record = await recordOf('/data')
  viewOf(bytes).setUint16(record + 16, 77, true)
  await assert.rejects((await opened(bytes)).find('/data'), { code: 'invalid-image', message: /another file by now/ })
})

test('a damaged $MFT is read by its mirror, and says so', { skip }, async () => {
  const bytes = whole.slice()
  bytes.fill(0, mftOffset(bytes), mftOffset(bytes) + 4)
  const tree = await opened(bytes)
  assert.match(tree.root.notes.join(), /\$MFTMirr/)
  assert.equal(String(Buffer.from((await tree.read('/other.txt', 10))!)), 'other')
  const mirror = Number(viewOf(bytes).getBigUint64(56, true)) * CLUSTER
  bytes.fill(0, mirror, mirror + 4)
  await assert.rejects(ntfs.open(bytesSource(bytes)), { code: 'invalid-image', message: /begin with FILE/ })
})

test('a volume whose $Volume is damaged still has its files', { skip }, async () => {
  const bytes = whole.slice()
  bytes.fill(0, mftOffset(bytes) + 3 * RECORD, mftOffset(bytes) + 3 * RECORD + 4)
  const tree = await opened(bytes)
  assert.match(tree.root.notes.join(), /\$Volume cannot be read/)
  assert.equal(String(Buffer.from((await tree.read('/other.txt', 10))!)), 'other')
})

test('without $UpCase names are found as Unicode has capitals', { skip }, async () => {
  const bytes = whole.slice()
  bytes.fill(0, mftOffset(bytes) + 10 * RECORD, mftOffset(bytes) + 10 * RECORD + 4)
  assert.equal((await (await opened(bytes)).find('/OTHER.TXT'))?.node.bytes, 5)
})

test('a volume that is dirty, of another version or cut off', { skip }, async () => {
  const bytes = whole.slice()
  const at = attributeAt(bytes, mftOffset(bytes) + 3 * RECORD, TYPE.information)
  const value = at + viewOf(bytes).getUint16(at + 20, true)
  viewOf(bytes).setUint16(value + 10, 1, true)
  assert.match((await opened(bytes)).root.notes.join(), /marked as dirty/)
  viewOf(bytes).setUint8(value + 8, 4)
  await assert.rejects(ntfs.open(bytesSource(bytes)), { code: 'unsupported', message: /version 4\.1/ })
  assert.match((await opened(whole.subarray(0, whole.length - MiB))).root.notes.join(), /cut off/)
})

test('a journal that is not clean is told from one that is', async () => {
  const log = new Uint8Array(16_384)
  const view = viewOf(log)
  const page = (at: number, number: bigint, inUse: number) => {
    log.set(Buffer.from('RSTR'), at)
    view.setUint16(at + 4, 30, true)
    view.setUint16(at + 6, 9, true)
    view.setUint16(at + 24, 64, true)
    view.setBigUint64(at + 64, number, true)
    view.setUint16(at + 76, inUse, true)
  }
  page(0, 5n, 0xffff)
  page(4096, 9n, 0)
  assert.equal(await isCleanLog(bytesSource(log)), false)
  page(0, 11n, 0xffff)
  assert.equal(await isCleanLog(bytesSource(log)), true)
  assert.equal(await isCleanLog(bytesSource(new Uint8Array(16_384).fill(0xff))), true)
  assert.equal(await isCleanLog(bytesSource(new Uint8Array(16_384))), false)
})

const lies: readonly [name: string, packed: readonly number[], says: RegExp][] = [
  ['a chunk that goes on beyond the end', [0xff, 0xbf, 0], /ends at 4098/],
  ['a match from before the beginning', [0x02, 0xb0, 0x01, 0, 0], /a match of 3 bytes from 1 before byte 0/],
  ['a match that is cut off', [0x01, 0xb0, 0x01, 0x00], /cut off/],
  ['a match of more than a chunk', [0x05, 0xb0, 0x06, 0x41, 0xff, 0x0f, 0xff, 0x0f], /a match of 4098 bytes/],
]
for (const [name, packed, says] of lies) {
  test(`compressed data that lie: ${name}`, () => {
    assert.throws(() => unpackLznt1(Uint8Array.from(packed), 65_536), { code: 'invalid-image', message: says })
  })
}
