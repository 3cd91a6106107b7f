import { setTimeout as wait } from 'node:timers/promises'
import { isServiceError, ServiceError } from '../base/errors.ts'

const FIRST_PAUSE_MS = 100
/** What comes back is noticed after so long at most. */
const LONGEST_PAUSE_MS = 2_000

/** How long a service that does not answer is tried again: a restart is sat out, a machine that waits for its disk goes on then. */
export const PATIENCE_MS = 10 * 60_000

/** Pauses between tries that grow, and an end of them. Whoever gets on a bit is patient anew. */
export class Patience {
  readonly #patienceMs: number
  #failingSince: number | undefined
  #pauseMs = FIRST_PAUSE_MS

  constructor(patienceMs = PATIENCE_MS) {
    this.#patienceMs = patienceMs
  }

  progressed(): void {
    this.#failingSince = undefined
    this.#pauseMs = FIRST_PAUSE_MS
  }

  /** Waits until the next try. @throws the error itself, where trying again is of no use or there were enough tries */
  async afterFailure(error: unknown, signal: AbortSignal): Promise<void> {
    const now = performance.now()
    this.#failingSince ??= now
    if (!isPassing(error) || now - this.#failingSince > this.#patienceMs) throw error
    const pauseMs = this.#pauseMs * (0.5 + Math.random() / 2) // hosts that lost the same service do not come back all at once
    this.#pauseMs = Math.min(LONGEST_PAUSE_MS, 2 * this.#pauseMs)
    await wait(pauseMs, undefined, { signal }).catch(() => {
      throw new ServiceError('cancelled', 'the reader has left')
    })
  }
}

const isPassing = (error: unknown): boolean => isServiceError(error, 'unavailable') || isServiceError(error, 'too-many-requests')

/** Runs what may be run again until it succeeds. @throws what it throws, where patience is of no use or at an end */
export async function patiently<T>(signal: AbortSignal, patienceMs: number, work: () => Promise<T>): Promise<T> {
  const patience = new Patience(patienceMs)
  for (;;) {
    try {
      return await work()
    } catch (error) {
      await patience.afterFailure(error, signal)
    }
  }
}

/** Runs the work, during which the signal ends what `over` ends. @throws what the work throws then */
export async function endedBy<T>(signal: AbortSignal | undefined, over: AbortController, work: () => Promise<T>): Promise<T> {
  const end = () => over.abort(signal?.reason)
  if (signal?.aborted) end()
  signal?.addEventListener('abort', end, { once: true })
  try {
    return await work()
  } finally {
    signal?.removeEventListener('abort', end)
  }
}
