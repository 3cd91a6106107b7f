import { ServiceError } from '../../../base/errors.ts'
import { struct, u8, u32be, u64be } from '../../../base/struct.ts'
import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'

/** qcow2 header, versions 2 and 3; big-endian. Source: QEMU docs/interop/qcow2, section "Header". */
export const header = struct('qcow2 header', {
  magic: u32be(0),
  version: u32be(4),
  backingNameOffset: u64be(8), // bytes from the start of the file; 0 = none
  backingNameBytes: u32be(16),
  clusterBits: u32be(20), // log2 of the cluster size in bytes
  virtualBytes: u64be(24),
  cryptMethod: u32be(32), // 0 none, 1 AES, 2 LUKS
  l1Entries: u32be(36), // 8 bytes each
  l1TableOffset: u64be(40),
  refcountTableOffset: u64be(48),
  refcountTableClusters: u32be(56),
  snapshots: u32be(60),
  snapshotsOffset: u64be(64),
})
/** What version 3 adds. Feature words are cut in two, as they may use all 64 bits. */
export const headerV3 = struct('qcow2 version 3 header', {
  incompatibleHigh: u32be(72),
  incompatibleLow: u32be(76),
  compatibleHigh: u32be(80),
  compatibleLow: u32be(84),
  autoclearHigh: u32be(88),
  autoclearLow: u32be(92),
  refcountOrder: u32be(96), // log2 of the width of a refcount in bits
  headerBytes: u32be(100),
})
const compressionField = struct('qcow2 compression type', { compressionType: u8(104) })
const extension = struct('qcow2 header extension', { type: u32be(0), bytes: u32be(4) })
const bitmapsExtension = struct('qcow2 bitmaps extension', {
  bitmaps: u32be(0),
  directoryBytes: u64be(8),
  directoryOffset: u64be(16),
})

export const MAGIC = 0x514649fb // "QFI\xfb"
const V2_HEADER_BYTES = 72
const MIN_CLUSTER_BITS = 9 // specification: "must not be less than 9"
const MAX_CLUSTER_BITS = 21 // QEMU's own limit, 2 MiB; bounds every allocation for a cluster below
const MIN_EXTENDED_CLUSTER_BITS = 14 // 32 subclusters of at least one sector
export const MAX_L1_BYTES = 32 * MiB // QEMU's QCOW_MAX_L1_SIZE; a file of 1 KiB must not cost 32 GiB of memory
const MAX_REFCOUNT_TABLE_BYTES = 8 * MiB // QEMU's QCOW_MAX_REFTABLE_SIZE
const MAX_REFCOUNT_ORDER = 6 // specification: at most 64 bits
const MAX_BACKING_NAME_BYTES = 1023 // specification: "Must not be longer than 1023 bytes"
const MAX_SNAPSHOTS = 65536 // QEMU's QCOW_MAX_SNAPSHOTS
const MAX_BITMAPS = 65535 // QEMU's QCOW2_MAX_BITMAPS
const MAX_EXTENSIONS = 256 // QEMU writes 4 at most; a cluster of 2 MiB could hold 250,000 empty ones
export const SECTOR_BYTES = 512 // QEMU counts disks in sectors, and drops what is left over

export const INCOMPATIBLE_DIRTY = 1
const INCOMPATIBLE_CORRUPT = 2
const INCOMPATIBLE_DATA_FILE = 4
export const INCOMPATIBLE_COMPRESSION_TYPE = 8
const INCOMPATIBLE_EXTENDED_L2 = 16
const INCOMPATIBLE_KNOWN = 31
const AUTOCLEAR_RAW_EXTERNAL_DATA = 2

const EXTENSION_END = 0
const EXTENSION_DATA_FILE = 0x44415441
const EXTENSION_ENCRYPTION = 0x0537be77
const EXTENSION_BITMAPS = 0x23852875

/** What a reader must know of a header that met every limit. */
export interface Qcow2Header {
  readonly version: 2 | 3
  readonly clusterBits: number
  readonly clusterBytes: number
  readonly virtualBytes: number
  /** Entries that the table has, and how many of them the disk needs. */
  readonly l1Entries: number
  readonly l1NeededEntries: number
  readonly l1TableOffset: number
  /** 8 bytes, or 16 with subclusters. */
  readonly l2EntryBytes: number
  readonly l2Entries: number
  readonly refcountTableOffset: number
  readonly refcountTableClusters: number
  readonly snapshots: number
  readonly snapshotsOffset: number
  readonly compression: 'zlib' | 'zstd'
  /** Each cluster is 32 subclusters with a state of their own. */
  readonly extendedL2: boolean
  /** Refcounts may be out of date; the disk itself is not. */
  readonly dirty: boolean
}

/** Why a file was refused: stable words for clients, in `details.reason`. */
export type Refusal =
  | 'malformed'
  | 'truncated'
  | 'external-reference'
  | 'encrypted'
  | 'unknown-feature'
  | 'marked-corrupt'
  | 'overlap'
  | 'amplification'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(
    reason === 'encrypted' || reason === 'unknown-feature' ? 'unsupported' : 'invalid-image',
    `qcow2: ${problem}`,
    {
      format: 'qcow2',
      reason,
      ...details,
    },
  )

/** Whether the disk is opened over a parent, which the header must ask for; any: only the header itself is of interest. */
export type Parent = 'none' | 'given' | 'any'

/**
 * Reads and checks header and header extensions; at most one cluster (2 MiB) is read.
 * @throws ServiceError `invalid-image` | `unsupported`, saying what is wrong and the limit
 */
export async function readHeader(file: BlockSource, parent: Parent): Promise<Qcow2Header> {
  const parsed = parseHeader(await file.read(0, Math.min(file.size, 4 * KiB)), file.size, parent)
  checkExtensions(await file.read(0, Math.min(file.size, parsed.clusterBytes)), parsed, file.size)
  return parsed
}

/** @param bytes  the start of the file, at least 112 bytes of it where the file has them */
export function parseHeader(
  bytes: Uint8Array,
  fileBytes: number,
  parent: Parent = 'none',
): Qcow2Header & { readonly headerBytes: number } {
  const check = (holds: boolean, problem: string, details: Record<string, number> = {}) => {
    if (!holds) throw refuse('malformed', problem, details)
  }
  const h = header.parse(bytes)
  check(h.magic === MAGIC, 'wrong magic: this is no qcow2 file')
  const { version, clusterBits, virtualBytes, l1Entries, l1TableOffset } = h
  check(version === 2 || version === 3, `unknown version ${version}; 2 and 3 are known`, { version })
  check(
    clusterBits >= MIN_CLUSTER_BITS && clusterBits <= MAX_CLUSTER_BITS,
    `cluster_bits is ${clusterBits}; it must be ${MIN_CLUSTER_BITS} to ${MAX_CLUSTER_BITS}`,
    { clusterBits },
  )
  const clusterBytes = 2 ** clusterBits // never `1 << bits`: it wraps at 32
  const features = parseFeatures(bytes, version, clusterBytes)
  checkBacking(h, parent, clusterBytes, fileBytes)
  if (h.cryptMethod !== 0) {
    const method = ['', 'AES', 'LUKS'][h.cryptMethod] ?? 'a method that is not known'
    throw refuse('encrypted', `the disk is encrypted (crypt_method ${h.cryptMethod}: ${method}); upload it decrypted`, {
      cryptMethod: h.cryptMethod,
    })
  }

  check(virtualBytes % SECTOR_BYTES === 0, `the virtual size, ${virtualBytes}, is not a multiple of ${SECTOR_BYTES} bytes`, {
    virtualBytes,
  })
  const l2EntryBytes = features.extendedL2 ? 16 : 8
  const l2Entries = clusterBytes / l2EntryBytes
  const l1NeededEntries = Math.ceil(virtualBytes / clusterBytes / l2Entries)
  check(l1Entries * 8 <= MAX_L1_BYTES, `the L1 table is too large: ${l1Entries} entries; at most ${MAX_L1_BYTES / 8}`, {
    l1Entries,
  })
  check(
    l1Entries >= l1NeededEntries,
    `the L1 table is too small for the virtual size: ${l1Entries} of ${l1NeededEntries} entries`,
    {
      l1Entries,
      l1NeededEntries,
    },
  )
  check(l1TableOffset % clusterBytes === 0, 'the L1 table is not aligned to a cluster', { l1TableOffset })
  if (l1Entries > 0) {
    check(l1TableOffset >= clusterBytes, 'the L1 table overlaps the header', { l1TableOffset })
    inFile('the L1 table', l1TableOffset, l1Entries * 8, fileBytes)
  }
  checkRefcounts(h, features.refcountOrder, clusterBytes, fileBytes)
  checkSnapshotTable(h, clusterBytes, fileBytes)

  return {
    version: version as 2 | 3,
    clusterBits,
    clusterBytes,
    virtualBytes,
    l1Entries,
    l1NeededEntries,
    l1TableOffset,
    l2EntryBytes,
    l2Entries,
    refcountTableOffset: h.refcountTableOffset,
    refcountTableClusters: h.refcountTableClusters,
    snapshots: h.snapshots,
    snapshotsOffset: h.snapshotsOffset,
    compression: features.compression,
    extendedL2: features.extendedL2,
    dirty: features.dirty,
    headerBytes: features.headerBytes,
  }
}

interface BackingFields {
  readonly backingNameOffset: number
  readonly backingNameBytes: number
}
/** The name is held to its limits and never read: what the disk is a difference to is given, or it is refused. */
function checkBacking(h: BackingFields, parent: Parent, clusterBytes: number, fileBytes: number): void {
  const { backingNameOffset, backingNameBytes } = h
  const isNamed = backingNameOffset !== 0 || backingNameBytes !== 0
  if (parent === 'none' && isNamed) {
    throw refuse(
      'external-reference',
      'the header names a backing file, and references to other files are never followed; flatten it with "imprint convert --parent"',
    )
  }
  if (!isNamed) {
    if (parent === 'given') throw refuse('malformed', 'a parent is given, but backing_file_offset is 0: the disk stands alone')
    return
  }
  const fits =
    backingNameBytes > 0 &&
    backingNameBytes <= MAX_BACKING_NAME_BYTES &&
    backingNameOffset >= V2_HEADER_BYTES &&
    backingNameOffset + backingNameBytes <= Math.min(clusterBytes, fileBytes)
  if (fits) return
  throw refuse(
    'malformed',
    `the backing file name, ${backingNameBytes} bytes at byte ${backingNameOffset}, is not 1 to ${MAX_BACKING_NAME_BYTES} bytes inside the header cluster`,
    { backingNameOffset, backingNameBytes },
  )
}

interface Features {
  readonly headerBytes: number
  readonly refcountOrder: number
  readonly compression: 'zlib' | 'zstd'
  readonly extendedL2: boolean
  readonly dirty: boolean
}

/** In version 2 the bytes from 72 on are header extensions, whatever they look like. */
function parseFeatures(bytes: Uint8Array, version: number, clusterBytes: number): Features {
  if (version === 2) {
    return { headerBytes: V2_HEADER_BYTES, refcountOrder: 4, compression: 'zlib', extendedL2: false, dirty: false }
  }
  const { headerBytes, refcountOrder, incompatibleHigh, incompatibleLow, autoclearLow } = headerV3.parse(bytes)
  const lengthFits = headerBytes >= headerV3.bytes && headerBytes % 8 === 0 && headerBytes <= clusterBytes
  if (!lengthFits) {
    throw refuse(
      'malformed',
      `header_length is ${headerBytes}; it must be a multiple of 8 from ${headerV3.bytes} to the cluster size`,
      {
        headerBytes,
      },
    )
  }
  const unknown = incompatibleHigh !== 0 || (incompatibleLow & ~INCOMPATIBLE_KNOWN) !== 0
  if (unknown) {
    throw refuse(
      'unknown-feature',
      'the header asks for features that are not known here; convert it with "qemu-img convert -O qcow2"',
      {
        incompatibleHigh,
        incompatibleLow,
      },
    )
  }
  if (incompatibleLow & INCOMPATIBLE_DATA_FILE || autoclearLow & AUTOCLEAR_RAW_EXTERNAL_DATA) {
    throw refuse(
      'external-reference',
      'the data lie in another file, and references to other files are never followed; flatten it with "qemu-img convert -O qcow2"',
    )
  }
  if (incompatibleLow & INCOMPATIBLE_CORRUPT) {
    throw refuse('marked-corrupt', 'the image is marked as corrupt; repair it with "qemu-img check -r all", then upload it again')
  }
  const clusterBits = Math.log2(clusterBytes)
  const extendedL2 = (incompatibleLow & INCOMPATIBLE_EXTENDED_L2) !== 0
  if (extendedL2 && clusterBits < MIN_EXTENDED_CLUSTER_BITS) {
    throw refuse('malformed', `subclusters need cluster_bits of at least ${MIN_EXTENDED_CLUSTER_BITS}`, { clusterBits })
  }
  const compressionType = headerBytes > headerV3.bytes ? compressionField.parse(bytes).compressionType : 0
  const hasTypeBit = (incompatibleLow & INCOMPATIBLE_COMPRESSION_TYPE) !== 0
  if (compressionType > 1) {
    throw refuse('unknown-feature', `compression type ${compressionType} is not known; 0 (zlib) and 1 (zstd) are`, {
      compressionType,
    })
  }
  if (hasTypeBit !== (compressionType !== 0)) {
    throw refuse('malformed', 'the compression type and its incompatible-feature bit contradict each other', { compressionType })
  }
  return {
    headerBytes,
    refcountOrder,
    compression: compressionType === 1 ? 'zstd' : 'zlib',
    extendedL2,
    dirty: (incompatibleLow & INCOMPATIBLE_DIRTY) !== 0,
  }
}

interface RefcountFields {
  readonly refcountTableOffset: number
  readonly refcountTableClusters: number
}
/** Reading needs no refcounts; a file whose refcounts are nonsense is refused all the same, as QEMU does. */
function checkRefcounts(h: RefcountFields, refcountOrder: number, clusterBytes: number, fileBytes: number): void {
  const { refcountTableOffset, refcountTableClusters } = h
  if (refcountOrder > MAX_REFCOUNT_ORDER) {
    throw refuse('malformed', `refcount_order is ${refcountOrder}; at most ${MAX_REFCOUNT_ORDER}`, { refcountOrder })
  }
  if (refcountTableClusters === 0) throw refuse('malformed', 'the file has no refcount table')
  if (refcountTableClusters * clusterBytes > MAX_REFCOUNT_TABLE_BYTES) {
    throw refuse('malformed', `the refcount table is too large: ${refcountTableClusters} clusters`, { refcountTableClusters })
  }
  if (refcountTableOffset % clusterBytes !== 0 || refcountTableOffset === 0) {
    throw refuse('malformed', 'the refcount table is not aligned to a cluster after the header', { refcountTableOffset })
  }
  inFile('the refcount table', refcountTableOffset, 8, fileBytes)
}

interface SnapshotFields {
  readonly snapshots: number
  readonly snapshotsOffset: number
}
function checkSnapshotTable({ snapshots, snapshotsOffset }: SnapshotFields, clusterBytes: number, fileBytes: number): void {
  if (snapshots === 0) return
  if (snapshots > MAX_SNAPSHOTS)
    throw refuse('malformed', `too many snapshots: ${snapshots}; at most ${MAX_SNAPSHOTS}`, { snapshots })
  if (snapshotsOffset % clusterBytes !== 0 || snapshotsOffset === 0) {
    throw refuse('malformed', 'the snapshot table is not aligned to a cluster after the header', { snapshotsOffset })
  }
  inFile('the snapshot table', snapshotsOffset, snapshots * 40, fileBytes)
}

export function inFile(what: string, offset: number, length: number, fileBytes: number): void {
  if (offset > fileBytes || length > fileBytes - offset) {
    throw refuse('truncated', `${what} lies beyond the end of the file, which has ${fileBytes} bytes; is the upload complete?`, {
      offset,
      length,
      fileBytes,
    })
  }
}

/** @param bytes  the first cluster, or the whole file where that is shorter */
export function checkExtensions(bytes: Uint8Array, { headerBytes }: { readonly headerBytes: number }, fileBytes: number): void {
  let at = headerBytes
  for (let count = 0; at + extension.bytes <= bytes.length; count += 1) {
    const { type, bytes: length } = extension.parse(bytes.subarray(at))
    if (type === EXTENSION_END) return
    if (count >= MAX_EXTENSIONS) throw refuse('malformed', `more than ${MAX_EXTENSIONS} header extensions`)
    const start = at + extension.bytes
    if (length > bytes.length - start) {
      throw refuse('malformed', `the header extension at byte ${at} is longer than the header cluster`, { at, length })
    }
    if (type === EXTENSION_DATA_FILE) {
      throw refuse('external-reference', 'a header extension names an external data file, and such names are never followed')
    }
    if (type === EXTENSION_ENCRYPTION)
      throw refuse('encrypted', 'a header extension holds encryption keys; upload the disk decrypted')
    if (type === EXTENSION_BITMAPS) checkBitmaps(bytes.subarray(start, start + length), fileBytes)
    at = start + Math.ceil(length / 8) * 8
  }
}

/** Dirty bitmaps are not shown to anyone; only their directory is held to its limits. */
function checkBitmaps(bytes: Uint8Array, fileBytes: number): void {
  const { bitmaps, directoryBytes, directoryOffset } = bitmapsExtension.parse(bytes)
  if (bitmaps > MAX_BITMAPS) throw refuse('malformed', `too many bitmaps: ${bitmaps}; at most ${MAX_BITMAPS}`, { bitmaps })
  inFile('the bitmap directory', directoryOffset, directoryBytes, fileBytes)
}
