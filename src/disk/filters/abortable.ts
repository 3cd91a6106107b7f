import { setImmediate } from 'node:timers/promises'
import type { Filter } from '../block/block-source.ts'

/** A walk that never has to wait would keep the process from hearing of the signal. */
const CALLS_A_TURN = 1024

/** Reads and walks fail with the reason of `signal` once it is aborted. Closing does not. */
export const abortable =
  (signal: AbortSignal): Filter =>
  (next) => {
    let calls = 0
    const turn = async () => {
      calls += 1
      if (calls % CALLS_A_TURN === 0) await setImmediate()
      signal.throwIfAborted()
    }
    return {
      size: next.size,
      async read(offset, length, into) {
        await turn()
        return next.read(offset, length, into)
      },
      async *extents(offset, length) {
        for await (const extent of next.extents(offset, length)) {
          await turn()
          yield extent
        }
      },
      close: () => next.close(),
    }
  }
