/** A thread of `image add`: hashes and compresses chunks that lie in shared memory. */
import { parentPort } from 'node:worker_threads'
import { constants, zstdCompressSync } from 'node:zlib'
import { fastestSha256 } from '../../base/sha256-lanes.ts'
import { isZero } from '../../disk/block/zero.ts'
import { DIGEST_BYTES } from '../../store/content/digests.ts'
import { encodeChunks, type WireChunk } from '../../store/content/encode-chunks.ts'
import type { ChunkJob, ChunkJobAnswer } from './chunk-workers.ts'

/** As the service compresses (docs/decisions/chunk-size.md): what both make of a chunk takes the same room. */
const PARAMETERS = { [constants.ZSTD_c_compressionLevel]: 3, [constants.ZSTD_c_minMatch]: 4 }
/** Compressed chunks that save less than this share go as they are: reading them back is then cheaper. */
const WORTH_IT = 0.97

const sha256 = fastestSha256()

function hash(chunks: readonly Uint8Array[]): ChunkJobAnswer {
  const data = chunks.filter((chunk) => !isZero(chunk))
  const digests = sha256.digests(data)
  const all = new Uint8Array(chunks.length * (1 + DIGEST_BYTES))
  let next = 0
  for (const [index, chunk] of chunks.entries()) {
    const at = index * (1 + DIGEST_BYTES)
    const isData = data[next] === chunk
    all[at] = isData ? 2 : 1
    if (!isData) continue
    all.set(digests.subarray(next * DIGEST_BYTES, (next + 1) * DIGEST_BYTES), at + 1)
    next += 1
  }
  return { bytes: all }
}

function compress(chunks: readonly Uint8Array[], digests: Uint8Array): ChunkJobAnswer {
  const outgoing = chunks.map((chunk, index): WireChunk => {
    const packed = zstdCompressSync(chunk, { params: PARAMETERS })
    const worthIt = packed.length < chunk.length * WORTH_IT
    const digest = digests.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES)
    return { digest, codec: worthIt ? 'zstd' : 'plain', bytes: worthIt ? packed : chunk }
  })
  return { bytes: encodeChunks(outgoing) }
}

parentPort?.on('message', ({ memory, chunks, digests }: ChunkJob) => {
  const views = chunks.map(([offset, length]) => new Uint8Array(memory, offset, length))
  try {
    const answer = digests ? compress(views, digests) : hash(views)
    parentPort?.postMessage(answer, [answer.bytes.buffer])
  } catch (error) {
    parentPort?.postMessage({ bytes: new Uint8Array(), failure: String(error) } satisfies ChunkJobAnswer)
  }
})
