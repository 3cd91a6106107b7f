import { promisify } from 'node:util'
import { constants, inflate, type ZstdOptions, zstdDecompress } from 'node:zlib'
import { unpackLz4 } from './lz4.ts'

export type Compression = 'zlib' | 'lz4' | 'zstd'

const inflated = promisify(inflate)
const unpackedZstd = promisify<Uint8Array, ZstdOptions, Buffer>(zstdDecompress)
const MAX_WINDOW_LOG = 20 // a block has no more bytes

/** What a block holds, at most `maxBytes`; undefined where it is damaged, or more. */
export async function unpack(input: Uint8Array, kind: Compression, maxBytes: number): Promise<Uint8Array | undefined> {
  if (kind === 'lz4') {
    const output = new Uint8Array(maxBytes)
    const made = unpackLz4(input, output)
    return made < 0 ? undefined : output.subarray(0, made)
  }
  const limits = { maxOutputLength: maxBytes, chunkSize: Math.max(constants.Z_MIN_CHUNK, maxBytes + 1) }
  try {
    if (kind === 'zlib') return await inflated(input, limits)
    return await unpackedZstd(input, { ...limits, params: { [constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG } })
  } catch {
    return undefined
  }
}
