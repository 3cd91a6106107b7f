import { ServiceError } from '../../../base/errors.ts'
import { bytes, struct, u8, u16be, u32be, u64be } from '../../../base/struct.ts'
import { GiB } from '../../../base/units.ts'

/** Big-endian. Source: Microsoft, "Virtual Hard Disk Image Format Specification", "Hard Disk Footer Format". */
export const footer = struct('vhd footer', {
  cookie: bytes(0, 8),
  features: u32be(8),
  version: u32be(12), // of the format: major and minor in 16 bits each
  dataOffsetHigh: u32be(16), // of the dynamic disk header; all ones: none. Cut in two, as all ones is no number that fits
  dataOffsetLow: u32be(20),
  timestamp: u32be(24), // seconds since 2000-01-01
  creatorApplication: bytes(28, 4),
  creatorVersion: u32be(32),
  creatorHost: bytes(36, 4),
  originalBytes: u64be(40),
  currentBytes: u64be(48),
  cylinders: u16be(56),
  heads: u8(58),
  sectorsPerTrack: u8(59),
  diskType: u32be(60),
  checksum: u32be(64),
  uniqueId: bytes(68, 16),
  savedState: u8(84),
})
export const FOOTER_BYTES = 512
/** Of versions before Virtual PC 2004. */
const OLD_FOOTER_BYTES = 511
export const CHECKSUM_AT = 64
export const COOKIE = 'conectix'
export const SECTOR_BYTES = 512
export const FORMAT_VERSION = 0x00010000
export const FIXED = 2
export const DYNAMIC = 3
export const DIFFERENCING = 4
/** The specification's limit, and QEMU's VHD_MAX_SECTORS: 0xff000000 sectors. */
export const MAX_DISK_BYTES = 2040 * GiB
const HIGH = 2 ** 32
const NONE = 0xffffffff

/** Why a file was refused: stable words for clients, in `details.reason`. */
export type Refusal = 'malformed' | 'truncated' | 'external-reference' | 'unknown-feature' | 'overlap'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(reason === 'unknown-feature' ? 'unsupported' : 'invalid-image', `vhd: ${problem}`, {
    format: 'vhd',
    reason,
    ...details,
  })

/** What a reader must know of a footer that met every limit. */
export interface VhdFooter {
  readonly diskType: typeof FIXED | typeof DYNAMIC | typeof DIFFERENCING
  readonly virtualBytes: number
  /** As the footer has it, and as its cylinders, heads and sectors make it: one of the two is the disk's, by who wrote the file. */
  readonly currentBytes: number
  readonly geometryBytes: number
  /** Of the dynamic disk header; undefined: none. */
  readonly headerOffset: number | undefined
  readonly creator: string
  readonly uniqueId: string
  readonly isSaved: boolean
}

const latin1 = (field: Uint8Array): string => Buffer.from(field).toString('latin1')

/** Where the footer begins in the last bytes of a file, and how many it has; undefined: there is none. */
export function footerIn(tail: Uint8Array): Uint8Array | undefined {
  for (const length of [FOOTER_BYTES, OLD_FOOTER_BYTES]) {
    if (tail.length >= length && hasCookie(tail.subarray(tail.length - length))) return tail.subarray(tail.length - length)
  }
  return undefined
}

export const hasCookie = (input: Uint8Array): boolean => latin1(input.subarray(0, COOKIE.length)) === COOKIE

/** Specification: the one's complement of the sum of all bytes, without the field itself. The byte that a short footer lacks is zero. */
export function checksumOf(record: Uint8Array, checksumAt: number): number {
  let sum = 0
  for (let at = 0; at < checksumAt; at += 1) sum += record[at]!
  for (let at = checksumAt + 4; at < record.length; at += 1) sum += record[at]!
  return ~sum >>> 0
}

/** Whether these bytes are a footer: its cookie, and the checksum of all of it, whatever it says. */
export function isFooter(input: Uint8Array): boolean {
  if (input.length < FOOTER_BYTES || !hasCookie(input)) return false
  const record = input.subarray(0, FOOTER_BYTES)
  return new DataView(record.buffer, record.byteOffset).getUint32(CHECKSUM_AT) === checksumOf(record, CHECKSUM_AT)
}

/** @param offset of the footer in the file, for the error. @throws ServiceError `invalid-image` | `unsupported` */
export function parseFooter(input: Uint8Array, offset: number): VhdFooter {
  const f = footer.parse(input)
  if (checksumOf(input, CHECKSUM_AT) !== f.checksum) {
    throw refuse('malformed', `the checksum of the footer at byte ${offset} is wrong`, { offset, checksum: f.checksum })
  }
  if (f.version >>> 16 !== FORMAT_VERSION >>> 16) {
    throw refuse('unknown-feature', `the footer has File Format Version ${f.version >>> 16}; 1 is known`, { version: f.version })
  }
  const { diskType } = f
  if (diskType !== FIXED && diskType !== DYNAMIC && diskType !== DIFFERENCING) {
    throw refuse('malformed', `Disk Type is ${diskType}; 2 (fixed), 3 (dynamic) and 4 (differencing) are known`, { diskType })
  }
  const isNone = f.dataOffsetHigh === NONE && f.dataOffsetLow === NONE
  const creator = latin1(f.creatorApplication)
  return {
    diskType,
    ...sizesOf(f, creator),
    headerOffset: isNone ? undefined : f.dataOffsetHigh * HIGH + f.dataOffsetLow,
    creator,
    uniqueId: Buffer.from(f.uniqueId).toString('hex'),
    isSaved: f.savedState !== 0,
  }
}

/** Writers that see a disk of whole cylinders, whatever the size beside them says: Virtual PC, and QEMU without force_size. QEMU 10, block/vpc.c. */
const creatorsByGeometry: readonly string[] = ['vpc ', 'qemu']
/** Specification, appendix "CHS Calculation": what does not fit has this, and nothing can be told from it. */
const MAX_CYLINDERS = 65535
const MAX_HEADS = 16
const MAX_SECTORS_PER_TRACK = 255
const MAX_GEOMETRY_BYTES = MAX_CYLINDERS * MAX_HEADS * MAX_SECTORS_PER_TRACK * SECTOR_BYTES

interface SizeFields {
  readonly currentBytes: number
  readonly cylinders: number
  readonly heads: number
  readonly sectorsPerTrack: number
}
function sizesOf(f: SizeFields, creator: string) {
  const { currentBytes } = f
  const geometryBytes = f.cylinders * f.heads * f.sectorsPerTrack * SECTOR_BYTES
  const isByGeometry = creatorsByGeometry.includes(creator) && geometryBytes !== MAX_GEOMETRY_BYTES
  if (isByGeometry && geometryBytes === 0 && currentBytes > 0) {
    throw refuse('malformed', 'Disk Geometry has no cylinders, heads or sectors, and its creator sizes disks by them', {
      currentBytes,
    })
  }
  const virtualBytes = isByGeometry ? geometryBytes : Math.floor(currentBytes / SECTOR_BYTES) * SECTOR_BYTES
  if (virtualBytes > MAX_DISK_BYTES) {
    throw refuse('malformed', `the disk has ${virtualBytes} bytes; a VHD can have 2,040 GiB`, {
      virtualBytes,
      max: MAX_DISK_BYTES,
    })
  }
  return { virtualBytes, currentBytes, geometryBytes }
}

/** Specification, appendix "CHS Calculation". */
export function geometryOf(diskBytes: number) {
  const max = MAX_CYLINDERS * MAX_HEADS * MAX_SECTORS_PER_TRACK
  const sectors = Math.min(diskBytes / SECTOR_BYTES, max)
  const shaped = (sectorsPerTrack: number, heads: number) => {
    const tracks = Math.floor(sectors / sectorsPerTrack)
    return { tracks, cylinders: Math.floor(tracks / heads), heads, sectorsPerTrack }
  }
  if (sectors >= MAX_CYLINDERS * MAX_HEADS * 63) return shaped(255, MAX_HEADS)
  const heads = Math.max(4, Math.ceil(Math.floor(sectors / 17) / 1024))
  const small = shaped(17, heads)
  if (heads <= MAX_HEADS && small.tracks < heads * 1024) return small
  const middle = shaped(31, MAX_HEADS)
  return middle.tracks < MAX_HEADS * 1024 ? middle : shaped(63, MAX_HEADS)
}

export interface FooterFacts {
  readonly diskType: typeof FIXED | typeof DYNAMIC
  readonly virtualBytes: number
  /** Of the dynamic disk header; undefined: none. */
  readonly headerOffset?: number
  readonly uniqueId: Uint8Array
}

/** The footer that we write. Hyper-V's name as its creator makes every reader take the size as it is, not the geometry. */
export function buildFooter({ diskType, virtualBytes, headerOffset, uniqueId }: FooterFacts): Uint8Array {
  const { cylinders, heads, sectorsPerTrack } = geometryOf(virtualBytes)
  const built = new Uint8Array(FOOTER_BYTES)
  built.set(
    footer.build({
      cookie: Buffer.from(COOKIE),
      features: 2, // specification: a reserved bit, always set
      version: FORMAT_VERSION,
      dataOffsetHigh: headerOffset === undefined ? NONE : 0,
      dataOffsetLow: headerOffset ?? NONE,
      timestamp: 0,
      creatorApplication: Buffer.from('win '),
      creatorVersion: 0x000a0000,
      creatorHost: Buffer.from('Wi2k'),
      originalBytes: virtualBytes,
      currentBytes: virtualBytes,
      cylinders,
      heads,
      sectorsPerTrack,
      diskType,
      checksum: 0,
      uniqueId,
      savedState: 0,
    }),
  )
  new DataView(built.buffer).setUint32(CHECKSUM_AT, checksumOf(built, CHECKSUM_AT))
  return built
}
