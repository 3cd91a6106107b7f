import { bytes, struct, u16le, u32le, u64le } from '../../../base/struct.ts'
import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import {
  ALIGNMENT,
  checksumOf,
  HEADER_SECTION_BYTES,
  MAX_VIRTUAL_BYTES,
  REGION_TABLE_OFFSETS,
  refuse,
  type VhdxHeader,
} from './header.ts'

/** Source: [MS-VHDX], sections 2.2.3 and 2.6. */
export const tableHeader = struct('vhdx region table', { signature: u32le(0), checksum: u32le(4), entries: u32le(8) })
export const regionEntry = struct('vhdx region table entry', {
  guid: bytes(0, 16),
  offset: u64le(16), // bytes from the start of the file
  length: u32le(24),
  required: u32le(28),
})
export const metadataHeader = struct('vhdx metadata table', { signature: bytes(0, 8), entries: u16le(10) })
export const metadataEntry = struct('vhdx metadata table entry', {
  guid: bytes(0, 16),
  offset: u32le(16), // bytes from the start of the metadata region
  length: u32le(20),
  flags: u32le(24),
})
export const fileParameters = struct('vhdx file parameters', { blockBytes: u32le(0), flags: u32le(4) })
export const virtualDiskSize = struct('vhdx virtual disk size', { virtualBytes: u64le(0) })
export const sectorSize = struct('vhdx sector size', { sectorBytes: u32le(0) })

export const REGION_SIGNATURE = 0x69676572 // "regi"
export const METADATA_SIGNATURE = 'metadata'
export const TABLE_BYTES = 64 * KiB // both tables
export const REGION_ENTRIES_OFFSET = 16
export const METADATA_ENTRIES_OFFSET = 32
export const ENTRY_BYTES = 32
const MAX_ENTRIES = 2047 // both tables: "MUST be less than or equal to 2,047"
const MAX_ITEM_BYTES = MiB
const REQUIRED = 1

export const LEAVE_BLOCKS_ALLOCATED = 1
export const HAS_PARENT = 2
export const ITEM_IS_USER = 1
export const ITEM_IS_VIRTUAL_DISK = 2
export const ITEM_IS_REQUIRED = 4

/** GUIDs of regions and metadata items, as their bytes are in a file. */
export const BAT_REGION = '6677c22d23f600429d64115e9bfd4a08' // 2DC27766-F623-4200-9D64-115E9BFD4A08
export const METADATA_REGION = '06a27c8b90479a4bb8fe575f050f886e' // 8B7CA206-4790-4B9A-B8FE-575F050F886E
export const FILE_PARAMETERS = '3767a1ca36fa434db3b633f0aa44e76b' // CAA16737-FA36-4D43-B3B6-33F0AA44E76B
export const VIRTUAL_DISK_SIZE = '2442a52f1bcd7648b2115dbed83bf4b8' // 2FA54224-CD1B-4876-B211-5DBED83BF4B8
export const VIRTUAL_DISK_ID = 'ab12cabee6b2234593efc309e000c746' // BECA12AB-B2E6-4523-93EF-C309E000C746
export const LOGICAL_SECTOR_SIZE = '1dbf41816fa90947ba47f233a8faab5f' // 8141BF1D-A96F-4709-BA47-F233A8FAAB5F
export const PHYSICAL_SECTOR_SIZE = 'c748a3cd5d4471449cc9e9885251c556' // CDA348C7-445D-4471-9CC9-E9885251C556
export const PARENT_LOCATOR = '2d5fd3a80bb34d45abf7d3d84834ab0c' // A8D35F2D-B30B-454D-ABF7-D3D84834AB0C
const KNOWN_ITEMS: ReadonlyMap<string, { readonly name: string; readonly bytes: number | undefined }> = new Map([
  [FILE_PARAMETERS, { name: 'File Parameters', bytes: fileParameters.bytes }],
  [VIRTUAL_DISK_SIZE, { name: 'Virtual Disk Size', bytes: virtualDiskSize.bytes }],
  [VIRTUAL_DISK_ID, { name: 'Virtual Disk ID', bytes: 16 }],
  [LOGICAL_SECTOR_SIZE, { name: 'Logical Sector Size', bytes: sectorSize.bytes }],
  [PHYSICAL_SECTOR_SIZE, { name: 'Physical Sector Size', bytes: sectorSize.bytes }],
  [PARENT_LOCATOR, { name: 'Parent Locator', bytes: undefined }],
])
const hex = (field: Uint8Array): string => Buffer.from(field).toString('hex')

/** A part of the file. */
export interface Region {
  readonly offset: number
  readonly length: number
}
/** What the disk is, and where its table is. All met their limits. */
export interface Layout {
  readonly virtualBytes: number
  readonly blockBytes: number
  readonly logicalSectorBytes: number
  readonly physicalSectorBytes: number
  /** Virtual Disk ID, as its bytes are in the file. */
  readonly diskId: Uint8Array
  /** LeaveBlockAllocated: the disk is a fixed one. */
  readonly leavesBlocksAllocated: boolean
  readonly hasParent: boolean
  /** Payload blocks that one sector bitmap block covers: its entry follows theirs. */
  readonly chunkRatio: number
  /** Entries that the disk needs; all lie in the file. */
  readonly bat: { readonly offset: number; readonly entries: number }
  /** The log, and every region that the table names. Apart from one another. */
  readonly regions: readonly Region[]
}

/** Section 2.5: payload entries, and after each chunk of them that of its sector bitmap. */
export function batEntriesOf(payloadBlocks: number, chunkRatio: number, hasParent: boolean): number {
  if (hasParent) return Math.ceil(payloadBlocks / chunkRatio) * (chunkRatio + 1)
  return payloadBlocks === 0 ? 0 : payloadBlocks + Math.floor((payloadBlocks - 1) / chunkRatio)
}
/** A sector bitmap block has 2^23 bits, one a sector. */
export const chunkRatioOf = (blockBytes: number, logicalSectorBytes: number): number =>
  (MiB * 8 * logicalSectorBytes) / blockBytes

/**
 * Reads region table and metadata. At most 320 KiB are read.
 * @param file with its log replayed
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function readLayout(file: BlockSource, { log }: VhdxHeader): Promise<Layout> {
  const { bat, metadata, all } = await readRegions(file, log)
  const { parameters, virtualBytes, logicalSectorBytes, physicalSectorBytes, diskId } = await readMetadata(file, metadata)
  const { blockBytes, flags } = parameters
  const hasParent = (flags & HAS_PARENT) !== 0
  const chunkRatio = chunkRatioOf(blockBytes, logicalSectorBytes)
  const entries = batEntriesOf(Math.ceil(virtualBytes / blockBytes), chunkRatio, hasParent)
  if (entries * 8 > bat.length) {
    throw refuse('malformed', `the BAT region has ${bat.length} bytes, and the disk needs ${entries} entries of 8 bytes`, {
      batBytes: bat.length,
      entries,
    })
  }
  return {
    virtualBytes,
    blockBytes,
    logicalSectorBytes,
    physicalSectorBytes,
    diskId,
    leavesBlocksAllocated: (flags & LEAVE_BLOCKS_ALLOCATED) !== 0,
    hasParent,
    chunkRatio,
    bat: { offset: bat.offset, entries },
    regions: all,
  }
}

async function readRegions(file: BlockSource, log: { readonly offset: number; readonly bytes: number }) {
  const table = await wholeRegionTable(file)
  const { entries } = tableHeader.parse(table)
  if (entries > MAX_ENTRIES) {
    throw refuse('malformed', `the region table has ${entries} entries; at most ${MAX_ENTRIES}`, { entries })
  }
  const byGuid = new Map<string, Region>()
  for (let index = 0; index < entries; index += 1) {
    const at = REGION_ENTRIES_OFFSET + index * ENTRY_BYTES
    const { guid, offset, length, required } = regionEntry.parse(table.subarray(at, at + ENTRY_BYTES))
    const id = hex(guid)
    const isKnown = id === BAT_REGION || id === METADATA_REGION
    if (!isKnown && required & REQUIRED) {
      throw refuse('unknown-feature', `region ${index} of the region table is required and not known here`, { index })
    }
    if (byGuid.has(id)) throw refuse('malformed', `the region table names region ${index} twice`, { index })
    if (offset % ALIGNMENT !== 0 || length % ALIGNMENT !== 0 || offset < HEADER_SECTION_BYTES) {
      throw refuse('malformed', `region ${index} is not aligned to 1 MiB behind the header section`, { index, offset, length })
    }
    if (length > file.size - offset) {
      throw refuse(
        'truncated',
        `region ${index} lies beyond the end of the file, which has ${file.size} bytes; is the upload complete?`,
        {
          index,
          offset,
          length,
          fileBytes: file.size,
        },
      )
    }
    byGuid.set(id, { offset, length })
  }
  const all = [...byGuid.values(), { offset: log.offset, length: log.bytes }]
    .filter(({ length }) => length > 0)
    .sort((a, b) => a.offset - b.offset)
  for (const [index, { offset }] of all.entries()) {
    const before = all[index - 1]
    if (before && before.offset + before.length > offset) {
      throw refuse('overlap', `two regions, or a region and the log, overlap at byte ${offset} of the file`, { offset })
    }
  }
  const [bat, metadata] = [byGuid.get(BAT_REGION), byGuid.get(METADATA_REGION)]
  if (!bat || !metadata) throw refuse('malformed', 'the region table lacks the BAT or the metadata region')
  return { bat, metadata, all }
}

/** Section 2.2.3: two copies. The second is there for when the first is damaged. */
async function wholeRegionTable(file: BlockSource): Promise<Uint8Array> {
  const [first, second] = await Promise.all(REGION_TABLE_OFFSETS.map((offset) => file.read(offset, TABLE_BYTES)))
  const isWhole = (table: Uint8Array) => {
    const { signature, checksum } = tableHeader.parse(table)
    return signature === REGION_SIGNATURE && checksum === checksumOf(table)
  }
  if (isWhole(first!)) {
    if (haveSameEntries(first!, second!) || !isWhole(second!)) return first!
    throw refuse('malformed', 'the two region tables are whole and contradict each other')
  }
  if (isWhole(second!)) return second!
  throw refuse('malformed', 'neither region table, at bytes 196608 and 262144, has its signature and its checksum')
}

/** What is behind the entries is reserved, and may differ. */
function haveSameEntries(table: Uint8Array, other: Uint8Array): boolean {
  const end = REGION_ENTRIES_OFFSET + tableHeader.parse(table).entries * ENTRY_BYTES
  return Buffer.compare(table.subarray(8, end), other.subarray(8, end)) === 0
}

async function readMetadata(file: BlockSource, region: Region) {
  const items = await readItems(file, region)
  const itemOf = async (id: string): Promise<Uint8Array> => {
    const item = items.get(id)
    if (!item) throw refuse('malformed', `the metadata lack the item "${KNOWN_ITEMS.get(id)?.name}"`)
    return file.read(region.offset + item.offset, item.length)
  }
  const parameters = fileParameters.parse(await itemOf(FILE_PARAMETERS))
  const { blockBytes, flags } = parameters
  const isBlockSize = blockBytes >= MiB && blockBytes <= 256 * MiB && Number.isInteger(Math.log2(blockBytes))
  if (!isBlockSize)
    throw refuse('malformed', `BlockSize is ${blockBytes}; it must be a power of 2 from 1 to 256 MiB`, { blockBytes })
  if (((flags & HAS_PARENT) !== 0) !== items.has(PARENT_LOCATOR)) {
    throw refuse('external-reference', 'HasParent and the parent locator contradict each other')
  }
  const logicalSectorBytes = checkedSector('LogicalSectorSize', await itemOf(LOGICAL_SECTOR_SIZE))
  const physicalSectorBytes = checkedSector('PhysicalSectorSize', await itemOf(PHYSICAL_SECTOR_SIZE))
  const diskId = await itemOf(VIRTUAL_DISK_ID)
  const { virtualBytes } = virtualDiskSize.parse(await itemOf(VIRTUAL_DISK_SIZE))
  if (virtualBytes > MAX_VIRTUAL_BYTES) {
    throw refuse('malformed', `VirtualDiskSize is ${virtualBytes}; it must be at most 64 TiB`, { virtualBytes })
  }
  if (virtualBytes % logicalSectorBytes !== 0) {
    throw refuse(
      'malformed',
      `VirtualDiskSize is ${virtualBytes}; it must be a multiple of LogicalSectorSize, ${logicalSectorBytes}`,
      {
        virtualBytes,
        logicalSectorBytes,
      },
    )
  }
  return { parameters, virtualBytes, logicalSectorBytes, physicalSectorBytes, diskId }
}

function checkedSector(name: string, value: Uint8Array): number {
  const { sectorBytes } = sectorSize.parse(value)
  if (sectorBytes !== 512 && sectorBytes !== 4096) {
    throw refuse('malformed', `${name} is ${sectorBytes}; it must be 512 or 4096`, { sectorBytes })
  }
  return sectorBytes
}

/** @returns the system's items that are known, by GUID; each inside the region and no longer than it must be */
async function readItems(file: BlockSource, region: Region): Promise<ReadonlyMap<string, Region>> {
  if (region.length < TABLE_BYTES) throw refuse('malformed', 'the metadata region is shorter than its table')
  const table = await file.read(region.offset, TABLE_BYTES)
  const { signature, entries } = metadataHeader.parse(table)
  if (Buffer.from(signature).toString('latin1') !== METADATA_SIGNATURE) {
    throw refuse('malformed', `the metadata table, at byte ${region.offset}, has no signature`, { offset: region.offset })
  }
  if (entries > MAX_ENTRIES) {
    throw refuse('malformed', `the metadata table has ${entries} entries; at most ${MAX_ENTRIES}`, { entries })
  }
  const items = new Map<string, Region>()
  const seen = new Set<string>()
  const places: Region[] = []
  for (let index = 0; index < entries; index += 1) {
    const at = METADATA_ENTRIES_OFFSET + index * ENTRY_BYTES
    const { guid, offset, length, flags } = metadataEntry.parse(table.subarray(at, at + ENTRY_BYTES))
    const isUser = (flags & ITEM_IS_USER) !== 0
    const id = hex(guid)
    const known = isUser ? undefined : KNOWN_ITEMS.get(id)
    if (!known && flags & ITEM_IS_REQUIRED) {
      throw refuse('unknown-feature', `metadata item ${index} is required and not known here`, { index })
    }
    const key = `${isUser} ${id}`
    if (seen.has(key)) throw refuse('malformed', `the metadata table names item ${index} twice`, { index })
    seen.add(key)
    const isInside = length === 0 ? offset === 0 : offset >= TABLE_BYTES && offset + length <= region.length
    if (!isInside || length > MAX_ITEM_BYTES) {
      throw refuse('malformed', `metadata item ${index} is not in its region behind the table, or longer than 1 MiB`, {
        index,
        offset,
        length,
      })
    }
    if (known?.bytes !== undefined && length !== known.bytes) {
      throw refuse('malformed', `the metadata item "${known.name}" has ${length} bytes; it must have ${known.bytes}`, { length })
    }
    if (known) items.set(id, { offset, length })
    if (length > 0) places.push({ offset, length })
  }
  places.sort((a, b) => a.offset - b.offset)
  for (const [index, { offset }] of places.entries()) {
    const before = places[index - 1]
    if (before && before.offset + before.length > offset) {
      throw refuse('overlap', `two metadata items overlap at byte ${offset} of their region`, { offset })
    }
  }
  return items
}
