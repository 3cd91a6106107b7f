import { constants, crc32, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { looksRandom } from './random-bytes.ts'

/** How a chunk is stored: numbers of docs/store-format.md. */
export const CODEC_PLAIN = 0
export const CODEC_ZSTD = 1

/** docs/decisions/chunk-size.md */
const PARAMETERS = { [constants.ZSTD_c_compressionLevel]: 3, [constants.ZSTD_c_minMatch]: 4 }
/** The largest window that a frame may ask for: the largest chunk is 1 MiB. Bounds memory, whoever made the frame. */
const MAX_WINDOW_LOG = 20

/** @returns the bytes to store: compressed, or `plain` itself where that does not help */
export function encodeChunk(plain: Uint8Array): { readonly bytes: Uint8Array; readonly codec: number } {
  if (looksRandom(plain)) return { bytes: plain, codec: CODEC_PLAIN }
  const compressed = zstdCompressSync(plain, {
    chunkSize: plain.length + 1024, // one piece of output, no joining
    pledgedSrcSize: plain.length,
    params: PARAMETERS,
  })
  return compressed.length < plain.length ? { bytes: compressed, codec: CODEC_ZSTD } : { bytes: plain, codec: CODEC_PLAIN }
}

/**
 * @param maxBytes at most so many come out
 * @returns undefined for what is no such frame
 */
export function decodeChunk(stored: Uint8Array, codec: number, maxBytes: number): Uint8Array | undefined {
  if (codec === CODEC_PLAIN) return stored.length <= maxBytes ? stored : undefined
  if (codec !== CODEC_ZSTD) return undefined
  try {
    return zstdDecompressSync(stored, {
      chunkSize: Math.max(maxBytes, 64),
      maxOutputLength: maxBytes,
      params: { [constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG },
    })
  } catch {
    return undefined // damaged or hostile; the caller says which chunk it was
  }
}

/** Of stored bytes. */
export const crcOf = (bytes: Uint8Array): number => crc32(bytes)
