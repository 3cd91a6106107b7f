import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { readFile, truncate } from 'node:fs/promises'
import { before, test } from 'node:test'
import { ServiceError } from '../../src/base/errors.ts'
import { MiB } from '../../src/base/units.ts'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import { btrfs } from '../../src/disk/guest/filesystems/btrfs/btrfs.ts'
import type { FileSystem } from '../../src/disk/guest/filesystems/file-system.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { fillAged } from './aged-tree.ts'
import { assertSameFacts, factsOf } from './same-as-mounted.ts'
import { cannotMount, mounted, newVolume } from './volumes.ts'

const NODE_BYTES = 4096
const SUPERBLOCK = 65_536
const HEADER_BYTES = 101
const SYSTEM_CHUNK = SUPERBLOCK + 811 + 17
const skip = cannotMount('mkfs.btrfs')

/** One whose checksums are not looked at, so that what is changed in it is what is met. */
let volume = Buffer.alloc(0)
before(async () => {
  if (skip) return
  await using made = await newVolume(128 * MiB, [
    'mkfs.btrfs',
    '-q',
    '-M',
    '-n',
    '4096',
    '--csum',
    'xxhash',
    '-m',
    'single',
    '-d',
    'single',
  ])
  await mounted(made.path, 'compress-force=lzo', (root) => {
    writeFileSync(`${root}/whole`, 'as it was')
    writeFileSync(`${root}/inline`, 'packed, and small enough. '.repeat(20))
    writeFileSync(`${root}/packed`, 'packed, and not small. '.repeat(5000))
    mkdirSync(`${root}/many`)
    for (let index = 0; index < 200; index += 1) writeFileSync(`${root}/many/${index}`, '')
    execFileSync('btrfs', ['subvolume', 'create', `${root}/inner`], { stdio: 'ignore' })
  })
  volume = await readFile(made.path)
  volume.fill(0, 64 * MiB, 64 * MiB + NODE_BYTES) // the copy of the superblock, which would be taken
  leaves = leavesOf(volume)
})

type Poke = readonly [at: number, value: number | bigint, bytes: number]

/** Changes the volume until the test has ended. */
function poked(pokes: readonly Poke[]): Disposable & { open(): Promise<FileSystem | undefined> } {
  const undo = pokes.map(([at, value, bytes]) => {
    const before = Buffer.from(volume.subarray(at, at + bytes))
    for (let index = 0; index < bytes; index += 1) volume[at + index] = Number((BigInt(value) >> BigInt(8 * index)) & 0xffn)
    return () => before.copy(volume, at)
  })
  return { open: () => btrfs.open(bytesSource(volume)), [Symbol.dispose]: () => undo.reverse().map((each) => each()) }
}

const superblocks: readonly { readonly name: string; readonly poke: Poke; readonly says: RegExp; readonly code?: string }[] = [
  { name: 'a sys_chunk_array of no bytes', poke: [SUPERBLOCK + 160, 0, 4], says: /sys_chunk_array_size is 0/ },
  { name: 'a sys_chunk_array of 2,049 bytes', poke: [SUPERBLOCK + 160, 2049, 4], says: /sys_chunk_array_size is 2049/ },
  { name: 'a sys_chunk_array that ends in a chunk', poke: [SUPERBLOCK + 160, 50, 4], says: /cut off/ },
  { name: 'a chunk of no stripes', poke: [SYSTEM_CHUNK + 44, 0, 2], says: /num_stripes is 0/ },
  { name: 'a chunk of 65,535 stripes', poke: [SYSTEM_CHUNK + 44, 65_535, 2], says: /num_stripes is 65535/ },
  { name: 'a chunk of 2^63 bytes', poke: [SYSTEM_CHUNK, 2n ** 63n, 8], says: /2\^53/ },
  { name: 'a stripe beyond the device', poke: [SYSTEM_CHUNK + 56, 2 ** 40, 8], says: /the device has/ },
  { name: 'a stripe of another device', poke: [SYSTEM_CHUNK + 48, 7, 8], says: /device 7/ },
  { name: 'a chunk of RAID 6', poke: [SYSTEM_CHUNK + 24, 0x102, 8], says: /raid6/, code: 'unsupported' },
  { name: 'a chunk tree in no chunk', poke: [SUPERBLOCK + 88, 2 ** 45, 8], says: /in no chunk/ },
  { name: 'a chunk tree inside a sector', poke: [SUPERBLOCK + 88, 4097, 8], says: /inside a sector/ },
  { name: 'a root tree at 2^63', poke: [SUPERBLOCK + 80, 2n ** 63n, 8], says: /2\^53/ },
  { name: 'a root tree of level 8', poke: [SUPERBLOCK + 198, 8, 1], says: /level 8/ },
  { name: 'a root tree of another level', poke: [SUPERBLOCK + 198, 5, 1], says: /level 1 .* 5/ },
  { name: 'a root tree of another generation', poke: [SUPERBLOCK + 72, 2, 8], says: /generation/ },
  { name: 'nodes of 3 bytes', poke: [SUPERBLOCK + 148, 3, 4], says: /nodesize is 3/ },
  { name: 'nodes of 2^31 bytes', poke: [SUPERBLOCK + 148, 2 ** 31, 4], says: /nodesize is 2147483648/ },
  { name: 'sectors of no bytes', poke: [SUPERBLOCK + 144, 0, 4], says: /sectorsize is 0/ },
  { name: 'more that is used than there is', poke: [SUPERBLOCK + 120, 2 ** 50, 8], says: /bytes_used/ },
  { name: 'no device', poke: [SUPERBLOCK + 136, 0, 8], says: /num_devices is 0/ },
  { name: 'three devices', poke: [SUPERBLOCK + 136, 3, 8], says: /3 devices, of which 2 are missing/, code: 'unsupported' },
  { name: 'an unknown checksum', poke: [SUPERBLOCK + 196, 9, 2], says: /csum_type is 9/, code: 'unsupported' },
  { name: 'zones', poke: [SUPERBLOCK + 189, 0x10, 1], says: /zoned/, code: 'unsupported' },
  { name: 'the second extent tree', poke: [SUPERBLOCK + 189, 0x20, 1], says: /extent-tree-v2/, code: 'unsupported' },
  { name: 'a stripe tree', poke: [SUPERBLOCK + 189, 0x40, 1], says: /raid-stripe-tree/, code: 'unsupported' },
  { name: 'an unknown feature', poke: [SUPERBLOCK + 195, 0x80, 1], says: /0x8000000000000/, code: 'unsupported' },
  { name: 'a dump of metadata', poke: [SUPERBLOCK + 60, 2, 1], says: /dump/, code: 'unsupported' },
  { name: 'a change of its id', poke: [SUPERBLOCK + 60, 8, 1], says: /flags has/, code: 'unsupported' },
]
for (const { name, poke, says, code = 'invalid-image' } of superblocks) {
  test(`btrfs refuses ${name}`, { skip }, async () => {
    using changed = poked([poke])
    await assert.rejects(
      changed.open(),
      (error) => error instanceof ServiceError && error.code === code && says.test(error.message),
    )
  })
}

interface Place {
  /** Byte of the volume where the node is. */
  readonly node: number
  /** Where the item's entry in the node is, and its bytes. */
  readonly entry: number
  readonly data: number
}

let leaves: readonly number[] = []
function leavesOf(bytes: Buffer, level = 0): number[] {
  const fsid = bytes.subarray(SUPERBLOCK + 32, SUPERBLOCK + 48)
  const found: number[] = []
  for (let node = 0; node < bytes.length; node += NODE_BYTES) {
    const isNode = node !== SUPERBLOCK && node !== 64 * MiB && bytes.subarray(node + 32, node + 48).equals(fsid)
    if (isNode && bytes[node + 100] === level) found.push(node)
  }
  return found
}

/** Of every leaf that has such an item, old ones and new ones. */
function pokesOf(type: number, matches: (data: Buffer) => boolean, pokes: (place: Place) => readonly Poke[]): readonly Poke[] {
  const found: Poke[] = []
  for (const node of leaves) {
    for (let index = 0; index < volume.readUInt32LE(node + 96); index += 1) {
      const entry = node + HEADER_BYTES + index * 25
      const data = node + HEADER_BYTES + volume.readUInt32LE(entry + 17)
      if (volume[entry + 8] !== type || !matches(volume.subarray(data, data + volume.readUInt32LE(entry + 21)))) continue
      found.push(...pokes({ node, entry, data }))
    }
  }
  assert.ok(found.length > 0)
  return found
}
const named = (name: string) => (data: Buffer) => data.subarray(30, 30 + name.length).toString() === name
const TYPE = { directoryItem: 84, directoryIndex: 96, extent: 108, root: 132 } as const

/** What can still be read is read: `whole`, whatever is wrong with the others. */
const items: readonly { readonly name: string; readonly path: string; readonly says: RegExp; poke(): readonly Poke[] }[] = [
  {
    name: 'an inline extent of 2^63 bytes',
    path: '/inline',
    says: /ram_bytes/,
    poke: () => inInline(8, 2n ** 63n, 8),
  },
  {
    name: 'an inline extent of another compression',
    path: '/inline',
    says: /cannot be unpacked/,
    poke: () => inInline(16, 3, 1),
  },
  { name: 'an unknown compression', path: '/packed', says: /compression is 9/, poke: () => inPacked(16, 9, 1) },
  { name: 'encryption', path: '/packed', says: /encrypted/, poke: () => inPacked(17, 1, 1) },
  { name: 'an unknown kind of extent', path: '/packed', says: /type is 7/, poke: () => inPacked(20, 7, 1) },
  {
    name: 'a packed extent of 1 TiB',
    path: '/packed',
    says: /packs at most/,
    poke: () => inPacked(8, 2 ** 40, 8),
  },
  {
    name: 'a stretch that goes on behind its extent',
    path: '/packed',
    says: /ram_bytes/,
    poke: () => inPacked(45, 2 ** 40, 8),
  },
  { name: 'an extent in no chunk', path: '/packed', says: /in no chunk/, poke: () => inPacked(21, 2 ** 45, 8) },
  { name: 'a segment of no bytes', path: '/packed', says: /cannot be unpacked/, poke: () => inStream(4, 0) },
  {
    name: 'a segment of 2^32 − 1 bytes',
    path: '/packed',
    says: /cannot be unpacked/,
    poke: () => inStream(4, 2 ** 32 - 1),
  },
  {
    name: 'a packed length of 2^32 − 1 bytes',
    path: '/packed',
    says: /cannot be unpacked/,
    poke: () => inStream(0, 2 ** 32 - 1),
  },
]
const inInline = (at: number, value: number | bigint, bytes: number) =>
  pokesOf(
    TYPE.extent,
    (data) => data[20] === 0 && data[16] === 2 && data.length > 50,
    ({ data }) => [[data + at, value, bytes]],
  )
const inPacked = (at: number, value: number | bigint, bytes: number) =>
  pokesOf(
    TYPE.extent,
    (data) => data[20] === 1 && data[16] === 2,
    ({ data }) => [[data + at, value, bytes]],
  )
/** Of what the file is packed into; its first four bytes are the length of all. */
function inStream(at: number, value: number): readonly Poke[] {
  const found: Poke[] = []
  for (let block = 0; block < volume.length; block += NODE_BYTES) {
    if (volume.readUInt32LE(block) < 8192 && volume.subarray(block + 8, block + 60).includes('packed, and not'))
      found.push([block + at, value, 4])
  }
  assert.ok(found.length > 0)
  return found
}
for (const { name, path, says, poke } of items) {
  test(`btrfs says of ${name} which file it is in, and reads the others`, { skip }, async () => {
    using changed = poked(poke())
    const tree = new FileTree((await changed.open())!)
    await assert.rejects(
      tree.read(path, MiB),
      (error) => error instanceof ServiceError && error.code === 'invalid-image' && says.test(error.message),
    )
    assert.equal(Buffer.from((await tree.read('/whole', 100))!).toString(), 'as it was')
  })
}

const nodes: readonly { readonly name: string; readonly says: RegExp; poke(): readonly Poke[] }[] = [
  { name: 'more items than fit', says: /nritems/, poke: () => inLeaf(({ node }) => [node + 96, 2 ** 32 - 1, 4]) },
  { name: 'an item in the header', says: /item/, poke: () => inLeaf(({ entry }) => [entry + 17, 0, 4]) },
  { name: 'an item beyond the end', says: /item/, poke: () => inLeaf(({ entry }) => [entry + 21, 2 ** 31, 4]) },
  {
    name: 'keys that do not ascend',
    says: /does not ascend|other keys/,
    poke: () => inLeaf(({ entry }) => [entry, 2n ** 64n - 1n, 8]),
  },
  { name: 'another address', says: /bytenr/, poke: () => inLeaf(({ node }) => [node + 48, 4096, 8]) },
  { name: 'another file system', says: /another file system/, poke: () => inLeaf(({ node }) => [node + 32, 4096, 8]) },
  { name: 'level 8', says: /level|nritems|key|points/, poke: () => inLeaf(({ node }) => [node + 100, 8, 1]) },
]
const inLeaf = (poke: (place: Place) => Poke) => pokesOf(TYPE.directoryIndex, named('150'), (place) => [poke(place)])
for (const { name, says, poke } of nodes) {
  test(`btrfs refuses a node with ${name}`, { skip }, async () => {
    using changed = poked(poke())
    const said: string[] = []
    try {
      const tree = new FileTree((await changed.open())!)
      for await (const _ of tree.walk('/', { onDamage: (_, error) => said.push(error.message), maxNodes: 1000 }));
    } catch (error) {
      assert.ok(error instanceof ServiceError, String(error))
      said.push(error.message)
    }
    assert.match(said.join('\n'), says)
  })
}

test('a subvolume in itself, and one that is not there, are empty directories', { skip }, async () => {
  for (const number of [5, 999]) {
    const entries = [TYPE.directoryIndex, TYPE.directoryItem].flatMap((type) =>
      pokesOf(type, named('inner'), ({ data }) => [[data, number, 8]]),
    )
    using changed = poked(entries)
    const tree = new FileTree((await changed.open())!)
    assert.deepEqual(await Array.fromAsync(tree.list('/inner')), [])
    assert.equal((await tree.find('/inner'))?.node.mode, 0o755)
    for await (const _ of tree.walk('/'));
  }
})

test('a default subvolume that is not there is refused', { skip }, async () => {
  for (const [number, says] of [
    [777, /no subvolume 777/],
    [2, /default subvolume is 2/],
  ] as const) {
    using changed = poked(pokesOf(TYPE.directoryItem, named('default'), ({ data }) => [[data, number, 8]]))
    await assert.rejects(changed.open(), says)
  }
})

test('a pointer of a node to the node itself is refused, and what is beside it read', { skip }, async () => {
  const parents = leavesOf(volume, 1).filter((node) => volume.readBigUInt64LE(node + 88) === 5n)
  using changed = poked(
    parents.map((node) => [
      node + HEADER_BYTES + (volume.readUInt32LE(node + 96) - 2) * 33 + 17,
      volume.readBigUInt64LE(node + 48),
      8,
    ]),
  )
  const damaged: string[] = []
  const tree = new FileTree((await changed.open())!)
  for await (const _ of tree.walk('/', { onDamage: (path, { message }) => damaged.push(`${path} ${message}`) }));
  assert.match(damaged.join(), /has level 1/)
  assert.equal(Buffer.from((await tree.read('/whole', 100))!).toString(), 'as it was')
})

test('what others made over a btrfs is no btrfs, though a copy of its superblock is left', { skip }, async () => {
  await using made = await newVolume(128 * MiB, ['mkfs.btrfs', '-q'])
  const bytes = await readFile(made.path)
  assert.ok(await btrfs.open(bytesSource(bytes)))
  bytes.fill(0, SUPERBLOCK, SUPERBLOCK + 4096)
  assert.equal(await btrfs.open(bytesSource(bytes)), undefined)
})

test('a file system of two devices is refused by each of them', { skip }, async () => {
  await using second = await newVolume(128 * MiB, ['true'])
  await using first = await newVolume(128 * MiB, ['mkfs.btrfs', '-q', second.path])
  for (const { path } of [first, second]) {
    await assert.rejects(btrfs.open(bytesSource(await readFile(path))), {
      code: 'unsupported',
      message: /2 devices, of which 1 is missing/,
    })
  }
})

test('damage to one of two copies is not seen', { skip }, async () => {
  await using made = await newVolume(192 * MiB, ['mkfs.btrfs', '-q', '-m', 'dup', '--csum', 'sha256'])
  await mounted(made.path, '', (root) => fillAged(root, { seed: 1, names: 60, maxBytes: 20_000 }))
  const whole = await readFile(made.path)
  const facts = await factsOf((await btrfs.open(bytesSource(whole)))!)
  const fsid = whole.subarray(SUPERBLOCK + 32, SUPERBLOCK + 48)
  for (const isSecond of [false, true]) {
    const changed = Buffer.from(whole)
    const seen = new Map<bigint, number>()
    let count = 0
    for (let at = 0; at < whole.length; at += NODE_BYTES) {
      if (at === SUPERBLOCK || at === 64 * MiB || !whole.subarray(at + 32, at + 48).equals(fsid)) continue
      const address = whole.readBigUInt64LE(at + 48)
      if (seen.has(address) === isSecond) {
        changed.fill(0x5a, at + 200, at + 300)
        count += 1
      }
      seen.set(address, at)
    }
    assert.ok(count > 10)
    const files = (await btrfs.open(bytesSource(changed)))!
    assertSameFacts(await factsOf(files), facts)
  }
  const torn = Buffer.from(whole)
  torn[SUPERBLOCK + 300] = 0x5a
  const files = (await btrfs.open(bytesSource(torn)))!
  assert.match(files.notes.join(), /first superblock is damaged .* byte 67108864 was taken/)
  assertSameFacts(await factsOf(files), facts)
})

test('a volume that was cut off says so, and what is before that is read', { skip }, async () => {
  await using made = await newVolume(192 * MiB, ['mkfs.btrfs', '-q', '-m', 'single'])
  await mounted(made.path, '', (root) => writeFileSync(`${root}/file`, 'x'.repeat(10)))
  await truncate(made.path, 100 * MiB)
  const files = (await btrfs.open(bytesSource(await readFile(made.path))))!
  assert.match(files.notes.join(), /it was cut off/)
  assert.equal(Buffer.from((await new FileTree(files).read('/file', 100))!).toString(), 'x'.repeat(10))
})

test('a log that cannot be replayed is not passed over in silence, and what was committed is read', { skip }, async () => {
  await using made = await newVolume(192 * MiB, ['mkfs.btrfs', '-q', '--csum', 'xxhash'])
  const copy = `${made.path}.crashed`
  await mounted(made.path, 'commit=300', (root) => {
    writeFileSync(`${root}/old`, 'old')
    execFileSync('sync', ['-f', root])
    writeFileSync(`${root}/new`, 'new')
    execFileSync('sync', [`${root}/new`])
    copyFileSync(made.path, copy)
  })
  const bytes = await readFile(copy)
  const whole = (await btrfs.open(bytesSource(bytes)))!
  assert.match(whole.notes.join(), /its log of what was synced last, of one subvolume, is read as if replayed/)
  assert.equal(Buffer.from((await new FileTree(whole).read('/new', 100))!).toString(), 'new')
  for (const [at, value] of [
    [SUPERBLOCK + 97, 255],
    [SUPERBLOCK + 101, 255],
    [SUPERBLOCK + 200, 3],
  ] as const) {
    const changed = Buffer.from(bytes)
    changed[at] = value
    const files = (await btrfs.open(bytesSource(changed)))!
    assert.match(
      files.notes.join(),
      /its log of what was synced last could not be read \(.*\): files that were just written may be missing or old/,
    )
    assert.equal(Buffer.from((await new FileTree(files).read('/old', 100))!).toString(), 'old')
    assert.equal(await files.find(files.root, 'new'), undefined)
  }
})
