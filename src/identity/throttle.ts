import { ServiceError } from '../base/errors.ts'

export interface ThrottleSettings {
  /** Failures that cost nothing: people mistype. */
  readonly free: number
  /** After the last free one a second, then twice as long each time, up to this. */
  readonly longestWaitMs: number
  /** Failures older than this are forgotten. */
  readonly memoryMs: number
}

/** Keys remembered; beyond it the one that failed longest ago is forgotten. About 10 MiB at the longest names. */
const MAX_KEYS = 10_000

/**
 * Slows down guessing. Each failed attempt under a key makes the next one wait longer; attempts during the wait are refused
 * whatever they bring, so that they cannot be used to test passwords. Kept in memory: a restart forgives.
 */
export class Throttle {
  readonly #settings: ThrottleSettings
  readonly #now: () => number
  readonly #failures = new Map<string, { count: number; lastMs: number }>()

  constructor(settings: ThrottleSettings, now: () => number = Date.now) {
    this.#settings = settings
    this.#now = now
  }

  /** @throws ServiceError `too-many-requests` while `key` has to wait */
  check(key: string): void {
    const seen = this.#failures.get(key)
    if (!seen || seen.count < this.#settings.free) return
    const waitMs = Math.min(1000 * 2 ** (seen.count - this.#settings.free), this.#settings.longestWaitMs)
    const leftMs = seen.lastMs + waitMs - this.#now()
    if (leftMs <= 0) return
    const retryAfterSeconds = Math.ceil(leftMs / 1000)
    throw new ServiceError('too-many-requests', `too many failed logins: try again in ${retryAfterSeconds} s`, {
      retryAfterSeconds,
    })
  }

  failed(key: string): void {
    const now = this.#now()
    const seen = this.#failures.get(key)
    const count = seen && now - seen.lastMs < this.#settings.memoryMs ? seen.count + 1 : 1
    this.#failures.delete(key) // set anew, so that the map stays in order of the last failure
    this.#failures.set(key, { count, lastMs: now })
    if (this.#failures.size <= MAX_KEYS) return
    for (const oldest of this.#failures.keys()) {
      this.#failures.delete(oldest)
      return
    }
  }

  succeeded(key: string): void {
    this.#failures.delete(key)
  }
}
