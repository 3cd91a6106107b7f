import { DIGEST_BYTES } from './digests.ts'

/** Makes the binary bodies of docs/api-v1.md; decode-chunks.ts reads them. */

export interface WireChunk {
  /** 32 bytes, SHA-256 of the chunk. */
  readonly digest: Uint8Array
  readonly codec: 'plain' | 'zstd'
  readonly bytes: Uint8Array
}

export const FRAME_HEAD_BYTES = DIGEST_BYTES + 5
export const RUN_HEAD_BYTES = 5
/** Digests in one run of a layout: bounds the buffer that a run needs. */
const MAX_RUN = 4096

/** Frames: digest (32), codec (1: 0 plain, 1 zstd), length (u32 big-endian), bytes. */
export function encodeChunks(chunks: readonly WireChunk[]): Uint8Array<ArrayBuffer> {
  const frames = new Uint8Array(framesBytes(chunks))
  encodeChunksInto(frames, chunks)
  return frames
}

export const framesBytes = (chunks: readonly WireChunk[]): number =>
  chunks.reduce((total, { bytes }) => total + FRAME_HEAD_BYTES + bytes.length, 0)

/** @param target of `framesBytes` */
export function encodeChunksInto(target: Uint8Array, chunks: readonly WireChunk[]): void {
  const frames = Buffer.from(target.buffer, target.byteOffset, target.length)
  let at = 0
  for (const { digest, codec, bytes } of chunks) {
    frames.set(digest, at)
    frames.writeUInt8(codec === 'zstd' ? 1 : 0, at + DIGEST_BYTES)
    frames.writeUInt32BE(bytes.length, at + DIGEST_BYTES + 1)
    frames.set(bytes, at + FRAME_HEAD_BYTES)
    at += FRAME_HEAD_BYTES + bytes.length
  }
}

/** Runs: kind (1: 0 zeros, 1 digests), count (u32 big-endian), and for digests count × 32 bytes. */
export async function* encodeLayout(chunks: AsyncIterable<Uint8Array | null>): AsyncIterable<Uint8Array> {
  let zeros = 0
  let digests: Uint8Array[] = []
  const flush = (): Uint8Array[] => {
    const out: Uint8Array[] = []
    if (zeros > 0) out.push(runHead(0, zeros))
    if (digests.length > 0) out.push(Buffer.concat([runHead(1, digests.length), ...digests]))
    zeros = 0
    digests = []
    return out
  }
  for await (const digest of chunks) {
    if (digest === null ? digests.length > 0 || zeros === 0xffff_ffff : zeros > 0 || digests.length === MAX_RUN) yield* flush()
    if (digest === null) zeros += 1
    else digests.push(digest)
  }
  yield* flush()
}

function runHead(kind: 0 | 1, count: number): Uint8Array {
  const head = Buffer.alloc(RUN_HEAD_BYTES)
  head.writeUInt8(kind, 0)
  head.writeUInt32BE(count, 1)
  return head
}
