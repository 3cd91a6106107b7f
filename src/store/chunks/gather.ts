import { ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import { isZero } from '../../disk/block/zero.ts'

export interface GatherOptions {
  /** Asked for each block: a multiple of the chunk size. */
  readonly blockBytes: () => number
  readonly maxBytes: number
  readonly signal?: AbortSignal | undefined
}

/** A part of the stream that is nothing but zeros. */
export interface ZeroRun {
  readonly zeros: number
}

/** Zeros are gathered into runs of up to so many bytes: little work each, but others should have their turn. */
export const MAX_RUN_BYTES = 8 * MiB

/**
 * Collects a stream into blocks, all full but the last, and runs of blocks of zeros, which are not copied. Each block is the
 * same memory: it is the caller's until the next one is asked for. A piece of `body` is copied before the next piece is asked
 * for, so that a sender may free it then.
 * @throws ServiceError `too-large` beyond `maxBytes`, `cancelled`; errors of `body` pass through
 */
export async function* gather(body: AsyncIterable<Uint8Array>, options: GatherOptions): AsyncGenerator<Uint8Array | ZeroRun> {
  const { maxBytes, signal } = options
  const iterator = body[Symbol.asyncIterator]()
  const pull = cancellable(() => iterator.next(), signal)
  let block = new Uint8Array(options.blockBytes())
  let bytes = 0
  let isZeroSoFar = true // then nothing of it is in `block` yet
  let zeros = 0
  let totalBytes = 0
  let ended = false
  try {
    for (;;) {
      const next = await pull.next()
      if (next.done) break
      const { length } = next.value
      totalBytes += length
      if (totalBytes > maxBytes)
        throw new ServiceError('too-large', `The file is larger than the limit of ${maxBytes} bytes.`, { maxBytes })
      for (let from = 0; from < length; ) {
        const taken = next.value.subarray(from, from + block.length - bytes)
        if (!isZeroSoFar || !isZero(taken)) {
          if (isZeroSoFar) block.fill(0, 0, bytes)
          isZeroSoFar = false
          block.set(taken, bytes)
        }
        bytes += taken.length
        from += taken.length
        if (bytes < block.length) continue
        if (isZeroSoFar) zeros += bytes
        if (zeros > 0 && (!isZeroSoFar || zeros >= MAX_RUN_BYTES)) {
          yield { zeros }
          zeros = 0
        }
        if (!isZeroSoFar) yield block
        bytes = 0
        isZeroSoFar = true
        const blockBytes = options.blockBytes()
        if (block.length !== blockBytes) block = new Uint8Array(blockBytes)
      }
    }
    ended = true
    if (isZeroSoFar) zeros += bytes
    if (zeros > 0) yield { zeros }
    if (!isZeroSoFar) yield block.subarray(0, bytes)
  } finally {
    pull.end()
    if (!ended) void Promise.resolve(iterator.return?.()).catch(() => undefined) // it may wait for a sender that says nothing
  }
}

/** `orCancelled` for one promise after the other, with one listener for all. */
function cancellable<T>(ask: () => Promise<T>, signal: AbortSignal | undefined) {
  let stop: ((error: unknown) => void) | undefined
  const onAbort = () => stop?.(cancelledError())
  signal?.addEventListener('abort', onAbort, { once: true })
  return {
    next: (): Promise<T> => {
      if (!signal) return ask()
      if (signal.aborted) return Promise.reject(cancelledError())
      return new Promise<T>((resolve, reject) => {
        stop = reject
        ask().then(resolve, reject)
      })
    },
    end: () => signal?.removeEventListener('abort', onAbort),
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
