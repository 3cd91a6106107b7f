import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { LinkedClusters, type LinkTable } from '../../../block/linked-clusters.ts'
import { mappedDisk, type Segment } from '../../../block/mapped-disk.ts'
import { type BootRegion, FIRST_CLUSTER, refuse } from './boot-region.ts'

const WINDOW_BYTES = 4 * KiB
const BAD = 0xfffffff7
const END = 0xffffffff

/** What follows each cluster. Source: "exFAT file system specification", section 4.1. */
export function fileTable(volume: BlockSource, { tableOffset, clusters }: BootRegion): LinkTable {
  const bad = (problem: string) => refuse('malformed', `a chain of clusters: ${problem}`)
  const tableEnd = tableOffset + (clusters + FIRST_CLUSTER) * 4
  return {
    firstCluster: FIRST_CLUSTER,
    clusters,
    bad,
    async window(cluster) {
      const page = Math.floor((tableOffset + cluster * 4) / WINDOW_BYTES) * WINDOW_BYTES
      const from = Math.max(page, tableOffset)
      const to = Math.min(page + WINDOW_BYTES, tableEnd)
      if (to > volume.size) throw refuse('truncated', 'the table of clusters lies beyond the end of the volume', { offset: from })
      const bytes = await volume.read(from, to - from)
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      const first = (from - tableOffset) / 4
      return {
        first,
        last: first + bytes.length / 4 - 1,
        next(each) {
          const value = view.getUint32((each - first) * 4, true)
          if (value === END) return null
          if (value === BAD) throw bad(`what follows cluster ${each} is marked as bad`)
          return value
        },
      }
    },
  }
}

/** What an entry says of where its data are. */
export interface Allocation {
  readonly firstCluster: number
  /** One after the other, and not in the table: NoFatChain. */
  readonly isContiguous: boolean
  /** Null: as far as the chain goes, which is the root's way. */
  readonly bytes: number | null
  /** What was written; the rest are zeros. */
  readonly writtenBytes: number
}

export const offsetOf = ({ heapOffset, clusterBytes }: BootRegion, cluster: number): number =>
  heapOffset + (cluster - FIRST_CLUSTER) * clusterBytes

/** Runs of clusters, as far as `bytes` or the chain. */
export type Runs = (index: number, wanted: number) => Promise<{ readonly cluster: number; readonly count: number } | undefined>

/** @throws ServiceError `invalid-image` for clusters that are none */
export function runsOf(boot: BootRegion, table: LinkTable, { firstCluster, isContiguous, bytes }: Allocation): Runs {
  const { clusters, clusterBytes } = boot
  const most = clusters * clusterBytes
  if (bytes !== null && bytes > most) throw refuse('malformed', `${bytes} bytes, where all clusters have ${most}`)
  if (!isContiguous) {
    const chain = new LinkedClusters(table, firstCluster)
    return (index, wanted) => chain.runAt(index, wanted)
  }
  const count = Math.ceil((bytes ?? 0) / clusterBytes)
  if (firstCluster < FIRST_CLUSTER || firstCluster + count > clusters + FIRST_CLUSTER)
    throw refuse('malformed', `clusters ${firstCluster} to ${firstCluster + count}, of ${clusters}`)
  return async (index) => (index < count ? { cluster: firstCluster + index, count: count - index } : undefined)
}

/** The bytes of a file. Closing it closes nothing. @param bytes of it */
export function fileSource(
  volume: BlockSource,
  boot: BootRegion,
  table: LinkTable,
  place: Allocation,
  bytes: number,
): BlockSource {
  const { clusterBytes } = boot
  const runs = bytes === 0 ? undefined : runsOf(boot, table, place)
  async function* segments(offset: number, length: number): AsyncGenerator<Segment> {
    const end = offset + length
    const written = Math.max(offset, Math.min(end, place.writtenBytes))
    for (let at = offset; at < written; ) {
      const index = Math.floor(at / clusterBytes)
      const run = await runs?.(index, Math.ceil(written / clusterBytes) - index)
      if (!run) throw refuse('malformed', `a chain of ${index} clusters, for what has byte ${at}`)
      const stop = Math.min(written, (index + run.count) * clusterBytes)
      const hostOffset = offsetOf(boot, run.cluster) + at - index * clusterBytes
      if (hostOffset + stop - at > volume.size)
        throw refuse('truncated', `cluster ${run.cluster} lies beyond the end of the volume`, { offset: hostOffset })
      yield { kind: 'data', offset: at, length: stop - at, hostOffset }
      at = stop
    }
    if (written < end) yield { kind: 'zero', offset: written, length: end - written }
  }
  const { close: _, ...disk } = mappedDisk(volume, { size: bytes, segments })
  return { ...disk, close: async () => {} }
}
