import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { ByteLru } from '../../block/byte-lru.ts'
import { joined } from '../../block/joined.ts'
import { mappedDisk, type Segment } from '../../block/mapped-disk.ts'
import type { OpenOptions } from '../format-driver.ts'
import { BAT_OFFSET, beyondEnd, type ParallelsHeader, readHeader, refuse } from './header.ts'

/** The BAT is read so many bytes at a time: 16 GiB of disk in blocks of 1 MiB. */
export const SLICE_BYTES = 64 * KiB
const SLICE_ENTRIES = SLICE_BYTES / 4
const MAX_CACHED_TABLE_BYTES = 2 * MiB

/**
 * The guest's disk in a Parallels file. Holds at most 2 MiB of the BAT.
 * @throws ServiceError `invalid-image` | `unsupported`; so do reads that meet a damaged table
 */
export async function openDisk(file: BlockSource, given: OpenOptions = {}): Promise<BlockSource> {
  const h = await readHeader(file, given)
  const slices = new ByteLru(MAX_CACHED_TABLE_BYTES)
  return mappedDisk(file, {
    size: h.virtualBytes,
    async *segments(offset, length) {
      const end = offset + length
      for (let at = offset; at < end; ) {
        const slice = Math.floor(at / h.blockBytes / SLICE_ENTRIES)
        const start = slice * SLICE_ENTRIES * h.blockBytes
        const stop = Math.min(end, start + SLICE_ENTRIES * h.blockBytes)
        const bytes = await slices.get(slice, () => readSlice(file, h, slice))
        yield* joined(segmentsOf(bytes, start, at, stop, h, file.size))
        at = stop
      }
    },
  })
}

/** @param index below the number of slices that the BAT has */
function readSlice(file: BlockSource, { batEntries }: ParallelsHeader, index: number): Promise<Uint8Array> {
  const start = index * SLICE_BYTES
  return file.read(BAT_OFFSET + start, Math.min(SLICE_BYTES, batEntries * 4 - start))
}

/**
 * What the entries of a slice say of `[from, to)`, entry by entry. The last block of the file may be cut off: zeros.
 * @param start  position on the disk of the slice's first block
 * @throws ServiceError `invalid-image` at the first entry that breaks the format
 */
export function* segmentsOf(
  slice: Uint8Array,
  start: number,
  from: number,
  to: number,
  h: ParallelsHeader,
  fileBytes: number,
): Generator<Segment> {
  const view = new DataView(slice.buffer, slice.byteOffset, slice.byteLength)
  for (let at = from; at < to; ) {
    const index = Math.floor((at - start) / h.blockBytes)
    const blockStart = start + index * h.blockBytes
    const stop = Math.min(to, blockStart + h.blockBytes)
    const entry = view.getUint32(index * 4, true)
    if (entry === 0) yield { kind: 'hole', offset: at, length: stop - at }
    else {
      const offset = placeOf(entry, blockStart, h, fileBytes)
      const inFile = Math.max(0, Math.min(stop, blockStart + fileBytes - offset) - at)
      if (inFile > 0) yield { kind: 'data', offset: at, length: inFile, hostOffset: offset + at - blockStart }
      if (at + inFile < stop) yield { kind: 'zero', offset: at + inFile, length: stop - at - inFile }
    }
    at = stop
  }
}

function placeOf(
  entry: number,
  diskOffset: number,
  { unitBytes, blockBytes, dataOffset }: ParallelsHeader,
  fileBytes: number,
): number {
  const offset = entry * unitBytes
  const what = `the block for byte ${diskOffset} of the disk`
  if (offset < dataOffset) {
    throw refuse('overlap', `${what} begins at byte ${offset}, before the data area at byte ${dataOffset}`, {
      diskOffset,
      offset,
    })
  }
  if (offset >= fileBytes) throw beyondEnd(what, offset, blockBytes, fileBytes)
  return offset
}
