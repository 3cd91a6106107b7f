import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { lacking, run } from '../../../../test/fixtures/disk/tools.ts'
import { isServiceError } from '../../../base/errors.ts'
import { GiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { bytesSource } from '../../block/memory-source.ts'
import { type SmallMember, smallTar, smallZip } from '../archives/small-archives.suite.ts'
import { descriptor, ova, smallOva } from '../ova/small-packages.suite.ts'
import { type InsideOptions, lookInside, type Seen } from './look-inside.ts'

/** A disk is what begins with "QFI", here; wrappers by their magic. */
async function recognise(file: BlockSource): Promise<Seen> {
  const head = Buffer.from(await file.read(0, Math.min(512, file.size)))
  const is = (at: number, text: string) => head.subarray(at, at + text.length).toString('latin1') === text
  const isTar = is(257, 'ustar')
  const isOva = isTar && /^[^\0]*\.ovf\0/.test(head.toString('latin1'))
  const all: [string, string, boolean][] = [
    ['qcow2', 'disk', is(0, 'QFI')],
    ['gzip', 'wrapper', is(0, '\x1f\x8b\x08')],
    ['zstd', 'wrapper', is(0, '\x28\xb5\x2f\xfd')],
    ['xz', 'wrapper', is(0, '\xfd7zXZ\0')],
    ['bzip2', 'wrapper', is(0, 'BZh9')],
    ['7z', 'wrapper', is(0, '7z\xbc\xaf')],
    ['lz4', 'wrapper', is(0, '\x04\x22\x4d\x18')],
    ['zip', 'wrapper', is(0, 'PK\x03\x04')],
    ['ova', 'wrapper', isOva],
    ['tar', 'wrapper', isTar && !isOva],
  ]
  return { found: all.filter(([, , isThere]) => isThere).map(([name, kind]) => ({ name, kind })) }
}

/** Files that are open: what is kept, and the outermost. */
const opened = new Set<BlockSource>()
function counted(bytes: Uint8Array): BlockSource {
  const source: BlockSource = {
    ...bytesSource(bytes),
    async close() {
      assert.ok(opened.delete(source), 'closed twice')
    },
  }
  opened.add(source)
  return source
}
const keep: InsideOptions['keep'] = async (bytes) => counted(Buffer.concat(await Array.fromAsync(bytes)))
const usual = { recognise, keep, maxBytes: GiB, choosing: '--member NAME' }

/** What lies inside, all of it read, and everything closed. */
async function inside(bytes: Uint8Array, options: Partial<InsideOptions> = {}) {
  const outermost = counted(bytes)
  try {
    const { file, parts, layers, appliance, declaredFormat } = await lookInside(outermost, { ...usual, ...options })
    const all = Buffer.from(await file.read(0, file.size))
    const partTexts: Record<string, string> = {}
    for (const [name, part] of parts ?? []) partTexts[name] = Buffer.from(await part.read(0, part.size)).toString()
    const keptFiles = opened.size - 1
    await file.close()
    return {
      all,
      parts: partTexts,
      layers: layers.map(({ kind, member }) => (member === undefined ? kind : `${kind}:${member}`)),
      keptFiles,
      machine: appliance?.name,
      declaredFormat,
    }
  } catch (error) {
    await outermost.close()
    throw error
  } finally {
    assert.equal(opened.size, 0, 'something is left open')
  }
}

const DISK = `QFI${'the disk '.repeat(2000)}`
const one: readonly SmallMember[] = [{ name: 'dir/disk.qcow2', body: DISK }]
const withText: readonly SmallMember[] = [
  { name: 'README', body: 'read me' },
  { name: '__MACOSX/._disk.raw', body: 'junk' },
  ...one,
]

const honest: readonly {
  readonly name: string
  readonly bytes: () => Uint8Array
  readonly layers: readonly string[]
  readonly keptFiles: number
}[] = [
  { name: 'a disk in nothing', bytes: () => Buffer.from(DISK), layers: [], keptFiles: 0 },
  { name: 'gzip', bytes: () => gzipSync(DISK), layers: ['gzip'], keptFiles: 1 },
  { name: 'tar', bytes: () => smallTar(withText), layers: ['tar:dir/disk.qcow2'], keptFiles: 0 },
  { name: 'zip, stored', bytes: () => smallZip(withText), layers: ['zip:dir/disk.qcow2'], keptFiles: 0 },
  { name: 'zip, deflated', bytes: () => smallZip(withText, { method: 8 }), layers: ['zip:dir/disk.qcow2'], keptFiles: 1 },
  { name: 'tar.gz', bytes: () => gzipSync(smallTar(withText)), layers: ['gzip', 'tar:dir/disk.qcow2'], keptFiles: 1 },
  {
    name: 'a disk whose name says nothing, known by its bytes',
    bytes: () =>
      smallTar([
        { name: 'a', body: 'text' },
        { name: 'b', body: DISK },
      ]),
    layers: ['tar:b'],
    keptFiles: 0,
  },
  {
    name: 'the same, packed',
    bytes: () =>
      smallZip(
        [
          { name: 'a', body: 'text' },
          { name: 'b', body: DISK },
        ],
        { method: 8 },
      ),
    layers: ['zip:b'],
    keptFiles: 1,
  },
  {
    name: 'compression inside and outside of an archive: what was read is let go',
    bytes: () => zstdCompressSync(smallTar([{ name: 'disk.raw.gz', body: gzipSync(DISK) }])),
    layers: ['zstd', 'tar:disk.raw.gz', 'gzip'],
    keptFiles: 1,
  },
  {
    name: 'the only member, whatever it is called',
    bytes: () => smallTar([{ name: 'x', body: DISK }]),
    layers: ['tar:x'],
    keptFiles: 0,
  },
]
for (const { name, bytes, layers, keptFiles } of honest) {
  test(`${name}: the disk is found`, async () => {
    const found = await inside(bytes())
    assert.equal(found.all.toString(), DISK)
    assert.deepEqual([found.layers, found.keptFiles], [layers, keptFiles])
  })
}

const VMDK_TEXT = `# Disk DescriptorFile
createType="twoGbMaxExtentFlat"
RW 4 FLAT "disk-f001.vmdk" 0
RW 4 FLAT "disk-f002.vmdk" 0
`
const split: readonly SmallMember[] = [
  { name: 'vm/disk-f001.vmdk', body: 'first' },
  { name: 'vm/disk-f002.vmdk', body: 'second' },
  { name: 'vm/disk.vmdk', body: VMDK_TEXT },
  { name: 'disk-f001.vmdk.txt', body: 'another' },
]
for (const [name, bytes, keptFiles] of [
  ['in a tar', smallTar(split), 0],
  ['packed in a zip', smallZip(split, { method: 8 }), 1],
] as const) {
  test(`the extents that a VMDK descriptor names are its parts, ${name}`, async () => {
    const found = await inside(bytes)
    assert.equal(found.all.toString(), VMDK_TEXT)
    assert.deepEqual(found.parts, { 'disk-f001.vmdk': 'first', 'disk-f002.vmdk': 'second' })
    assert.equal(found.keptFiles, keptFiles)
  })
}

test('of several disks one is chosen, by its name or the end of it, also in an archive that is inside another', async () => {
  const two = smallTar([
    { name: 'x/a.raw', body: 'QFIa' },
    { name: 'x/b.raw', body: 'QFIb' },
  ])
  await assert.rejects(inside(two), {
    code: 'invalid-image',
    details: { reason: 'several-disks', format: 'tar', disks: 2, members: '"x/a.raw", "x/b.raw"' },
    message: /choose one with --member NAME/,
  })
  for (const member of ['x/b.raw', 'b.raw']) assert.equal((await inside(two, { member })).all.toString(), 'QFIb')
  const wrapped = gzipSync(smallTar([{ name: 'two.tar', body: two }]))
  assert.equal((await inside(wrapped, { member: 'a.raw' })).all.toString(), 'QFIa')
  await assert.rejects(inside(two, { member: 'c.raw' }), {
    code: 'not-found',
    message: /has no member "c.raw"; it has "x\/a.raw"/,
  })
  await assert.rejects(inside(gzipSync(DISK), { member: 'c.raw' }), { code: 'invalid-request', message: /the file is none/ })
})

test('an OVA is its disk, with what its descriptor says', async () => {
  const found = await inside(gzipSync(smallOva()))
  assert.equal(found.all.toString(), 'the disk.')
  assert.deepEqual(found.layers, ['gzip', 'ova:box-disk1.vmdk'])
  assert.deepEqual([found.machine, found.declaredFormat], ['R&D Box', 'vmdk'])
  const zipped = smallZip(
    [
      { name: 'box/box.ovf', body: descriptor() },
      { name: 'box/box-disk1.vmdk', body: 'the disk.' },
    ],
    { method: 8 },
  )
  const inZip = await inside(zipped)
  assert.deepEqual([inZip.layers, inZip.all.toString()], [['zip', 'ovf:box-disk1.vmdk'], 'the disk.'])
})

test('of the disks of an OVA one is chosen by its file or its id', async () => {
  const file = (n: number) => `<File ovf:href="d${n}.vmdk" ovf:id="f${n}"/>`
  const disk = (n: number) => `<Disk ovf:capacity="10" ovf:diskId="id${n}" ovf:fileRef="f${n}" ovf:format="x"/>`
  const text = descriptor({ files: file(1) + file(2), disks: disk(1) + disk(2), items: ' ' })
  const bytes = ova({ 'box.ovf': text, 'd1.vmdk': 'one', 'd2.vmdk': 'two' })
  await assert.rejects(inside(bytes), { code: 'invalid-image', message: /the package holds 2 disks, "d1.vmdk", "d2.vmdk"/ })
  assert.equal((await inside(bytes, { member: 'd2.vmdk' })).all.toString(), 'two')
  assert.equal((await inside(bytes, { member: 'id1' })).all.toString(), 'one')
})

const nested = (layers: number): Uint8Array => {
  let bytes: Uint8Array = Buffer.from(DISK)
  for (let index = 0; index < layers; index += 1)
    bytes = index % 2 === 0 ? gzipSync(bytes) : smallTar([{ name: 'disk.raw.gz', body: bytes }])
  return bytes
}
const zeros = Buffer.alloc(40 * MiB)
const refused: readonly {
  readonly name: string
  readonly bytes: () => Uint8Array
  readonly reason: string
  readonly says: RegExp
}[] = [
  { name: 'five layers', bytes: () => nested(5), reason: 'nested', says: /more than 4 layers/ },
  { name: 'gzip in gzip', bytes: () => gzipSync(gzipSync(DISK)), reason: 'nested', says: /twice/ },
  {
    name: 'no disk',
    bytes: () =>
      smallTar([
        { name: 'a', body: 'x' },
        { name: 'b', body: 'y' },
      ]),
    reason: 'no-disk',
    says: /holds no disk; it holds "a", "b"/,
  },
  {
    name: 'an empty archive',
    bytes: () => Buffer.concat([smallTar([{ name: 'd/', type: '5', body: '' }])]),
    reason: 'no-disk',
    says: /it holds nothing/,
  },
  {
    name: 'a name that leads elsewhere',
    bytes: () => smallTar([{ name: '../disk.raw', body: 'x' }]),
    reason: 'hostile-name',
    says: /leads elsewhere/,
  },
  { name: '7z', bytes: () => Buffer.from('7z\xbc\xaf\x27\x1c', 'latin1'), reason: 'unsupported', says: /packed by 7z/ },
  { name: 'lz4', bytes: () => Buffer.from('\x04\x22\x4d\x18', 'latin1'), reason: 'unsupported', says: /packed by lz4/ },
  {
    name: 'a zip that is a tar as well',
    bytes: () => Buffer.concat([Buffer.from('PK\x03\x04'), smallTar(one).subarray(4)]),
    reason: 'multiple-formats',
    says: /zip, tar at once/,
  },
]
for (const { name, bytes, reason, says } of refused) {
  test(`${name}: refused, and nothing is left open`, async () => {
    await assert.rejects(inside(bytes()), (error) => {
      assert.ok(isServiceError(error), String(error))
      assert.equal(error.details.reason, reason)
      assert.match(error.message, says)
      return true
    })
  })
}

test('a bomb in two parts, each of which is small enough: refused', async () => {
  const zeros = Buffer.alloc(150 * MiB)
  const bomb = smallZip([...split.slice(2), ...split.slice(0, 2).map(({ name }) => ({ name, body: zeros }))], { method: 8 })
  const outermost = bytesSource(bomb)
  const forgotten: InsideOptions['keep'] = async (bytes) => {
    for await (const _ of bytes);
    return bytesSource(new Uint8Array())
  }
  await assert.rejects(lookInside(outermost, { ...usual, keep: forgotten }), {
    code: 'invalid-image',
    message: /more than 250 times as much/,
  })
})

test('what is kept of all layers together has a limit', async () => {
  await assert.rejects(inside(gzipSync(zeros), { maxBytes: 39 * MiB }), { code: 'too-large', details: { maxBytes: 39 * MiB } })
  const twice = gzipSync(smallTar([{ name: 'a.raw.gz', body: gzipSync(randomBytes(3 * MiB)) }]))
  await assert.rejects(inside(twice, { maxBytes: 5 * MiB }), { code: 'too-large' })
  await inside(twice, { maxBytes: 7 * MiB })
})

test('a disk format that is a wrapper as well is left as it is: whoever recognises it refuses it', async () => {
  const bytes = Buffer.from(smallTar(one))
  bytes.write('QFI')
  assert.deepEqual((await inside(bytes)).layers, [])
})

test('cancelled in the middle, nothing is left open', async () => {
  await assert.rejects(inside(gzipSync(DISK), { signal: AbortSignal.abort() }), { code: 'cancelled' })
})

let folder = ''
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inside-'))
})
after(() => rm(folder, { recursive: true, force: true }))
const packings: readonly [string, readonly string[], readonly string[]][] = [
  ['tar -cJf', ['sh', 'tar', 'xz'], ['xz', 'tar:sub/disk.raw']],
  ['tar -cjf', ['sh', 'tar', 'bzip2'], ['bzip2', 'tar:sub/disk.raw']],
  ['tar --zstd -cf', ['sh', 'tar', 'zstd'], ['zstd', 'tar:sub/disk.raw']],
  ['tar --format=posix -czf', ['sh', 'tar', 'gzip'], ['gzip', 'tar:sub/disk.raw']],
  ['zip -qr', ['sh', 'zip'], ['zip:sub/disk.raw']],
  ['zip -q0r', ['sh', 'zip'], ['zip:sub/disk.raw']],
]
for (const [index, [line, tools, layers]] of packings.entries()) {
  test(`${line}: what the system's own tool packs is found`, { skip: lacking(...tools) }, async () => {
    const disk = Buffer.concat([Buffer.from('QFI'), randomBytes(300_000), Buffer.alloc(700_000), randomBytes(9)])
    const path = join(folder, String(index), 'sub', 'disk.raw')
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, disk)
    await writeFile(join(dirname(path), 'notes.txt'), 'notes')
    await run('sh', '-c', `cd "$1" && ${line} packed sub && mv packed* packed.file`, 'sh', dirname(dirname(path)))
    const found = await inside(await readFile(join(dirname(dirname(path)), 'packed.file')))
    assert.deepEqual(found.layers, layers)
    assert.ok(found.all.equals(disk))
  })
}
