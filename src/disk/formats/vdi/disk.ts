import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource, Extent } from '../../block/block-source.ts'
import { ByteLru } from '../../block/byte-lru.ts'
import { mappedDisk, type Segment } from '../../block/mapped-disk.ts'
import { merged } from '../../block/run-merger.ts'
import type { OpenOptions } from '../format-driver.ts'
import { readHeader, refuse, type VdiHeader } from './header.ts'

/** Entries of the block map are read so many bytes at a time: 16 GiB of disk in blocks of 1 MiB. */
const SLICE_BYTES = 64 * KiB
const SLICE_ENTRIES = SLICE_BYTES / 4
const MAX_CACHED_MAP_BYTES = 4 * MiB
/** VDICore.h, VDI_IMAGE_BLOCK_FREE: not in the file. VDI_IMAGE_BLOCK_ZERO: not in the file either, and zeros, whatever a parent has. */
export const FREE = 0xffffffff
export const ZERO = 0xfffffffe

/**
 * The guest's disk in a VDI file. Holds at most 4 MiB of the block map.
 * @throws ServiceError `invalid-image` | `unsupported`; so do reads that meet a block outside the file
 */
export async function openDisk(file: BlockSource, given: OpenOptions = {}): Promise<BlockSource> {
  const h = await readHeader(file, given)
  const map = new BlockMap(file, h)
  const segments = (offset: number, length: number) => map.segments(offset, length)
  const disk = mappedDisk(file, { size: h.virtualBytes, segments, parent: given.parent })
  if (h.kind !== 'static') return disk
  return { ...disk, extents: (offset, length) => merged(extentsInFile(file, segments(offset, length))) }
}

/** Of a static disk all blocks are in the file: what the file has not is what the disk has not. */
async function* extentsInFile(file: BlockSource, segments: AsyncIterable<Segment>): AsyncGenerator<Extent> {
  for await (const segment of segments) {
    const { kind, offset, length } = segment
    if (kind === 'data') {
      const shift = offset - segment.hostOffset
      for await (const run of file.extents(segment.hostOffset, length)) yield { ...run, offset: run.offset + shift }
    } else yield { kind: kind === 'zero' ? 'zero' : 'hole', offset, length }
  }
}

/** Turns a range of the disk into segments. */
class BlockMap {
  readonly #file: BlockSource
  readonly #header: VdiHeader
  readonly #slices = new ByteLru(MAX_CACHED_MAP_BYTES)

  constructor(file: BlockSource, h: VdiHeader) {
    this.#file = file
    this.#header = h
  }

  async *segments(offset: number, length: number): AsyncGenerator<Segment> {
    const sliceSpan = SLICE_ENTRIES * this.#header.blockBytes
    const end = offset + length
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / sliceSpan)
      const stop = Math.min(end, (index + 1) * sliceSpan)
      yield* segmentsOf(await this.#slice(index), this.#header, this.#file.size, index * SLICE_ENTRIES, at, stop)
      at = stop
    }
  }

  #slice(index: number): Promise<Uint8Array> {
    const { blockMapOffset, blocks } = this.#header
    const start = index * SLICE_BYTES
    return this.#slices.get(index, () => this.#file.read(blockMapOffset + start, Math.min(SLICE_BYTES, blocks * 4 - start)))
  }
}

/** What the entries of a slice say of `[from, to)`; blocks that follow one another in the file too are one segment. */
function* segmentsOf(
  slice: Uint8Array,
  h: VdiHeader,
  fileBytes: number,
  firstBlock: number,
  from: number,
  to: number,
): Generator<Segment> {
  const { blockBytes } = h
  const view = new DataView(slice.buffer, slice.byteOffset, slice.byteLength)
  const entryAt = (at: number) => view.getUint32((Math.floor(at / blockBytes) - firstBlock) * 4, true)
  const endOfBlock = (at: number) => Math.min(to, (Math.floor(at / blockBytes) + 1) * blockBytes)
  for (let at = from; at < to; ) {
    const entry = entryAt(at)
    const isData = entry < ZERO
    let stop = endOfBlock(at)
    for (let next = isData ? entry + 1 : entry; stop < to && entryAt(stop) === next && next < ZERO === isData; ) {
      stop = endOfBlock(stop)
      if (isData) next += 1
    }
    const length = stop - at
    if (entry === FREE) yield { kind: 'hole', offset: at, length }
    else if (entry === ZERO) yield { kind: 'zero', offset: at, length }
    else yield { kind: 'data', offset: at, length, hostOffset: placeOf(entry, at, length, h, fileBytes) }
    at = stop
  }
}

/** Where a part of a block is in the file. @throws ServiceError `invalid-image` when it reaches beyond the end */
export function placeOf(entry: number, diskOffset: number, length: number, h: VdiHeader, fileBytes: number): number {
  const hostOffset = h.dataOffset + entry * h.blockBytes + (diskOffset % h.blockBytes)
  if (hostOffset + length <= fileBytes) return hostOffset
  throw refuse(
    'truncated',
    `the block for byte ${diskOffset} of the disk, at byte ${hostOffset}, reaches beyond the end of the file, which has ${fileBytes} bytes; is the upload complete?`,
    { diskOffset, hostOffset, fileBytes },
  )
}
