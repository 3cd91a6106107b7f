import { MessageChannel, Worker } from 'node:worker_threads'
import { ServiceError } from '../../../base/errors.ts'
import { ZEROS } from '../../packed/zeros.ts'
import type { ThreadInput, ThreadMessage, ThreadSettings } from './thread-messages.ts'

type Heard = Exclude<ThreadMessage, { kind: 'hungry' }> | { readonly kind: 'broken'; readonly error: unknown }

/**
 * Unpacks `body` in a thread of its own, which ends with the reading. Reads two buffers ahead and holds four pieces of 1 MiB, besides
 * what the decoder itself holds.
 * @throws ServiceError `invalid-image` | `unsupported`; `unavailable` where the thread dies; errors of `body` pass through
 */
export async function* unpackInThread(
  compression: ThreadSettings['compression'],
  body: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const source = body[Symbol.asyncIterator]()
  const { port1: port, port2 } = new MessageChannel()
  const events = new Int32Array(new SharedArrayBuffer(4))
  const thread = new Worker(new URL('./unpack-thread.ts', import.meta.url), {
    workerData: { compression, events, port: port2 },
    transferList: [port2],
    name: `unpack-${compression}`,
    resourceLimits: { maxYoungGenerationSizeMb: 8, maxOldGenerationSizeMb: 64 },
  })
  const tell = (message: ThreadInput, transfer: ArrayBuffer[] = []) => {
    port.postMessage(message, transfer)
    Atomics.add(events, 0, 1)
    Atomics.notify(events, 0)
  }
  const heard: Heard[] = []
  let wake = () => {}
  const hear = (message: Heard) => {
    heard.push(message)
    wake()
  }
  let feeding = Promise.resolve()
  const feed = async () => {
    const next = await source.next()
    if (next.done) return tell({ kind: 'input', bytes: null })
    const bytes = Uint8Array.from(next.value) // the source may reuse its own
    tell({ kind: 'input', bytes }, [bytes.buffer])
  }
  thread.on('message', (message: ThreadMessage) => {
    if (message.kind !== 'hungry') hear(message)
    else feeding = feeding.then(feed).catch((error) => hear({ kind: 'broken', error }))
  })
  thread.on('error', (cause) => {
    hear({
      kind: 'broken',
      error: new ServiceError('unavailable', 'The thread that unpacks the file failed: try again.', {}, { cause }),
    })
  })
  thread.on('exit', () => {
    hear({ kind: 'broken', error: new ServiceError('unavailable', 'The thread that unpacks the file ended early: try again.') })
  })
  try {
    for (;;) {
      while (heard.length === 0) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
      const message = heard.shift() as Heard
      switch (message.kind) {
        case 'piece':
          tell({ kind: 'taken' })
          yield message.bytes
          break
        case 'zeros':
          tell({ kind: 'taken' })
          yield ZEROS.subarray(0, message.bytes)
          break
        case 'done':
          return
        case 'failed':
          throw new ServiceError(message.code, message.message, message.details)
        case 'broken':
          throw message.error
      }
    }
  } finally {
    thread.removeAllListeners()
    thread.on('error', () => {}) // of ending it in the middle
    port.close()
    await thread.terminate()
    await source.return?.()
  }
}
