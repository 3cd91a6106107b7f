import { crc32 } from 'node:zlib'
import { ServiceError } from '../../../base/errors.ts'
import { bytes, type Parsed, struct, u32le, u64le } from '../../../base/struct.ts'
import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { Piece } from '../../block/memory-source.ts'

/** Header of a GUID partition table; little-endian. Source: UEFI 2.10, section 5.3.2, table 5.5. LBA: in logical blocks. */
const fields = {
  signature: bytes(0, 8),
  headerBytes: u32le(12),
  headerCrc: u32le(16),
  myLba: u64le(24),
  alternateLba: u64le(32), // of the other header: the backup's, in the primary
  firstUsableLba: u64le(40),
  lastUsableLba: u64le(48),
  entriesLba: u64le(72),
  entryCount: u32le(80),
  entryBytes: u32le(84),
  entriesCrc: u32le(88),
}
const header = struct('GPT header', fields)
const SIGNATURE = 'EFI PART'
const PRIMARY_LBA = 1
/** The specification's own lower bound; the entry's size is 128 × 2^n. */
const LEAST_ENTRY_BYTES = 128
const MOST_ENTRY_BYTES = 4096
/** 8,192 entries; every tool makes 128. Bounds what a header can make us read. */
const MAX_TABLE_BYTES = MiB
const SECTOR_SIZES = [512, 4096] as const

// Protective MBR: UEFI 2.10, section 5.2.3
const MBR_ENTRIES_OFFSET = 446
const MBR_ENTRY_BYTES = 16
const MBR_TYPE_OFFSET = 4
const MBR_START_OFFSET = 8
const MBR_COUNT_OFFSET = 12
const TYPE_PROTECTIVE = 0xee

export interface Gpt {
  readonly sectorBytes: number
  /** The sector of the primary header. */
  readonly headerSector: Uint8Array
  readonly header: Parsed<typeof fields>
  /** The table of partitions, whole sectors. */
  readonly entries: Uint8Array
  /** The first sector of the disk. */
  readonly mbr: Uint8Array
  /** The last block that a partition takes; 0 where there is none. */
  readonly lastUsedLba: number
}

/**
 * The primary partition table of a disk. Reads at most 1 MiB.
 * @returns undefined where there is none
 * @throws ServiceError `invalid-image` where there is one that firmware would not take
 */
export async function readGpt(disk: Pick<BlockSource, 'size' | 'read'>): Promise<Gpt | undefined> {
  for (const sectorBytes of SECTOR_SIZES) {
    if (disk.size < 2 * sectorBytes) return undefined
    const headerSector = await disk.read(PRIMARY_LBA * sectorBytes, sectorBytes)
    if (Buffer.from(headerSector.subarray(0, 8)).toString('latin1') !== SIGNATURE) continue
    const parsed = parseHeader(headerSector, disk.size)
    const entries = await disk.read(parsed.entriesLba * sectorBytes, tableSectors(parsed, sectorBytes) * sectorBytes)
    const table = entries.subarray(0, parsed.entryCount * parsed.entryBytes)
    check(crc32(table) === parsed.entriesCrc, 'the checksum of its table of partitions is wrong')
    const mbr = await disk.read(0, sectorBytes)
    return { sectorBytes, headerSector, header: parsed, entries, mbr, lastUsedLba: lastUsed(table, parsed.entryBytes) }
  }
  return undefined
}

/**
 * What must be written so that the table fits a disk of another size: firmware looks for the second copy in the last block. Partitions
 * stay as they are; what lies behind them becomes usable.
 * @param diskBytes of the disk that the table shall be on
 * @returns ascending; empty where the table fits; undefined where a partition would be in the way of the copy
 */
export function gptForDisk(gpt: Gpt, diskBytes: number): readonly Piece[] | undefined {
  const { sectorBytes, header: before } = gpt
  const lastLba = Math.floor(diskBytes / sectorBytes) - 1
  if (before.alternateLba === lastLba) return []
  const backupEntriesLba = lastLba - tableSectors(before, sectorBytes)
  const lastUsableLba = backupEntriesLba - 1
  if (gpt.lastUsedLba > lastUsableLba || before.firstUsableLba > lastUsableLba) return undefined
  const primary = changed(gpt, { alternateLba: lastLba, lastUsableLba })
  const backup = changed(gpt, { myLba: lastLba, alternateLba: PRIMARY_LBA, lastUsableLba, entriesLba: backupEntriesLba })
  return [
    { offset: 0, bytes: Buffer.concat([protectiveMbr(gpt.mbr, lastLba), primary]) },
    { offset: backupEntriesLba * sectorBytes, bytes: Buffer.concat([gpt.entries, backup]) },
  ]
}

/** Where a partition is to lie, in logical blocks, both included. */
export interface NewPartition {
  /** GUIDs, as `0fc63daf-8483-4772-8e79-3d69d8477de4`. */
  readonly type: string
  readonly id: string
  /** At most 36 characters. */
  readonly name: string
  readonly firstLba: number
  readonly lastLba: number
}

/**
 * A stretch at the end of what partitions may take of a disk, when the table is fitted to it, beginning on a whole MiB.
 * @returns undefined where partitions leave no room there
 */
export function roomAtEnd(gpt: Gpt, diskBytes: number, bytes: number): Pick<NewPartition, 'firstLba' | 'lastLba'> | undefined {
  const { sectorBytes, header: before, lastUsedLba } = gpt
  const endLba = Math.floor(diskBytes / sectorBytes) - 1 - tableSectors(before, sectorBytes)
  const aligned = MiB / sectorBytes
  const count = Math.ceil(bytes / sectorBytes)
  const firstLba = Math.floor((endLba - count) / aligned) * aligned
  if (firstLba <= lastUsedLba || firstLba < before.firstUsableLba) return undefined
  return { firstLba, lastLba: firstLba + count - 1 }
}

/**
 * The table with one partition more, fitted to a disk; the disk's other partitions stay as they are.
 * @returns ascending pieces of the disk; undefined where all entries are taken
 */
export function gptWithPartition(gpt: Gpt, diskBytes: number, partition: NewPartition): readonly Piece[] | undefined {
  const { sectorBytes, header: before } = gpt
  const entries = Buffer.from(gpt.entries)
  const at = freeEntry(entries.subarray(0, before.entryCount * before.entryBytes), before.entryBytes)
  if (at === undefined) return undefined
  guidBytes(partition.type).copy(entries, at)
  guidBytes(partition.id).copy(entries, at + 16)
  entries.writeBigUInt64LE(BigInt(partition.firstLba), at + 32)
  entries.writeBigUInt64LE(BigInt(partition.lastLba), at + 40)
  entries.fill(0, at + 48, at + 128)
  entries.write(partition.name, at + 56, 72, 'utf16le')
  const entriesCrc = crc32(entries.subarray(0, before.entryCount * before.entryBytes))
  const alternateLba = Math.floor(diskBytes / sectorBytes) - 1
  const backupEntriesLba = alternateLba - tableSectors(before, sectorBytes)
  const both = { entriesCrc, lastUsableLba: backupEntriesLba - 1 }
  const primary = changed(gpt, { ...both, alternateLba })
  const backup = changed(gpt, { ...both, myLba: alternateLba, alternateLba: PRIMARY_LBA, entriesLba: backupEntriesLba })
  return [
    { offset: 0, bytes: Buffer.concat([protectiveMbr(gpt.mbr, alternateLba), primary]) },
    { offset: before.entriesLba * sectorBytes, bytes: entries },
    { offset: backupEntriesLba * sectorBytes, bytes: Buffer.concat([entries, backup]) },
  ]
}

/** @returns where it begins in the table */
function freeEntry(table: Buffer, entryBytes: number): number | undefined {
  for (let at = 0; at + entryBytes <= table.length; at += entryBytes) {
    if (table.subarray(at, at + 16).every((byte) => byte === 0)) return at
  }
  return undefined
}

/** The first three groups are little-endian: UEFI 2.10, appendix A. */
function guidBytes(guid: string): Buffer {
  const all = Buffer.from(guid.replaceAll('-', ''), 'hex')
  return Buffer.concat([
    all.subarray(0, 4).reverse(),
    all.subarray(4, 6).reverse(),
    all.subarray(6, 8).reverse(),
    all.subarray(8),
  ])
}

function parseHeader(sector: Uint8Array, diskBytes: number): Gpt['header'] {
  const h = header.parse(sector)
  const sectorBytes = sector.length
  check(h.headerBytes >= header.bytes && h.headerBytes <= sectorBytes, `its header has ${h.headerBytes} bytes`)
  check(headerCrcOf(sector, h.headerBytes) === h.headerCrc, 'the checksum of its header is wrong')
  check(h.myLba === PRIMARY_LBA, `its header says that it lies at block ${h.myLba}`)
  const isEntrySize = Number.isInteger(Math.log2(h.entryBytes / LEAST_ENTRY_BYTES)) && h.entryBytes >= LEAST_ENTRY_BYTES
  check(isEntrySize && h.entryBytes <= MOST_ENTRY_BYTES, `its entries have ${h.entryBytes} bytes`)
  const tableBytes = h.entryCount * h.entryBytes
  check(tableBytes > 0 && tableBytes <= MAX_TABLE_BYTES, `its table of partitions has ${h.entryCount} entries`)
  const tableEnd = h.entriesLba + tableSectors(h, sectorBytes)
  check(h.entriesLba > PRIMARY_LBA && tableEnd * sectorBytes <= diskBytes, 'its table of partitions lies outside the disk')
  check(h.firstUsableLba >= tableEnd && h.lastUsableLba >= h.firstUsableLba, 'its usable blocks make no range')
  return h
}

const tableSectors = ({ entryCount, entryBytes }: Pick<Gpt['header'], 'entryCount' | 'entryBytes'>, sectorBytes: number) =>
  Math.ceil((entryCount * entryBytes) / sectorBytes)

/** Of the entries that are in use: those whose type (16 bytes) is not zeros. Table 5.6. */
function lastUsed(table: Uint8Array, entryBytes: number): number {
  const view = Buffer.from(table.buffer, table.byteOffset, table.length)
  let last = 0n
  for (let at = 0; at < view.length; at += entryBytes) {
    const isUsed = view.readBigUInt64LE(at) !== 0n || view.readBigUInt64LE(at + 8) !== 0n
    const end = view.readBigUInt64LE(at + 40)
    if (isUsed && end > last) last = end
  }
  check(last <= BigInt(Number.MAX_SAFE_INTEGER), 'a partition ends beyond every disk')
  return Number(last)
}

/** The header's sector with other values: what no field covers stays. */
function changed({ headerSector, header: before }: Gpt, values: Partial<Gpt['header']>): Uint8Array {
  const sector = Buffer.from(headerSector)
  const view = new DataView(sector.buffer, sector.byteOffset, sector.length)
  const after = { ...before, ...values }
  for (const name of ['myLba', 'alternateLba', 'lastUsableLba', 'entriesLba', 'entriesCrc'] as const) {
    fields[name].write(view, fields[name].offset, after[name])
  }
  fields.headerCrc.write(view, fields.headerCrc.offset, headerCrcOf(sector, before.headerBytes))
  return sector
}

/** "This field is … set to 0 during the computation of the CRC." */
function headerCrcOf(sector: Uint8Array, headerBytes: number): number {
  const copy = Buffer.from(sector.subarray(0, headerBytes))
  copy.writeUInt32LE(0, fields.headerCrc.offset)
  return crc32(copy)
}

/** "SizeInLBA: the size of the disk minus one", or 0xFFFFFFFF where that is too large. */
function protectiveMbr(mbr: Uint8Array, lastLba: number): Uint8Array {
  const sector = Buffer.from(mbr)
  for (let entry = 0; entry < 4; entry += 1) {
    const at = MBR_ENTRIES_OFFSET + entry * MBR_ENTRY_BYTES
    const isProtective = sector[at + MBR_TYPE_OFFSET] === TYPE_PROTECTIVE && sector.readUInt32LE(at + MBR_START_OFFSET) === 1
    if (isProtective) sector.writeUInt32LE(Math.min(lastLba, 0xffffffff), at + MBR_COUNT_OFFSET)
  }
  return sector
}

function check(holds: boolean, problem: string): void {
  if (!holds) throw new ServiceError('invalid-image', `the partition table (GPT) is damaged: ${problem}`, { format: 'gpt' })
}
