import { bytes, struct, u16le, u32be, u32le, u64be, u64le } from '../../../base/struct.ts'
import { KiB, MiB, TiB } from '../../../base/units.ts'
import { type Look, refusal, type Signature } from './recognition.ts'

/** VHD footer, big-endian. Source: Microsoft, "Virtual Hard Disk Image Format Specification", "Hard Disk Footer Format". */
const footer = struct('vhd footer', {
  cookie: bytes(0, 8),
  dataOffset: bytes(16, 8),
  creator: bytes(28, 4),
  currentBytes: u64be(48),
  diskType: u32be(60),
  checksum: u32be(64),
  uniqueId: bytes(68, 16),
})
const FOOTER_BYTES = 512
const DISK_TYPE_AT = 60
const CHECKSUM_AT = 64
const VHD_FIXED = 2
const VHD_DYNAMIC = 3
const VHD_DIFFERENCING = 4
const MAX_VHD_BYTES = 2040 * 1024 * MiB // the specification's limit, 2,040 GiB
/** "Dynamic Disk Header Format" */
const dynamicHeader = struct('vhd dynamic disk header', {
  cookie: bytes(0, 8),
  tableOffset: u64be(16),
  tableEntries: u32be(28),
  blockBytes: u32be(32),
})
const DYNAMIC_HEADER_BYTES = 1024
const MAX_VHD_BLOCK_BYTES = 256 * MiB

/** VHDX, little-endian. Source: Microsoft, MS-VHDX, sections 2.2 and 2.6. */
const regionTable = struct('vhdx region table', { signature: u32le(0), entries: u32le(8) })
const regionEntry = struct('vhdx region', { guid: bytes(0, 16), offset: u64le(16), length: u32le(24), required: u32le(28) })
const metadataTable = struct('vhdx metadata table', { signature: bytes(0, 8), entries: u16le(10) })
const metadataEntry = struct('vhdx metadata entry', { guid: bytes(0, 16), offset: u32le(16), length: u32le(20) })
const vhdxHeader = struct('vhdx header', { signature: u32le(0), sequence: u64le(8), logGuid: bytes(48, 16) })
const fileParameters = struct('vhdx file parameters', { blockBytes: u32le(0), flags: u32le(4) })
const VHDX_HEADERS = [64 * KiB, 128 * KiB]
const REGION_TABLE_OFFSET = 192 * KiB
const REGION_ENTRIES_OFFSET = 16
const HEAD_SIGNATURE = 0x64616568 // "head"
const REGION_SIGNATURE = 0x69676572 // "regi"
const MAX_ENTRIES = 2047 // both tables: "must be less than or equal to 2,047"
const TABLE_BYTES = 64 * KiB
const MIN_METADATA_OFFSET = 64 * KiB
const HAS_PARENT = 2
const MAX_VHDX_BYTES = 64 * TiB
const METADATA_REGION = '06a27c8b90479a4bb8fe575f050f886e' // 8B7CA206-4790-4B9A-B8FE-575F050F886E as it lies on disk
const BAT_REGION = '6677c22d23f600429d64115e9bfd4a08' // 2DC27766-F623-4200-9D64-115E9BFD4A08
const FILE_PARAMETERS = '3767a1ca36fa434db3b633f0aa44e76b' // CAA16737-FA36-4D43-B3B6-33F0AA44E76B
const VIRTUAL_DISK_SIZE = '2442a52f1bcd7648b2115dbed83bf4b8' // 2FA54224-CD1B-4876-B211-5DBED83BF4B8

const COOKIE = 'conectix'
const hex = (field: Uint8Array): string => Buffer.from(field).toString('hex')
const latin1 = (field: Uint8Array): string => Buffer.from(field).toString('latin1')

export const microsoftSignatures: readonly Signature[] = [
  {
    name: 'vhd',
    kind: 'disk',
    diskFormat: 'vhd',
    find: (look) => (look.has(0, COOKIE) && !isFixed(look) ? 0 : undefined),
    inspect: inspectSparseVhd,
  },
  {
    name: 'vhd',
    kind: 'disk',
    diskFormat: 'vhd',
    find(look) {
      if (look.has(0, COOKIE) && !isFixed(look)) return undefined
      /** Versions before Virtual PC 2004 wrote footers of 511 bytes. */
      const fromEnd = [512, 511].find((bytes) => look.endsWith(bytes, COOKIE))
      return fromEnd === undefined ? undefined : look.fileBytes - fromEnd
    },
    inspect: inspectFixedVhd,
  },
  {
    name: 'vhdx',
    kind: 'disk',
    diskFormat: 'vhdx',
    find: (look) => (look.has(0, 'vhdxfile') ? 0 : undefined),
    inspect: inspectVhdx,
  },
]

/** A disk may begin with the cookie: what is no footer there is its own, where the file ends with that of a fixed disk. */
function isFixed(look: Look): boolean {
  const isWhole = (record: Uint8Array) => record.length === FOOTER_BYTES && wordAt(record, CHECKSUM_AT) === checksumOf(record)
  const last = look.tail.subarray(-FOOTER_BYTES)
  const isEnd = look.endsWith(FOOTER_BYTES, COOKIE) && isWhole(last) && wordAt(last, DISK_TYPE_AT) === VHD_FIXED
  return isEnd && !isWhole(look.head.subarray(0, FOOTER_BYTES))
}
const wordAt = (record: Uint8Array, at: number): number => new DataView(record.buffer, record.byteOffset).getUint32(at)

function checksumOf(record: Uint8Array): number {
  let sum = 0
  for (const [at, byte] of record.entries()) if (at < CHECKSUM_AT || at >= CHECKSUM_AT + 4) sum += byte
  return ~sum >>> 0
}

/** Virtual PC and QEMU size a disk by its geometry: what it has then, only the driver says. */
const creatorsByGeometry: readonly string[] = ['vpc ', 'qemu']
const sizeOf = ({ creator, currentBytes }: { creator: Uint8Array; currentBytes: number }) =>
  creatorsByGeometry.includes(latin1(creator)) ? {} : { virtualBytes: currentBytes - (currentBytes % 512) }

function parseFooter(input: Uint8Array) {
  const parsed = footer.parse(input)
  if (checksumOf(input) !== parsed.checksum) throw refusal('vhd', 'malformed', 'the checksum of the footer is wrong')
  if (parsed.currentBytes > MAX_VHD_BYTES)
    throw refusal('vhd', 'malformed', 'the disk is larger than the 2,040 GiB that a VHD can be')
  if (parsed.diskType === VHD_DIFFERENCING) {
    throw refusal(
      'vhd',
      'external-reference',
      'the disk is the child of another file, which is never followed; merge it into its parent',
    )
  }
  return parsed
}

async function inspectFixedVhd(look: Look, offset: number) {
  if (look.fileBytes - offset !== FOOTER_BYTES) throw refusal('vhd', 'malformed', 'the footer has 511 bytes; 512 are needed')
  const parsed = parseFooter(await look.read('the vhd footer', offset, FOOTER_BYTES))
  const { diskType } = parsed
  const { virtualBytes } = sizeOf(parsed)
  if (diskType !== VHD_FIXED) {
    throw refusal('vhd', 'malformed', 'the footer is not of a fixed disk, and its copy at the start of the file is missing')
  }
  if (virtualBytes !== undefined && virtualBytes > offset)
    throw refusal('vhd', 'truncated', 'the file is shorter than the disk that its footer describes')
  return { ...sizeOf(parsed), plain: true }
}

async function inspectSparseVhd(look: Look) {
  const copy = await look.read('the vhd footer copy', 0, FOOTER_BYTES)
  const parsed = parseFooter(copy)
  const { diskType, dataOffset, currentBytes, uniqueId } = parsed
  if (diskType !== VHD_DYNAMIC) throw refusal('vhd', 'malformed', 'the footer at the start of the file is not of a dynamic disk')
  if (!look.endsWith(FOOTER_BYTES, COOKIE)) {
    throw refusal('vhd', 'truncated', 'the footer at the end of the file is missing; is the upload complete?')
  }
  const last = parseFooter(look.tail.subarray(look.tail.length - FOOTER_BYTES))
  if (last.currentBytes !== currentBytes || last.diskType !== diskType || hex(last.uniqueId) !== hex(uniqueId)) {
    throw refusal('vhd', 'malformed', 'the footers at the start and the end of the file contradict each other')
  }
  const headerOffset = Number(new DataView(dataOffset.buffer).getBigUint64(0))
  const header = dynamicHeader.parse(await look.read('the vhd dynamic disk header', headerOffset, DYNAMIC_HEADER_BYTES))
  const { cookie, tableOffset, tableEntries, blockBytes } = header
  if (latin1(cookie) !== 'cxsparse') throw refusal('vhd', 'malformed', 'the dynamic disk header has no signature')
  const isBlockSize = blockBytes >= 512 && blockBytes <= MAX_VHD_BLOCK_BYTES && Number.isInteger(Math.log2(blockBytes))
  if (!isBlockSize) throw refusal('vhd', 'malformed', 'the block size is no power of 2 from 512 bytes to 256 MiB', { blockBytes })
  if (tableEntries * blockBytes < currentBytes)
    throw refusal('vhd', 'malformed', 'the block table is too small for the disk', { tableEntries })
  if (tableEntries * 4 > look.fileBytes - tableOffset || tableOffset < FOOTER_BYTES) {
    throw refusal('vhd', 'malformed', 'the block table does not fit the file', { tableEntries, tableOffset })
  }
  return sizeOf(parsed)
}

async function inspectVhdx(look: Look) {
  const headers = []
  for (const offset of VHDX_HEADERS) {
    const parsed = vhdxHeader.parse(await look.read('a vhdx header', offset, 4 * KiB))
    if (parsed.signature === HEAD_SIGNATURE) headers.push(parsed)
  }
  const [first, second] = headers
  if (first === undefined) throw refusal('vhdx', 'malformed', 'neither of its two headers has a signature')
  if (second && second.sequence === first.sequence && hex(first.logGuid) !== hex(second.logGuid)) {
    throw refusal('vhdx', 'malformed', 'two headers of one sequence number contradict each other')
  }
  const regions = await regionsOf(look)
  const metadata = regions.get(METADATA_REGION)
  if (!metadata || !regions.has(BAT_REGION))
    throw refusal('vhdx', 'malformed', 'the region table lacks the block table or the metadata')
  const items = await metadataOf(look, metadata)
  const [parameters, size] = [items.get(FILE_PARAMETERS), items.get(VIRTUAL_DISK_SIZE)]
  if (!parameters || !size) throw refusal('vhdx', 'malformed', 'the metadata lack the file parameters or the disk size')
  const { blockBytes, flags } = fileParameters.parse(await look.read('the vhdx file parameters', parameters.offset, 8))
  if (flags & HAS_PARENT) {
    throw refusal(
      'vhdx',
      'external-reference',
      'the disk is the child of another file, which is never followed; merge it into its parent',
    )
  }
  const isBlockSize = blockBytes >= MiB && blockBytes <= 256 * MiB && Number.isInteger(Math.log2(blockBytes))
  if (!isBlockSize) throw refusal('vhdx', 'malformed', 'the block size is no power of 2 from 1 to 256 MiB', { blockBytes })
  const diskSize = struct('vhdx disk size', { virtualBytes: u64le(0) })
  const { virtualBytes } = diskSize.parse(await look.read('the vhdx disk size', size.offset, 8))
  if (virtualBytes > MAX_VHDX_BYTES) throw refusal('vhdx', 'malformed', 'the disk is larger than the 64 TiB that a VHDX can be')
  /** A log may write over the metadata: what the disk has then, only the driver says. */
  const hasLog = headers.some(({ logGuid }) => logGuid.some((byte) => byte !== 0))
  return hasLog ? {} : { virtualBytes }
}

interface Region {
  readonly offset: number
  readonly length: number
}

async function regionsOf(look: Look): Promise<ReadonlyMap<string, Region>> {
  const table = await look.read('the vhdx region table', REGION_TABLE_OFFSET, TABLE_BYTES)
  const { signature, entries } = regionTable.parse(table)
  if (signature !== REGION_SIGNATURE) throw refusal('vhdx', 'malformed', 'the region table has no signature')
  if (entries > MAX_ENTRIES) throw refusal('vhdx', 'malformed', `the region table has ${entries} entries; at most ${MAX_ENTRIES}`)
  const regions = new Map<string, Region>()
  for (let index = 0; index < entries; index += 1) {
    const { guid, offset, length, required } = regionEntry.parse(table.subarray(REGION_ENTRIES_OFFSET + index * 32))
    const id = hex(guid)
    if (id !== METADATA_REGION && id !== BAT_REGION) {
      if (required) throw refusal('vhdx', 'unsupported', 'a region that is not known is required')
      continue
    }
    if (regions.has(id)) throw refusal('vhdx', 'malformed', 'the region table names one region twice')
    if (offset < MiB || length > look.fileBytes - offset) throw refusal('vhdx', 'malformed', 'a region lies outside the file')
    regions.set(id, { offset, length })
  }
  return regions
}

async function metadataOf(look: Look, region: Region): Promise<ReadonlyMap<string, Region>> {
  const table = await look.read('the vhdx metadata table', region.offset, TABLE_BYTES)
  const { signature, entries } = metadataTable.parse(table)
  if (latin1(signature) !== 'metadata') throw refusal('vhdx', 'malformed', 'the metadata table has no signature')
  if (entries > MAX_ENTRIES)
    throw refusal('vhdx', 'malformed', `the metadata table has ${entries} entries; at most ${MAX_ENTRIES}`)
  const items = new Map<string, Region>()
  for (let index = 0; index < entries; index += 1) {
    const { guid, offset, length } = metadataEntry.parse(table.subarray(32 + index * 32))
    const id = hex(guid)
    if (items.has(id)) throw refusal('vhdx', 'malformed', 'the metadata table names one item twice')
    const inside = length === 0 || (offset >= MIN_METADATA_OFFSET && offset + length <= region.length)
    if (!inside) throw refusal('vhdx', 'malformed', 'a metadata item lies outside its region')
    items.set(id, { offset: region.offset + offset, length })
  }
  return items
}
