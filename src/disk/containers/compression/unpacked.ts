import { isServiceError, ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import { unpackGzip } from './gzip.ts'
import { unpackInThread } from './in-thread.ts'
import { unpackZstd } from './zstd-frames.ts'

export interface UnpackOptions {
  /** Of what comes out. */
  readonly maxBytes: number
  readonly maxRatio?: number
  /** Up to here, any ratio is let pass: an image that small can be mostly empty. */
  readonly freeBytes?: number
  /** Told of each buffer of packed bytes; of nothing where the file is not packed. */
  readonly onPacked?: (bytes: Uint8Array) => void
}
const MAX_RATIO = 250 // a disk image with a system on it is packed 2 to 100 times; gzip ends at 1030, bzip2 and zstd beyond 50,000
const FREE_BYTES = 256 * MiB
const HEAD_BYTES = 6

export type Compression = 'gzip' | 'bzip2' | 'xz' | 'zstd'
export const compressions: readonly Compression[] = ['gzip', 'bzip2', 'xz', 'zstd']

/**
 * What is inside `body`, if it is compressed, else `body` itself; found by the first bytes, never by a name. All members, streams and
 * frames are one file. Reads `body` once. Cost: bzip2 and xz are unpacked in a thread of their own, the others in those of zlib; memory
 * is a few MiB and what the data ask for, at most 128 MiB (zstd), 64 MiB (xz), 5 MiB (bzip2).
 *
 * @returns the kind as soon as the first bytes are there, and the bytes
 * @throws ServiceError `unsupported` for other compressions (lz4, lzip), which are known by name only; while reading:
 *   `invalid-image` for damaged data, for data that is compressed twice and for a bomb (ratio), `too-large`; errors of `body` pass through
 */
export async function unpacked(
  body: AsyncIterable<Uint8Array>,
  options: UnpackOptions,
): Promise<{ readonly compression: Compression | 'none'; readonly bytes: AsyncIterable<Uint8Array> }> {
  const { head, all } = await withHead(body)
  const compression = compressionOf(head)
  if (compression === undefined) return { compression: 'none', bytes: all }
  if (compression === 'lz4' || compression === 'lzip') {
    await all.return()
    const problem = `the file is compressed by ${compression}, which is not taken: pack it by ${compressions.join(', ')}, or not at all`
    throw new ServiceError('unsupported', problem, { format: compression, reason: 'unsupported' })
  }
  return { compression, bytes: limited(all, compression, options) }
}

const known: readonly { readonly name: Compression | 'lz4' | 'lzip'; readonly magic: readonly number[] }[] = [
  { name: 'gzip', magic: [0x1f, 0x8b, 0x08] },
  { name: 'zstd', magic: [0x28, 0xb5, 0x2f, 0xfd] },
  { name: 'xz', magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00] },
  { name: 'bzip2', magic: [0x42, 0x5a, 0x68] },
  { name: 'lz4', magic: [0x04, 0x22, 0x4d, 0x18] },
  { name: 'lzip', magic: [0x4c, 0x5a, 0x49, 0x50, 0x01] },
]
function compressionOf(head: Uint8Array): Compression | 'lz4' | 'lzip' | undefined {
  const found = known.find(({ magic }) => magic.every((byte, at) => head[at] === byte))?.name
  const level = head[3] ?? 0
  return found === 'bzip2' && (level < 0x31 || level > 0x39) ? undefined : found // "BZh" alone may be the start of a text
}

const unpackers: Readonly<Record<Compression, (body: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>>> = {
  gzip: unpackGzip,
  zstd: unpackZstd,
  bzip2: (body) => unpackInThread('bzip2', body),
  xz: (body) => unpackInThread('xz', body),
}

/** Unpacks, and looks at what comes out before it is handed on. */
async function* limited(
  body: AsyncIterable<Uint8Array>,
  compression: Compression,
  { maxBytes, maxRatio = MAX_RATIO, freeBytes = FREE_BYTES, onPacked }: UnpackOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  let [taken, given] = [0, 0]
  let failure: unknown
  async function* counted(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for await (const chunk of body) {
        taken += chunk.length
        onPacked?.(chunk)
        yield chunk
      }
    } catch (error) {
      failure = error
      throw error
    }
  }
  try {
    let first = true
    for await (const chunk of unpackers[compression](counted())) {
      if (first && compressionOf(chunk) !== undefined) {
        const problem = `the file is compressed twice; pack it once, by ${compressions.join(', ')}`
        throw new ServiceError('invalid-image', problem, { format: compression, reason: 'nested' })
      }
      first = false
      given += chunk.length
      if (given > maxBytes) {
        throw new ServiceError('too-large', `the file holds more than the ${maxBytes} bytes that may be imported`, { maxBytes })
      }
      if (given > freeBytes && given > taken * maxRatio) {
        const problem = `${given} bytes came out of ${taken}, more than ${maxRatio} times as much: this is no image of a disk in use`
        throw new ServiceError('invalid-image', problem, {
          format: compression,
          reason: 'amplification',
          amplification: Math.round(given / taken),
        })
      }
      yield chunk
    }
  } catch (cause) {
    if (failure !== undefined) throw failure
    if (isServiceError(cause)) throw cause
    throw new ServiceError(
      'invalid-image',
      `the file is damaged: its ${compression} data cannot be unpacked`,
      { format: compression, reason: 'malformed', taken },
      { cause },
    )
  }
}

/** The first bytes, and all of them: `body` is read by pieces until there is enough to tell. `all` must be read, or returned. */
async function withHead(
  body: AsyncIterable<Uint8Array>,
): Promise<{ head: Uint8Array; all: AsyncGenerator<Uint8Array, void, undefined> }> {
  const iterator = body[Symbol.asyncIterator]()
  const first: Uint8Array[] = []
  let [bytes, done] = [0, false]
  while (bytes < HEAD_BYTES && !done) {
    const next = await iterator.next()
    if (next.done) done = true
    else {
      first.push(Uint8Array.from(next.value)) // the next call may reuse it; `slice` of a Buffer would be no copy
      bytes += next.value.length
    }
  }
  const all = follow(first, iterator)
  await all.next() // into its `try`, so that `return` closes the source although nothing was read
  return { head: Buffer.concat(first), all }
}

/** Yields an empty buffer first: see above. */
async function* follow(
  first: readonly Uint8Array[],
  iterator: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield new Uint8Array()
    yield* first
    for (;;) {
      const next = await iterator.next()
      if (next.done) return
      yield next.value
    }
  } finally {
    await iterator.return?.()
  }
}
