import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ServiceError } from '../../base/errors.ts'
import { formatBytes } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { openFileSource } from '../../disk/block/file-source.ts'
import type { TransferState } from '../progress.ts'
import { PIECE_BYTES } from './pieces.ts'
import { isWithoutUnnamed, O_TMPFILE } from './unnamed-file.ts'
import { writeStream } from './write-target.ts'

export interface SpoolOptions {
  /** For messages: `standard input`. */
  readonly what: string
  /** Null: not known. */
  readonly totalBytes: number | null
  readonly maxBytes: number
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}

/**
 * Keeps what can be read only once in a file without a name, in the system's folder for such (TMPDIR), so that it can be read anywhere.
 * Zeros take no place. It is gone with the process, however that ends.
 * @throws ServiceError `too-large` beyond `maxBytes`
 */
export async function spooled(stream: AsyncIterable<Uint8Array>, options: SpoolOptions): Promise<BlockSource> {
  const { what, totalBytes, maxBytes, signal, onProgress } = options
  const handle = await openScratch(tmpdir())
  try {
    let doneBytes = 0
    const counted = async function* () {
      for await (const piece of gathered(stream)) {
        doneBytes += piece.length
        if (doneBytes > maxBytes) {
          const limit = `${formatBytes(maxBytes)} (${maxBytes} bytes)`
          throw new ServiceError(
            'too-large',
            `${what} has more than ${limit} that may be kept in ${tmpdir()}: say more with --spool-bytes`,
          )
        }
        yield piece
      }
    }
    const state = (movedBytes: number): TransferState => ({
      phase: 'Reading',
      doneBytes,
      totalBytes,
      movedBytes,
      counts: { kept: movedBytes },
    })
    await writeStream(counted(), new Scratch(handle), { signal, onProgress: (bytes) => onProgress(state(bytes)) })
    return await openFileSource(`/proc/self/fd/${handle.fd}`)
  } finally {
    await handle.close()
  }
}

class Scratch {
  readonly #handle: FileHandle
  constructor(handle: FileHandle) {
    this.#handle = handle
  }
  truncate(bytes: number): Promise<void> {
    return this.#handle.truncate(bytes)
  }
  async write(bytes: Uint8Array, offset: number): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      done += (await this.#handle.write(bytes, done, bytes.length - done, offset + done)).bytesWritten
    }
  }
}

async function openScratch(folder: string): Promise<FileHandle> {
  try {
    return await open(folder, O_TMPFILE | constants.O_RDWR, 0o600)
  } catch (error) {
    if (!isWithoutUnnamed(error)) throw error
  }
  const path = join(folder, `imprint-${randomBytes(6).toString('hex')}`)
  const handle = await open(path, 'wx+', 0o600)
  await rm(path)
  return handle
}

/** In pieces of 1 MiB, the last one of what is left. */
export async function* gathered(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let piece = Buffer.allocUnsafeSlow(PIECE_BYTES)
  let filled = 0
  for await (const bytes of stream) {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + PIECE_BYTES - filled)
      piece.set(part, filled)
      filled += part.length
      at += part.length
      if (filled < PIECE_BYTES) continue
      yield piece
      piece = Buffer.allocUnsafeSlow(PIECE_BYTES)
      filled = 0
    }
  }
  if (filled > 0) yield piece.subarray(0, filled)
}
