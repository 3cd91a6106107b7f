import assert from 'node:assert/strict'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import { exfat } from '../../src/disk/guest/filesystems/exfat/exfat.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { sumBootRegions, sumSet } from './exfat-sums.ts'
import { cannotMount, mountedByFuse, newVolume } from './volumes.ts'

const CLUSTER = 512
const skip = cannotMount('mount.exfat-fuse', 'mkfs.exfat', 'losetup')

/** Made once: `/whole` in one piece, `/pieces` in several, `/folder` with files, of which these tests change some bytes. */
const clean = skip ? new Uint8Array(0) : await made()
async function made(): Promise<Uint8Array> {
  await using volume = await newVolume(4 * MiB, ['mkfs.exfat', '-c', String(CLUSTER), '-b', '4K'])
  await mountedByFuse(['mount.exfat-fuse'], volume.path, (root) => {
    const at = (name: string) => join(root, name)
    for (let index = 0; index < 8; index += 1) writeFileSync(at(`filler ${index}`), Buffer.alloc(1000, 'x'))
    writeFileSync(at('whole'), Buffer.alloc(3000, 'one piece '))
    for (let index = 0; index < 8; index += 2) rmSync(at(`filler ${index}`))
    for (let index = 0; index < 6; index += 1) {
      writeFileSync(at('pieces'), Buffer.alloc(1000, 'in pieces '), { flag: 'a' })
      writeFileSync(at('between'), Buffer.alloc(600, 'b'), { flag: 'a' })
    }
  })
  return new Uint8Array(readFileSync(volume.path))
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer)
const opened = async (bytes: Uint8Array) => new FileTree((await exfat.open(bytesSource(bytes)))!)
const tableAt = (bytes: Uint8Array, cluster: number) => viewOf(bytes).getUint32(80, true) * 512 + cluster * 4
/** Where the first entry of a file of the root is. */
const setOf = async (name: string) => Math.floor((await (await opened(clean)).find(`/${name}`))!.node.id / 2) * 32
const firstClusterOf = async (name: string) => viewOf(clean).getUint32((await setOf(name)) + 52, true)

test('the volume of these tests is right', { skip }, async () => {
  const tree = await opened(clean)
  assert.deepEqual(tree.root.notes, [])
  assert.equal((await tree.read('/PIECES', 9000))!.length, 6000)
  const pieces = (await setOf('pieces')) + 33
  assert.equal(clean[pieces]! & 2, 0, 'it is in the table')
  assert.equal(clean[(await setOf('whole')) + 33]! & 2, 2, 'it is not')
})

const both = (change: (view: DataView, at: number) => void) => (view: DataView) => {
  for (const at of [0, 12 * 512]) change(view, at)
}
const refused: readonly [name: string, change: (view: DataView) => void, says: RegExp, code?: string][] = [
  ['sectors of 2^8 bytes', both((view, at) => view.setUint8(at + 108, 8)), /BytesPerSectorShift is 8/],
  ['sectors of 2^255 bytes', both((view, at) => view.setUint8(at + 108, 255)), /BytesPerSectorShift is 255/],
  ['clusters of 2^39 bytes', both((view, at) => view.setUint8(at + 109, 30)), /SectorsPerClusterShift/],
  ['no tables', both((view, at) => view.setUint8(at + 110, 0)), /NumberOfFats is 0/],
  ['no clusters', both((view, at) => view.setUint32(at + 92, 0, true)), /ClusterCount is 0/],
  ['2^32 − 1 clusters', both((view, at) => view.setUint32(at + 92, 0xffff_ffff, true)), /ClusterCount is 4294967295/],
  ['a table that is too short', both((view, at) => view.setUint32(at + 84, 1, true)), /FatLength is 1/],
  ['a table in the boot region', both((view, at) => view.setUint32(at + 80, 3, true)), /FatOffset is 3/],
  ['clusters beyond the volume', both((view, at) => view.setBigUint64(at + 72, 100n, true)), /VolumeLength is 100/],
  ['2^63 sectors', both((view, at) => view.setBigUint64(at + 72, 1n << 63n, true)), /2\^53/],
  ['a root at cluster 0', both((view, at) => view.setUint32(at + 96, 0, true)), /RootDirectory is 0/],
  ['a root at cluster 1', both((view, at) => view.setUint32(at + 96, 1, true)), /RootDirectory is 1/],
  ['a root beyond the clusters', both((view, at) => view.setUint32(at + 96, 0xffff_fff0, true)), /RootDirectory is 4294967280/],
  ['revision 2.0', both((view, at) => view.setUint16(at + 104, 0x200, true)), /FileSystemRevision is 2\.0/, 'unsupported'],
  ['something in MustBeZero', both((view, at) => view.setUint8(at + 20, 1)), /MustBeZero/],
]
for (const [name, change, says, code = 'invalid-image'] of refused) {
  test(`refused: ${name}`, { skip }, async () => {
    const bytes = clean.slice()
    change(viewOf(bytes))
    sumBootRegions(bytes)
    await assert.rejects(exfat.open(bytesSource(bytes)), { code, message: says })
  })
}

test('a boot region with another checksum is read by its backup, and one without that is refused', { skip }, async () => {
  const bytes = clean.slice()
  bytes[300]! ^= 1
  assert.match((await opened(bytes)).root.notes.join(), /the backup was read/)
  bytes[12 * 512 + 300]! ^= 1
  await assert.rejects(exfat.open(bytesSource(bytes)), { code: 'invalid-image', message: /checksum of the boot region/ })
})

const broken: readonly [
  name: string,
  file: string,
  change: (bytes: Uint8Array, set: number, first: number) => void,
  says: RegExp,
][] = [
  [
    'a chain that returns to itself',
    'pieces',
    (bytes, _, first) => viewOf(bytes).setUint32(tableAt(bytes, first), first, true),
    /returns to/,
  ],
  [
    'a chain with a free cluster',
    'pieces',
    (bytes, _, first) => viewOf(bytes).setUint32(tableAt(bytes, first), 0, true),
    /cluster 0/,
  ],
  [
    'a chain with a bad one',
    'pieces',
    (bytes, _, first) => viewOf(bytes).setUint32(tableAt(bytes, first), 0xffff_fff7, true),
    /marked as bad/,
  ],
  [
    'a chain that is too short',
    'pieces',
    (bytes, _, first) => viewOf(bytes).setUint32(tableAt(bytes, first), 0xffff_ffff, true),
    /chain of 1 clusters/,
  ],
  [
    'one piece beyond the clusters',
    'whole',
    (bytes, set) => viewOf(bytes).setUint32(set + 52, 0x7fff_ffff, true),
    /clusters 2147483647 to/,
  ],
  ['one piece at cluster 0', 'whole', (bytes, set) => viewOf(bytes).setUint32(set + 52, 0, true), /clusters 0 to/],
  [
    'more bytes than all clusters have',
    'whole',
    (bytes, set) => {
      viewOf(bytes).setBigUint64(set + 56, 1n << 40n, true)
      viewOf(bytes).setBigUint64(set + 40, 1n << 40n, true)
    },
    /where all clusters have/,
  ],
]
for (const [name, file, change, says] of broken) {
  test(`only the file is damaged: ${name}`, { skip }, async () => {
    const bytes = clean.slice()
    const set = await setOf(file)
    change(bytes, set, await firstClusterOf(file))
    sumSet(bytes, set)
    const tree = await opened(bytes)
    const read = async () => (await tree.open(`/${file}`))!.read(0, 3000)
    await assert.rejects(read, { code: 'invalid-image', message: says })
    assert.equal((await tree.read('/filler 1', 2000))!.length, 1000)
  })
}

const brokenSets: readonly [name: string, change: (bytes: Uint8Array, set: number) => void, says: RegExp, isSummed?: boolean][] =
  [
    ['another checksum', (bytes, set) => (bytes[set + 2]! ^= 1), /its checksum is another/, false],
    ['no secondary entries', (bytes, set) => (bytes[set + 1] = 0), /0 secondary entries/],
    ['255 secondary entries', (bytes, set) => (bytes[set + 1] = 255), /255 secondary entries/],
    ['more secondary entries than follow', (bytes, set) => (bytes[set + 1] = 3), /without all of its entries/],
    ['a name longer than its entries', (bytes, set) => (bytes[set + 35] = 200), /a name of 200 units/],
    ['no name', (bytes, set) => (bytes[set + 35] = 0), /the name ""|type 0xc1/],
    ['a slash in its name', (bytes, set) => (bytes[set + 66] = 0x2f), /the name "\//],
    ['a stream that is none', (bytes, set) => (bytes[set + 32] = 0xc1), /second entry is of type 0xc1/],
    ['2^63 bytes', (bytes, set) => viewOf(bytes).setBigUint64(set + 56, 1n << 63n, true), /more bytes than/],
    ['more written than it has', (bytes, set) => viewOf(bytes).setBigUint64(set + 40, 99_999n, true), /more bytes than/],
    ['an entry of an unknown critical kind', (bytes, set) => (bytes[set] = 0x86), /entry of type 0x86/],
  ]
for (const [name, change, says, isSummed = true] of brokenSets) {
  test(`only the entry is damaged: ${name}`, { skip }, async () => {
    const bytes = clean.slice()
    const set = await setOf('whole')
    change(bytes, set)
    if (isSummed && bytes[set + 1]! < 19) sumSet(bytes, set)
    const names: string[] = []
    await assert.rejects(
      async () => {
        for await (const { name } of (await opened(bytes)).list('/')) names.push(name)
      },
      { message: says },
    )
    assert.ok(!names.includes('whole') && names.includes('filler 1'), names.join())
  })
}

test('what was not written is zeros, and half a pair of surrogates is kept', { skip }, async () => {
  const bytes = clean.slice()
  const set = await setOf('whole')
  viewOf(bytes).setBigUint64(set + 40, 10n, true)
  viewOf(bytes).setUint16(set + 66, 0xd83d, true)
  sumSet(bytes, set)
  const tree = await opened(bytes)
  const names = (await Array.fromAsync(tree.list('/'))).map(({ name }) => name)
  assert.ok(names.includes('\udced\udca0\udcbdhole'))
  const read = (await tree.read('/\udced\udca0\udcbdHOLE', 9000))!
  assert.deepEqual([String(Buffer.from(read.subarray(0, 10))), read[10], read[2999]], ['one piece ', 0, 0])
})

test('a volume that is dirty, cut off, or without its table of capitals', { skip }, async () => {
  const bytes = clean.slice()
  viewOf(bytes).setUint16(106, 6, true)
  assert.match((await opened(bytes)).root.notes.join(), /not unmounted.*faults/s)
  assert.match((await opened(clean.subarray(0, 3 * MiB))).root.notes.join(), /cut off/)
  const root = viewOf(clean).getUint32(96, true)
  const heap = viewOf(clean).getUint32(88, true) * 512 + (root - 2) * CLUSTER
  for (let at = heap; at < heap + CLUSTER; at += 32) if (bytes[at] === 0x82 || bytes[at] === 0x81) bytes[at]! &= 0x7f
  const tree = await opened(bytes)
  assert.match(tree.root.notes.join(), /no allocation bitmap.*no up-case table/s)
  assert.equal(tree.root.freeBytes, null)
  assert.equal((await tree.find('/WHOLE'))?.node.bytes, 3000)
})
