import { pipeline, Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { KiB, MiB } from '../../base/units.ts'
import { unpackZstd } from './zstd-frames.ts'

export interface DecompressOptions {
  /** Of what comes out. */
  readonly maxBytes: number
  readonly maxRatio?: number
  /** Up to here, any ratio is let pass: an image that small can be mostly empty. */
  readonly freeBytes?: number
  /** Told of each buffer of compressed bytes; of nothing where the file is not compressed. */
  readonly onPacked?: (bytes: Uint8Array) => void
}
const MAX_RATIO = 250 // a disk image with a system on it is compressed 2 to 100 times; gzip ends at 1030, zstd at 50,000
const FREE_BYTES = 256 * MiB
const OUTPUT_BYTES = 256 * KiB
const HEAD_BYTES = 6

export type Compression = 'none' | 'gzip' | 'zstd'

/**
 * What is inside `body`, if it is compressed by gzip or zstd, else `body` itself; found by the first bytes, never by a name.
 * Holds one buffer of each. Reads `body` once.
 *
 * @returns the kind as soon as the first bytes are there, and the bytes
 * @throws ServiceError `unsupported` for xz, bzip2, zip, lz4; while reading: `invalid-image` for damaged data, for data that is
 *   compressed twice and for a bomb (ratio), `too-large`; errors of `body` pass through
 */
export async function decompressed(
  body: AsyncIterable<Uint8Array>,
  options: DecompressOptions,
): Promise<{ readonly compression: Compression; readonly bytes: AsyncIterable<Uint8Array> }> {
  const { head, all } = await withHead(body)
  let compression: Compression
  try {
    compression = compressionOf(head)
  } catch (error) {
    await all.return()
    throw error
  }
  if (compression === 'none') return { compression, bytes: all }
  return { compression, bytes: inflate(all, compression, options) }
}

function compressionOf(head: Uint8Array): Compression {
  const starts = (...bytes: number[]): boolean => bytes.every((byte, at) => head[at] === byte)
  if (starts(0x1f, 0x8b, 0x08)) return 'gzip'
  if (starts(0x28, 0xb5, 0x2f, 0xfd)) return 'zstd'
  const other = starts(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00)
    ? 'xz'
    : starts(0x42, 0x5a, 0x68) && (head[3] ?? 0) >= 0x31 && (head[3] ?? 0) <= 0x39
      ? 'bzip2'
      : starts(0x50, 0x4b, 0x03, 0x04)
        ? 'zip'
        : starts(0x04, 0x22, 0x4d, 0x18)
          ? 'lz4'
          : undefined
  if (other === undefined) return 'none'
  throw new ServiceError(
    'unsupported',
    `the file is compressed by ${other}, which is not taken: unpack it, or pack it by gzip or zstd`,
  )
}

async function* inflate(
  body: AsyncIterable<Uint8Array>,
  compression: 'gzip' | 'zstd',
  { maxBytes, maxRatio = MAX_RATIO, freeBytes = FREE_BYTES, onPacked }: DecompressOptions,
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
  const output = compression === 'gzip' ? unpackGzip(counted()) : unpackZstd(counted())
  try {
    let first = true
    for await (const chunk of output) {
      if (first && isCompressed(chunk)) {
        throw new ServiceError('invalid-image', `the file is compressed twice; pack it once, by gzip or zstd`)
      }
      first = false
      given += chunk.length
      if (given > maxBytes) {
        throw new ServiceError('too-large', `the file holds more than the ${maxBytes} bytes that may be imported`, { maxBytes })
      }
      if (given > freeBytes && given > taken * maxRatio) {
        const problem = `${given} bytes came out of ${taken}, more than ${maxRatio} times as much: this is no image of a disk in use`
        throw new ServiceError('invalid-image', problem, { amplification: Math.round(given / taken) })
      }
      yield chunk
    }
  } catch (cause) {
    if (failure !== undefined) throw failure
    if (isServiceError(cause)) throw cause
    throw new ServiceError(
      'invalid-image',
      `the file is damaged: its ${compression} data cannot be unpacked`,
      { taken },
      { cause },
    )
  }
}

async function* unpackGzip(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  const output = pipeline(Readable.from(body, { objectMode: false }), createGunzip({ chunkSize: OUTPUT_BYTES }), () => {})
  try {
    yield* output as AsyncIterable<Uint8Array>
  } finally {
    output.destroy()
  }
}

function isCompressed(head: Uint8Array): boolean {
  try {
    return compressionOf(head) !== 'none'
  } catch {
    return true
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
      first.push(next.value.slice()) // the next call may reuse it
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
