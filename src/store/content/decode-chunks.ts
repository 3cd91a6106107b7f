import { ServiceError } from '../../base/errors.ts'
import { DIGEST_BYTES } from './digests.ts'
import { FRAME_HEAD_BYTES, RUN_HEAD_BYTES, type WireChunk } from './encode-chunks.ts'

/** Reads the binary bodies of docs/api-v1.md as they arrive; holds one frame or one run at a time. encode-chunks.ts makes them. */

/** Digests are handed on in pieces of this many, however long their run is. */
const PIECE_DIGESTS = 1024

/**
 * @param chunkBytes no frame may be longer: zstd is used where it shortens
 * @param maxBytes of the whole body
 * @throws ServiceError `invalid-request` at the first thing that is not a frame; `too-large`
 */
export async function* decodeFrames(
  body: AsyncIterable<Uint8Array>,
  chunkBytes: number,
  maxBytes: number,
): AsyncIterable<WireChunk> {
  const reader = new ByteReader(body, maxBytes)
  try {
    yield* framesOf(reader, chunkBytes)
  } finally {
    reader.close()
  }
}

async function* framesOf(reader: ByteReader, chunkBytes: number): AsyncIterable<WireChunk> {
  for (let frame = 0; ; frame += 1) {
    const head = await reader.takeOrEnd(FRAME_HEAD_BYTES, `frame ${frame}`)
    if (!head) return
    const [codec, length] = [head[DIGEST_BYTES]!, Buffer.from(head.buffer, head.byteOffset).readUInt32BE(DIGEST_BYTES + 1)]
    if (codec > 1) throw wrong(`frame ${frame} has the unknown codec ${codec}`)
    if (length < 1 || length > chunkBytes) throw wrong(`frame ${frame} holds ${length} bytes; 1 to ${chunkBytes} are allowed`)
    const bytes = await reader.take(length, `frame ${frame}`)
    yield { digest: head.subarray(0, DIGEST_BYTES), codec: codec === 1 ? 'zstd' : 'plain', bytes }
  }
}

/**
 * The chunks of a file, front to back: a digest, or null for zeros.
 * @param chunks how many the file has; one more or less is refused
 * @throws ServiceError `invalid-request`
 */
export async function* decodeLayout(body: AsyncIterable<Uint8Array>, chunks: number): AsyncIterable<Uint8Array | null> {
  // in the worst case every second chunk is zeros, and each has a run of its own
  const reader = new ByteReader(body, chunks * (RUN_HEAD_BYTES + DIGEST_BYTES) + RUN_HEAD_BYTES)
  try {
    yield* runsOf(reader, chunks)
  } finally {
    reader.close()
  }
}

async function* runsOf(reader: ByteReader, chunks: number): AsyncIterable<Uint8Array | null> {
  let left = chunks
  for (let run = 0; ; run += 1) {
    const head = await reader.takeOrEnd(RUN_HEAD_BYTES, `run ${run}`)
    if (!head) break
    const [kind, count] = [head[0]!, Buffer.from(head.buffer, head.byteOffset).readUInt32BE(1)]
    if (kind > 1) throw wrong(`run ${run} is of the unknown kind ${kind}`)
    if (count < 1 || count > left) throw wrong(`run ${run} has ${count} chunks where the file has ${left} left`)
    left -= count
    if (kind === 0) for (let at = 0; at < count; at += 1) yield null
    else yield* digestsOf(reader, count, run)
  }
  if (left > 0) throw wrong(`the layout ends ${left} chunks before the file does`)
}

async function* digestsOf(reader: ByteReader, count: number, run: number): AsyncIterable<Uint8Array> {
  for (let left = count; left > 0; ) {
    const piece = Math.min(left, PIECE_DIGESTS)
    const digests = await reader.take(piece * DIGEST_BYTES, `run ${run}`)
    for (let at = 0; at < digests.length; at += DIGEST_BYTES) yield digests.subarray(at, at + DIGEST_BYTES)
    left -= piece
  }
}

/** A whole body that is known to be small. @throws ServiceError `too-large` */
export async function readBody(body: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of body) {
    bytes += part.length
    if (bytes > maxBytes) throw tooLarge(maxBytes)
    parts.push(part)
  }
  return Buffer.concat(parts)
}

/** Cuts a stream into pieces of the length that is asked for. */
class ByteReader {
  readonly #body: AsyncIterator<Uint8Array>
  readonly #maxBytes: number
  #parts: Uint8Array[] = []
  #held = 0
  #seen = 0

  constructor(body: AsyncIterable<Uint8Array>, maxBytes: number) {
    this.#body = body[Symbol.asyncIterator]()
    this.#maxBytes = maxBytes
  }

  async takeOrEnd(bytes: number, where: string): Promise<Uint8Array | undefined> {
    if (this.#held === 0 && !(await this.#more())) return undefined
    return this.take(bytes, where)
  }

  async take(bytes: number, where: string): Promise<Uint8Array> {
    while (this.#held < bytes) {
      if (!(await this.#more())) throw wrong(`the body ends inside ${where}`)
    }
    this.#held -= bytes
    const [first] = this.#parts
    if (first && first.length > bytes) {
      this.#parts[0] = first.subarray(bytes)
      return first.subarray(0, bytes)
    }
    const taken = new Uint8Array(bytes)
    for (let filled = 0; filled < bytes; ) {
      const part = this.#parts[0]!
      const use = part.subarray(0, bytes - filled)
      taken.set(use, filled)
      filled += use.length
      if (use.length === part.length) this.#parts.shift()
      else this.#parts[0] = part.subarray(use.length)
    }
    return taken
  }

  /** Takes no more of the body; does not wait for a sender that says nothing. */
  close(): void {
    void this.#body.return?.().catch(() => undefined)
  }

  async #more(): Promise<boolean> {
    for (;;) {
      const { value, done } = await this.#body.next()
      if (done) return false
      if (value.length === 0) continue
      this.#seen += value.length
      if (this.#seen > this.#maxBytes) throw tooLarge(this.#maxBytes)
      this.#parts.push(value)
      this.#held += value.length
      return true
    }
  }
}

const wrong = (what: string): ServiceError =>
  new ServiceError('invalid-request', `the binary body is not well formed: ${what}; docs/api-v1.md has the form`)
const tooLarge = (maxBytes: number): ServiceError =>
  new ServiceError('too-large', `the body is larger than the ${maxBytes} bytes that are taken here`, { maxBytes })
