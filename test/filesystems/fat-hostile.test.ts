import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import { fat } from '../../src/disk/guest/filesystems/fat/fat.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'

const SECTOR = 512
const TABLE = SECTOR
const ROOT = TABLE + 17 * SECTOR
const CLUSTERS = ROOT + SECTOR // of one sector: 4,100 of them, so FAT16

/** A volume with one file, of two clusters, one directory with a file in it, and whatever else a test puts there. */
function volume(): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(CLUSTERS + 4100 * SECTOR)
  const view = new DataView(bytes.buffer)
  bytes.set([0xeb, 0x3c, 0x90, ...Buffer.from('MSDOS5.0')])
  view.setUint16(11, SECTOR, true)
  bytes[13] = 1
  view.setUint16(14, 1, true)
  bytes[16] = 1
  view.setUint16(17, 16, true)
  view.setUint16(19, bytes.length / SECTOR, true)
  bytes[21] = 0xf8
  view.setUint16(22, 17, true)
  bytes[38] = 0x29
  bytes.set(Buffer.from('NO NAME    FAT16   '), 43)
  bytes.set([0x55, 0xaa], 510)
  link(view, 0, 0xfff8)
  link(view, 1, 0xffff)
  record(bytes, ROOT, { name: 'FILE    TXT', cluster: 2, size: 700 })
  link(view, 2, 3)
  link(view, 3, 0xffff)
  record(bytes, ROOT + 32, { name: 'FOLDER     ', cluster: 4, attributes: 0x10 })
  link(view, 4, 0xffff)
  record(bytes, clusterAt(4), { name: 'INNER      ', cluster: 5, size: 5 })
  link(view, 5, 0xffff)
  bytes.set(Buffer.from('inner'), clusterAt(5))
  return { bytes, view }
}

const clusterAt = (cluster: number) => CLUSTERS + (cluster - 2) * SECTOR
const link = (view: DataView, cluster: number, next: number) => view.setUint16(TABLE + cluster * 2, next, true)
interface Wish {
  readonly name: string
  readonly cluster?: number
  readonly size?: number
  readonly attributes?: number
  readonly caseBits?: number
}
function record(bytes: Uint8Array, at: number, { name, cluster = 0, size = 0, attributes = 0x20, caseBits = 0 }: Wish) {
  bytes.set(Buffer.from(name, 'latin1'), at)
  const view = new DataView(bytes.buffer)
  bytes[at + 11] = attributes
  bytes[at + 12] = caseBits
  view.setUint16(at + 26, cluster, true)
  view.setUint32(at + 28, size, true)
}
/** The records of a long name, then that of the short one. */
function long(bytes: Uint8Array, at: number, name: string, short: Wish, change: (records: Uint8Array[]) => void = () => {}) {
  const sum = [...Buffer.from(short.name, 'latin1')].reduce((all, byte) => (((all & 1) << 7) + (all >> 1) + byte) & 0xff, 0)
  const units = [...Array.from({ length: name.length }, (_, index) => name.charCodeAt(index)), 0]
  const count = Math.ceil(units.length / 13)
  while (units.length < count * 13) units.push(0xffff)
  const records = Array.from({ length: count }, (_, index) => {
    const made = new Uint8Array(32)
    const view = new DataView(made.buffer)
    made[0] = (index + 1) | (index === count - 1 ? 0x40 : 0)
    made[11] = 0x0f
    made[13] = sum
    const places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30]
    for (const [place, offset] of places.entries()) view.setUint16(offset, units[index * 13 + place]!, true)
    return made
  }).reverse()
  change(records)
  for (const [index, each] of records.entries()) bytes.set(each, at + index * 32)
  record(bytes, at + records.length * 32, short)
}

const opened = async (bytes: Uint8Array) => (await fat.open(bytesSource(bytes)))!
const namesIn = async (bytes: Uint8Array, path = '/') =>
  (await Array.fromAsync(new FileTree(await opened(bytes)).list(path))).map(({ name }) => name)

test('the volume of these tests is right', async () => {
  const { bytes } = volume()
  const files = await opened(bytes)
  assert.deepEqual([files.label, files.uuid, files.notes], ['', '', []])
  assert.deepEqual(await namesIn(bytes), ['FILE.TXT', 'FOLDER'])
  assert.equal(String(Buffer.from((await new FileTree(files).read('/folder/inner', 100))!)), 'inner')
})

const refused: readonly [name: string, change: (view: DataView, bytes: Uint8Array) => void, says: RegExp][] = [
  ['sectors of 0 bytes', (view) => view.setUint16(11, 0, true), /BPB_BytsPerSec/],
  ['sectors of 1 byte', (view) => view.setUint16(11, 1, true), /BPB_BytsPerSec/],
  ['sectors of 513 bytes', (view) => view.setUint16(11, 513, true), /BPB_BytsPerSec/],
  ['clusters of 0 sectors', (view) => view.setUint8(13, 0), /BPB_SecPerClus/],
  ['clusters of 3 sectors', (view) => view.setUint8(13, 3), /BPB_SecPerClus/],
  ['clusters of 255 sectors', (view) => view.setUint8(13, 255), /BPB_SecPerClus/],
  ['no reserved sector', (view) => view.setUint16(14, 0, true), /BPB_RsvdSecCnt/],
  ['no table', (view) => view.setUint8(16, 0), /BPB_NumFATs/],
  ['no root', (view) => view.setUint16(17, 0, true), /BPB_RootEntCnt/],
  ['another medium', (view) => view.setUint8(21, 0x12), /BPB_Media/],
  ['no sectors', (view) => view.setUint16(19, 0, true), /BPB_TotSec/],
  ['less sectors than come before the clusters', (view) => view.setUint16(19, 18, true), /before the first cluster/],
  [
    'more clusters than FAT16 numbers',
    (view) => {
      view.setUint16(19, 0, true)
      view.setUint32(32, 70_000, true)
    },
    /FAT16 cannot/,
  ],
  ['a table of no sectors, and no root of FAT32', (view) => view.setUint16(22, 0, true), /BPB_FATSz32|BPB_RootEntCnt/],
]
for (const [name, change, says] of refused) {
  test(`refused where it names itself FAT, else not one: ${name}`, async () => {
    const { bytes, view } = volume()
    change(view, bytes)
    await assert.rejects(fat.open(bytesSource(bytes)), { code: 'invalid-image', message: says })
    bytes.fill(0, 54, 62)
    assert.equal(await fat.open(bytesSource(bytes)), undefined)
  })
}

const roots: readonly (readonly [cluster: number, says: RegExp])[] = [
  [0, /BPB_RootClus is 0/],
  [1, /BPB_RootClus is 1/],
  [0xffff_fff0, /BPB_RootClus/],
]
for (const [cluster, says] of roots) {
  test(`refused: FAT32 with its root at cluster ${cluster}`, async () => {
    const { bytes, view } = volume()
    view.setUint16(17, 0, true)
    view.setUint16(22, 0, true)
    view.setUint32(36, 17, true)
    bytes.fill(0, 40, 66)
    view.setUint32(44, cluster, true)
    bytes.set(Buffer.from('FAT32   '), 82)
    await assert.rejects(fat.open(bytesSource(bytes)), { code: 'invalid-image', message: says })
  })
}

test('FAT32 with few clusters is read as the kernel does, and says so', async () => {
  const { bytes, view } = volume()
  bytes.fill(0, 17, 19)
  bytes.fill(0, 22, 24)
  bytes.fill(0, 36, 90)
  bytes.fill(0, TABLE, ROOT + SECTOR)
  view.setUint32(36, 17, true)
  view.setUint32(44, 2, true)
  bytes.set([0x29, 0x34, 0x12, 0xcd, 0xab, ...Buffer.from('NO NAME    FAT32   ')], 66)
  for (const [cluster, next] of [
    [1, 0x0fff_ffff],
    [2, 0xf000_0004],
    [4, 0x0fff_fff8],
    [3, 0x0fff_ffff],
  ] as const)
    view.setUint32(TABLE + cluster * 4, next, true)
  const first = TABLE + 17 * SECTOR // where cluster 2 begins, without a root before it
  for (let at = 0; at < SECTOR; at += 32) record(bytes, first + at, { name: `F${at}`.padEnd(11), cluster: 3, size: 5 })
  record(bytes, first + 2 * SECTOR, { name: 'LAST       ', cluster: 3, size: 5 })
  const files = await opened(bytes)
  assert.deepEqual([files.uuid, files.label, files.freeBytes], ['ABCD-1234', '', null])
  assert.match(files.notes.join(), /fields of FAT32 and \d+ clusters/)
  assert.equal((await namesIn(bytes)).at(-1), 'LAST')
})

const broken: readonly [name: string, change: (view: DataView, bytes: Uint8Array) => void, says: RegExp][] = [
  ['a chain that returns to itself', (view) => link(view, 3, 3), /returns to cluster 3/],
  ['a chain of two that goes in a circle', (view) => link(view, 3, 2), /returns to cluster/],
  ['a chain that leaves the volume', (view) => link(view, 2, 0xfff0), /those of files are/],
  ['a chain with a free cluster', (view) => link(view, 2, 0), /marked as free/],
  ['a chain with a bad cluster', (view) => link(view, 2, 0xfff7), /marked as bad/],
  ['a chain that is too short', (view) => link(view, 2, 0xffff), /a chain of 1 clusters/],
  ['a file without clusters', (view) => view.setUint16(ROOT + 26, 0, true), /cluster 0/],
  ['a file larger than the volume', (view) => view.setUint32(ROOT + 28, 0xffff_ffff, true), /all clusters have/],
]
for (const [name, change, says] of broken) {
  test(`only the file is damaged: ${name}`, async () => {
    const { bytes, view } = volume()
    view.setUint32(ROOT + 28, 1600, true) // more than two clusters, so that the third is looked for
    change(view, bytes)
    const tree = new FileTree(await opened(bytes))
    await assert.rejects(tree.read('/FILE.TXT', 2 ** 33), { code: 'invalid-image', message: says })
    assert.equal(String(Buffer.from((await tree.read('/FOLDER/INNER', 100))!)), 'inner')
  })
}

test('a directory that is in itself, or is the root, is met once', async () => {
  const { bytes } = volume()
  record(bytes, clusterAt(4) + 32, { name: 'AGAIN      ', cluster: 4, attributes: 0x10 })
  const damaged: string[] = []
  const paths: string[] = []
  const walk = new FileTree(await opened(bytes)).walk('/', { onDamage: (path) => damaged.push(path) })
  for await (const { path } of walk) paths.push(path)
  assert.deepEqual(damaged, ['/FOLDER/AGAIN/AGAIN'])
  assert.equal(paths.length, 7)
})

test('a directory whose chain goes in a circle ends in an error, after what it has', async () => {
  const { bytes, view } = volume()
  for (let at = 32; at < SECTOR; at += 32) record(bytes, clusterAt(4) + at, { name: `F${at}`.padEnd(11) })
  link(view, 4, 4)
  const seen: string[] = []
  await assert.rejects(
    async () => {
      for await (const { name } of new FileTree(await opened(bytes)).list('/FOLDER')) seen.push(name)
    },
    { code: 'invalid-image', message: /returns to cluster 4/ },
  )
})

test('what is cut off is said, and the rest can be read', async () => {
  const { bytes } = volume()
  const files = await opened(bytes.subarray(0, clusterAt(3)))
  assert.match(files.notes.join(), /cut off/)
  const tree = new FileTree(files)
  assert.equal((await (await tree.open('/FILE.TXT'))!.read(0, 500)).length, 500)
  await assert.rejects(tree.read('/FILE.TXT', 1000), { code: 'invalid-image', message: /beyond the end/ })
})

const longNames: readonly [name: string, long: string, change: (records: Uint8Array[]) => void, shown: string][] = [
  ['as it is', 'A long name.text', () => {}, 'A long name.text'],
  ['a pair of surrogates', 'penguin 🐧 on ice', () => {}, 'penguin 🐧 on ice'],
  ['half a pair', 'half \ud83d', () => {}, 'half \udced\udca0\udcbd'],
  ['255 units', 'x'.repeat(255), () => {}, 'x'.repeat(255)],
  ['another checksum', 'A long name.text', (records) => (records[0]![13]! ^= 1), 'ALONGN~1.TXT'],
  ['the last record is not there', 'A long name.text', (records) => records.shift(), 'ALONGN~1.TXT'],
  ['out of order', 'A long name.text', (records) => records.reverse(), 'ALONGN~1.TXT'],
  ['63 records', 'A long name.text', (records) => (records[0]![0] = 0x7f), 'ALONGN~1.TXT'],
  ['a slash', 'etc/passwd', () => {}, 'ALONGN~1.TXT'],
  ['two dots', '..', () => {}, 'ALONGN~1.TXT'],
  ['empty', '', () => {}, 'ALONGN~1.TXT'],
]
for (const [name, text, change, shown] of longNames) {
  test(`a long name: ${name}`, async () => {
    const { bytes, view } = volume()
    link(view, 4, 6)
    link(view, 6, 0xffff)
    const whole = new Uint8Array(2 * SECTOR)
    long(whole, 0, text, { name: 'ALONGN~1TXT' }, change)
    bytes.set(whole.subarray(0, SECTOR), clusterAt(4))
    bytes.set(whole.subarray(SECTOR), clusterAt(6))
    assert.deepEqual(await namesIn(bytes, '/FOLDER'), [shown])
    const files = await opened(bytes)
    const folder = (await new FileTree(files).find('/FOLDER'))!.node
    assert.equal((await files.find(folder, 'alongn~1.txt'))?.name, shown)
  })
}

test('short names: case bits, code page 437, 0xE5, and what cannot be a name', async () => {
  const { bytes } = volume()
  const at = clusterAt(4)
  record(bytes, at, { name: 'LOWER   TXT', caseBits: 0x18 })
  record(bytes, at + 32, { name: 'HALF    TXT', caseBits: 0x08 })
  record(bytes, at + 64, { name: '\x05BC        ' })
  record(bytes, at + 96, { name: '\x9aBEL       ' })
  record(bytes, at + 128, { name: 'A/B        ' })
  record(bytes, at + 160, { name: '\xe5ONE       ' })
  record(bytes, at + 192, { name: 'LABEL      ', attributes: 0x08 })
  record(bytes, at + 224, { name: 'LAST       ' })
  const seen: string[] = []
  await assert.rejects(
    async () => {
      for await (const { name } of new FileTree(await opened(bytes)).list('/FOLDER')) seen.push(name)
    },
    { code: 'invalid-image', message: /the name "A\/B"/ },
  )
  assert.deepEqual(seen, ['lower.txt', 'half.TXT', 'σBC', 'ÜBEL', 'LAST'])
})

test('a volume that was not unmounted says so', async () => {
  const { bytes, view } = volume()
  link(view, 1, 0x3fff)
  assert.match((await opened(bytes)).notes.join(), /not unmounted.*faults/s)
})
