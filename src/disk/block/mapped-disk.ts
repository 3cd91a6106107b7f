import { KiB, MiB } from '../../base/units.ts'
import type { BlockSource, Extent } from './block-source.ts'
import { merged } from './run-merger.ts'

/** What a format knows of a part of the disk in it. */
export type Segment = DataSegment | PackedSegment | EmptySegment

interface Part {
  /** On the disk, as `length`. */
  readonly offset: number
  readonly length: number
}
/** As it is, in a file. */
export interface DataSegment extends Part {
  readonly kind: 'data'
  /** Where it begins in the file; all of it lies inside. */
  readonly hostOffset: number
  /** Absent: the file that the format was opened on. */
  readonly file?: BlockSource
}
/** Compressed, or whatever else must be made of what is in the file. */
export interface PackedSegment extends Part {
  readonly kind: 'packed'
  /** Its bytes, `length` of them. @throws ServiceError `invalid-image` */
  load(): Promise<Uint8Array>
}
/** zero: recorded as zeros; hole: not recorded, which is the parent's where there is one. */
export interface EmptySegment extends Part {
  readonly kind: 'zero' | 'hole'
}

export interface DiskMap {
  /** Bytes of the disk. */
  readonly size: number
  /** What covers `[offset, offset + length)`: ascending, gap-free, clipped, of the number of bytes of the range or less. */
  segments(offset: number, length: number): Iterable<Segment> | AsyncIterable<Segment>
  /** What the disk is a difference to. Where it is shorter, zeros. Closed with the disk. */
  readonly parent?: BlockSource | undefined
}

/** Reads of files, or segments being unpacked, at a time and for one read of the disk. */
const MAX_JOBS = 8
/** Data that lie so near to one another in a file are read together: what is between them costs less than a read of its own. */
const MAX_GAP_BYTES = 4 * KiB
const MAX_TOGETHER_BYTES = 1 * MiB

/** The disk that a map shows. Closing it closes the file. */
export function mappedDisk(file: BlockSource, map: DiskMap): BlockSource {
  const { size, parent } = map
  return {
    size,
    async read(offset, length, into) {
      const found = map.segments(offset, length)
      const segments = Symbol.iterator in found ? [...found] : await Array.fromAsync(found)
      const [only] = segments
      if (only?.length === length && only.kind === 'data') return (only.file ?? file).read(only.hostOffset, length, into)
      if (only?.length === length && only.kind === 'packed') return only.load()
      const answer = new Uint8Array(length)
      const jobs = jobsOf(segments, answer, offset, file, parent)
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

type Job = () => Promise<void>

/** What must be done to fill `answer`, which begins at `start` of the disk and is zero. */
function jobsOf(
  segments: readonly Segment[],
  answer: Uint8Array,
  start: number,
  file: BlockSource,
  parent: BlockSource | undefined,
): Job[] {
  const jobs: Job[] = []
  const data = new Map<BlockSource, DataSegment[]>()
  for (const segment of segments) {
    const { kind, offset, length } = segment
    if (kind === 'data') {
      const source = segment.file ?? file
      const known = data.get(source)
      if (known) known.push(segment)
      else data.set(source, [segment])
    } else if (kind === 'packed') jobs.push(async () => answer.set(await segment.load(), offset - start))
    else if (kind === 'hole' && parent && offset < parent.size) {
      const below = Math.min(length, parent.size - offset)
      jobs.push(async () => answer.set(await parent.read(offset, below), offset - start))
    }
  }
  for (const [source, parts] of data) {
    for (const group of groupsOf(parts)) jobs.push(() => readGroup(source, group, answer, start))
  }
  return jobs
}

/** Where the parts lie in their file, ascending: those near to one another as one. */
function* groupsOf(parts: DataSegment[]): Generator<readonly DataSegment[]> {
  parts.sort((a, b) => a.hostOffset - b.hostOffset)
  let group: DataSegment[] = []
  let end = 0
  for (const part of parts) {
    const partEnd = part.hostOffset + part.length
    const [first] = group
    const isNear =
      first && part.hostOffset <= end + MAX_GAP_BYTES && Math.max(end, partEnd) - first.hostOffset <= MAX_TOGETHER_BYTES
    if (isNear) group.push(part)
    else {
      if (first) yield group
      group = [part]
    }
    end = isNear ? Math.max(end, partEnd) : partEnd
  }
  if (group.length > 0) yield group
}

async function readGroup(source: BlockSource, group: readonly DataSegment[], answer: Uint8Array, start: number): Promise<void> {
  const from = group[0]!.hostOffset
  if (group.length === 1) {
    const { offset, length } = group[0]!
    const place = answer.subarray(offset - start, offset - start + length)
    const bytes = await source.read(from, length, place)
    if (bytes !== place) place.set(bytes)
    return
  }
  const to = group.reduce((end, { hostOffset, length }) => Math.max(end, hostOffset + length), from)
  const bytes = await source.read(from, to - from)
  for (const { offset, length, hostOffset } of group) {
    answer.set(bytes.subarray(hostOffset - from, hostOffset - from + length), offset - start)
  }
}

async function* extentsOf(
  segments: Iterable<Segment> | AsyncIterable<Segment>,
  parent: BlockSource | undefined,
): AsyncGenerator<Extent> {
  for await (const { kind, offset, length } of segments) {
    const below = kind === 'hole' && parent ? Math.max(0, Math.min(length, parent.size - offset)) : 0
    if (parent && below > 0) yield* parent.extents(offset, below)
    if (below === length) continue
    yield { offset: offset + below, length: length - below, kind: kind === 'packed' ? 'data' : kind }
  }
}
