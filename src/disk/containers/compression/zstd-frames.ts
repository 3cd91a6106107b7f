import { pipeline, Readable } from 'node:stream'
import { constants, createZstdDecompress } from 'node:zlib'
import type { ServiceError } from '../../../base/errors.ts'
import { PartCount, refusePacked } from '../../packed/damage.ts'
import { ByteQueue } from './byte-queue.ts'

/**
 * zstd data is a row of frames, and tools that pack in parallel write many; Node's decompressor ends at the end of the first.
 * So the frames are told apart here, by their headers and those of their blocks, and each is unpacked by itself.
 * Source: RFC 8878, sections 3.1 (frames) and 3.1.2 (skippable frames).
 */
const MAGIC = 0xfd2fb528
const FIRST_SKIPPABLE = 0x184d2a50
const LAST_SKIPPABLE = 0x184d2a5f
const MAX_WINDOW_LOG = 27 // 128 MiB, as `zstd -d` takes by default: the memory that a frame may ask for
const OUTPUT_BYTES = 256 * 1024

/** @throws ServiceError `invalid-image` for what is no zstd data; errors of zlib and of `body` pass through */
export async function* unpackZstd(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  const queue = new ByteQueue(body)
  const frames = new PartCount('zstd', 'frames')
  let given = 0
  try {
    for (;;) {
      const head = await queue.take(4, 'may-end')
      if (!head) return
      frames.add(given)
      const magic = u32le(head)
      if (magic >= FIRST_SKIPPABLE && magic <= LAST_SKIPPABLE) {
        for await (const _ of queue.pass(u32le(await queue.take(4)))); // its bytes mean nothing
      } else if (magic === MAGIC) {
        for await (const piece of unpackFrame(head, queue)) {
          given += piece.length
          yield piece
        }
      } else throw damaged('something else follows the last frame')
    }
  } finally {
    await queue.close()
  }
}

async function* unpackFrame(head: Uint8Array, queue: ByteQueue): AsyncGenerator<Uint8Array, void, undefined> {
  const inflater = createZstdDecompress({ chunkSize: OUTPUT_BYTES, params: { [constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG } })
  const output = pipeline(Readable.from(frameBytes(head, queue), { objectMode: false }), inflater, () => {})
  try {
    yield* output as AsyncIterable<Uint8Array>
  } finally {
    output.destroy()
  }
}

/** The bytes of one frame, `head` being its first four. */
async function* frameBytes(head: Uint8Array, queue: ByteQueue): AsyncGenerator<Uint8Array, void, undefined> {
  yield head
  const descriptor = await queue.take(1)
  yield descriptor
  const flags = descriptor[0] ?? 0
  const isSingleSegment = (flags & 0x20) !== 0
  const contentSizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][flags >> 6] ?? 0
  const dictionaryIdBytes = [0, 1, 2, 4][flags & 3] ?? 0
  yield await queue.take((isSingleSegment ? 0 : 1) + dictionaryIdBytes + contentSizeBytes)
  for (;;) {
    const block = await queue.take(3)
    yield block
    const header = (block[0] ?? 0) | ((block[1] ?? 0) << 8) | ((block[2] ?? 0) << 16)
    const kind = (header >> 1) & 3
    if (kind === 3) throw damaged('they have a block of a reserved kind')
    const isRun = kind === 1
    yield* queue.pass(isRun ? 1 : header >> 3)
    if ((header & 1) === 1) break
  }
  const hasChecksum = (flags & 0x04) !== 0
  if (hasChecksum) yield await queue.take(4)
}

const u32le = (bytes: Uint8Array): number => new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true)
const damaged = (how: string): ServiceError => refusePacked('zstd', 'malformed', how)
