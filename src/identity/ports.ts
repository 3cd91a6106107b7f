import type { Catalog } from '../store/catalog/catalog.ts'
import type { Allowance } from './allowance.ts'
import type { Passwords } from './passwords.ts'
import type { Throttle } from './throttle.ts'

/** What the use cases of identity stand on. */
export interface Ports {
  readonly catalog: Catalog
  readonly passwords: Passwords
  /** By account and address: stops one guesser without locking the owner out. */
  readonly guesses: Throttle
  /** By account alone, much later: slows down a guesser with many addresses. */
  readonly accountGuesses: Throttle
  /** By user: how fast tokens are issued. */
  readonly logins: Allowance
  readonly tokenLifetimeMs: number
  readonly services: readonly ServiceEntry[]
  readonly region: string
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** One line of the service catalog: an API that this process serves. */
export interface ServiceEntry {
  readonly id: string
  /** `image`, `identity` …: what clients look for. */
  readonly type: string
  /** `glance`, `keystone` …: some clients look for these. */
  readonly name: string
  /** Below the service's address: `/image`. */
  readonly path: string
}
