import { ServiceError } from '../../../base/errors.ts'
import { KiB } from '../../../base/units.ts'
import { header, headerV3, INCOMPATIBLE_COMPRESSION_TYPE, MAGIC, MAX_L1_BYTES, SECTOR_BYTES } from './header.ts'

/** What all files that we write have in common: version 3, clusters of 64 KiB, 16-bit refcounts. docs/formats/qcow2.md has the bytes. */
export const CLUSTER_BITS = 16 // the chunk size of the store: data clusters of a plain file are chunks of the disk
export const CLUSTER_BYTES = 64 * KiB
export const L2_ENTRIES = CLUSTER_BYTES / 8
export const REFCOUNTS_PER_BLOCK = CLUSTER_BYTES / 2
const REFCOUNT_ORDER = 4 // 16 bits
const HEADER_BYTES = 112
const COMPRESSION_TYPE_OFFSET = 104
const COMPRESSION_TYPE_ZSTD = 1

/** Bit 63 of an entry, in its high word: the refcount is exactly one. */
export const COPIED_HIGH = 0x80000000

/** @throws ServiceError `too-large` for a disk of more than 2 PiB */
export function l1EntriesFor(diskBytes: number): { readonly virtualBytes: number; readonly l1Entries: number } {
  const virtualBytes = Math.ceil(diskBytes / SECTOR_BYTES) * SECTOR_BYTES
  const l1Entries = Math.ceil(Math.ceil(virtualBytes / CLUSTER_BYTES) / L2_ENTRIES)
  if (l1Entries * 8 <= MAX_L1_BYTES) return { virtualBytes, l1Entries }
  throw new ServiceError('too-large', `a disk of ${diskBytes} bytes does not fit a qcow2 file: 2 PiB is the limit`, { diskBytes })
}

/**
 * How many clusters the refcount table and the blocks need that count `others` clusters and themselves.
 * @param placedBlocks that are among the others, from the first on
 */
export function refcountClusters(others: number, placedBlocks = 0): { readonly blocks: number; readonly tableClusters: number } {
  let [blocks, tableClusters] = [placedBlocks, 0]
  for (;;) {
    const clusters = others + (blocks - placedBlocks) + tableClusters
    const blocksNeeded = Math.max(placedBlocks, Math.ceil(clusters / REFCOUNTS_PER_BLOCK))
    const tableNeeded = Math.ceil((blocksNeeded * 8) / CLUSTER_BYTES)
    if (blocksNeeded === blocks && tableNeeded === tableClusters) return { blocks, tableClusters }
    blocks = blocksNeeded // grows only, and each step adds less than it covers
    tableClusters = tableNeeded
  }
}

/** Where the tables are that the header points to, in clusters of the file. */
export interface HeaderPlaces {
  readonly virtualBytes: number
  readonly l1Entries: number
  readonly l1Start: number
  readonly refcountTableStart: number
  readonly refcountTableClusters: number
  readonly compression: 'zlib' | 'zstd'
}

/** The first cluster of the file. */
export function headerCluster(places: HeaderPlaces): Uint8Array {
  const isZstd = places.compression === 'zstd'
  const cluster = new Uint8Array(CLUSTER_BYTES)
  cluster.set(
    header.build({
      magic: MAGIC,
      version: 3,
      backingNameOffset: 0,
      backingNameBytes: 0,
      clusterBits: CLUSTER_BITS,
      virtualBytes: places.virtualBytes,
      cryptMethod: 0,
      l1Entries: places.l1Entries,
      l1TableOffset: places.l1Start * CLUSTER_BYTES,
      refcountTableOffset: places.refcountTableStart * CLUSTER_BYTES,
      refcountTableClusters: places.refcountTableClusters,
      snapshots: 0,
      snapshotsOffset: 0,
    }),
  )
  const rest = headerV3.build({
    incompatibleHigh: 0,
    incompatibleLow: isZstd ? INCOMPATIBLE_COMPRESSION_TYPE : 0,
    compatibleHigh: 0,
    compatibleLow: 0,
    autoclearHigh: 0,
    autoclearLow: 0,
    refcountOrder: REFCOUNT_ORDER,
    headerBytes: HEADER_BYTES,
  })
  cluster.set(rest.subarray(header.bytes), header.bytes)
  cluster[COMPRESSION_TYPE_OFFSET] = isZstd ? COMPRESSION_TYPE_ZSTD : 0
  return cluster
}
