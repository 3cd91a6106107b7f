import { promisify } from 'node:util'
import { constants, inflateRaw, inflateRawSync, zstdDecompress, zstdDecompressSync } from 'node:zlib'
import { KiB } from '../../../base/units.ts'
import { type Qcow2Header, refuse } from './header.ts'

const inflate = promisify<Uint8Array, object, Uint8Array>(inflateRaw)
const unzstd = promisify<Uint8Array, object, Uint8Array>(zstdDecompress)

/** 8 MiB: what RFC 8878 asks every decoder to support. A frame may ask for 2 TiB. */
const MAX_ZSTD_WINDOW_LOG = 23
const ZSTD_MAGIC = 0xfd2fb528
/**
 * A cluster that is wanted alone is unpacked at once where that takes a few tens of microseconds: handing it to a thread and back
 * costs this thread as much. zlib needs four times as long for the same bytes, unless there is little to look at.
 */
const MAX_AT_ONCE_BYTES = 64 * KiB
const MAX_ZLIB_AT_ONCE_BYTES = 8 * KiB
const ZSTD_BLOCK_RLE = 1
const ZSTD_BLOCK_RESERVED = 3

/**
 * One compressed cluster, out.
 * @param bytes  from the start of the compressed data; may run on beyond its end, as its length is known in sectors only
 * @param isAlone  nothing else is being unpacked for the same reader
 * @returns exactly `clusterBytes`
 * @throws ServiceError `invalid-image` when the data are damaged, too short or too long
 */
export async function decompressCluster(
  bytes: Uint8Array,
  h: Qcow2Header,
  diskOffset: number,
  isAlone = false,
): Promise<Uint8Array> {
  /** A little more room than the cluster needs: a buffer filled to the brim costs a second trip to the thread pool. */
  const options = { maxOutputLength: h.clusterBytes, chunkSize: h.clusterBytes + 64 }
  const damaged = (why: string, cause?: unknown) =>
    Object.assign(
      refuse('malformed', `the compressed cluster for byte ${diskOffset} of the disk is damaged: ${why}`, { diskOffset }),
      cause === undefined ? {} : { cause },
    )
  let cluster: Uint8Array
  try {
    if (h.compression === 'zlib') {
      const atOnce = isAlone && h.clusterBytes <= MAX_AT_ONCE_BYTES && bytes.length <= MAX_ZLIB_AT_ONCE_BYTES
      cluster = atOnce ? inflateRawSync(bytes, options) : await inflate(bytes, options)
    } else {
      const frame = bytes.subarray(0, zstdFrameBytes(bytes))
      const limited = { ...options, params: { [constants.ZSTD_d_windowLogMax]: MAX_ZSTD_WINDOW_LOG } }
      const atOnce = isAlone && h.clusterBytes <= MAX_AT_ONCE_BYTES
      cluster = atOnce ? zstdDecompressSync(frame, limited) : await unzstd(frame, limited)
    }
  } catch (error) {
    throw damaged(error instanceof Error ? error.message : 'it does not decompress', error)
  }
  if (cluster.length !== h.clusterBytes) throw damaged(`it holds ${cluster.length} of ${h.clusterBytes} bytes`)
  return cluster
}

/**
 * Where the first zstd frame ends: the decoder takes what follows a frame for another one. RFC 8878, section 3.1.1.
 * Steps over at most one block for every 4 bytes. Of a damaged frame the whole input is the answer; the decoder will say why.
 */
export function zstdFrameBytes(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (bytes.length < 6 || view.getUint32(0, true) !== ZSTD_MAGIC) return bytes.length
  const descriptor = view.getUint8(4)
  const singleSegment = (descriptor & 0x20) !== 0
  const hasChecksum = (descriptor & 0x04) !== 0
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0
  const contentSizeBytes = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >>> 6] ?? 0
  let at = 5 + (singleSegment ? 0 : 1) + dictionaryBytes + contentSizeBytes
  while (at + 3 <= bytes.length) {
    const block = view.getUint16(at, true) + view.getUint8(at + 2) * 65536
    const isLast = (block & 1) !== 0
    const type = (block >>> 1) & 3
    if (type === ZSTD_BLOCK_RESERVED) return bytes.length
    at += 3 + (type === ZSTD_BLOCK_RLE ? 1 : block >>> 3)
    if (isLast) return Math.min(bytes.length, at + (hasChecksum ? 4 : 0))
  }
  return bytes.length
}
