import { ServiceError } from '../../../base/errors.ts'
import { struct, u32le, u64le } from '../../../base/struct.ts'
import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { OpenOptions } from '../format-driver.ts'

/** QED header, little-endian. Source: QEMU docs/interop/qed_spec, section "Header". Feature words are cut in two: they may use all 64 bits. */
const header = struct('qed header', {
  magic: u32le(0),
  clusterBytes: u32le(4),
  tableClusters: u32le(8), // of an L1 or L2 table
  headerClusters: u32le(12),
  featuresLow: u32le(16),
  featuresHigh: u32le(20),
  l1TableOffset: u64le(40),
  virtualBytes: u64le(48),
  backingNameOffset: u32le(56),
  backingNameBytes: u32le(60),
})

const MAGIC = 0x00444551 // "QED\0"
const MIN_CLUSTER_BYTES = 4 * KiB // specification, section "Header"
const MAX_CLUSTER_BYTES = 64 * MiB
const MAX_TABLE_CLUSTERS = 16
const MAX_BACKING_NAME_BYTES = 1023 // QEMU's own limit
const SECTOR_BYTES = 512
const FEATURE_BACKING_FILE = 1
const FEATURE_NEED_CHECK = 2
const FEATURES_KNOWN = 7 // and 4: the backing file is raw whatever it looks like

/** What a reader must know of a header that met every limit. */
export interface QedHeader {
  readonly clusterBytes: number
  readonly virtualBytes: number
  readonly headerBytes: number
  readonly l1TableOffset: number
  /** Of each table, L1 or L2, and how many entries of 8 bytes that is. */
  readonly tableBytes: number
  readonly tableEntries: number
  /** The file was not closed cleanly. */
  readonly needsCheck: boolean
}

type Refusal = 'malformed' | 'truncated' | 'external-reference' | 'unknown-feature' | 'overlap' | 'no-snapshots'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(
    reason === 'unknown-feature' || reason === 'no-snapshots' ? 'unsupported' : 'invalid-image',
    `qed: ${problem}`,
    {
      format: 'qed',
      reason,
      ...details,
    },
  )

/** @throws ServiceError `invalid-image` | `unsupported`, saying what is wrong and the limit */
export async function readHeader(file: BlockSource, { parent, snapshot }: OpenOptions): Promise<QedHeader> {
  if (snapshot !== undefined) throw refuse('no-snapshots', 'the format has no internal snapshots')
  const h = header.parse(await file.read(0, Math.min(file.size, header.bytes)))
  const check = (holds: boolean, problem: string, details: Record<string, number> = {}) => {
    if (!holds) throw refuse('malformed', problem, details)
  }
  check(h.magic === MAGIC, 'wrong magic: this is no QED file')
  if (h.featuresHigh !== 0 || (h.featuresLow & ~FEATURES_KNOWN) !== 0) {
    throw refuse('unknown-feature', 'the header asks for features that are not known here; convert it with "qemu-img convert"', {
      featuresHigh: h.featuresHigh,
      featuresLow: h.featuresLow,
    })
  }
  const { clusterBytes, tableClusters, headerClusters, l1TableOffset, virtualBytes } = h
  const isClusterSize = isPowerOfTwo(clusterBytes) && clusterBytes >= MIN_CLUSTER_BYTES && clusterBytes <= MAX_CLUSTER_BYTES
  check(isClusterSize, `cluster_size is ${clusterBytes}; it must be a power of 2 from 4 KiB to 64 MiB`, { clusterBytes })
  const isTableSize = isPowerOfTwo(tableClusters) && tableClusters <= MAX_TABLE_CLUSTERS
  check(isTableSize, `table_size is ${tableClusters}; it must be 1, 2, 4, 8 or 16 clusters`, { tableClusters })
  const headerBytes = headerClusters * clusterBytes
  check(headerClusters > 0, 'header_size is 0')
  if (headerBytes > file.size) throw beyondEnd('the header', 0, headerBytes, file.size)
  checkBacking(h, headerBytes, parent !== undefined)

  const tableBytes = tableClusters * clusterBytes
  const tableEntries = tableBytes / 8
  check(virtualBytes % SECTOR_BYTES === 0, `image_size, ${virtualBytes}, is not a multiple of ${SECTOR_BYTES} bytes`, {
    virtualBytes,
  })
  const most = tableEntries * tableEntries * clusterBytes
  check(virtualBytes <= most, `image_size, ${virtualBytes}, is more than the tables can map, ${most}`, { virtualBytes })
  check(l1TableOffset % clusterBytes === 0, 'the L1 table is not aligned to a cluster', { l1TableOffset })
  check(l1TableOffset >= headerBytes, 'the L1 table overlaps the header', { l1TableOffset })
  if (l1TableOffset + tableBytes > file.size) throw beyondEnd('the L1 table', l1TableOffset, tableBytes, file.size)
  const needsCheck = (h.featuresLow & FEATURE_NEED_CHECK) !== 0
  return { clusterBytes, virtualBytes, headerBytes, l1TableOffset, tableBytes, tableEntries, needsCheck }
}

/** The name that the header has for its backing file; undefined: it has none, or no place for it. */
export async function readBackingName(file: BlockSource): Promise<string | undefined> {
  const h = header.parse(await file.read(0, Math.min(file.size, header.bytes)))
  const { backingNameOffset, backingNameBytes } = h
  const isThere = backingNameBytes <= MAX_BACKING_NAME_BYTES && backingNameOffset + backingNameBytes <= file.size
  if ((h.featuresLow & FEATURE_BACKING_FILE) === 0 || !isThere) return undefined
  return new TextDecoder().decode(await file.read(backingNameOffset, backingNameBytes))
}

const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value))

interface BackingFields {
  readonly featuresLow: number
  readonly backingNameOffset: number
  readonly backingNameBytes: number
}
/** The name is held to its limits and never read: what the disk is a difference to is given, or it is refused. */
function checkBacking(h: BackingFields, headerBytes: number, hasParent: boolean): void {
  const isNamed = (h.featuresLow & FEATURE_BACKING_FILE) !== 0
  if (isNamed && !hasParent) {
    throw refuse(
      'external-reference',
      'the header names a backing file, and references to other files are never followed; flatten it with "imprint convert --parent"',
    )
  }
  if (!isNamed && hasParent)
    throw refuse('malformed', 'a parent is given, but the header names no backing file: the disk stands alone')
  const { backingNameOffset, backingNameBytes } = h
  const fits = backingNameBytes <= MAX_BACKING_NAME_BYTES && backingNameOffset + backingNameBytes <= headerBytes
  if (!isNamed || fits) return
  throw refuse(
    'malformed',
    `the backing file name, ${backingNameBytes} bytes at byte ${backingNameOffset}, does not fit the header`,
    {
      backingNameOffset,
      backingNameBytes,
    },
  )
}

export const beyondEnd = (what: string, offset: number, length: number, fileBytes: number): ServiceError =>
  refuse('truncated', `${what} lies beyond the end of the file, which has ${fileBytes} bytes; is the upload complete?`, {
    offset,
    length,
    fileBytes,
  })
