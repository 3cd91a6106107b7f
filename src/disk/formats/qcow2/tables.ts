import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { ByteLru } from '../../block/byte-lru.ts'
import { type Qcow2Header, refuse } from './header.ts'

/**
 * Where the bytes of the disk are. Positions on the disk come in `offset`, positions in the file in `hostOffset`.
 * `data` and `compressed` have bytes in the file; `zero` is recorded as zeros, `hole` is not recorded at all.
 */
export interface Segment {
  readonly kind: 'data' | 'zero' | 'hole' | 'compressed'
  readonly offset: number
  readonly length: number
  /** Of the first byte of this segment (data), or of the compressed cluster (compressed); else 0. */
  readonly hostOffset: number
  /** Of a compressed cluster: bytes to read, an upper bound in whole sectors; else 0. */
  readonly hostBytes: number
}

const MAX_CACHED_TABLE_BYTES = 4 * MiB // maps 32 GiB of disk with clusters of 64 KiB
const MAX_SLICE_BYTES = 64 * KiB // an L2 table can be 2 MiB; a random read should not cost as much
const SUBCLUSTERS = 32 // specification: "Extended L2 Entries"

const HIGH = 2 ** 32
const OFFSET_HIGH = 0x00ffffff // bits 32 to 55 of an entry, in its high word
const OFFSET_LOW = 0xfffffe00 // bits 9 to 31
const L1_RESERVED_HIGH = 0x7f000000
const L1_RESERVED_LOW = 0x000001ff
const COMPRESSED_HIGH = 0x40000000 // bit 62
const L2_RESERVED_HIGH = 0x3f000000 // bits 56 to 61
const L2_RESERVED_LOW = 0x000001fe // bits 1 to 8
const ZERO_LOW = 1 // bit 0, version 3 without subclusters

/** Reads the L1 table and holds its entries to the format. @returns offsets of L2 tables, 0 = none; one per needed entry */
export async function readL1(file: BlockSource, h: Qcow2Header): Promise<Float64Array> {
  if (h.l1NeededEntries === 0) return new Float64Array(0)
  const offsets = new Float64Array(h.l1NeededEntries)
  for (const [index, offset] of l1Entries(await file.read(h.l1TableOffset, offsets.length * 8), 0, h, file.size)) {
    offsets[index] = offset
  }
  return offsets
}

/** The entries of a part of an L1 table that are not 0. @param first  the index of the part's first entry */
export function* l1Entries(
  bytes: Uint8Array,
  first: number,
  h: Qcow2Header,
  fileBytes: number,
): Generator<readonly [index: number, offset: number]> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = 0; at < bytes.length; at += 8) {
    const index = first + at / 8
    const high = view.getUint32(at)
    const low = view.getUint32(at + 4)
    if (high === 0 && low === 0) continue
    if (high & L1_RESERVED_HIGH || low & L1_RESERVED_LOW)
      throw refuse('malformed', `L1 entry ${index} sets reserved bits`, { index })
    const offset = (high & OFFSET_HIGH) * HIGH + ((low & OFFSET_LOW) >>> 0)
    if (offset % h.clusterBytes !== 0)
      throw refuse('malformed', `L1 entry ${index} is not aligned to a cluster`, { index, offset })
    if (offset > 0 && offset + h.clusterBytes > fileBytes) {
      throw refuse('truncated', `the L2 table of L1 entry ${index} lies beyond the end of the file; is the upload complete?`, {
        index,
        offset,
        fileBytes,
      })
    }
    yield [index, offset]
  }
}

/** Turns a range of the disk into segments. Holds the L1 table and a bounded number of L2 tables in memory. */
export class ClusterMap {
  readonly #file: BlockSource
  readonly #header: Qcow2Header
  readonly #l1: Float64Array
  readonly #sliceBytes: number
  readonly #slices = new ByteLru(MAX_CACHED_TABLE_BYTES)

  constructor(file: BlockSource, header: Qcow2Header, l1: Float64Array) {
    this.#file = file
    this.#header = header
    this.#l1 = l1
    this.#sliceBytes = Math.min(header.clusterBytes, MAX_SLICE_BYTES)
  }

  /** The segments that cover `[offset, offset + length)`: ascending, gap-free, clipped, joined where they touch in the file too. */
  async *segments(offset: number, length: number): AsyncGenerator<Segment> {
    const { clusterBytes, l2Entries, l2EntryBytes } = this.#header
    const tableSpan = clusterBytes * l2Entries
    const sliceSpan = (this.#sliceBytes / l2EntryBytes) * clusterBytes
    const end = offset + length
    let open: Segment | undefined
    for (let at = offset; at < end; ) {
      const l1Index = Math.floor(at / tableSpan)
      const l2Offset = this.#l1[l1Index] ?? 0
      const spanEnd = l2Offset === 0 ? (l1Index + 1) * tableSpan : (Math.floor(at / sliceSpan) + 1) * sliceSpan
      const stop = Math.min(end, spanEnd)
      if (l2Offset === 0) {
        const next: Segment = { kind: 'hole', offset: at, length: stop - at, hostOffset: 0, hostBytes: 0 }
        const joined: Segment | undefined = open && join(open, next)
        if (open && !joined) yield open
        open = joined ?? next
      } else {
        const sliceIndex = Math.floor((at - l1Index * tableSpan) / sliceSpan)
        const slice = await this.slice(l2Offset, sliceIndex)
        const sliceStart = l1Index * tableSpan + sliceIndex * sliceSpan
        for (const next of segmentsOf(slice, this.#header, this.#file.size, sliceStart, at, stop)) {
          const joined: Segment | undefined = open && join(open, next)
          if (open && !joined) yield open
          open = joined ?? next
        }
      }
      at = stop
    }
    if (open) yield open
  }

  /** A part of an L2 table, by its index. */
  slice(l2Offset: number, index: number): Promise<Uint8Array> {
    const offset = l2Offset + index * this.#sliceBytes
    return this.#slices.get(offset, () => this.#file.read(offset, this.#sliceBytes))
  }
}

function join(a: Segment, b: Segment): Segment | undefined {
  if (a.kind !== b.kind || a.kind === 'compressed' || a.offset + a.length !== b.offset) return undefined
  if (a.kind === 'data' && a.hostOffset + a.length !== b.hostOffset) return undefined
  return { ...a, length: a.length + b.length }
}

/**
 * What the entries of a slice say of `[from, to)`, entry by entry.
 * @param sliceStart  position on the disk of the slice's first cluster
 * @throws ServiceError `invalid-image` at the first entry that breaks the format
 */
export function* segmentsOf(
  slice: Uint8Array,
  h: Qcow2Header,
  fileBytes: number,
  sliceStart: number,
  from: number,
  to: number,
): Generator<Segment> {
  const view = new DataView(slice.buffer, slice.byteOffset, slice.byteLength)
  const { clusterBytes, l2EntryBytes } = h
  for (let at = from; at < to; ) {
    const index = Math.floor((at - sliceStart) / clusterBytes)
    const clusterStart = sliceStart + index * clusterBytes
    const stop = Math.min(to, clusterStart + clusterBytes)
    const high = view.getUint32(index * l2EntryBytes)
    const low = view.getUint32(index * l2EntryBytes + 4)
    if (high & COMPRESSED_HIGH) {
      if (h.extendedL2 && (view.getUint32(index * 16 + 8) !== 0 || view.getUint32(index * 16 + 12) !== 0)) {
        throw refuse('malformed', 'a compressed cluster has subcluster bits', { diskOffset: clusterStart })
      }
      const { hostOffset, hostBytes } = compressedPlace(high, low, h, fileBytes, clusterStart)
      yield { kind: 'compressed', offset: at, length: stop - at, hostOffset, hostBytes }
    } else if (high === 0 && low === 0 && !h.extendedL2) {
      yield { kind: 'hole', offset: at, length: stop - at, hostOffset: 0, hostBytes: 0 }
    } else {
      const hostOffset = standardPlace(high, low, h, clusterStart)
      if (h.extendedL2) {
        const zeroBits = view.getUint32(index * 16 + 8)
        const allocatedBits = view.getUint32(index * 16 + 12)
        yield* subclusters(zeroBits, allocatedBits, hostOffset, h, fileBytes, clusterStart, at, stop)
      } else {
        const kind = low & ZERO_LOW ? 'zero' : hostOffset === 0 ? 'hole' : 'data'
        yield placed(kind, at, stop, hostOffset, clusterStart, fileBytes)
      }
    }
    at = stop
  }
}

/** A cluster that begins at or after the end of the file reads as zeros, as in QEMU 7.2. */
function placed(
  kind: 'data' | 'zero' | 'hole',
  at: number,
  stop: number,
  clusterHostOffset: number,
  clusterStart: number,
  fileBytes: number,
): Segment {
  const length = stop - at
  if (kind !== 'data') return { kind, offset: at, length, hostOffset: 0, hostBytes: 0 }
  const hostOffset = clusterHostOffset + (at - clusterStart)
  if (hostOffset >= fileBytes) return { kind: 'zero', offset: at, length, hostOffset: 0, hostBytes: 0 }
  return { kind, offset: at, length, hostOffset, hostBytes: 0 }
}

function standardPlace(high: number, low: number, h: Qcow2Header, diskOffset: number): number {
  const zeroIsReserved = h.version === 2 || h.extendedL2
  if (high & L2_RESERVED_HIGH || low & L2_RESERVED_LOW || (zeroIsReserved && low & ZERO_LOW)) {
    throw refuse('malformed', `the L2 entry for byte ${diskOffset} of the disk sets reserved bits`, { diskOffset })
  }
  const hostOffset = (high & OFFSET_HIGH) * HIGH + ((low & OFFSET_LOW) >>> 0)
  if (hostOffset % h.clusterBytes !== 0) {
    throw refuse('malformed', `the L2 entry for byte ${diskOffset} of the disk is not aligned to a cluster`, {
      diskOffset,
      hostOffset,
    })
  }
  return hostOffset
}

/** Specification, "Compressed Clusters Descriptor": offset in the low 62 − (cluster_bits − 8) bits, then sectors less one. */
function compressedPlace(high: number, low: number, h: Qcow2Header, fileBytes: number, diskOffset: number) {
  const highOffsetBits = 62 - (h.clusterBits - 8) - 32
  const hostOffset = (high & (2 ** highOffsetBits - 1)) * HIGH + low
  const sectors = ((high & (COMPRESSED_HIGH - 1)) >>> highOffsetBits) + 1
  if (hostOffset >= fileBytes) {
    throw refuse('truncated', `the compressed cluster for byte ${diskOffset} of the disk lies beyond the end of the file`, {
      diskOffset,
      hostOffset,
      fileBytes,
    })
  }
  const hostBytes = Math.min(sectors * 512 - (hostOffset % 512), fileBytes - hostOffset)
  return { hostOffset, hostBytes }
}

function* subclusters(
  zeroBits: number,
  allocatedBits: number,
  hostOffset: number,
  h: Qcow2Header,
  fileBytes: number,
  clusterStart: number,
  from: number,
  to: number,
): Generator<Segment> {
  if (zeroBits & allocatedBits) {
    throw refuse('malformed', 'a subcluster is both allocated and zero', { diskOffset: clusterStart })
  }
  if (hostOffset === 0 && allocatedBits !== 0) {
    throw refuse('malformed', 'a subcluster is allocated in a cluster that is not', { diskOffset: clusterStart })
  }
  const subclusterBytes = h.clusterBytes / SUBCLUSTERS
  for (let at = from; at < to; ) {
    const index = Math.floor((at - clusterStart) / subclusterBytes)
    const stop = Math.min(to, clusterStart + (index + 1) * subclusterBytes)
    const bit = 1 << index
    const kind = allocatedBits & bit ? 'data' : zeroBits & bit ? 'zero' : 'hole'
    yield placed(kind, at, stop, hostOffset, clusterStart, fileBytes)
    at = stop
  }
}
