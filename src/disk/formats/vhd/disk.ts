import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { ByteLru } from '../../block/byte-lru.ts'
import { mappedDisk, type Segment } from '../../block/mapped-disk.ts'
import type { OpenOptions } from '../format-driver.ts'
import { refuse, SECTOR_BYTES } from './footer.ts'
import { readVhd, type SparseVhd } from './header.ts'

/** Entries of the block allocation table are read so many bytes at a time: 32 GiB of disk in blocks of 2 MiB. */
export const SLICE_BYTES = 64 * KiB
const SLICE_ENTRIES = SLICE_BYTES / 4
const MAX_CACHED_TABLE_BYTES = 2 * MiB
/** 4,096 of blocks of 2 MiB. */
const MAX_CACHED_BITMAP_BYTES = 2 * MiB
/** Bitmaps of blocks that are smaller are read with what is around them: some 16 blocks of 4 KiB. */
const WINDOW_BYTES = 64 * KiB
/** Specification, "Block Allocation Table": the block is not in the file. */
export const UNUSED = 0xffffffff

/**
 * The guest's disk in a VHD file. Holds at most 4 MiB of tables and bitmaps.
 * @throws ServiceError `invalid-image` | `unsupported`; so do reads that meet a block outside the file
 */
export async function openDisk(file: BlockSource, given: OpenOptions = {}): Promise<BlockSource> {
  const vhd = await readVhd(file, given)
  const { virtualBytes } = vhd.footer
  if (vhd.kind === 'fixed') {
    return {
      size: virtualBytes,
      read: (offset, length, into) => file.read(offset, length, into),
      extents: (offset, length) => file.extents(offset, length),
      close: () => file.close(),
    }
  }
  const map = new BlockMap(file, vhd)
  return mappedDisk(file, {
    size: virtualBytes,
    segments: (offset, length) => map.segments(offset, length),
    parent: given.parent,
  })
}

/** Turns a range of the disk into segments. */
class BlockMap {
  readonly #file: BlockSource
  readonly #vhd: SparseVhd
  readonly #slices = new ByteLru(MAX_CACHED_TABLE_BYTES)
  readonly #bitmaps = new ByteLru(MAX_CACHED_BITMAP_BYTES)

  constructor(file: BlockSource, vhd: SparseVhd) {
    this.#file = file
    this.#vhd = vhd
  }

  async *segments(offset: number, length: number): AsyncGenerator<Segment> {
    const { blockBytes } = this.#vhd
    const end = offset + length
    for (let at = offset; at < end; ) {
      const slice = Math.floor(at / blockBytes / SLICE_ENTRIES)
      const stop = Math.min(end, (slice + 1) * SLICE_ENTRIES * blockBytes)
      yield* this.#segmentsOf(await this.#slice(slice), slice * SLICE_ENTRIES, at, stop)
      at = stop
    }
  }

  async *#segmentsOf(slice: Uint8Array, firstBlock: number, from: number, to: number): AsyncGenerator<Segment> {
    const { blockBytes } = this.#vhd
    const view = new DataView(slice.buffer, slice.byteOffset, slice.byteLength)
    const entryAt = (at: number) => view.getUint32((Math.floor(at / blockBytes) - firstBlock) * 4)
    const endOfBlock = (at: number) => Math.min(to, (Math.floor(at / blockBytes) + 1) * blockBytes)
    for (let at = from; at < to; ) {
      const entry = entryAt(at)
      let stop = endOfBlock(at)
      if (entry === UNUSED) {
        while (stop < to && entryAt(stop) === UNUSED) stop = endOfBlock(stop)
        yield { kind: 'hole', offset: at, length: stop - at }
      } else yield* this.#block(entry, at, stop)
      at = stop
    }
  }

  /** A sector whose bit is clear is the parent's; a disk without one has zeros there. */
  async *#block(entry: number, from: number, to: number): AsyncGenerator<Segment> {
    const { bitmapBytes, blockBytes } = this.#vhd
    const bitmapOffset = placeOf(entry, this.#vhd, from)
    const bitmap = await this.#bitmap(bitmapOffset)
    const start = Math.floor(from / blockBytes) * blockBytes
    for (let at = from; at < to; ) {
      const sector = Math.floor((at - start) / SECTOR_BYTES)
      const isHere = bitAt(bitmap, sector)
      const stop = Math.min(to, start + runEnd(bitmap, sector, Math.ceil((to - start) / SECTOR_BYTES)) * SECTOR_BYTES)
      if (isHere) yield { kind: 'data', offset: at, length: stop - at, hostOffset: bitmapOffset + bitmapBytes + at - start }
      else yield { kind: 'hole', offset: at, length: stop - at }
      at = stop
    }
  }

  async #bitmap(offset: number): Promise<Uint8Array> {
    const { bitmapBytes, blockBytes } = this.#vhd
    if (blockBytes >= WINDOW_BYTES) return this.#bitmaps.get(offset, () => this.#file.read(offset, bitmapBytes))
    /** A bitmap is one sector then, and no window ends inside it. */
    const start = offset - (offset % WINDOW_BYTES)
    const length = Math.min(WINDOW_BYTES, this.#file.size - start)
    const window = await this.#bitmaps.get(start, () => this.#file.read(start, length))
    return window.subarray(offset - start, offset - start + bitmapBytes)
  }

  #slice(index: number): Promise<Uint8Array> {
    const { tableOffset, blocks } = this.#vhd
    const start = index * SLICE_BYTES
    return this.#slices.get(index, () => this.#file.read(tableOffset + start, Math.min(SLICE_BYTES, blocks * 4 - start)))
  }
}

/** Where a block begins in the file, with its bitmap. @throws ServiceError `invalid-image` when not all of it comes before the footer */
export function placeOf(entry: number, { bitmapBytes, blockBytes, footerOffset }: SparseVhd, diskOffset: number): number {
  const offset = entry * SECTOR_BYTES
  if (offset + bitmapBytes + blockBytes <= footerOffset) return offset
  throw refuse(
    'truncated',
    `the block for byte ${diskOffset} of the disk, at byte ${offset}, does not end before the footer at byte ${footerOffset}; is the upload complete?`,
    { diskOffset, offset, footerOffset },
  )
}

/** The first sector has the highest bit. */
const bitAt = (bitmap: Uint8Array, sector: number): boolean => (bitmap[sector >>> 3]! & (0x80 >>> (sector & 7))) !== 0

/** The first sector after `sector` whose bit is another, or `end`. */
function runEnd(bitmap: Uint8Array, sector: number, end: number): number {
  const bit = bitAt(bitmap, sector)
  const same = bit ? 0xff : 0
  let at = sector + 1
  while (at < end) {
    if ((at & 7) === 0 && bitmap[at >>> 3] === same) at += 8
    else if (bitAt(bitmap, at) === bit) at += 1
    else return at
  }
  return end
}
