import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { bootImages } from '../../src/disk/guest/filesystems/iso9660/boot-catalog.ts'
import { iso9660 } from '../../src/disk/guest/filesystems/iso9660/iso9660.ts'

const SECTOR = 2048
const ROOT = 20
const FOLDER = 21
const FILE = 22
const AREA = 24
const CATALOG = 26
const SECTORS = 30

interface Wish {
  readonly id: string
  readonly block: number
  readonly bytes?: number
  readonly flags?: number
  /** Entries of Rock Ridge. */
  readonly rock?: readonly Uint8Array[]
}
const both = (value: number) => {
  const view = new DataView(new ArrayBuffer(8))
  view.setUint32(0, value, true)
  view.setUint32(4, value)
  return [...new Uint8Array(view.buffer)]
}
function record({ id, block, bytes = SECTOR, flags = 0, rock = [] }: Wish): Uint8Array {
  const head = [0, 0, ...both(block), ...both(bytes), 99, 1, 2, 3, 4, 5, 0, flags, 0, 0, 1, 0, 0, 1, id.length]
  const name = [...Buffer.from(id, 'latin1')]
  const made = [...head, ...name, ...(id.length % 2 === 0 ? [0] : []), ...rock.flatMap((each) => [...each])]
  if (made.length % 2 === 1) made.push(0)
  made[0] = made.length
  return Uint8Array.from(made)
}
const entry = (kind: string, ...data: readonly number[]) => Uint8Array.of(...Buffer.from(kind), data.length + 4, 1, ...data)
const nameOf = (text: string, flags = 0) => entry('NM', flags, ...Buffer.from(text))
const continued = (block: number, offset: number, bytes: number) => entry('CE', ...both(block), ...both(offset), ...both(bytes))
const sp = entry('SP', 0xbe, 0xef, 0)
const px = entry('PX', ...both(0o40755), ...both(2), ...both(0), ...both(0))

interface Disc {
  readonly root?: readonly Uint8Array[]
  readonly folder?: readonly Uint8Array[]
  readonly change?: (bytes: Uint8Array, view: DataView) => void
}
/** A disc with Rock Ridge: `/folder`, `/file` and in the folder what a test wants. */
function disc({ root = [], folder = [], change = () => {} }: Disc = {}): Uint8Array {
  const bytes = new Uint8Array(SECTORS * SECTOR)
  const view = new DataView(bytes.buffer)
  const descriptor = (index: number, type: number) => bytes.set([type, ...Buffer.from('CD001'), 1], (16 + index) * SECTOR)
  descriptor(0, 1)
  bytes.fill(32, 16 * SECTOR + 40, 16 * SECTOR + 72)
  bytes.set(both(SECTORS), 16 * SECTOR + 80)
  view.setUint16(16 * SECTOR + 128, SECTOR, true)
  bytes.set(record({ id: '\0', block: ROOT, flags: 2 }), 16 * SECTOR + 156)
  descriptor(1, 255)
  const place = (block: number, records: readonly Uint8Array[]) => {
    let at = block * SECTOR
    for (const each of records) {
      bytes.set(each, at)
      at += each.length
    }
  }
  const folderRecord = record({ id: 'FOLDER', block: FOLDER, flags: 2, rock: [nameOf('folder')] })
  place(ROOT, [
    record({ id: '\0', block: ROOT, flags: 2, rock: [sp, px] }),
    record({ id: '\x01', block: ROOT, flags: 2 }),
    folderRecord,
    record({ id: 'FILE.;1', block: FILE, bytes: 5, rock: [nameOf('file')] }),
    ...root,
  ])
  place(FOLDER, [record({ id: '\0', block: FOLDER, flags: 2 }), record({ id: '\x01', block: ROOT, flags: 2 }), ...folder])
  bytes.set(Buffer.from('hello'), FILE * SECTOR)
  change(bytes, view)
  return bytes
}

const opened = async (bytes: Uint8Array) => new FileTree((await iso9660.open(bytesSource(bytes)))!)
async function listed(bytes: Uint8Array, path = '/folder'): Promise<{ names: string[]; error: string }> {
  const names: string[] = []
  try {
    for await (const { name } of (await opened(bytes)).list(path)) names.push(name)
    return { names, error: '' }
  } catch (error) {
    return { names, error: String(error) }
  }
}

test('the disc of these tests is right', async () => {
  assert.deepEqual(await listed(disc(), '/'), { names: ['folder', 'file'], error: '' })
  assert.equal(String(Buffer.from((await (await opened(disc())).read('/file', 10))!)), 'hello')
})

const refused: readonly [name: string, change: Disc['change'] & {}, says: RegExp][] = [
  ['blocks of 0 bytes', (_, view) => view.setUint16(16 * SECTOR + 128, 0, true), /logical block size is 0/],
  ['blocks of 3 bytes', (_, view) => view.setUint16(16 * SECTOR + 128, 3, true), /logical block size is 3/],
  ['no blocks', (_, view) => view.setUint32(16 * SECTOR + 80, 0, true), /volume space size/],
  ['a root beyond the end', (_, view) => view.setUint32(16 * SECTOR + 158, 0xffff_ffff, true), /the root is at/],
  ['a root that does not begin with itself', (bytes) => (bytes[ROOT * SECTOR + 33] = 7), /begin with itself/],
]
for (const [name, change, says] of refused) {
  test(`refused: ${name}`, async () => {
    await assert.rejects(iso9660.open(bytesSource(disc({ change }))), { code: 'invalid-image', message: says })
  })
}

test('a directory that is the root, or in itself, is met once', async () => {
  const folder = [
    record({ id: 'UP', block: ROOT, flags: 2, rock: [nameOf('up')] }),
    record({ id: 'SELF', block: FOLDER, flags: 2, rock: [nameOf('self')] }),
    record({ id: 'MOVED', block: FILE, rock: [nameOf('moved'), entry('CL', ...both(FOLDER))] }),
  ]
  const damaged: string[] = []
  let nodes = 0
  for await (const _ of (await opened(disc({ folder }))).walk('/', { onDamage: (path) => damaged.push(path) })) nodes += 1
  assert.deepEqual(damaged, ['/folder/moved', '/folder/self', '/folder/up'])
  assert.equal(nodes, 6)
})

test('a directory of 4 GiB ends at the end of the volume', async () => {
  const change = (_: Uint8Array, view: DataView) => view.setUint32(FOLDER * SECTOR + 10, 0xffff_ffff, true)
  const { error } = await listed(disc({ folder: [record({ id: 'A', block: FILE, rock: [nameOf('a')] })], change }))
  assert.match(error, /beyond the end of the volume/)
})

const rest = record({ id: 'LAST', block: FILE, rock: [nameOf('last')] })
const damagedEntries: readonly [name: string, made: Uint8Array, says: RegExp, change?: Disc['change']][] = [
  [
    'a continuation that leads to itself',
    record({ id: 'A', block: FILE, rock: [continued(AREA, 0, 28)] }),
    /more than 32 continuation areas/,
    (bytes) => bytes.set(continued(AREA, 0, 28), AREA * SECTOR),
  ],
  ['a continuation beyond the end', record({ id: 'A', block: FILE, rock: [continued(0xffff_ffff, 0, 28)] }), /beyond the end/],
  [
    'a continuation of 4 GiB',
    record({ id: 'A', block: FILE, rock: [continued(AREA, 0, 0xffff_ffff)] }),
    /area of 4294967295 bytes/,
  ],
  ['an entry of no bytes', record({ id: 'A', block: FILE, rock: [Uint8Array.of(0x4e, 0x4d, 0, 1)] }), /entry of 0 bytes/],
  [
    'an entry that goes on too far',
    record({ id: 'A', block: FILE, rock: [Uint8Array.of(0x4e, 0x4d, 99, 1)] }),
    /entry of 99 bytes/,
  ],
  ['a name with a slash', record({ id: 'A', block: FILE, rock: [nameOf('etc/passwd')] }), /etc\/passwd/],
  ['two dots', record({ id: 'A', block: FILE, rock: [nameOf('..')] }), /the name "\.\."/],
  [
    'a component of a link that goes on too far',
    record({ id: 'A', block: FILE, rock: [nameOf('a'), entry('SL', 0, 0, 200, 1)] }),
    /component of a symbolic link/,
  ],
]
for (const [name, made, says, change] of damagedEntries) {
  test(`only the entry is damaged: ${name}`, async () => {
    const { names, error } = await listed(disc({ folder: [made, rest], ...(change ? { change } : {}) }))
    assert.deepEqual(names, ['last'])
    assert.match(error, says)
  })
}

const brokenRecords: readonly [name: string, at: number, value: number, says: RegExp][] = [
  ['of 1 byte', 0, 1, /its length is 1/],
  ['with a name longer than itself', 32, 200, /identifier is 200/],
  ['without a name', 32, 0, /identifier is 0/],
]
for (const [name, at, value, says] of brokenRecords) {
  test(`what comes before can be read: a record ${name}`, async () => {
    const made = record({ id: 'A', block: FILE, rock: [nameOf('a')] })
    made[at] = value
    const first = record({ id: 'FIRST', block: FILE, rock: [nameOf('first')] })
    const { names, error } = await listed(disc({ folder: [first, made] }))
    assert.deepEqual(names, ['first'])
    assert.match(error, says)
  })
}

test('a file of several extents is one', async () => {
  const parts = [
    record({ id: 'BIG', block: FILE, bytes: SECTOR, flags: 0x80, rock: [nameOf('big')] }),
    record({ id: 'BIG', block: FILE + 1, bytes: 100, rock: [nameOf('big')] }),
  ]
  const tree = await opened(
    disc({ folder: [...parts, rest], change: (bytes) => bytes.fill(7, (FILE + 1) * SECTOR, AREA * SECTOR) }),
  )
  const data = (await tree.read('/folder/big', 10_000))!
  assert.equal(data.length, SECTOR + 100)
  assert.deepEqual([data[0], data[SECTOR - 1], data[SECTOR], data.at(-1)], [0x68, 0, 7, 7])
  assert.deepEqual(
    (await Array.fromAsync(tree.list('/folder'))).map(({ name }) => name),
    ['big', 'last'],
  )
  const endless = disc({ folder: Array.from({ length: 30 }, () => record({ id: 'A', block: FILE, flags: 0x80 })) })
  await assert.rejects((await opened(endless)).read('/folder/a', 100), { code: 'invalid-image' })
})

test('what is packed, sparse or interleaved is named and not read', async () => {
  const packed = record({ id: 'A', block: FILE, rock: [nameOf('a'), entry('ZF', 0x70, 0x7a, 4, 15, ...both(99))] })
  const sparse = record({ id: 'B', block: FILE, rock: [nameOf('b'), entry('SF', ...both(0), ...both(9), 1)] })
  const parted = record({ id: 'C', block: FILE, rock: [nameOf('c')] })
  parted[26] = 1
  const tree = await opened(disc({ folder: [packed, sparse, parted] }))
  assert.equal((await tree.find('/folder/a'))!.node.bytes, 99)
  for (const [name, says] of [
    ['a', /packed \(ZF, "pz"\)/],
    ['b', /SF/],
    ['c', /interleaved/],
  ] as const) {
    await assert.rejects(tree.read(`/folder/${name}`, SECTOR), { code: 'unsupported', message: says })
  }
})

function withCatalog(entries: readonly (readonly number[])[]): Uint8Array {
  return disc({
    change(bytes, view) {
      bytes.copyWithin(18 * SECTOR, 17 * SECTOR, 18 * SECTOR)
      bytes.set([0, ...Buffer.from('CD001'), 1, ...Buffer.from('EL TORITO SPECIFICATION')], 17 * SECTOR)
      bytes.fill(0, 17 * SECTOR + 30, 17 * SECTOR + 71)
      view.setUint32(17 * SECTOR + 71, CATALOG, true)
      for (const [index, each] of entries.entries()) bytes.set(each, CATALOG * SECTOR + index * 32)
    },
  })
}
const validation = [1, 0, ...new Array<number>(26).fill(0), 0xaa, 0x55, 0x55, 0xaa]
const bootEntry = [0x88, 0, 0, 0, 0, 0, 4, 0, 25, 0, 0, 0]

test('a boot catalogue that says more than it has', async () => {
  const images = await bootImages(bytesSource(withCatalog([validation, bootEntry, [0x91, 0xef, 0xff, 0xff], bootEntry])))
  assert.ok(images.length > 2 && images.length <= 1024)
  assert.deepEqual(images[1], { platform: 0xef, isBootable: true, emulation: 'none', offset: 25 * SECTOR, bytes: 2048 })
  assert.deepEqual(await bootImages(bytesSource(disc())), [])
  const broken = withCatalog([validation.with(28, 0xab), bootEntry])
  await assert.rejects(bootImages(bytesSource(broken)), { code: 'invalid-image', message: /validation entry/ })
})

test('a disc that is one of UDF as well says so', async () => {
  const change = (bytes: Uint8Array) => {
    bytes.set([0, ...Buffer.from('BEA01'), 1], 18 * SECTOR)
    bytes.set([0, ...Buffer.from('NSR02'), 1], 19 * SECTOR)
  }
  assert.match((await opened(disc({ change }))).root.notes.join(), /UDF/)
  assert.deepEqual((await opened(disc())).root.notes, [])
})
