import { promisify } from 'node:util'
import { constants, inflate, type ZstdOptions, zstdDecompress } from 'node:zlib'
import { isServiceError } from '../../../../base/errors.ts'
import { ByteReader } from '../../../packed/byte-reader.ts'
import { unpackLz4 } from '../../../packed/lz4.ts'
import { unpackLzo } from '../../../packed/lzo.ts'
import { unpackXz } from '../../../packed/xz.ts'

export type Compression = 'zlib' | 'lzo' | 'xz' | 'lz4' | 'zstd'

const inflated = promisify(inflate)
const unpackedZstd = promisify<Uint8Array, ZstdOptions, Buffer>(zstdDecompress)
const MAX_WINDOW_LOG = 20 // a block has no more bytes

/** What a block holds, at most `maxBytes`; undefined where it is damaged, or more. */
export async function unpack(input: Uint8Array, kind: Compression, maxBytes: number): Promise<Uint8Array | undefined> {
  if (kind === 'lz4' || kind === 'lzo') {
    const output = new Uint8Array(maxBytes)
    const made = (kind === 'lz4' ? unpackLz4 : unpackLzo)(input, output)
    return made < 0 ? undefined : output.subarray(0, made)
  }
  if (kind === 'xz') return unpackStream(input, maxBytes)
  const limits = { maxOutputLength: maxBytes, chunkSize: Math.max(constants.Z_MIN_CHUNK, maxBytes + 1) }
  try {
    if (kind === 'zlib') return await inflated(input, limits)
    return await unpackedZstd(input, { ...limits, params: { [constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG } })
  } catch {
    return undefined
  }
}

/** @throws ServiceError `unsupported` for filters that are not known */
function unpackStream(input: Uint8Array, maxBytes: number): Uint8Array | undefined {
  const parts: Uint8Array[] = []
  let [left, given] = [maxBytes, false]
  const once = () => {
    if (given) return undefined
    given = true
    return input
  }
  try {
    for (const part of unpackXz(new ByteReader('xz', once))) {
      left -= part.length
      if (left < 0) return undefined
      parts.push(new Uint8Array(part))
    }
  } catch (error) {
    if (isServiceError(error, 'invalid-image')) return undefined
    throw error
  }
  return Buffer.concat(parts)
}
