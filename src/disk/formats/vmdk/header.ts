import { ServiceError } from '../../../base/errors.ts'
import { bytes, struct, u8, u16le, u32le, u64le } from '../../../base/struct.ts'
import { GiB, KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'

/**
 * Header of a hosted sparse extent, little-endian; places and sizes in sectors.
 * Source: VMware, "Virtual Disk Format 5.0", "Hosted Sparse Extent Header"; the footer of a stream-optimized extent is the same.
 */
export const sparseHeader = struct('vmdk header', {
  magic: u32le(0),
  version: u32le(4),
  flags: u32le(8),
  capacity: u64le(12),
  grainSize: u64le(20),
  descriptorOffset: u64le(28), // 0 = none
  descriptorSize: u64le(36),
  tableEntries: u32le(44), // numGTEsPerGT
  redundantDirectory: u64le(48),
  directory: bytes(56, 8), // 2^64 − 1 = the footer has it
  overhead: u64le(64),
  unclean: u8(72),
  newlines: bytes(73, 4),
  compression: u16le(77), // 0 none, 1 deflate
})
export const marker = struct('vmdk marker', { value: u64le(0), size: u32le(8), type: u32le(12) })

export const SECTOR_BYTES = 512
export const MAGIC = 0x564d444b // "KDMV"
const COWD_MAGIC = 0x44574f43 // "COWD": ESX Server sparse extents
const SESPARSE_MAGIC = 0xcafebabe
export const FLAG_NEWLINE_TEST = 1
export const FLAG_REDUNDANT_TABLES = 2
const FLAG_ZERO_GRAINS = 4
export const FLAG_COMPRESSED = 0x10000
export const FLAG_MARKERS = 0x20000
const INCOMPATIBLE_KNOWN = FLAG_COMPRESSED | FLAG_MARKERS
const INCOMPATIBLE = 0xffff0000
export const DEFLATE = 1
/** "\n", " ", "\r\n": damaged where the file was sent as text. */
export const NEWLINES = Uint8Array.of(0x0a, 0x20, 0x0d, 0x0a)
/** The grain directory's place in a header that leaves it to the footer: GD_AT_END. */
export const DIRECTORY_AT_END = new Uint8Array(8).fill(255)
/** A grain table entry where `zeroGrains`; else a sector. */
export const ZEROED = 1
export const MARKER_END = 0
export const MARKER_TABLE = 1
export const MARKER_DIRECTORY = 2
export const MARKER_FOOTER = 3

const MAX_VERSION = 3 // 2: zeroed grains; 3: changed block tracking, stream-optimized
const MIN_GRAIN_BYTES = 4 * KiB // specification: "must be a power of 2 and must be greater than 8 (4KB)"; VMware writes 8 too
const MAX_GRAIN_BYTES = 1 * GiB // QEMU's limit
const MAX_COMPRESSED_GRAIN_BYTES = 2 * MiB // a grain is unpacked in memory; VMware's own are 64 KiB
const MAX_TABLE_ENTRIES = 512 // QEMU's limit; all known writers use 512
export const MAX_DIRECTORY_BYTES = 8 * MiB // kept in memory; 64 TiB of disk with grains of 64 KiB, more than VMware's own 62 TB
export const MAX_DESCRIPTOR_BYTES = 1 * MiB // QEMU's limit

/** What a reader must know of a header that met every limit. */
export interface SparseHeader {
  readonly virtualBytes: number
  readonly grainBytes: number
  /** Of a grain table. */
  readonly tableEntries: number
  /** Of the grain directory, as many as the disk needs. */
  readonly directoryEntries: number
  readonly directoryOffset: number
  /** 0 = none, or not in use. */
  readonly redundantDirectoryOffset: number
  /** 0 = none. */
  readonly descriptorOffset: number
  readonly descriptorBytes: number
  /** Each grain is a marker and a zlib stream. */
  readonly compressed: boolean
  /** A grain table entry of 1 is a grain of zeros. */
  readonly zeroGrains: boolean
  /** The extent was not closed cleanly. */
  readonly unclean: boolean
}

/** Why a file was refused: stable words for clients, in `details.reason`. */
export type Refusal =
  | 'malformed'
  | 'truncated'
  | 'external-reference'
  | 'encrypted'
  | 'unknown-feature'
  | 'overlap'
  | 'amplification'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(reason === 'encrypted' || reason === 'unknown-feature' ? 'unsupported' : 'invalid-image', `vmdk: ${problem}`, {
    format: 'vmdk',
    reason,
    ...details,
  })

/** What a file with such first bytes is. @param head  at least 4 bytes, where the file has them */
export function kindOf(head: Uint8Array): 'sparse' | 'cowd' | 'sesparse' | 'text' {
  if (head.length < 4) return 'text'
  const magic = new DataView(head.buffer, head.byteOffset, 4).getUint32(0, true)
  return magic === MAGIC ? 'sparse' : magic === COWD_MAGIC ? 'cowd' : magic === SESPARSE_MAGIC ? 'sesparse' : 'text'
}

/**
 * Reads and checks the header of a sparse extent, and the footer where the header says that there is one: 2 KiB.
 * @throws ServiceError `invalid-image` | `unsupported`, saying what is wrong and the limit
 */
export async function readSparseHeader(file: BlockSource): Promise<SparseHeader> {
  const head = await file.read(0, Math.min(file.size, SECTOR_BYTES))
  const raw = sparseHeader.parse(head)
  if (!isAtEnd(raw.directory)) return parseSparseHeader(head, file.size)
  const tailBytes = 3 * SECTOR_BYTES
  if (file.size < SECTOR_BYTES + tailBytes) throw noFooter()
  const tail = await file.read(file.size - tailBytes, tailBytes)
  checkFooter(raw, tail)
  return parseSparseHeader(tail.subarray(SECTOR_BYTES), file.size)
}

const isAtEnd = (directory: Uint8Array): boolean => directory.every((byte) => byte === 255)
const noFooter = () =>
  refuse('truncated', 'the footer that the header promises is not at the end of the file; is the upload complete?')

/** @param tail  footer marker, footer and end-of-stream marker, a sector each */
function checkFooter(header: ReturnType<typeof sparseHeader.parse>, tail: Uint8Array): void {
  if (kindOf(tail.subarray(SECTOR_BYTES)) !== 'sparse') throw noFooter()
  const before = marker.parse(tail)
  const after = marker.parse(tail.subarray(2 * SECTOR_BYTES))
  if (before.size !== 0 || before.type !== MARKER_FOOTER || after.value !== 0 || after.size !== 0 || after.type !== MARKER_END) {
    throw refuse('malformed', 'the footer is not between a footer marker and an end-of-stream marker')
  }
  const footer = sparseHeader.parse(tail.subarray(SECTOR_BYTES))
  if (isAtEnd(footer.directory))
    throw refuse('malformed', 'the footer says that the grain directory is in the footer, but not where')
  const same = [
    'version',
    'flags',
    'capacity',
    'grainSize',
    'descriptorOffset',
    'descriptorSize',
    'tableEntries',
    'compression',
  ] as const
  const other = same.find((name) => footer[name] !== header[name])
  if (other) throw refuse('malformed', `the footer and the header contradict each other about ${other}`)
  checkNewlines(header.newlines)
}

function checkNewlines(newlines: Uint8Array): void {
  if (newlines.every((byte, index) => byte === NEWLINES[index])) return
  throw refuse('malformed', 'the newline test bytes are damaged: was the file sent as text?')
}

/** @param bytes  a header or footer that says where the grain directory is */
export function parseSparseHeader(bytes: Uint8Array, fileBytes: number): SparseHeader {
  const check = (holds: boolean, problem: string, details: Record<string, number> = {}) => {
    if (!holds) throw refuse('malformed', problem, details)
  }
  const h = sparseHeader.parse(bytes)
  const { version, flags, capacity, grainSize, tableEntries, compression } = h
  check(h.magic === MAGIC, 'wrong magic: this is no sparse extent')
  check(version >= 1 && version <= MAX_VERSION, `unknown version ${version}; 1 to ${MAX_VERSION} are known`, { version })
  checkNewlines(h.newlines)
  const unknown = flags & INCOMPATIBLE & ~INCOMPATIBLE_KNOWN
  if (unknown !== 0)
    throw refuse('unknown-feature', 'the header sets flags that no reader may ignore, and that are not known', { flags })
  const compressed = (flags & FLAG_COMPRESSED) !== 0
  if (compression > DEFLATE)
    throw refuse('unknown-feature', `unknown compressAlgorithm ${compression}; 0 and 1 are known`, { compression })
  check(compressed === (compression === DEFLATE), 'the flags and compressAlgorithm contradict each other', { flags, compression })
  const markers = (flags & FLAG_MARKERS) !== 0
  check(compressed || !markers, 'the flags promise markers without compression', { flags })
  if (compressed && !markers) throw refuse('unknown-feature', 'the grains are compressed without markers', { flags })

  const virtualBytes = capacity * SECTOR_BYTES
  check(capacity > 0 && Number.isSafeInteger(virtualBytes), 'the capacity is zero, or 2^53 bytes or more', { capacity })
  const grainBytes = grainSize * SECTOR_BYTES
  const maxGrainBytes = compressed ? MAX_COMPRESSED_GRAIN_BYTES : MAX_GRAIN_BYTES
  check(
    grainBytes >= MIN_GRAIN_BYTES && grainBytes <= maxGrainBytes && Number.isInteger(Math.log2(grainSize)),
    `grainSize is ${grainSize} sectors; it must be a power of 2 from ${MIN_GRAIN_BYTES / SECTOR_BYTES} to ${maxGrainBytes / SECTOR_BYTES}`,
    { grainSize },
  )
  check(
    tableEntries >= 1 && tableEntries <= MAX_TABLE_ENTRIES,
    `numGTEsPerGT is ${tableEntries}; it must be 1 to ${MAX_TABLE_ENTRIES}`,
    { tableEntries },
  )
  const directoryEntries = Math.ceil(virtualBytes / (grainBytes * tableEntries))
  check(directoryEntries * 4 <= MAX_DIRECTORY_BYTES, `the grain directory has more than ${MAX_DIRECTORY_BYTES} bytes`, {
    directoryEntries,
  })

  const inside = (name: string, sector: number, length: number) => {
    const offset = sector * SECTOR_BYTES
    check(sector > 0, `the ${name} is said to be where the header is`)
    if (Number.isSafeInteger(offset) && offset + length <= fileBytes) return offset
    throw refuse('truncated', `the ${name} lies beyond the end of the file; is the upload complete?`, { sector, fileBytes })
  }
  check(!isAtEnd(h.directory), 'the footer has no place for the grain directory')
  const directorySector = new DataView(h.directory.buffer, h.directory.byteOffset, 8).getBigUint64(0, true)
  const directoryOffset = inside('grain directory', Number(directorySector), directoryEntries * 4)
  const isRedundant = (flags & FLAG_REDUNDANT_TABLES) !== 0 && h.redundantDirectory > 0
  const redundantDirectoryOffset = isRedundant
    ? inside('redundant grain directory', h.redundantDirectory, directoryEntries * 4)
    : 0
  const hasDescriptor = h.descriptorOffset > 0
  const descriptorBytes = hasDescriptor ? h.descriptorSize * SECTOR_BYTES : 0
  check(descriptorBytes < MAX_DESCRIPTOR_BYTES, 'the descriptor is longer than 1 MiB', { descriptorSize: h.descriptorSize })
  check(!hasDescriptor || descriptorBytes > 0, 'the descriptor is empty')
  const descriptorOffset = hasDescriptor ? inside('descriptor', h.descriptorOffset, descriptorBytes) : 0
  if (h.overhead * SECTOR_BYTES > fileBytes) {
    throw refuse('truncated', 'the file ends before its metadata do; is the upload complete?', {
      overhead: h.overhead,
      fileBytes,
    })
  }
  return {
    virtualBytes,
    grainBytes,
    tableEntries,
    directoryEntries,
    directoryOffset,
    redundantDirectoryOffset,
    descriptorOffset,
    descriptorBytes,
    compressed,
    zeroGrains: (flags & FLAG_ZERO_GRAINS) !== 0,
    unclean: h.unclean !== 0,
  }
}
