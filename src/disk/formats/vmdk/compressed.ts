import { promisify } from 'node:util'
import { inflate } from 'node:zlib'
import { struct, u32le, u64le } from '../../../base/struct.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { refuse, SECTOR_BYTES } from './header.ts'

const unzip = promisify<Uint8Array, object, Uint8Array>(inflate)

/** What stands before the zlib stream of a grain. Source: "Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse Extents". */
export const grainMarker = struct('vmdk grain marker', { lba: u64le(0), bytes: u32le(8) })

export interface CompressedGrain {
  /** Of its marker in the file. */
  readonly sector: number
  /** Of its first byte in the extent, as the marker must say. */
  readonly lba: number
  readonly grainBytes: number
  /** What the extent has of it; less than a grain at the end of the disk. */
  readonly neededBytes: number
  /** How many bytes of the file to read at once; where the stream is longer, a second read gets all of it. */
  readonly likelyBytes: number
}

/**
 * One grain, out.
 * @returns at least `neededBytes`, at most `grainBytes`
 * @throws ServiceError `invalid-image` when the marker or the data are damaged, too short or too long
 */
export async function readGrain(file: BlockSource, grain: CompressedGrain): Promise<Uint8Array> {
  const { sector, lba, grainBytes, neededBytes, likelyBytes } = grain
  const offset = sector * SECTOR_BYTES
  const left = file.size - offset
  const details = { diskOffset: lba * SECTOR_BYTES, hostOffset: offset }
  const beyondEnd = () =>
    refuse('truncated', `the grain of LBA ${lba} lies beyond the end of the file; is the upload complete?`, details)
  if (left < grainMarker.bytes) throw beyondEnd()
  const first = await file.read(offset, Math.min(left, likelyBytes))
  const marker = grainMarker.parse(first)
  if (marker.lba !== lba) {
    throw refuse('malformed', `the grain table leads for LBA ${lba} to a grain whose marker says LBA ${marker.lba}`, details)
  }
  if (marker.bytes === 0 || marker.bytes > 2 * grainBytes) {
    throw refuse(
      'malformed',
      `the marker of the grain of LBA ${lba} says ${marker.bytes} bytes; 1 to twice a grain are possible`,
      details,
    )
  }
  const end = grainMarker.bytes + marker.bytes
  if (end > left) throw beyondEnd()
  const bytes = end <= first.length ? first : await file.read(offset, end)
  const damaged = (why: string, cause?: unknown) =>
    Object.assign(
      refuse('malformed', `the grain of LBA ${lba} is damaged: ${why}`, details),
      cause === undefined ? {} : { cause },
    )
  let out: Uint8Array
  try {
    /** A little more room than the grain needs: a buffer filled to the brim costs a second trip to the thread pool. */
    out = await unzip(bytes.subarray(grainMarker.bytes, end), { maxOutputLength: grainBytes, chunkSize: grainBytes + 64 })
  } catch (error) {
    throw damaged(error instanceof Error ? error.message : 'it does not decompress', error)
  }
  if (out.length < neededBytes) throw damaged(`it holds ${out.length} of ${neededBytes} bytes`)
  return out
}
