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
      const each = segments.values()
      /** All workers take from one iterator: each segment is read once. */
      const work = async () => {
        for (const segment of each) {
          const bytes = await bytesOf(segment, file, parent)
          if (bytes) answer.set(bytes, segment.offset - offset)
        }
      }
      await Promise.all(Array.from({ length: Math.min(MAX_JOBS, segments.length) }, work))
      return answer
    },
    extents: (offset, length) => merged(extentsOf(map.segments(offset, length), parent)),
    async close() {
      await Promise.all([file.close(), parent?.close()])
    },
  }
}

/** Undefined: zeros. */
function bytesOf(segment: Segment, file: BlockSource, parent: BlockSource | undefined): Promise<Uint8Array> | undefined {
  if (segment.kind === 'data') return (segment.file ?? file).read(segment.hostOffset, segment.length)
  if (segment.kind === 'packed') return segment.load()
  if (segment.kind === 'zero' || !parent || segment.offset >= parent.size) return undefined
  return parent.read(segment.offset, Math.min(segment.length, parent.size - segment.offset))
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
