import { createHash } from 'node:crypto'
import { ServiceError } from '../../../base/errors.ts'
import { GiB, KiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { ClusterRuns } from '../../block/cluster-runs.ts'
import {
  DEFLATE,
  FLAG_COMPRESSED,
  FLAG_MARKERS,
  FLAG_NEWLINE_TEST,
  FLAG_REDUNDANT_TABLES,
  MAGIC,
  MAX_DIRECTORY_BYTES,
  NEWLINES,
  SECTOR_BYTES,
  sparseHeader,
} from './header.ts'

/** What both forms that we write have in common: grains of 64 KiB, as all of VMware's tools use, are chunks of the store as well. */
export const GRAIN_BYTES = 64 * KiB
export const GRAIN_SECTORS = GRAIN_BYTES / SECTOR_BYTES
export const TABLE_ENTRIES = 512
export const TABLE_BYTES = TABLE_ENTRIES * 4
export const TABLE_SECTORS = TABLE_BYTES / SECTOR_BYTES
export const DESCRIPTOR_SECTOR = 1
export const DESCRIPTOR_SECTORS = 20
/** What an entry of 32 bits can name. */
export const MAX_FILE_SECTORS = 2 ** 32

/** A disk as its header and descriptor say it. */
export interface Shape {
  readonly createType: 'monolithicSparse' | 'streamOptimized'
  readonly capacity: number
  /** Of grain tables. */
  readonly tables: number
  readonly cid: string
  /** Its last eight digits are the CID. */
  readonly longContentId: string
}

/**
 * @param grains  those that have data
 * @throws ServiceError `too-large` for a disk of more than 64 TiB; `unsupported` for one of no bytes
 */
export function shapeOf(disk: BlockSource, grains: ClusterRuns, createType: Shape['createType']): Shape {
  const capacity = Math.ceil(disk.size / SECTOR_BYTES)
  if (capacity === 0) throw new ServiceError('unsupported', 'a vmdk file cannot hold a disk of no bytes')
  const tables = Math.ceil(capacity / (GRAIN_SECTORS * TABLE_ENTRIES))
  if (tables * 4 > MAX_DIRECTORY_BYTES) {
    throw new ServiceError('too-large', `a disk of ${disk.size} bytes does not fit a vmdk file: 64 TiB is the limit`, {
      diskBytes: disk.size,
    })
  }
  return { createType, capacity, tables, ...contentId(capacity, grains, createType) }
}

/** The same for the same layout. The CIDs from fffffffe on have a meaning of their own. */
function contentId(capacity: number, grains: ClusterRuns, createType: string) {
  const hash = createHash('sha256').update(`${createType} ${capacity}`)
  for (let rank = 0; rank < grains.clusters; ) {
    const { cluster, runEnd } = grains.clusterAt(rank)
    hash.update(` ${cluster}-${runEnd}`)
    rank += runEnd - cluster
  }
  const digest = hash.digest()
  const cid = (digest.readUInt32LE(12) % 0xfffffffe).toString(16).padStart(8, '0')
  return { cid, longContentId: digest.toString('hex', 0, 12) + cid }
}

/** Source: "Virtual Disk Format 5.0", "The Descriptor File". The name of the extent is that of the file itself, which nobody looks up. */
export function descriptorOf({ createType, capacity, cid, longContentId }: Shape): Uint8Array {
  const { cylinders, heads, sectors } = geometryOf(capacity)
  const text = [
    '# Disk DescriptorFile',
    'version=1',
    'encoding="UTF-8"',
    `CID=${cid}`,
    'parentCID=ffffffff',
    `createType="${createType}"`,
    '',
    '# Extent description',
    `${createType === 'streamOptimized' ? 'RDONLY' : 'RW'} ${capacity} SPARSE "disk.vmdk"`,
    '',
    '# The Disk Data Base',
    '#DDB',
    '',
    'ddb.adapterType = "lsilogic"',
    `ddb.geometry.cylinders = "${cylinders}"`,
    `ddb.geometry.heads = "${heads}"`,
    `ddb.geometry.sectors = "${sectors}"`,
    `ddb.longContentID = "${longContentId}"`,
    'ddb.toolsVersion = "2147483647"', // "unknown": the guest brings its own
    'ddb.virtualHWVersion = "4"',
    '',
  ].join('\n')
  const padded = new Uint8Array(DESCRIPTOR_SECTORS * SECTOR_BYTES)
  padded.set(Buffer.from(text))
  return padded
}

/** As VMware chooses for SCSI disks; cylinders are counted up to what 16 bits hold. */
export function geometryOf(capacity: number): { readonly cylinders: number; readonly heads: number; readonly sectors: number } {
  const bytes = capacity * SECTOR_BYTES
  const [heads, sectors] = bytes <= 1 * GiB ? [64, 32] : bytes <= 2 * GiB ? [128, 32] : [255, 63]
  return { cylinders: Math.min(65_535, Math.ceil(capacity / (heads * sectors))), heads, sectors }
}

/** Where the tables are, in sectors. */
export interface Places {
  readonly redundantDirectory: number
  readonly directory: Uint8Array
  readonly overhead: number
}

export function headerOf({ createType, capacity }: Shape, { redundantDirectory, directory, overhead }: Places): Uint8Array {
  const isStream = createType === 'streamOptimized'
  const sector = new Uint8Array(SECTOR_BYTES)
  sector.set(
    sparseHeader.build({
      magic: MAGIC,
      version: isStream ? 3 : 1,
      flags: FLAG_NEWLINE_TEST | (isStream ? FLAG_COMPRESSED | FLAG_MARKERS : FLAG_REDUNDANT_TABLES),
      capacity,
      grainSize: GRAIN_SECTORS,
      descriptorOffset: DESCRIPTOR_SECTOR,
      descriptorSize: DESCRIPTOR_SECTORS,
      tableEntries: TABLE_ENTRIES,
      redundantDirectory,
      directory,
      overhead,
      unclean: 0,
      newlines: NEWLINES,
      compression: isStream ? DEFLATE : 0,
    }),
  )
  return sector
}

export function directoryAt(sector: number): Uint8Array {
  const field = new Uint8Array(8)
  new DataView(field.buffer).setBigUint64(0, BigInt(sector), true)
  return field
}
