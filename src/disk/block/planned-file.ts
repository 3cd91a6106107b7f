import type { BlockSource, Extent } from './block-source.ts'
import { ClusterRuns } from './cluster-runs.ts'
import { merged } from './run-merger.ts'

/**
 * A file that would hold a disk: tables, which are computed when they are read, and the clusters of the disk that have data, one after
 * another. What is in neither is zeros.
 */
export interface FilePlan {
  /** Bytes of the file. */
  readonly size: number
  /** Ascending and apart; none overlaps the clusters. */
  readonly tables: readonly Table[]
  readonly clusters: Clusters
}

export interface Table {
  /** In the file, as `bytes`. */
  readonly offset: number
  readonly bytes: number
  /** Writes what the table has from its byte `start` on into `part`, which is zeros. Asked for any part, in any order, many times. */
  fill(part: Uint8Array, start: number): void
  /** Which parts of its bytes `[from, to)` may be other than zeros: ascending, apart; absent: all. What is left out is never filled. */
  used?(from: number, to: number): Iterable<readonly [from: number, to: number]>
}

export interface Clusters {
  /** Which are in the file. */
  readonly runs: ClusterRuns
  /** Of each. The last of the disk may reach beyond the disk's end: zeros. */
  readonly bytes: number
  /** Where the first one is in the file, or what comes before it. */
  readonly offset: number
  /** What comes before each of them; absent: nothing. @param cluster its number on the disk */
  readonly head?: { readonly bytes: number; fill(part: Uint8Array, start: number, cluster: number): void }
}

/** Reads of the disk at a time for one read of the file. */
const MAX_READS = 8

/** Answers any range of it, and keeps nothing but the plan. Closing it closes the disk. */
export function plannedFile(disk: BlockSource, plan: FilePlan): BlockSource {
  return {
    size: plan.size,
    async read(offset, length, into) {
      const pieces = [...piecesOf(disk, plan, offset, length)]
      const [only] = pieces
      if (only?.kind === 'disk' && only.diskBytes === length) return disk.read(only.diskOffset, length, into)
      const answer = new Uint8Array(length)
      const each = pieces.values()
      /** All workers take from one iterator: each piece is done once. */
      const work = async () => {
        for (const piece of each) {
          const at = piece.at - offset
          if (piece.kind === 'computed') piece.fill(answer.subarray(at, at + piece.length))
          else if (piece.diskBytes > 0) answer.set(await disk.read(piece.diskOffset, piece.diskBytes), at)
        }
      }
      await Promise.all(Array.from({ length: MAX_READS }, work))
      return answer
    },
    extents: (offset, length) => merged(extentsOf(disk, plan, offset, length)),
    close: () => disk.close(),
  }
}

interface Piece {
  /** In the file, as `length`. */
  readonly at: number
  readonly length: number
}
interface ComputedPiece extends Piece {
  readonly kind: 'computed'
  readonly fill: (part: Uint8Array) => void
}
interface DiskPiece extends Piece {
  readonly kind: 'disk'
  readonly diskOffset: number
  /** Less than `length` where the disk ends inside its last cluster; the rest is zeros. */
  readonly diskBytes: number
}

/** What a range of the file has, in order; what is left out is zeros. */
function* piecesOf(disk: BlockSource, plan: FilePlan, offset: number, length: number): Generator<ComputedPiece | DiskPiece> {
  const end = offset + length
  const { clusters } = plan
  const clustersEnd = clusters.offset + clusters.runs.clusters * strideOf(clusters)
  let areClustersDone = false
  for (const table of plan.tables) {
    if (!areClustersDone && table.offset >= clustersEnd) {
      areClustersDone = true
      yield* clusterPieces(disk, clusters, offset, end)
    }
    const from = Math.max(offset, table.offset) - table.offset
    const to = Math.min(end - table.offset, table.bytes)
    if (from >= to) continue
    for (const [start, stop] of table.used?.(from, to) ?? [[from, to] as const]) {
      yield { kind: 'computed', at: table.offset + start, length: stop - start, fill: (part) => table.fill(part, start) }
    }
  }
  if (!areClustersDone) yield* clusterPieces(disk, clusters, offset, end)
}

const strideOf = ({ bytes, head }: Clusters): number => bytes + (head?.bytes ?? 0)

function* clusterPieces(
  disk: BlockSource,
  clusters: Clusters,
  offset: number,
  end: number,
): Generator<ComputedPiece | DiskPiece> {
  const { runs, bytes, head } = clusters
  const [stride, headBytes] = [strideOf(clusters), head?.bytes ?? 0]
  const stop = Math.min(end, clusters.offset + runs.clusters * stride)
  for (let at = Math.max(offset, clusters.offset); at < stop; ) {
    const rank = Math.floor((at - clusters.offset) / stride)
    const { cluster, runEnd } = runs.clusterAt(rank)
    const start = clusters.offset + rank * stride
    if (head && at < start + headBytes) {
      const to = Math.min(stop, start + headBytes)
      const from = at - start
      yield { kind: 'computed', at, length: to - at, fill: (part) => head.fill(part, from, cluster) }
      at = to
      continue
    }
    const inCluster = at - start - headBytes
    const diskOffset = cluster * bytes + inCluster
    const run = headBytes > 0 ? 1 : runEnd - cluster // clusters of a run touch where nothing comes between them
    const to = Math.min(stop, at - inCluster + run * bytes)
    yield { kind: 'disk', at, length: to - at, diskOffset, diskBytes: Math.max(0, Math.min(to - at, disk.size - diskOffset)) }
    at = to
  }
}

async function* extentsOf(disk: BlockSource, plan: FilePlan, offset: number, length: number): AsyncGenerator<Extent> {
  let reached = offset
  for (const piece of piecesOf(disk, plan, offset, length)) {
    if (piece.at > reached) yield { offset: reached, length: piece.at - reached, kind: 'zero' }
    reached = piece.at + piece.length
    if (piece.kind === 'computed') {
      yield { offset: piece.at, length: piece.length, kind: 'data' }
      continue
    }
    for await (const run of piece.diskBytes > 0 ? disk.extents(piece.diskOffset, piece.diskBytes) : []) {
      yield { offset: run.offset - piece.diskOffset + piece.at, length: run.length, kind: run.kind }
    }
    const past = piece.length - piece.diskBytes
    if (past > 0) yield { offset: piece.at + piece.diskBytes, length: past, kind: 'zero' }
  }
  if (reached < offset + length) yield { offset: reached, length: offset + length - reached, kind: 'zero' }
}

/** Of a file that maps so many clusters a table. 24 bytes of memory a run: a disk in more pieces gets its small gaps filled with stored zeros. */
const MAX_RUNS = 1_000_000

/** The clusters that data touch. @param tableClusters that one table of the format maps; 1 where that is of no interest */
export async function clustersWithData(disk: BlockSource, clusterBytes: number, tableClusters = 1): Promise<ClusterRuns> {
  const runs = new ClusterRuns(Math.ceil(disk.size / clusterBytes), MAX_RUNS, tableClusters)
  for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
    if (kind === 'data') runs.add(Math.floor(offset / clusterBytes), Math.ceil((offset + length) / clusterBytes))
  }
  runs.seal()
  return runs
}
