import { ServiceError } from '../../base/errors.ts'

export interface GatherOptions {
  /** Asked for each block: a multiple of the chunk size. */
  readonly blockBytes: () => number
  readonly maxBytes: number
  readonly signal?: AbortSignal | undefined
}

/** A block as the pieces that it came in; all blocks of a stream but the last are full. */
export interface Block {
  readonly parts: readonly Uint8Array[]
  readonly bytes: number
}

/**
 * Collects a stream into blocks without copying. Nothing but the pieces themselves is held while the sender is waited for.
 * @throws ServiceError `too-large` beyond `maxBytes`, `cancelled`; errors of `body` pass through
 */
export async function* gather(body: AsyncIterable<Uint8Array>, options: GatherOptions): AsyncGenerator<Block> {
  const { maxBytes, signal } = options
  const iterator = body[Symbol.asyncIterator]()
  let parts: Uint8Array[] = []
  let bytes = 0
  let totalBytes = 0
  let blockBytes = options.blockBytes()
  let ended = false
  try {
    for (;;) {
      const next = await orCancelled(iterator.next(), signal)
      if (next.done) break
      totalBytes += next.value.length
      if (totalBytes > maxBytes)
        throw new ServiceError('too-large', `The file is larger than the limit of ${maxBytes} bytes.`, { maxBytes })
      for (let piece = next.value; piece.length > 0; ) {
        const taken = piece.subarray(0, blockBytes - bytes)
        parts.push(taken)
        bytes += taken.length
        piece = piece.subarray(taken.length)
        if (bytes < blockBytes) continue
        yield { parts, bytes }
        parts = []
        bytes = 0
        blockBytes = options.blockBytes()
      }
    }
    ended = true
    if (bytes > 0) yield { parts, bytes }
  } finally {
    if (!ended) void Promise.resolve(iterator.return?.()).catch(() => undefined) // it may wait for a sender that says nothing
  }
}

export const cancelledError = () => new ServiceError('cancelled', 'The transfer was stopped.')

/** @throws ServiceError `cancelled` as soon as `signal` says so, whatever `promise` does */
export function orCancelled<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise
  if (signal.aborted) {
    promise.catch(() => undefined)
    return Promise.reject(cancelledError())
  }
  return new Promise<T>((resolve, reject) => {
    const stop = () => reject(cancelledError())
    signal.addEventListener('abort', stop, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop))
  })
}
