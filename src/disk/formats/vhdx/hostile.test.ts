import assert from 'node:assert/strict'
import { test } from 'node:test'
import { patterned } from '../../../../test/fixtures/disk/disks.ts'
import {
  batEntry,
  VHDX_BAT,
  VHDX_DATA,
  VHDX_LOG,
  VHDX_METADATA,
  VHDX_REGION_TABLES,
  type VhdxOptions,
  type VhdxPoke,
  vhdxFile,
} from '../../../../test/fixtures/disk/vhdx.ts'
import { checked } from '../../block/checked.ts'
import { bytesSource, memorySource } from '../../block/memory-source.ts'
import { MAX_FILE_BYTES } from './header.ts'
import { vhdx } from './vhdx.ts'

const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB
const TiB = 1024 * GiB
const ITEMS = VHDX_METADATA + 64 * KiB
const [HEAD_1, HEAD_2] = [64 * KiB, 128 * KiB]

const opened = async (file: Uint8Array) => checked(await vhdx.open(checked(bytesSource(file), 'file')), 'vhdx')
/** In both copies of the region table. */
const inRegions = (at: number, width: number, value: number | bigint): VhdxPoke[] =>
  VHDX_REGION_TABLES.map((table) => [table + at, width, value])
/** Pokes come before the checksums, `spoil` after them. */
interface Case {
  readonly name: string
  readonly options?: VhdxOptions
  readonly pokes?: readonly VhdxPoke[]
  readonly spoil?: readonly number[]
  readonly says: RegExp
  readonly reason?: string
}

const atOpen: Case[] = [
  { name: 'a file without its signature', pokes: [[0, 'vhdxfilf']], says: /wrong signature/ },
  { name: 'two headers with wrong checksums', spoil: [HEAD_1 + 100, HEAD_2 + 100], says: /neither header/ },
  {
    name: 'two headers without a signature',
    pokes: [
      [HEAD_1, 'dead'],
      [HEAD_2, 'dead'],
    ],
    says: /neither header/,
  },
  {
    name: 'two headers of one number that differ',
    pokes: [
      [HEAD_1 + 8, 8, 2],
      [HEAD_1 + 20, 1, 9],
    ],
    says: /contradict each other/,
  },
  { name: 'a header of version 2', pokes: [[HEAD_2 + 66, 2, 2]], says: /Version 2/, reason: 'unknown-feature' },
  { name: 'a log that is not aligned', pokes: [[HEAD_2 + 72, 8, 4096]], says: /LogOffset and LogLength/ },
  { name: 'a log in the header section', pokes: [[HEAD_2 + 72, 8, 0]], says: /LogOffset and LogLength/ },
  { name: 'a log beyond the end', pokes: [[HEAD_2 + 72, 8, 2n ** 50n]], says: /log lies beyond/, reason: 'truncated' },
  { name: 'a log of 2^53 and more', pokes: [[HEAD_2 + 72, 8, 2n ** 63n]], says: /2\^53/ },
  {
    name: 'a log of another version',
    pokes: [
      [HEAD_2 + 48, 1, 1],
      [HEAD_2 + 64, 2, 1],
    ],
    says: /LogVersion/,
    reason: 'unknown-feature',
  },
  { name: '2,048 regions', pokes: inRegions(8, 4, 2048), says: /2048 entries; at most 2047/ },
  { name: 'a region that is required and not known', pokes: inRegions(16, 1, 9), says: /required/, reason: 'unknown-feature' },
  {
    name: 'one region twice',
    pokes: VHDX_REGION_TABLES.map((at) => [at + 48, Buffer.from('6677c22d23f600429d64115e9bfd4a08', 'hex')]),
    says: /twice/,
  },
  { name: 'no BAT', pokes: [...inRegions(16, 1, 9), ...inRegions(44, 4, 0)], says: /lacks the BAT/ },
  { name: 'a region that is not aligned', pokes: inRegions(32, 8, VHDX_BAT + 4096), says: /not aligned/ },
  { name: 'a region in the header section', pokes: inRegions(32, 8, 0), says: /not aligned/ },
  { name: 'a region beyond the end', pokes: inRegions(32, 8, 2n ** 50n), says: /beyond the end/, reason: 'truncated' },
  { name: 'regions that overlap', pokes: inRegions(64, 8, VHDX_BAT), says: /overlap/, reason: 'overlap' },
  { name: 'a region on the log', pokes: inRegions(64, 8, VHDX_LOG), says: /overlap/, reason: 'overlap' },
  { name: 'region tables that are whole and differ', pokes: [[VHDX_REGION_TABLES[1] + 44, 4, 0]], says: /contradict each other/ },
  { name: 'two damaged region tables', spoil: VHDX_REGION_TABLES.map((at) => at + 60_000), says: /neither region table/ },
  { name: 'metadata without a signature', pokes: [[VHDX_METADATA, 'metadato']], says: /no signature/ },
  { name: '2,048 metadata items', pokes: [[VHDX_METADATA + 10, 2, 2048]], says: /2048 entries/ },
  { name: 'an item in the table', pokes: [[VHDX_METADATA + 48, 4, 32]], says: /behind the table/ },
  { name: 'an item beyond its region', pokes: [[VHDX_METADATA + 48, 4, MiB - 4]], says: /not in its region/ },
  { name: 'an item of 2^32 − 1 bytes', pokes: [[VHDX_METADATA + 52, 4, 2 ** 32 - 1]], says: /not in its region/ },
  { name: 'an item of no bytes with a place', pokes: [[VHDX_METADATA + 52, 4, 0]], says: /not in its region/ },
  { name: 'an item of a wrong length', pokes: [[VHDX_METADATA + 52, 4, 4]], says: /must have 8/ },
  { name: 'items that overlap', pokes: [[VHDX_METADATA + 80, 4, 64 * KiB + 4]], says: /overlap/, reason: 'overlap' },
  { name: 'an item twice', pokes: [[VHDX_METADATA + 64, Buffer.from('3767a1ca36fa434db3b633f0aa44e76b', 'hex')]], says: /twice/ },
  {
    name: 'an item that is required and not known',
    pokes: [[VHDX_METADATA + 64, 1, 0]],
    says: /required/,
    reason: 'unknown-feature',
  },
  { name: 'an item that is missing', pokes: [[VHDX_METADATA + 10, 2, 4]], says: /lack the item "Physical Sector Size"/ },
  ...[0, 3 * MiB, 512 * KiB, 512 * MiB].map((blockBytes) => ({
    name: `blocks of ${blockBytes}`,
    options: { blockBytes },
    says: /BlockSize/,
  })),
  ...[0, 513, 1024].map((sector) => ({
    name: `sectors of ${sector}`,
    options: { logicalSectorBytes: sector },
    says: /LogicalSectorSize is/,
  })),
  { name: 'physical sectors of 8192', pokes: [[ITEMS + 36, 4, 8192]], says: /PhysicalSectorSize/ },
  { name: 'a disk of part of a sector', options: { virtualBytes: 8 * MiB + 256 }, says: /multiple of LogicalSectorSize/ },
  { name: 'a disk of 65 TiB', options: { virtualBytes: 65 * TiB }, says: /at most 64 TiB/ },
  { name: 'a disk of 2^64 − 1', options: { virtualBytes: 2n ** 64n - 1n }, says: /2\^53/ },
  { name: 'a disk larger than its BAT', options: { virtualBytes: 2 * TiB }, says: /the disk needs/ },
  { name: 'a parent', options: { hasParent: true }, says: /difference to another file/, reason: 'external-reference' },
  { name: 'a parent without its locator', pokes: [[ITEMS + 4, 4, 2]], says: /contradict/, reason: 'external-reference' },
]
const entry = (value: bigint, more: VhdxOptions = {}): VhdxOptions => ({ fileBytes: 8 * MiB, bat: [value], ...more })
const atAudit: Case[] = [
  ...[4, 5, 7].map((state) => ({ name: `a block of state ${state}`, options: entry(batEntry(state, VHDX_DATA)), says: /state/ })),
  { name: 'an entry with reserved bits', options: entry(batEntry(6, VHDX_DATA) | 16n), says: /reserved bits/ },
  { name: 'a block in the header section', options: entry(batEntry(6, 0)), says: /header section/ },
  { name: 'a block at 128 TiB', options: entry(batEntry(6, MAX_FILE_BYTES)), says: /below 128 TiB/ },
  { name: 'a block at 2^44 MiB', options: entry(2n ** 64n - 2n ** 20n + 6n), says: /below 128 TiB/ },
  { name: 'a block beyond the end', options: entry(batEntry(6, 8 * MiB)), says: /beyond the end/, reason: 'truncated' },
  {
    name: 'a block that is cut off',
    options: entry(batEntry(6, 7 * MiB), { blockBytes: 2 * MiB }),
    says: /beyond the end/,
    reason: 'truncated',
  },
]
/** What only a walk of all entries can find. */
const onlyAtAudit: Case[] = [
  {
    name: 'two blocks at one place',
    options: { fileBytes: 8 * MiB, bat: [batEntry(6, VHDX_DATA), batEntry(6, VHDX_DATA)] },
    says: /in use/,
    reason: 'overlap',
  },
  {
    name: 'two blocks that overlap',
    options: { fileBytes: 8 * MiB, blockBytes: 2 * MiB, bat: [batEntry(6, VHDX_DATA), batEntry(6, VHDX_DATA + MiB)] },
    says: /in use/,
    reason: 'overlap',
  },
  ...[VHDX_LOG, VHDX_METADATA, VHDX_BAT].map((at) => ({
    name: `a block on the region at ${at}`,
    options: entry(batEntry(6, at)),
    says: /in use/,
    reason: 'overlap',
  })),
]

for (const { name, options, pokes = [], spoil = [], says, reason } of [...atOpen, ...atAudit]) {
  test(`vhdx refuses ${name}`, async () => {
    const bytes = vhdxFile(options, ...pokes)
    for (const at of spoil) bytes[at]! ^= 1
    const use = async () => (await opened(bytes)).read(0, 4096)
    const code = reason === 'unknown-feature' ? 'unsupported' : 'invalid-image'
    for (const refused of [use, () => vhdx.audit(checked(bytesSource(bytes), 'file'))]) {
      await assert.rejects(refused, (error: { code: string; message: string; details: { reason: string } }) => {
        assert.equal(error.code, code)
        assert.match(error.message, says)
        if (reason) assert.equal(error.details.reason, reason)
        return true
      })
    }
  })
}
for (const { name, options, says, reason } of onlyAtAudit) {
  test(`the audit of a vhdx refuses ${name}`, async () => {
    const file = checked(bytesSource(vhdxFile(options)), 'file')
    await assert.rejects(vhdx.audit(file), (error: { code: string; message: string; details: { reason: string } }) => {
      assert.equal(error.code, 'invalid-image')
      assert.match(error.message, says)
      assert.equal(error.details.reason, reason)
      return true
    })
  })
}

test('a damaged header or region table is made up for by its copy', async () => {
  const block = { fileBytes: 8 * MiB, bat: [batEntry(6, VHDX_DATA)], data: [{ at: VHDX_DATA, bytes: Uint8Array.of(7) }] }
  for (const at of [HEAD_1, HEAD_2, ...VHDX_REGION_TABLES]) {
    const file = vhdxFile(block)
    file[at + 1000]! ^= 1
    assert.deepEqual([...(await (await opened(file)).read(0, 2))], [7, 0], `damaged at byte ${at}`)
  }
  const reserved = vhdxFile(block, [VHDX_REGION_TABLES[1] + 60_000, 1, 5])
  assert.equal((await (await opened(reserved)).read(0, 1))[0], 7, 'what is reserved may differ')
  /** Disk2vhd writes one header twice. */
  const twice = vhdxFile(block, [HEAD_1 + 8, 8, 2])
  assert.equal((await (await opened(twice)).read(0, 1))[0], 7)
})

test('a file that ends inside its last block, behind the end of the disk, is read', async () => {
  const file = vhdxFile({
    virtualBytes: 5 * MiB,
    blockBytes: 4 * MiB,
    fileBytes: 9 * MiB,
    bat: [batEntry(6, VHDX_DATA), batEntry(6, VHDX_DATA + 4 * MiB)],
    data: [{ at: 9 * MiB - 1, bytes: Uint8Array.of(3) }],
  })
  assert.deepEqual([...(await (await opened(file)).read(5 * MiB - 2, 2))], [0, 3])
  assert.match((await vhdx.audit(checked(bytesSource(file), 'file'))).join(), /ends inside its last block/)
})

test('blocks are no data, zeros or data by their state; what is undefined or unmapped reads as zeros', async () => {
  const file = vhdxFile({
    fileBytes: 8 * MiB,
    bat: [0, 1, 2, 3, 6].map((state) => batEntry(state, state === 0 ? 0 : VHDX_DATA)),
    data: [{ at: VHDX_DATA, bytes: Buffer.alloc(MiB, 8) }],
  })
  const disk = await opened(file)
  assert.deepEqual(await Array.fromAsync(disk.extents(0, disk.size)), [
    { offset: 0, length: 2 * MiB, kind: 'hole' },
    { offset: 2 * MiB, length: MiB, kind: 'zero' },
    { offset: 3 * MiB, length: MiB, kind: 'hole' },
    { offset: 4 * MiB, length: MiB, kind: 'data' },
    { offset: 5 * MiB, length: 3 * MiB, kind: 'hole' },
  ])
  assert.deepEqual([...(await disk.read(4 * MiB - 1, 2))], [0, 8])
})

for (const sectorBytes of [512, 4096]) {
  test(`a differencing disk with sectors of ${sectorBytes} shows its parent where it has nothing itself`, async () => {
    const chunkRatio = (8 * MiB * sectorBytes) / (256 * MiB)
    const bat = [batEntry(7, VHDX_DATA), batEntry(0), batEntry(3), batEntry(2)]
    const entries = Array.from({ length: chunkRatio + 1 }, (_, index) => bat[index] ?? 0n)
    entries[chunkRatio] = batEntry(6, 260 * MiB)
    const bitmap = Uint8Array.of(0b0000_0101, 0, 0b1000_0000) // sectors 0, 2 and 23
    const options = { virtualBytes: GiB, blockBytes: 256 * MiB, logicalSectorBytes: sectorBytes, hasParent: true, bat: entries }
    const small = vhdxFile(options)
    const data = patterned(64 * sectorBytes, 1)
    const file = checked(
      memorySource(261 * MiB, [
        { offset: 0, bytes: small },
        { offset: VHDX_DATA, bytes: data },
        { offset: 260 * MiB, bytes: bitmap },
      ]),
      'file',
    )
    const below = patterned(64 * sectorBytes, 2)
    const parent = memorySource(
      GiB - 512,
      [0, 1, 2, 3].map((block) => ({ offset: block * 256 * MiB, bytes: below })),
    )
    assert.deepEqual(await vhdx.audit(file, { parent }), [])
    const disk = checked(await vhdx.open(file, { parent }), 'vhdx')
    const expected = Uint8Array.from(below)
    for (const sector of [0, 2, 23])
      expected.set(data.subarray(sector * sectorBytes, (sector + 1) * sectorBytes), sector * sectorBytes)
    assert.deepEqual(await disk.read(0, expected.length), expected)
    assert.deepEqual(await disk.read(sectorBytes - 3, sectorBytes + 7), expected.subarray(sectorBytes - 3, 2 * sectorBytes + 4))
    assert.deepEqual(await disk.read(256 * MiB, below.length), below, 'not present')
    assert.deepEqual(await disk.read(512 * MiB, below.length), new Uint8Array(below.length), 'unmapped')
    assert.deepEqual(await disk.read(768 * MiB, below.length), new Uint8Array(below.length), 'zero')

    const lost = vhdxFile({ ...options, bat: entries.with(chunkRatio, 0n) })
    const withoutBitmap = checked(memorySource(261 * MiB, [{ offset: 0, bytes: lost }]), 'file')
    await assert.rejects(vhdx.audit(withoutBitmap, { parent }), { code: 'invalid-image', message: /sector bitmap block/ })
    await assert.rejects(async () => (await vhdx.open(withoutBitmap, { parent })).read(0, 512), {
      message: /sector bitmap block/,
    })
  })
}

test('a parent that the disk does not ask for is refused', async () => {
  const file = checked(bytesSource(vhdxFile()), 'file')
  await assert.rejects(vhdx.open(file, { parent: memorySource(8 * MiB, []) }), {
    code: 'invalid-image',
    message: /no difference/,
  })
})

test('a file cut off anywhere is refused or read, never a crash', async () => {
  const whole = vhdxFile(entry(batEntry(6, VHDX_DATA)))
  for (let bytes = 0; bytes < whole.length; bytes += 64 * KiB - 512) {
    const file = checked(bytesSource(whole.subarray(0, bytes)), 'file')
    const outcome = await vhdx.audit(file).catch((error: { code: string }) => error.code)
    assert.equal(outcome === 'invalid-image', bytes < VHDX_DATA + MiB, `${bytes} bytes`)
  }
})

test('a file of 2^53 bytes without data costs little to audit and to walk', async () => {
  const image = vhdxFile({ virtualBytes: 512 * GiB, blockBytes: 8 * MiB, bat: [batEntry(6, MAX_FILE_BYTES - 8 * MiB)] })
  const file = checked(memorySource(Number.MAX_SAFE_INTEGER, [{ offset: 0, bytes: image }]), 'file')
  assert.deepEqual(await vhdx.audit(file), [])
  const disk = checked(await vhdx.open(file), 'vhdx')
  const kinds = (await Array.fromAsync(disk.extents(0, disk.size))).map(({ kind, length }) => [kind, length])
  assert.deepEqual(kinds, [
    ['data', 8 * MiB],
    ['hole', 512 * GiB - 8 * MiB],
  ])
})
