import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { ByteLru } from '../../block/byte-lru.ts'
import type { Segment } from '../../block/mapped-disk.ts'
import { isZero } from '../../block/zero.ts'
import { HEADER_SECTION_BYTES, MAX_FILE_BYTES, refuse } from './header.ts'
import type { Layout } from './layout.ts'

/** The block allocation table and the sector bitmaps. Source: [MS-VHDX], section 2.5. */
export const ENTRY_BYTES = 8
export const SECTOR_BITMAP_BYTES = MiB
const MAX_CACHED_TABLE_BYTES = 4 * MiB
const MAX_CACHED_BITMAP_BYTES = 2 * MiB
const SLICE_BYTES = 64 * KiB // of the table; with blocks of 32 MiB it maps 256 GiB
const SLICE_ENTRIES = SLICE_BYTES / ENTRY_BYTES

/** Sections 2.5.1.1 and 2.5.1.2. */
export const NOT_PRESENT = 0
const UNDEFINED = 1
const UNMAPPED = 3
export const FULLY_PRESENT = 6 // of a sector bitmap block: present
export const PARTIALLY_PRESENT = 7
const STATE_BITS = 7
const RESERVED_BITS = 0xffff8 // bits 3 to 19
const HIGH = 2 ** 32

/** A segment of the disk as one entry has it. `bitmap`: what it holds of its block is told by the sector bitmap. */
export type BlockSegment =
  | { readonly kind: 'data' | 'bitmap'; readonly offset: number; readonly length: number; readonly hostOffset: number }
  | { readonly kind: 'zero' | 'hole'; readonly offset: number; readonly length: number }

/** The place in the table of a payload block's entry, and of the sector bitmap's of its chunk. */
type Chunks = Pick<Layout, 'chunkRatio'>
export const entryOf = (block: number, { chunkRatio }: Chunks): number => block + Math.floor(block / chunkRatio)
export const bitmapEntryOf = (block: number, { chunkRatio }: Chunks): number =>
  (Math.floor(block / chunkRatio) + 1) * (chunkRatio + 1) - 1
export const isBitmapEntry = (entry: number, { chunkRatio }: Chunks): boolean => entry % (chunkRatio + 1) === chunkRatio
/** @param entry of a payload block */
export const blockOf = (entry: number, { chunkRatio }: Chunks): number => entry - Math.floor(entry / (chunkRatio + 1))

/** State and place of an entry. The place is 0 where the state has none. @throws ServiceError for what the format does not allow */
export function parseEntry(view: DataView, at: number, entry: number, layout: Layout) {
  const low = view.getUint32(at, true)
  const state = low & STATE_BITS
  const refuseEntry = (problem: string) => refuse('malformed', `BAT entry ${entry} ${problem}`, { entry })
  if (low & RESERVED_BITS) throw refuseEntry('sets reserved bits')
  const isBitmap = isBitmapEntry(entry, layout)
  const isKnown = isBitmap
    ? state === NOT_PRESENT || (state === FULLY_PRESENT && layout.hasParent)
    : state <= UNMAPPED || state === FULLY_PRESENT || (state === PARTIALLY_PRESENT && layout.hasParent)
  if (!isKnown) {
    throw refuseEntry(`has state ${state}, which ${isBitmap ? 'a sector bitmap block' : 'a block'} of this disk cannot have`)
  }
  if (state < FULLY_PRESENT) return { state, hostOffset: 0 }
  const hostOffset = view.getUint32(at + 4, true) * HIGH + (low - (low % MiB))
  if (hostOffset < HEADER_SECTION_BYTES || hostOffset > MAX_FILE_BYTES - layout.blockBytes) {
    throw refuseEntry(`is for byte ${hostOffset} of the file; blocks lie behind the header section and below 128 TiB`)
  }
  return { state, hostOffset }
}

/** Bytes of a payload block that are on the disk: all but those of the last one beyond its end. */
export const usedBytesOf = (block: number, { blockBytes, virtualBytes }: Layout): number =>
  Math.min(blockBytes, virtualBytes - block * blockBytes)

/** QEMU once made files that end inside their last block, so what counts is what the disk uses of it. */
export function checkInFile(hostOffset: number, bytes: number, entry: number, fileBytes: number): void {
  if (bytes > fileBytes - hostOffset) {
    throw refuse(
      'truncated',
      `the block of BAT entry ${entry}, at byte ${hostOffset}, lies beyond the end of the file, which has ${fileBytes} bytes; is the upload complete?`,
      { entry, hostOffset, fileBytes },
    )
  }
}

/** Turns a range of the disk into segments. Holds at most 6 MiB of table and bitmaps in memory. */
export class BlockMap {
  readonly #file: BlockSource
  readonly #layout: Layout
  readonly #slices = new ByteLru(MAX_CACHED_TABLE_BYTES)
  readonly #bitmaps = new ByteLru(MAX_CACHED_BITMAP_BYTES)
  /** The slice that was used last: readers stay in one for 64 GiB and more. */
  #last: { readonly index: number; readonly table: Uint8Array | undefined } = { index: 0, table: undefined }

  constructor(file: BlockSource, layout: Layout) {
    this.#file = file
    this.#layout = layout
  }

  /** The segments that cover `[offset, offset + length)`: ascending, gap-free, clipped. At once where the last slice tells them. */
  segments(offset: number, length: number): Iterable<Segment> | AsyncIterable<Segment> {
    const { index, table } = this.#last
    const isKnown = table && !this.#layout.hasParent && this.#sliceOf(offset) === index
    if (!isKnown || this.#sliceOf(offset + Math.max(0, length - 1)) !== index) return this.#loadedSegments(offset, length)
    const firstEntry = index * SLICE_ENTRIES
    /** Without a parent no block is told by a bitmap: its state is refused. */
    return blockSegments(table, firstEntry, this.#layout, this.#file.size, offset, offset + length) as Iterable<Segment>
  }

  async *#loadedSegments(offset: number, length: number): AsyncGenerator<Segment> {
    const { blockBytes, chunkRatio } = this.#layout
    const end = offset + length
    for (let at = offset; at < end; ) {
      const slice = this.#sliceOf(at)
      const table = await this.#slice(slice)
      /** The first block whose entry is in the next slice; an entry of a sector bitmap may come before it. */
      const nextEntry = (slice + 1) * SLICE_ENTRIES
      const nextBlock = nextEntry - Math.floor(nextEntry / (chunkRatio + 1))
      const stop = Math.min(end, nextBlock * blockBytes)
      if (isZero(table)) yield { kind: 'hole', offset: at, length: stop - at }
      else yield* this.#inSlice(table, slice, at, stop)
      at = stop
    }
  }

  #sliceOf(offset: number): number {
    return Math.floor(entryOf(Math.floor(offset / this.#layout.blockBytes), this.#layout) / SLICE_ENTRIES)
  }

  async *#inSlice(table: Uint8Array, slice: number, from: number, to: number): AsyncGenerator<Segment> {
    for (const segment of blockSegments(table, slice * SLICE_ENTRIES, this.#layout, this.#file.size, from, to)) {
      if (segment.kind === 'bitmap') yield* this.#bySectors(segment.offset, segment.length, segment.hostOffset)
      else yield segment as Segment
    }
  }

  /** A part of a block that is partially present: sectors of it are here, the others are the parent's. */
  async *#bySectors(offset: number, length: number, hostOffset: number): AsyncGenerator<Segment> {
    const { blockBytes, logicalSectorBytes } = this.#layout
    const block = Math.floor(offset / blockBytes)
    const bits = await this.#bitmapOf(block)
    const start = block * blockBytes
    const isHere = (sector: number) => ((bits[sector >>> 3]! >>> (sector & 7)) & 1) === 1
    for (let at = offset, end = offset + length; at < end; ) {
      let sector = Math.floor((at - start) / logicalSectorBytes)
      const here = isHere(sector)
      let stop = at
      while (stop < end && isHere(sector) === here) {
        sector += 1
        stop = Math.min(end, start + sector * logicalSectorBytes)
      }
      if (here) yield { kind: 'data', offset: at, length: stop - at, hostOffset: hostOffset + (at - offset) }
      else yield { kind: 'hole', offset: at, length: stop - at }
      at = stop
    }
  }

  async #slice(index: number): Promise<Uint8Array> {
    const { offset, entries } = this.#layout.bat
    const bytes = Math.min(SLICE_BYTES, entries * ENTRY_BYTES - index * SLICE_BYTES)
    const table = await this.#slices.get(index, () => this.#file.read(offset + index * SLICE_BYTES, bytes))
    this.#last = { index, table }
    return table
  }

  /** The bits of one block, the first sector's in the lowest bit of the first byte. Section 2.4. */
  async #bitmapOf(block: number): Promise<Uint8Array> {
    const { blockBytes, logicalSectorBytes, chunkRatio } = this.#layout
    const entry = bitmapEntryOf(block, this.#layout)
    const table = await this.#slice(Math.floor(entry / SLICE_ENTRIES))
    const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
    const { state, hostOffset } = parseEntry(view, (entry % SLICE_ENTRIES) * ENTRY_BYTES, entry, this.#layout)
    if (state !== FULLY_PRESENT) {
      throw refuse('malformed', `payload block ${block} is partially present, and its sector bitmap block is not present`, {
        block,
      })
    }
    const bytes = blockBytes / logicalSectorBytes / 8
    const at = hostOffset + (block % chunkRatio) * bytes
    checkInFile(at, bytes, entry, this.#file.size)
    return this.#bitmaps.get(block, () => this.#file.read(at, bytes))
  }
}

/**
 * What the entries of a part of the table say of `[from, to)`. Runs of one kind are joined where they touch in the file too.
 * @param firstEntry  the number of the part's first entry
 * @throws ServiceError `invalid-image` at the first entry that breaks the format
 */
function* blockSegments(
  table: Uint8Array,
  firstEntry: number,
  layout: Layout,
  fileBytes: number,
  from: number,
  to: number,
): Generator<BlockSegment> {
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  const { blockBytes } = layout
  let open: BlockSegment | undefined
  for (let at = from; at < to; ) {
    const block = Math.floor(at / blockBytes)
    const stop = Math.min(to, runEnd(view, block, firstEntry, layout, to) * blockBytes)
    const next = blockSegment(view, block, firstEntry, layout, fileBytes, at, stop - at)
    const joined: BlockSegment | undefined = open && join(open, next)
    if (open && !joined) yield open
    open = joined ?? next
    at = stop
  }
  if (open) yield open
}

/** The block behind `block`, or, where that is not in the file, behind the blocks up to `to` whose entries are the same. */
function runEnd(view: DataView, block: number, firstEntry: number, layout: Layout, to: number): number {
  const placeOf = (each: number) => (entryOf(each, layout) - firstEntry) * ENTRY_BYTES
  const [low, high] = [view.getUint32(placeOf(block), true), view.getUint32(placeOf(block) + 4, true)]
  let end = block + 1
  if ((low & STATE_BITS) >= FULLY_PRESENT) return end
  const isSame = (place: number) => view.getUint32(place, true) === low && view.getUint32(place + 4, true) === high
  while (end * layout.blockBytes < to && isSame(placeOf(end))) end += 1
  return end
}

function blockSegment(
  view: DataView,
  block: number,
  firstEntry: number,
  layout: Layout,
  fileBytes: number,
  offset: number,
  length: number,
): BlockSegment {
  const entry = entryOf(block, layout)
  const { state, hostOffset } = parseEntry(view, (entry - firstEntry) * ENTRY_BYTES, entry, layout)
  if (state === NOT_PRESENT) return { kind: 'hole', offset, length }
  if (state < FULLY_PRESENT) {
    /** Undefined and unmapped blocks may hold anything that was theirs, or zeros: never what was someone else's, nor the parent's. */
    const isHole = !layout.hasParent && (state === UNDEFINED || state === UNMAPPED)
    return { kind: isHole ? 'hole' : 'zero', offset, length }
  }
  checkInFile(hostOffset, usedBytesOf(block, layout), entry, fileBytes)
  const place = hostOffset + (offset - block * layout.blockBytes)
  return { kind: state === FULLY_PRESENT ? 'data' : 'bitmap', offset, length, hostOffset: place }
}

function join(a: BlockSegment, b: BlockSegment): BlockSegment | undefined {
  if (a.kind !== b.kind || a.kind === 'bitmap') return undefined
  if (a.kind === 'data' && b.kind === 'data' && a.hostOffset + a.length !== b.hostOffset) return undefined
  return { ...a, length: a.length + b.length }
}
