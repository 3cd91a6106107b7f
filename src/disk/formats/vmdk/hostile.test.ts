/** The catalogue of hostile images, VMDK: each case is a small good file with a few bytes changed. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deflateSync } from 'node:zlib'
import { poked } from '../../../../test/fixtures/disk/poked.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { bytesSource, memorySource } from '../../block/memory-source.ts'
import type { OpenOptions } from '../format-driver.ts'
import { recognise } from '../recognise/recognise.ts'
import { verifyDeclared } from '../recognise/verify.ts'
import { packDisk } from './pack.ts'
import { vmdk } from './vmdk.ts'
import { wrapDisk } from './wrap.ts'

const MiB = 1024 * 1024
const SECTOR = 512
/** Of a wrapped disk of 65 MiB: two directories of one sector, three tables of four sectors behind each. */
const REDUNDANT = 21
const DIRECTORY = 34
const TABLES = DIRECTORY + 1
const FIRST_GRAIN = 128

const disk = memorySource(65 * MiB, [
  { offset: 0, bytes: new Uint8Array(2 * 65536).fill(1) },
  { offset: 40 * MiB, bytes: new Uint8Array(65536).fill(2) },
])
const wrapped = await wrapDisk(disk)
const sparse = await wrapped.read(0, wrapped.size)
const stream = new Uint8Array(Buffer.concat(await Array.fromAsync(packDisk(disk))))
const STREAM_FOOTER = stream.length - 2 * SECTOR

const textOf = (file: Uint8Array): string =>
  Buffer.from(file.subarray(SECTOR, 21 * SECTOR))
    .toString('latin1')
    .replace(/\0+$/, '')
const withText = (text: string | Uint8Array): Uint8Array => {
  const padded = new Uint8Array(20 * SECTOR)
  padded.set(typeof text === 'string' ? Buffer.from(text, 'latin1') : text)
  return poked(sparse, true, [SECTOR, padded])
}
const changed = (from: string | RegExp, to: string): Uint8Array => {
  const text = textOf(sparse)
  assert.notEqual(text.replace(from, to), text)
  return withText(text.replace(from, to))
}
const descriptor = (extents: string, createType = 'monolithicFlat'): Uint8Array =>
  Buffer.from(`# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="${createType}"\n\n${extents}\n`)

interface Case {
  readonly name: string
  readonly file: Uint8Array | BlockSource
  readonly reason: string
  readonly says: RegExp
  readonly given?: OpenOptions
  /** Where only the tables, or the data, say it. */
  readonly seenBy?: 'audit' | 'read'
}
const parts = new Map([
  ['a.vmdk', bytesSource(sparse)],
  ['b.vmdk', bytesSource(new Uint8Array(4096))],
])
const header = (
  name: string,
  offset: number,
  width: 1 | 2 | 4 | 8,
  value: number | bigint,
  says: RegExp,
  reason = 'malformed',
): Case => ({
  name: `${name} ${value}`,
  file: poked(sparse, true, [offset, width, value]),
  reason,
  says,
})
const footer = (name: string, offset: number, width: 1 | 2 | 4 | 8, value: number | bigint, says: RegExp): Case => ({
  name: `a footer with ${name} ${value}`,
  file: poked(stream, true, [STREAM_FOOTER + offset, width, value]),
  reason: 'malformed',
  says,
})
/** Bytes of the first grain's marker in the stream: LBA, size, zlib stream. */
const grain = (name: string, says: RegExp, ...pokes: Parameters<typeof poked>[2][]): Case => ({
  name,
  file: poked(stream, true, ...pokes.map(([at, ...rest]) => [FIRST_GRAIN * SECTOR + at, ...rest] as Parameters<typeof poked>[2])),
  reason: 'malformed',
  says,
  seenBy: 'read',
})
const bomb = deflateSync(new Uint8Array(65536 + 1))
const short = deflateSync(new Uint8Array(1000))

const external = /never/
const cases: readonly Case[] = [
  ...[
    '/etc/passwd',
    '../x',
    '..\\x',
    'C:\\x',
    '\\\\host\\share',
    'nbd:x',
    'json:{}',
    'a/b.vmdk',
    '..',
    '',
    'x'.repeat(300),
    'a\x01b',
  ].map(
    (name): Case => ({
      name: `1, 2: a flat extent "${name.slice(0, 20)}"`,
      file: descriptor(`RW 8 FLAT "${name}" 0`),
      reason: 'external-reference',
      says: external,
      given: { parts: new Map([[name, bytesSource(new Uint8Array(4096))]]) },
    }),
  ),
  {
    name: '2: a sibling that is not given',
    file: descriptor('RW 8 FLAT "x.vmdk" 0'),
    reason: 'external-reference',
    says: /"x\.vmdk" must be given/,
  },
  {
    name: '2: a name in another case',
    file: descriptor('RW 8 FLAT "B.vmdk" 0'),
    reason: 'external-reference',
    says: /must be given/,
    given: { parts },
  },
  {
    name: '2: one name twice',
    file: descriptor('RW 8 FLAT "b.vmdk" 0\nRW 8 FLAT "b.vmdk" 0'),
    reason: 'malformed',
    says: /for two extents/,
    given: { parts },
  },
  {
    name: '2: a part too short',
    file: descriptor('RW 9 FLAT "b.vmdk" 0'),
    reason: 'truncated',
    says: /ends before its extent/,
    given: { parts },
  },
  {
    name: '2: an offset beyond a part',
    file: descriptor('RW 1 FLAT "b.vmdk" 8'),
    reason: 'truncated',
    says: /ends before its extent/,
    given: { parts },
  },
  {
    name: '2: 2^53 bytes',
    file: descriptor('RW 9999999999999999 ZERO\nRW 8 FLAT "b.vmdk" 0'),
    reason: 'malformed',
    says: /2\^53/,
    given: { parts },
  },
  { name: '2: a quote in a name', file: descriptor('RW 8 FLAT "a"b" 0'), reason: 'malformed', says: /line 7 .* no extent/ },
  { name: '2: no file', file: descriptor('RW 8 FLAT'), reason: 'malformed', says: /lacks its file/ },
  { name: '2: no offset', file: descriptor('RW 8 FLAT "b.vmdk"'), reason: 'malformed', says: /offset/, given: { parts } },
  { name: '2: no sectors', file: descriptor('RW 0 FLAT "b.vmdk" 0'), reason: 'malformed', says: /no sectors/, given: { parts } },
  {
    name: '2: no access',
    file: descriptor('NOACCESS 8 FLAT "b.vmdk" 0'),
    reason: 'unknown-feature',
    says: /NOACCESS/,
    given: { parts },
  },
  {
    name: '2: a sparse part of flat bytes',
    file: descriptor('RW 8 SPARSE "b.vmdk"', 'twoGbMaxExtentSparse'),
    reason: 'malformed',
    says: /wrong magic/,
    given: { parts },
  },
  {
    name: '2: a sparse part of another size',
    file: descriptor('RW 8 SPARSE "a.vmdk"', 'twoGbMaxExtentSparse'),
    reason: 'malformed',
    says: /contradict .* capacity/,
    given: { parts },
  },
  {
    name: '2: a flat part for a sparse disk',
    file: descriptor('RW 8 FLAT "b.vmdk" 0', 'twoGbMaxExtentSparse'),
    reason: 'malformed',
    says: /contradict/,
    given: { parts },
  },
  {
    name: '2: two extents in a sparse file',
    file: changed(/RW.*\n/, 'RW 1 SPARSE "a"\nRW 1 SPARSE "b"\n'),
    reason: 'external-reference',
    says: /one SPARSE extent/,
  },
  {
    name: '2: a path in a sparse file',
    file: changed('"disk.vmdk"', '"/etc/passwd"'),
    reason: 'external-reference',
    says: external,
  },
  ...['vmfsSparse', 'seSparse', 'custom'].map(
    (type): Case => ({
      name: `3: ${type}`,
      file: descriptor('RW 8 FLAT "b.vmdk" 0', type),
      reason: 'unknown-feature',
      says: /createType/,
      given: { parts },
    }),
  ),
  ...['fullDevice', 'partitionedDevice', 'vmfsRawDeviceMap'].map(
    (type): Case => ({
      name: `3: ${type}`,
      file: descriptor('RW 8 FLAT "b.vmdk" 0', type),
      reason: 'external-reference',
      says: /disk of the host/,
      given: { parts },
    }),
  ),
  ...['VMFSSPARSE', 'SESPARSE'].map(
    (kind): Case => ({
      name: `3: ${kind}`,
      file: descriptor(`RW 8 ${kind} "b.vmdk"`),
      reason: 'unknown-feature',
      says: /kind that is not read/,
    }),
  ),
  { name: '3: COWD', file: poked(new Uint8Array(4096), true, [0, 'COWD']), reason: 'unknown-feature', says: /ESX/ },
  { name: '3: seSparse', file: poked(new Uint8Array(4096), true, [0, 8, 0xcafebaben]), reason: 'unknown-feature', says: /ESX/ },
  {
    name: '3: a device in an extent',
    file: descriptor('RW 8 VMFSRDM "b.vmdk"'),
    reason: 'external-reference',
    says: /disk of the host/,
  },
  {
    name: '4: a parent that is not given',
    file: changed('parentCID=ffffffff', 'parentCID=12345678'),
    reason: 'external-reference',
    says: /must be given/,
  },
  {
    name: '4: a hint and no parent',
    file: changed('parentCID=ffffffff', 'parentCID=ffffffff\nparentFileNameHint="/x"'),
    reason: 'external-reference',
    says: /denies it/,
  },
  {
    name: '4: a parent that is not asked for',
    file: sparse,
    reason: 'malformed',
    says: /no difference/,
    given: { parent: bytesSource(new Uint8Array(512)) },
  },
  {
    name: '4: a flat child',
    file: Buffer.from(descriptor('RW 8 FLAT "b.vmdk" 0').toString().replace('ffffffff', '1')),
    reason: 'malformed',
    says: /flat disk cannot/,
    given: { parts },
  },
  ...[0, 1, 3, 4, 2 ** 22, 2 ** 40].map((grains) =>
    header('5: grainSize', 20, 8, grains, /grainSize is \d+ sectors; .* power of 2 from 8 to 2097152/),
  ),
  header('5: grainSize', 20, 8, 2n ** 63n, /2\^53 or more in its field "grainSize"/),
  ...[0, 513, 2 ** 32 - 1].map((entries) =>
    header('5: numGTEsPerGT', 44, 4, entries, /numGTEsPerGT is \d+; it must be 1 to 512/),
  ),
  header('5: capacity', 12, 8, 2n ** 64n - 1n, /2\^53 or more/),
  header('5: capacity', 12, 8, 2n ** 50n, /2\^53 bytes/),
  header('5: capacity', 12, 8, 2 ** 43, /directory has more than/),
  header('9: capacity', 12, 8, 0, /capacity is zero/),
  header('8: capacity that the descriptor denies', 12, 8, 65 * 2048 - 1, /contradict each other about the capacity/),
  header('6: a directory in the header', 56, 8, 0, /where the header is/),
  header('6: a directory beyond the end', 56, 8, 2 ** 40, /beyond the end/, 'truncated'),
  header('6: a redundant directory beyond the end', 48, 8, 2 ** 40, /beyond the end/, 'truncated'),
  header('6: overhead beyond the end', 64, 8, 2 ** 40, /ends before its metadata/, 'truncated'),
  {
    name: '6: a table beyond the end',
    file: poked(sparse, true, [DIRECTORY * SECTOR, 4, 2 ** 32 - 1]),
    reason: 'truncated',
    says: /grain directory entry 0 lies beyond the end/,
  },
  {
    name: '6: all tables in one place',
    file: poked(sparse, true, [DIRECTORY * SECTOR + 4, 4, TABLES]),
    reason: 'overlap',
    says: /in use twice/,
  },
  {
    name: '6: tables that overlap',
    file: poked(sparse, true, [DIRECTORY * SECTOR + 4, 4, TABLES + 3]),
    reason: 'overlap',
    says: /in use twice/,
  },
  {
    name: '6: a table on the directory',
    file: poked(sparse, true, [DIRECTORY * SECTOR, 4, DIRECTORY - 3]),
    reason: 'overlap',
    says: /in use already/,
    seenBy: 'audit',
  },
  {
    name: '6: a grain beyond the end',
    file: poked(sparse, true, [TABLES * SECTOR, 4, 2 ** 31], [(REDUNDANT + 1) * SECTOR, 4, 2 ** 31]),
    reason: 'truncated',
    says: /grain for byte 0 .* beyond the end/,
    seenBy: 'audit',
  },
  {
    name: '6: one grain for two',
    file: poked(sparse, true, [TABLES * SECTOR, 4, 256], [(REDUNDANT + 1) * SECTOR, 4, 256]),
    reason: 'overlap',
    says: /in use already/,
    seenBy: 'audit',
  },
  {
    name: '6: a grain on the tables',
    file: poked(sparse, true, [TABLES * SECTOR, 4, 20], [(REDUNDANT + 1) * SECTOR, 4, 20]),
    reason: 'overlap',
    says: /in use already/,
    seenBy: 'audit',
  },
  {
    name: '6: a table and its copy that disagree',
    file: poked(sparse, true, [TABLES * SECTOR + 8, 4, 256]),
    reason: 'malformed',
    says: /grain table 0 and its redundant copy/,
    seenBy: 'audit',
  },
  {
    name: '6: directories that disagree',
    file: poked(sparse, true, [DIRECTORY * SECTOR + 4, 4, 0]),
    reason: 'malformed',
    says: /entry 1 and its redundant copy/,
    seenBy: 'audit',
  },
  {
    name: '6: all entries to one compressed grain',
    file: poked(stream, true, [tableOf(stream) + 4, 4, 128]),
    reason: 'amplification',
    says: /more than one grain/,
    seenBy: 'audit',
  },
  footer('capacity', 12, 8, 1024, /contradict each other about capacity/),
  footer('descriptorSize', 36, 8, 19, /contradict each other about descriptorSize/),
  footer('flags', 8, 4, 1, /contradict each other about flags/),
  footer('a directory at the end', 56, 8, 2n ** 64n - 1n, /but not where/),
  footer('an end marker of size', SECTOR + 8, 4, 1, /footer marker/),
  footer('a marker before it of type', 12 - SECTOR, 4, 2, /footer marker/),
  {
    name: '7: no footer',
    file: stream.subarray(0, stream.length - SECTOR),
    reason: 'truncated',
    says: /footer that the header promises/,
  },
  {
    name: '7: nothing but a header',
    file: stream.subarray(0, SECTOR),
    reason: 'truncated',
    says: /footer that the header promises/,
  },
  grain('7: a marker of 2^32 − 1 bytes', /says 4294967295 bytes/, [8, 4, 2 ** 32 - 1]),
  grain('7: a marker of no bytes', /says 0 bytes/, [8, 4, 0]),
  grain('7: a marker with another LBA', /whose marker says LBA 128/, [0, 8, 128]),
  grain('7: a marker with an LBA of 2^63', /2\^53/, [0, 8, 2n ** 63n]),
  grain('7: a bomb', /damaged/, [8, 4, bomb.length], [12, bomb]),
  grain('7: a grain too short', /holds 1000 of 65536 bytes/, [8, 4, short.length], [12, short]),
  grain('7: a grain that is no zlib stream', /damaged/, [12, 'nothing']),
  header('8: descriptorOffset', 28, 8, 0, /one extent of a disk in several files/, 'external-reference'),
  header('8: descriptorOffset', 28, 8, 2 ** 40, /beyond the end/, 'truncated'),
  header('8: descriptorSize', 36, 8, 0, /descriptor is empty/),
  header('8: descriptorSize', 36, 8, 2048, /longer than 1 MiB/),
  header('8: descriptorSize', 36, 8, 2 ** 40, /longer than 1 MiB/),
  { ...header('8: descriptor over the directory', 36, 8, 30, /bytes follow|in use already/), seenBy: 'audit' },
  {
    name: '9: text behind the end',
    file: poked(sparse, true, [5000, 'RW 1 FLAT "/x"']),
    reason: 'malformed',
    says: /bytes follow the end/,
  },
  {
    name: '9: more behind the end than QEMU leaves there',
    file: withText(`${textOf(sparse)}\0\0RW 1 F`),
    reason: 'malformed',
    says: /bytes follow the end/,
  },
  {
    name: '9: a key twice',
    file: changed('CID=', 'CREATETYPE="monolithicSparse"\nCID='),
    reason: 'malformed',
    says: /second time/,
  },
  {
    name: '9: a line of noise',
    file: changed('CID=', 'hello\nCID='),
    reason: 'malformed',
    says: /line 4 .* neither setting nor extent/,
  },
  {
    name: '9: CR only',
    file: withText(textOf(sparse).replaceAll('\n', '\r')),
    reason: 'malformed',
    says: /characters|no version/,
  },
  {
    name: '9: UTF-16',
    file: withText(Buffer.from(textOf(sparse).slice(0, 5000), 'utf16le')),
    reason: 'malformed',
    says: /bytes follow/,
  },
  {
    name: '9: a line of 1 MiB',
    file: Buffer.from(`# Disk DescriptorFile\nversion=1\nx=${'y'.repeat(MiB - 100)}`),
    reason: 'malformed',
    says: /line 3 .* more than 4096 characters/,
  },
  { name: '9: lines without end', file: Buffer.from('\n'.repeat(MiB - 100)), reason: 'malformed', says: /more than 65536 lines/ },
  { name: '9: an unknown encoding', file: changed('UTF-8', 'UTF-7'), reason: 'unknown-feature', says: /encoding/ },
  {
    name: '9: a name in another encoding',
    file: changed('disk.vmdk', 'd\xffsk.vmdk'),
    reason: 'malformed',
    says: /not in the encoding/,
  },
  { name: '9: an encrypted disk', file: changed('CID=', 'encryptionKeys="x"\nCID='), reason: 'encrypted', says: /encrypted/ },
  { name: '9: a CID of words', file: changed(/\nCID=\w+/, '\nCID=hello'), reason: 'malformed', says: /CID is no number/ },
  {
    name: '10: a descriptor of version 5',
    file: changed('version=1', 'version=5'),
    reason: 'unknown-feature',
    says: /unknown version/,
  },
  header('10: version', 4, 4, 0, /unknown version 0/),
  header('10: version', 4, 4, 4, /unknown version 4/),
  { name: '10: a stream sent as text', file: poked(stream, true, [75, '\n\n']), reason: 'malformed', says: /sent as text/ },
  { name: '10: sent as text', file: poked(sparse, true, [75, '\n\n']), reason: 'malformed', says: /sent as text/ },
  header('flags', 8, 4, 0x40003, /no reader may ignore/, 'unknown-feature'),
  header('markers without compression', 8, 4, 0x20003, /markers without compression/),
  header('compressAlgorithm', 77, 2, 1, /contradict/),
  header('compressAlgorithm', 77, 2, 2, /unknown compressAlgorithm 2/, 'unknown-feature'),
  { name: 'no bytes', file: new Uint8Array(0), reason: 'malformed', says: /no VMDK file/ },
  { name: 'a raw disk', file: memorySource(10 * MiB, []), reason: 'malformed', says: /wrong magic/ },
  { name: 'a header cut off', file: sparse.subarray(0, 70), reason: 'truncated', says: /cut off/ },
  { name: 'a snapshot', file: sparse, reason: 'unknown-feature', says: /no internal snapshots/, given: { snapshot: '1' } },
]

/** Where the first grain table of a packed disk is: behind its marker, behind two grains. */
function tableOf(file: Uint8Array): number {
  const view = new DataView(file.buffer, file.byteOffset)
  const directory = Number(view.getBigUint64(STREAM_FOOTER + 56, true))
  return view.getUint32(directory * SECTOR, true) * SECTOR
}

async function readAll(file: BlockSource, given: OpenOptions | undefined): Promise<void> {
  const opened = checked(await vmdk.open(file, given), 'vmdk')
  for await (const { kind, offset, length } of opened.extents(0, opened.size))
    if (kind === 'data') await opened.read(offset, length)
}

for (const { name, file, reason, says, given, seenBy } of cases) {
  test(`vmdk refuses ${name}`, async () => {
    const source = checked(file instanceof Uint8Array ? bytesSource(file) : file, 'file')
    const code = reason === 'encrypted' || reason === 'unknown-feature' ? 'unsupported' : 'invalid-image'
    const refused = (error: unknown) => {
      const { code: found, message, details } = error as { code: string; message: string; details: { reason: string } }
      assert.deepEqual({ found, reason: details?.reason }, { found: code, reason }, message)
      assert.match(message, says)
      return true
    }
    if (seenBy !== 'read') await assert.rejects(vmdk.audit(source, given), refused)
    if (seenBy === undefined) await assert.rejects(vmdk.open(source, given), refused)
    if (seenBy === 'read') await assert.rejects(readAll(source, given), refused)
  })
}

test('vmdk accepts versions 1 to 3, and lines ended as on Windows', async () => {
  for (const version of [1, 2, 3]) assert.deepEqual(await vmdk.audit(bytesSource(poked(sparse, true, [4, 4, version]))), [])
  assert.deepEqual(await vmdk.audit(bytesSource(withText(textOf(sparse).replaceAll('\n', '\r\n')))), [])
})

test('vmdk warns of an extent that was not closed cleanly', async () => {
  assert.match((await vmdk.audit(bytesSource(poked(sparse, true, [72, 1, 1])))).join(), /not closed cleanly/)
})

test('a file cut off anywhere is refused, or reads as before', async () => {
  for (const whole of [sparse, stream]) {
    for (let length = 0; length < whole.length; length += SECTOR) {
      const file = checked(bytesSource(whole.subarray(0, length)), 'file')
      await assert.rejects(
        async () => {
          await vmdk.audit(file)
          await readAll(file, undefined)
        },
        { code: 'invalid-image' },
      )
    }
  }
})

test('flat, sparse and zero extents make one disk', async () => {
  const text = descriptor('RW 133120 SPARSE "a.vmdk"\nRW 100 ZERO', 'twoGbMaxExtentSparse')
  const joined = checked(await vmdk.open(bytesSource(text), { parts }), 'vmdk')
  assert.equal(joined.size, 65 * MiB + 51_200)
  assert.deepEqual(await joined.read(40 * MiB, 100), new Uint8Array(100).fill(2))
  const kinds = (await Array.fromAsync(joined.extents(0, joined.size))).map(({ kind }) => kind)
  assert.deepEqual(kinds, ['data', 'hole', 'data', 'hole', 'zero'])
  const vmfs = checked(await vmdk.open(bytesSource(descriptor('RDONLY 8 VMFS "b.vmdk"', 'vmfs')), { parts }), 'vmdk')
  assert.equal(vmfs.size, 4096)
  const flat = memorySource(MiB, [{ offset: 4096, bytes: new Uint8Array(512).fill(9) }])
  const encoded = Buffer.concat([
    Buffer.from('encoding="GBK"\nRW 100 ZERO\nRW 20 FLAT "'),
    Buffer.from([0xb4, 0xc5, 0xc5, 0xcc]),
    Buffer.from('.vmdk" 4\n'),
  ])
  const file = Buffer.concat([descriptor(''), encoded])
  const disk = checked(await vmdk.open(bytesSource(file), { parts: new Map([['磁盘.vmdk', flat]]) }), 'vmdk')
  assert.deepEqual(await disk.read(51_200 + 2048, 512), new Uint8Array(512).fill(9))
  const runs = (await Array.fromAsync(disk.extents(0, disk.size))).map(({ kind, length }) => `${kind} ${length}`)
  assert.deepEqual(runs, ['zero 51200', 'hole 2048', 'data 512', 'hole 7680'])
})

test('what QEMU leaves behind the text, where it writes a shorter CID over a longer one, is no text', async () => {
  const text = textOf(sparse)
  for (let digits = 1; digits <= 8; digits += 1) {
    const shorter = `${text.replace(/^CID=.*$/m, `CID=${'f'.repeat(digits)}`)}\0`
    const file = bytesSource(withText(shorter + text.slice(shorter.length)))
    assert.deepEqual(verifyDeclared('vmdk', await recognise(file), 'bare'), [])
    assert.deepEqual(await vmdk.audit(file), [])
  }
})
