import { promisify } from 'node:util'
import { constants, inflate, type ZstdOptions, zstdDecompress } from 'node:zlib'
import { KiB } from '../../../../base/units.ts'
import { unpackLzo } from '../../../packed/lzo.ts'

/** Packed extents. Source: btrfs documentation, "Compression"; Linux fs/btrfs/compression.h, lzo.c and zstd.c. */
export const COMPRESSION = { none: 0, zlib: 1, lzo: 2, zstd: 3 } as const
/** Linux BTRFS_MAX_COMPRESSED and BTRFS_MAX_UNCOMPRESSED: what one extent packs, and may take. */
export const MAX_PACKED_BYTES = 128 * KiB
export const MAX_UNPACKED_BYTES = 128 * KiB
const MAX_WINDOW_LOG = 17 // ZSTD_BTRFS_MAX_WINDOWLOG
const LENGTH_BYTES = 4

const inflated = promisify(inflate)
const unpackedZstd = promisify<Uint8Array, ZstdOptions, Buffer>(zstdDecompress)

/**
 * What an extent holds, at most `maxBytes`. It ends with its stream: zeros of the last sector may follow that.
 * @returns undefined where it is damaged, or more
 */
export async function unpack(
  input: Uint8Array,
  kind: number,
  { sectorBytes, maxBytes }: { sectorBytes: number; maxBytes: number },
): Promise<Uint8Array | undefined> {
  if (kind === COMPRESSION.lzo) return unpackSegments(input, sectorBytes, maxBytes)
  try {
    // A buffer that is never full: where one is, Node goes on behind the end of the stream, and takes what is there for a second one.
    const limits = { maxOutputLength: maxBytes, chunkSize: Math.max(constants.Z_MIN_CHUNK, maxBytes + 1) }
    if (kind === COMPRESSION.zlib) return await inflated(input, limits)
    return await unpackedZstd(input, { ...limits, params: { [constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG } })
  } catch {
    return undefined
  }
}

/** fs/btrfs/lzo.c: the length of all, then segments of a sector, each with its length, which does not cross the end of a sector. */
function unpackSegments(input: Uint8Array, sectorBytes: number, maxBytes: number): Uint8Array | undefined {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength)
  if (input.length < LENGTH_BYTES) return undefined
  const end = view.getUint32(0, true)
  if (end > input.length) return undefined
  const output = new Uint8Array(maxBytes)
  let made = 0
  for (let at = LENGTH_BYTES; at < end; ) {
    const left = sectorBytes - (at % sectorBytes)
    if (left < LENGTH_BYTES) at += left
    if (at + LENGTH_BYTES > end) break
    const length = view.getUint32(at, true)
    at += LENGTH_BYTES
    if (length === 0 || length > end - at) return undefined
    const count = unpackLzo(input.subarray(at, at + length), output.subarray(made, made + sectorBytes))
    if (count < 0) return undefined
    made += count
    at += length
  }
  return output.subarray(0, made)
}
