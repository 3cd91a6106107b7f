import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { ByteLru } from '../../block/byte-lru.ts'
import { joined } from '../../block/joined.ts'
import { mappedDisk, type Segment } from '../../block/mapped-disk.ts'
import type { OpenOptions } from '../format-driver.ts'
import { beyondEnd, type QedHeader, readHeader, refuse } from './header.ts'

const MAX_CACHED_TABLE_BYTES = 4 * MiB
const MAX_SLICE_BYTES = 64 * KiB // a table can be 1 GiB; a random read should not cost as much
const HIGH = 2 ** 32
const MAX_HIGH = 2 ** 21 // offsets from 2^53 on are no numbers any more
/** Specification, section "Data cluster": an entry of 1 is a cluster of zeros. */
const ZERO_CLUSTER = 1

/**
 * The guest's disk in a QED file. Holds at most 4 MiB of tables.
 * @throws ServiceError `invalid-image` | `unsupported`; so do reads that meet a damaged table
 */
export async function openDisk(file: BlockSource, given: OpenOptions = {}): Promise<BlockSource> {
  const h = await readHeader(file, given)
  const map = new ClusterMap(file, h)
  return mappedDisk(file, {
    size: h.virtualBytes,
    segments: (offset, length) => map.segments(offset, length),
    parent: given.parent,
  })
}

/** Turns a range of the disk into segments. */
class ClusterMap {
  readonly #file: BlockSource
  readonly #header: QedHeader
  /** Parts of tables, by where they are in the file. */
  readonly #slices = new ByteLru(MAX_CACHED_TABLE_BYTES)
  readonly #sliceBytes: number

  constructor(file: BlockSource, h: QedHeader) {
    this.#file = file
    this.#header = h
    this.#sliceBytes = Math.min(h.tableBytes, MAX_SLICE_BYTES)
  }

  async *segments(offset: number, length: number): AsyncGenerator<Segment> {
    const { clusterBytes, tableEntries, l1TableOffset } = this.#header
    const tableSpan = clusterBytes * tableEntries
    const end = offset + length
    for (let at = offset; at < end; ) {
      const l1Index = Math.floor(at / tableSpan)
      const l1 = await this.#slice(l1TableOffset, l1Index)
      const l2Offset = tableAt(l1.view, (l1Index - l1.first) * 8, l1Index, this.#header, this.#file.size)
      if (l2Offset === 0) {
        let next = l1Index + 1
        while (next * tableSpan < end && next < l1.end && isEmpty(l1.view, (next - l1.first) * 8)) next += 1
        const stop = Math.min(end, next * tableSpan)
        yield { kind: 'hole', offset: at, length: stop - at }
        at = stop
      } else {
        const start = l1Index * tableSpan
        const l2 = await this.#slice(l2Offset, Math.floor((at - start) / clusterBytes))
        const stop = Math.min(end, start + l2.end * clusterBytes)
        yield* joined(segmentsOf(l2.view, start + l2.first * clusterBytes, at, stop, this.#header, this.#file.size))
        at = stop
      }
    }
  }

  /** The part of a table that has the entry `index`: entries from `first` to before `end`. */
  async #slice(tableOffset: number, index: number): Promise<{ view: DataView; first: number; end: number }> {
    const entries = this.#sliceBytes / 8
    const first = Math.floor(index / entries) * entries
    const place = tableOffset + first * 8
    const bytes = await this.#slices.get(place, () => this.#file.read(place, this.#sliceBytes))
    return { view: viewOf(bytes), first, end: first + entries }
  }
}

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const isEmpty = (view: DataView, at: number): boolean => view.getUint32(at, true) === 0 && view.getUint32(at + 4, true) === 0

/** An L1 entry: where its L2 table is, or 0. @throws ServiceError `invalid-image` where not all of it is in the file */
export function tableAt(view: DataView, at: number, index: number, h: QedHeader, fileBytes: number): number {
  if (isEmpty(view, at)) return 0
  const offset = offsetAt(view, at, `L1 entry ${index}`, h)
  if (offset + h.tableBytes > fileBytes) throw beyondEnd(`the L2 table of L1 entry ${index}`, offset, h.tableBytes, fileBytes)
  return offset
}

function offsetAt(view: DataView, at: number, what: string, { clusterBytes, headerBytes }: QedHeader): number {
  const high = view.getUint32(at + 4, true)
  const offset = high * HIGH + view.getUint32(at, true)
  if (high >= MAX_HIGH || offset % clusterBytes !== 0 || offset < headerBytes) {
    throw refuse('malformed', `${what} is ${offset}: not aligned to a cluster, in the header, or 2^53 and more`, { offset })
  }
  return offset
}

/**
 * What the entries of a part of an L2 table say of `[from, to)`, entry by entry. The last cluster of the file may be cut off: zeros.
 * @param start  position on the disk of the first cluster of the part
 * @throws ServiceError `invalid-image` at the first entry that breaks the format
 */
export function* segmentsOf(
  view: DataView,
  start: number,
  from: number,
  to: number,
  h: QedHeader,
  fileBytes: number,
): Generator<Segment> {
  const { clusterBytes } = h
  for (let at = from; at < to; ) {
    const index = Math.floor((at - start) / clusterBytes)
    const clusterStart = start + index * clusterBytes
    const stop = Math.min(to, clusterStart + clusterBytes)
    if (isEmpty(view, index * 8)) yield { kind: 'hole', offset: at, length: stop - at }
    else if (view.getUint32(index * 8, true) === ZERO_CLUSTER && view.getUint32(index * 8 + 4, true) === 0) {
      yield { kind: 'zero', offset: at, length: stop - at }
    } else {
      const offset = offsetAt(view, index * 8, `the L2 entry for byte ${clusterStart} of the disk`, h)
      if (offset >= fileBytes) throw beyondEnd(`the data for byte ${clusterStart} of the disk`, offset, clusterBytes, fileBytes)
      const inFile = Math.max(0, Math.min(stop, clusterStart + fileBytes - offset) - at)
      if (inFile > 0) yield { kind: 'data', offset: at, length: inFile, hostOffset: offset + at - clusterStart }
      if (at + inFile < stop) yield { kind: 'zero', offset: at + inFile, length: stop - at - inFile }
    }
    at = stop
  }
}
