import { crc32c, crc32cOfZeros } from '../../../base/crc32c.ts'
import { ServiceError } from '../../../base/errors.ts'
import { bytes, struct, u16le, u32le, u64le } from '../../../base/struct.ts'
import { KiB, MiB, TiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { isZero } from '../../block/zero.ts'

/** VHDX, version 1; little-endian. Source: Microsoft, [MS-VHDX], section 2.2.2. */
export const header = struct('vhdx header', {
  signature: u32le(0),
  checksum: u32le(4),
  sequence: u64le(8),
  fileWriteGuid: bytes(16, 16),
  dataWriteGuid: bytes(32, 16),
  logGuid: bytes(48, 16), // zero: the log is empty
  logVersion: u16le(64),
  version: u16le(66),
  logBytes: u32le(68),
  logOffset: u64le(72), // bytes from the start of the file
})
export const FILE_SIGNATURE = 'vhdxfile'
export const HEADER_SIGNATURE = 0x64616568 // "head"
export const HEADER_OFFSETS = [64 * KiB, 128 * KiB] as const
export const HEADER_BYTES = 4 * KiB
export const REGION_TABLE_OFFSETS = [192 * KiB, 256 * KiB] as const
/** Section 2.1: everything behind the header section is aligned to this, and so are blocks. */
export const ALIGNMENT = MiB
export const HEADER_SECTION_BYTES = MiB
export const MAX_VIRTUAL_BYTES = 64 * TiB // section 2.6.2.2
/** A disk of the largest size needs half of it. Bounds the map of a file that the audit keeps: a bit for each MiB. */
export const MAX_FILE_BYTES = 128 * TiB
const CHECKSUM_AT = 4 // in headers, region tables and log entries alike
const NO_BYTES = new Uint8Array(4)
const MIN_CHECKED_BYTES = 256

/** Why a file was refused: stable words for clients, in `details.reason`. */
export type Refusal = 'malformed' | 'truncated' | 'external-reference' | 'unknown-feature' | 'overlap' | 'too-large'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(reason === 'unknown-feature' || reason === 'too-large' ? 'unsupported' : 'invalid-image', `vhdx: ${problem}`, {
    format: 'vhdx',
    reason,
    ...details,
  })

/** The newest header that is whole. */
export interface VhdxHeader {
  /** Absent: there is nothing to replay. */
  readonly logGuid: Uint8Array | undefined
  /** In the file. No bytes: there is no log. */
  readonly log: { readonly offset: number; readonly bytes: number }
}

/** CRC-32C of a structure, with its own checksum taken as zero. The zeros that most of a region table is are skipped. */
export function checksumOf(structure: Uint8Array): number {
  let used = structure.length
  while (used > MIN_CHECKED_BYTES && isZero(structure.subarray(used >>> 1, used))) used >>>= 1
  const head = crc32c(NO_BYTES, crc32c(structure.subarray(0, CHECKSUM_AT)))
  return crc32cOfZeros(structure.length - used, crc32c(structure.subarray(CHECKSUM_AT + 4, used), head))
}

/**
 * Reads the file type identifier and both headers.
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function readHeader(file: BlockSource): Promise<VhdxHeader> {
  if (file.size < HEADER_SECTION_BYTES) {
    throw refuse('truncated', `the file has ${file.size} bytes, less than the header section of 1 MiB; is the upload complete?`, {
      fileBytes: file.size,
    })
  }
  const signature = Buffer.from(await file.read(0, FILE_SIGNATURE.length)).toString('latin1')
  if (signature !== FILE_SIGNATURE) throw refuse('malformed', 'wrong signature at byte 0: this is no vhdx file')
  const [first, second] = await Promise.all(HEADER_OFFSETS.map((offset) => file.read(offset, HEADER_BYTES)))
  const newest = newestOf(first!, second!)
  if (newest.version !== 1) {
    throw refuse('unknown-feature', `the header has Version ${newest.version}; 1 is known`, { version: newest.version })
  }
  return checkedLog(newest, file.size)
}

/** Section 2.2.2: of two headers with their signature and checksum, the one with the greater sequence number is current. */
function newestOf(first: Uint8Array, second: Uint8Array) {
  const isWhole = (image: Uint8Array) => {
    const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
    return view.getUint32(0, true) === HEADER_SIGNATURE && view.getUint32(CHECKSUM_AT, true) === checksumOf(image)
  }
  const whole = [first, second].filter(isWhole).map((image) => ({ image, parsed: header.parse(image) }))
  const [one, other] = whole
  if (!one) throw refuse('malformed', 'neither header, at bytes 65536 and 131072, has its signature and its checksum')
  if (!other || one.parsed.sequence > other.parsed.sequence) return one.parsed
  if (other.parsed.sequence > one.parsed.sequence) return other.parsed
  /** Disk2vhd writes one header twice. */
  if (Buffer.compare(one.image, other.image) === 0) return one.parsed
  throw refuse('malformed', 'two headers of one SequenceNumber contradict each other', { sequence: one.parsed.sequence })
}

interface LogFields {
  readonly logGuid: Uint8Array
  readonly logVersion: number
  readonly logBytes: number
  readonly logOffset: number
}
function checkedLog({ logGuid, logVersion, logBytes, logOffset }: LogFields, fileBytes: number): VhdxHeader {
  const isEmpty = logGuid.every((byte) => byte === 0)
  if (logBytes % ALIGNMENT !== 0 || logOffset % ALIGNMENT !== 0 || (logBytes > 0 && logOffset < HEADER_SECTION_BYTES)) {
    throw refuse('malformed', 'LogOffset and LogLength must be multiples of 1 MiB behind the header section', {
      logOffset,
      logBytes,
    })
  }
  if (logBytes > 0 && logBytes > fileBytes - logOffset) {
    throw refuse('truncated', `the log lies beyond the end of the file, which has ${fileBytes} bytes; is the upload complete?`, {
      logOffset,
      logBytes,
      fileBytes,
    })
  }
  if (!isEmpty && logVersion !== 0) {
    throw refuse('unknown-feature', `the log has LogVersion ${logVersion}; 0 is known`, { logVersion })
  }
  if (!isEmpty && logBytes === 0) throw refuse('malformed', 'the header has a LogGuid, but no log')
  return { logGuid: isEmpty ? undefined : logGuid, log: { offset: logOffset, bytes: logBytes } }
}
