import type { BlockSource } from '../../block/block-source.ts'
import type { ClusterRuns } from '../../block/cluster-runs.ts'
import { clustersWithData, plannedFile } from '../../block/planned-file.ts'
import {
  CLUSTER_BYTES,
  COPIED_HIGH,
  type HeaderPlaces,
  headerCluster,
  L2_ENTRIES,
  l1EntriesFor,
  REFCOUNTS_PER_BLOCK,
  refcountClusters,
} from './written-header.ts'

/**
 * The layout of the plain files that we write, in clusters:
 *
 *   header │ refcount table │ refcount blocks │ L1 table │ L2 tables, by L1 index │ data clusters, by their place on the disk
 *
 * A cluster of the disk is in the file when an extent of kind `data` touches it. All tables are arithmetic over the runs of
 * such clusters, so a file of any size costs no more memory than its list of runs. docs/formats/qcow2.md has the bytes.
 */
const L1_ENTRIES_PER_CLUSTER = CLUSTER_BYTES / 8
const HIGH = 2 ** 32

/** Where everything is, in clusters of the file. */
interface Layout extends HeaderPlaces {
  readonly runs: ClusterRuns
  readonly refcountBlocksStart: number
  readonly refcountBlocks: number
  readonly l2Start: number
  readonly dataStart: number
  readonly clusters: number
}

/**
 * The qcow2 file that would hold `disk`. Asks for all extents once, then answers any range.
 * @throws ServiceError `too-large` for a disk of more than 2 PiB
 */
export async function wrapDisk(disk: BlockSource): Promise<BlockSource> {
  const layout = await planned(disk)
  const tableBytes = layout.dataStart * CLUSTER_BYTES
  return plannedFile(disk, {
    size: layout.clusters * CLUSTER_BYTES,
    tables: [{ offset: 0, bytes: tableBytes, fill: (part, start) => writeTables(part, start, layout) }],
    clusters: { runs: layout.runs, bytes: CLUSTER_BYTES, offset: tableBytes },
  })
}

async function planned(disk: BlockSource): Promise<Layout> {
  const { virtualBytes, l1Entries } = l1EntriesFor(disk.size)
  const runs = await clustersWithData(disk, CLUSTER_BYTES, L2_ENTRIES)
  const l1Clusters = Math.ceil(l1Entries / L1_ENTRIES_PER_CLUSTER)
  const { blocks: refcountBlocks, tableClusters: refcountTableClusters } = refcountClusters(
    1 + l1Clusters + runs.tables + runs.clusters,
  )
  const refcountTableStart = 1
  const refcountBlocksStart = refcountTableStart + refcountTableClusters
  const l1Start = refcountBlocksStart + refcountBlocks
  const l2Start = l1Start + l1Clusters
  const dataStart = l2Start + runs.tables
  return {
    virtualBytes,
    runs,
    l1Entries,
    refcountTableStart,
    refcountTableClusters,
    refcountBlocksStart,
    refcountBlocks,
    l1Start,
    l2Start,
    dataStart,
    clusters: dataStart + runs.clusters,
    compression: 'zlib',
  }
}

/** Fills `answer`, which is zero and stands for the file from `offset` on, with what the tables have there. */
function writeTables(answer: Uint8Array, offset: number, layout: Layout): void {
  const end = offset + answer.length
  for (let at = offset; at < end; ) {
    const cluster = Math.floor(at / CLUSTER_BYTES)
    const stop = Math.min(end, (cluster + 1) * CLUSTER_BYTES)
    const inCluster = at - cluster * CLUSTER_BYTES
    writeCluster(answer.subarray(at - offset, stop - offset), cluster, inCluster, layout)
    at = stop
  }
}

/** `part` stands for the bytes from `start` on of one cluster before the data. */
function writeCluster(part: Uint8Array, cluster: number, start: number, layout: Layout): void {
  const { refcountTableStart, refcountBlocksStart, refcountBlocks, l1Start, l2Start, dataStart, clusters, runs } = layout
  if (cluster < refcountTableStart) {
    part.set(headerCluster(layout).subarray(start, start + part.length))
  } else if (cluster < refcountBlocksStart) {
    const first = (cluster - refcountTableStart) * (CLUSTER_BYTES / 8)
    writeEntries(part, start, (index) => (first + index < refcountBlocks ? refcountBlocksStart + first + index : undefined), 0)
  } else if (cluster < l1Start) {
    const counted = clusters - (cluster - refcountBlocksStart) * REFCOUNTS_PER_BLOCK
    writeRefcounts(part, start, Math.min(counted, REFCOUNTS_PER_BLOCK))
  } else if (cluster < l2Start) {
    const first = (cluster - l1Start) * L1_ENTRIES_PER_CLUSTER
    writeEntries(part, start, (index) => placeOf(l2Start, runs.tableRank(first + index)), COPIED_HIGH)
  } else {
    const firstGuestCluster = runs.tableAt(cluster - l2Start) * L2_ENTRIES
    writeEntries(part, start, (index) => placeOf(dataStart, runs.rank(firstGuestCluster + index)), COPIED_HIGH)
  }
}

const placeOf = (start: number, rank: number): number | undefined => (rank < 0 ? undefined : start + rank)

/** Writes 8-byte entries: the offset of the cluster that `clusterOf` names, or zero. `part` may begin and end inside an entry. */
function writeEntries(
  part: Uint8Array,
  start: number,
  clusterOf: (index: number) => number | undefined,
  flagsHigh: number,
): void {
  const entry = new Uint8Array(8)
  const entryView = new DataView(entry.buffer)
  const first = Math.floor(start / 8)
  const last = Math.ceil((start + part.length) / 8)
  for (let index = first; index < last; index += 1) {
    const cluster = clusterOf(index)
    if (cluster === undefined) continue
    const offset = cluster * CLUSTER_BYTES
    entryView.setUint32(0, (Math.floor(offset / HIGH) | flagsHigh) >>> 0)
    entryView.setUint32(4, offset % HIGH)
    const at = index * 8 - start
    if (at < 0) part.set(entry.subarray(-at, -at + part.length), 0)
    else part.set(at + 8 > part.length ? entry.subarray(0, part.length - at) : entry, at)
  }
}

/** Big-endian ones, 16 bits each: every cluster up to the end of the file is used once. */
function writeRefcounts(part: Uint8Array, start: number, counted: number): void {
  const end = Math.min(start + part.length, counted * 2)
  for (let at = start; at < end; at += 1) if (at % 2 === 1) part[at - start] = 1
}
