import { ServiceError } from '../base/errors.ts'

export interface AllowanceSettings {
  /** How many may come at once after a pause. */
  readonly burst: number
  /** How many come for ever. */
  readonly perSecond: number
}

/** Keys remembered; the one that was idle longest is forgotten first, and is then as good as new. */
const MAX_KEYS = 10_000

/** A leaky bucket for each key: bounds how fast one user can make the database grow. Kept in memory. */
export class Allowance {
  readonly #settings: AllowanceSettings
  readonly #now: () => number
  readonly #used = new Map<string, { level: number; atMs: number }>()

  constructor(settings: AllowanceSettings, now: () => number = Date.now) {
    this.#settings = settings
    this.#now = now
  }

  /** @throws ServiceError `too-many-requests` where `key` has used up its allowance */
  take(key: string): void {
    const { burst, perSecond } = this.#settings
    const atMs = this.#now()
    const before = this.#used.get(key)
    const level = before ? Math.max(0, before.level - ((atMs - before.atMs) / 1000) * perSecond) : 0
    if (level + 1 > burst) {
      const retryAfterSeconds = Math.ceil((level + 1 - burst) / perSecond)
      const problem = `this user logs in too often: try again in ${retryAfterSeconds} s, and use a token until it expires`
      throw new ServiceError('too-many-requests', problem, { retryAfterSeconds })
    }
    this.#used.delete(key) // set anew, so that the map stays in order of use
    this.#used.set(key, { level: level + 1, atMs })
    if (this.#used.size <= MAX_KEYS) return
    for (const idlest of this.#used.keys()) {
      this.#used.delete(idlest)
      return
    }
  }
}
