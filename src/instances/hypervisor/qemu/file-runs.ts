import type { FileHandle } from 'node:fs/promises'
import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../../disk/block/block-source.ts'

/**
 * A file with holes as a stream: runs of bytes, each after where it stands and how long it is (u64 and u32, big-endian), and at the end the
 * size of the file with a length of 0.
 */
const HEAD_BYTES = 12
const RUN_BYTES = MiB

export async function* runsOf(file: BlockSource): AsyncIterable<Uint8Array> {
  for await (const { kind, offset, length } of file.extents(0, file.size)) {
    if (kind !== 'data') continue
    for (let at = offset; at < offset + length; at += RUN_BYTES) {
      const bytes = await file.read(at, Math.min(RUN_BYTES, offset + length - at))
      yield head(at, bytes.length)
      yield bytes
    }
  }
  yield head(file.size, 0)
}

function head(offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(HEAD_BYTES)
  bytes.writeBigUInt64BE(BigInt(offset))
  bytes.writeUInt32BE(length, 8)
  return bytes
}

/**
 * Writes the file that the runs are of.
 * @param file empty
 * @throws ServiceError `unavailable` for a stream that is no such thing or ends early, `too-large`
 */
export async function writeRuns(file: FileHandle, body: AsyncIterable<Uint8Array>, maxBytes: number): Promise<void> {
  const chunks = body[Symbol.asyncIterator]()
  const take = taker(chunks)
  try {
    for (;;) {
      const start = await take(HEAD_BYTES)
      const offset = Number(start.readBigUInt64BE())
      const length = start.readUInt32BE(8)
      if (length > RUN_BYTES) throw new ServiceError('unavailable', 'What came is no layer of a disk.')
      if (offset + length > maxBytes)
        throw new ServiceError('too-large', `A layer is larger than its disk: ${maxBytes} bytes at most.`)
      if (length === 0) return await file.truncate(offset)
      await writeAt(file, await take(length), offset)
    }
  } finally {
    await chunks.return?.()
  }
}

async function writeAt(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten
  }
}

/** Exactly so many bytes, again and again. */
function taker(chunks: AsyncIterator<Uint8Array>): (count: number) => Promise<Buffer> {
  let rest = Buffer.alloc(0)
  return async (count) => {
    while (rest.length < count) {
      const { value, done } = await chunks.next()
      if (done) throw new ServiceError('unavailable', 'A layer of a disk came in part only; try again.')
      rest = rest.length === 0 ? Buffer.from(value) : Buffer.concat([rest, value])
    }
    const taken = rest.subarray(0, count)
    rest = rest.subarray(count)
    return taken
  }
}
