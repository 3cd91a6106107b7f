import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource, Extent } from '../../block/block-source.ts'
import { ByteLru } from '../../block/byte-lru.ts'
import { merged } from '../../block/run-merger.ts'
import type { OpenOptions } from '../format-driver.ts'
import { decompressCluster } from './compressed.ts'
import { type Qcow2Header, readHeader } from './header.ts'
import { headerOfSnapshot, snapshotNamed } from './snapshots.ts'
import { ClusterMap, readL1, type Segment } from './tables.ts'

/** One cluster is at most 2 MiB, so at least two stay: enough for a reader that goes through it in small steps. */
const MAX_CACHED_CLUSTER_BYTES = 4 * MiB
/** Compressed clusters that lie side by side are fetched together, up to this many bytes. */
const MAX_GROUP_BYTES = 1 * MiB
const MAX_GROUP_GAP_BYTES = 64 * KiB
const MAX_GROUP_CLUSTERS = 16
/** Reads of the file, or groups being decompressed, at a time and for one read of the disk. */
const MAX_JOBS = 8

/**
 * The guest's disk in a qcow2 file. Holds at most 8 MiB of tables and clusters, and the L1 table: 16 KiB for each TiB with
 * clusters of 64 KiB, never more than 32 MiB.
 * @throws ServiceError `invalid-image` | `unsupported`; `not-found` where the file has no such snapshot
 */
export async function openDisk(file: BlockSource, given: OpenOptions = {}): Promise<BlockSource> {
  const { parent, snapshot } = given
  const now = await readHeader(file, parent ? 'given' : 'none')
  const h = snapshot === undefined ? now : headerOfSnapshot(now, await snapshotNamed(file, now, snapshot))
  const map = new ClusterMap(file, h, await readL1(file, h))
  const clusters = new ByteLru(MAX_CACHED_CLUSTER_BYTES)

  return {
    size: h.virtualBytes,
    async read(offset, length, into) {
      const segments: Segment[] = []
      for await (const segment of map.segments(offset, length)) segments.push(segment)
      const [only] = segments
      const isOneRun = segments.length === 1 && only?.kind === 'data' && only.hostOffset + length <= file.size
      if (isOneRun) return file.read(only.hostOffset, length, into)
      const answer = new Uint8Array(length)
      const jobs = jobsOf(segments, answer, offset, { file, parent, h, clusters })
      const each = jobs.values()
      /** All workers take from one iterator: each job is done once. */
      const work = async () => {
        for (const job of each) await job()
      }
      await Promise.all(Array.from({ length: Math.min(MAX_JOBS, jobs.length) }, work))
      return answer
    },
    extents: (offset, length) => merged(extentsOf(map.segments(offset, length), parent)),
    async close() {
      await Promise.all([file.close(), parent?.close()])
    },
  }
}

async function* extentsOf(segments: AsyncIterable<Segment>, parent: BlockSource | undefined): AsyncGenerator<Extent> {
  for await (const { kind, offset, length } of segments) {
    const below = kind === 'hole' ? bytesBelow(parent, offset, length) : 0
    if (parent && below > 0) yield* parent.extents(offset, below)
    if (below < length) yield { offset: offset + below, length: length - below, kind: kind === 'compressed' ? 'data' : kind }
  }
}

/** How much of a range the parent has, which may be shorter than the disk. */
const bytesBelow = (parent: BlockSource | undefined, offset: number, length: number): number =>
  parent ? Math.max(0, Math.min(length, parent.size - offset)) : 0

type Job = () => Promise<void>

/** What jobs are done with. */
interface Opened {
  readonly file: BlockSource
  readonly parent: BlockSource | undefined
  readonly h: Qcow2Header
  readonly clusters: ByteLru
}

/** What must be done to fill `answer`, which begins at `start` of the disk and is zero. In order of the disk. */
function jobsOf(segments: readonly Segment[], answer: Uint8Array, start: number, opened: Opened): Job[] {
  const { file, parent } = opened
  const jobs: Job[] = []
  for (let index = 0; index < segments.length; ) {
    const segment = segments[index]!
    if (segment.kind === 'compressed') {
      const group = groupAt(segments, index)
      jobs.push(() => readCompressed(group, answer, start, opened))
      index += group.length
      continue
    }
    if (segment.kind === 'data') {
      jobs.push(async () => {
        const inFile = Math.min(segment.length, file.size - segment.hostOffset) // the rest of the last cluster reads as zeros
        answer.set(await file.read(segment.hostOffset, inFile), segment.offset - start)
      })
    }
    const below = segment.kind === 'hole' ? bytesBelow(parent, segment.offset, segment.length) : 0
    if (parent && below > 0) {
      jobs.push(async () => answer.set(await parent.read(segment.offset, below), segment.offset - start))
    }
    index += 1
  }
  return jobs
}

/** Compressed segments from `first` on that one read of the file can serve. */
function groupAt(segments: readonly Segment[], first: number): Segment[] {
  const group = [segments[first]!]
  const start = group[0]!.hostOffset
  let end = start + group[0]!.hostBytes
  for (let index = first + 1; index < segments.length && group.length < MAX_GROUP_CLUSTERS; index += 1) {
    const next = segments[index]!
    const near =
      next.kind === 'compressed' &&
      next.hostOffset >= start &&
      next.hostOffset <= end + MAX_GROUP_GAP_BYTES &&
      next.hostOffset + next.hostBytes <= start + MAX_GROUP_BYTES
    if (!near) break
    group.push(next)
    end = Math.max(end, next.hostOffset + next.hostBytes)
  }
  return group
}

async function readCompressed(
  group: readonly Segment[],
  answer: Uint8Array,
  start: number,
  { file, h, clusters }: Opened,
): Promise<void> {
  const from = group[0]!.hostOffset
  const to = group.reduce((end, { hostOffset, hostBytes }) => Math.max(end, hostOffset + hostBytes), from)
  let fetched: Promise<Uint8Array> | undefined
  const fill = async (segment: Segment) => {
    const { offset, length, hostOffset, hostBytes } = segment
    const load = async () => {
      fetched ??= file.read(from, to - from)
      const bytes = (await fetched).subarray(hostOffset - from, hostOffset - from + hostBytes)
      return decompressCluster(bytes, h, offset, group.length === 1)
    }
    const skip = offset % h.clusterBytes
    /** A whole cluster will hardly be asked for again; a part means that its neighbours come next. */
    const cluster = await (length === h.clusterBytes ? load() : clusters.get(hostOffset, load))
    answer.set(cluster.subarray(skip, skip + length), offset - start)
  }
  await Promise.all(group.map(fill))
}
