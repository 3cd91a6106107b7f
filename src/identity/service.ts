import { createHash } from 'node:crypto'
import type { Catalog } from '../store/catalog/catalog.ts'
import { Allowance, type AllowanceSettings } from './allowance.ts'
import { type BootstrapOptions, type BootstrapResult, bootstrap } from './bootstrap.ts'
import type { AuthenticatedCaller, Authenticator } from './identity.ts'
import { type ProjectLimits, projectLimits } from './limits.ts'
import { type PasswordSettings, Passwords } from './passwords.ts'
import type { Ports, ServiceEntry } from './ports.ts'
import { Throttle, type ThrottleSettings } from './throttle.ts'
import { createAuthenticator, sweepTokens } from './tokens.ts'

const HOUR_MS = 3_600_000

export interface IdentitySettings {
  /** Default 24 h. */
  readonly tokenLifetimeMs?: number
  readonly passwords?: PasswordSettings
  /** Wrong passwords from one address for one account. */
  readonly guesses?: ThrottleSettings
  /** Wrong passwords for one account from anywhere: so late and so short that strangers cannot lock its owner out for long. */
  readonly accountGuesses?: ThrottleSettings
  /** Tokens issued to one user; each is a row until it expires. */
  readonly logins?: AllowanceSettings
  readonly region?: string
  /** What the service catalog lists. Default: all that this process serves. */
  readonly services?: readonly Omit<ServiceEntry, 'id'>[]
  readonly now?: () => number
}

const defaultGuesses: ThrottleSettings = { free: 10, longestWaitMs: 60_000, memoryMs: HOUR_MS }
const defaultAccountGuesses: ThrottleSettings = { free: 500, longestWaitMs: 8_000, memoryMs: HOUR_MS }
const defaultLogins: AllowanceSettings = { burst: 500, perSecond: 5 }
const defaultServices: readonly Omit<ServiceEntry, 'id'>[] = [
  { type: 'identity', name: 'keystone', path: '/identity/v3' },
  { type: 'image', name: 'glance', path: '/image' },
  { type: 'compute', name: 'nova', path: '/compute/v2.1' },
  { type: 'volumev3', name: 'cinderv3', path: '/volume/v3' },
]

export interface Identity {
  readonly authenticator: Authenticator
  /** Of images. */
  readonly limits: ProjectLimits
  /** @param serviceType of the service whose resources they are: `image`, `compute`, `volumev3` */
  limitsOf(serviceType: string): ProjectLimits
  /** For the identity API: what its use cases stand on. */
  readonly ports: Ports
  bootstrap(options?: BootstrapOptions): Promise<BootstrapResult>
  /** Forgets expired tokens, now and every `everyMs`, until the returned function is called. */
  startSweeping(everyMs?: number): () => void
}

export type { AuthenticatedCaller, ProjectLimits }

export function createIdentity(catalog: Catalog, settings: IdentitySettings = {}): Identity {
  const now = settings.now ?? Date.now
  const ports: Ports = {
    catalog,
    passwords: new Passwords(settings.passwords),
    guesses: new Throttle(settings.guesses ?? defaultGuesses, now),
    accountGuesses: new Throttle(settings.accountGuesses ?? defaultAccountGuesses, now),
    logins: new Allowance(settings.logins ?? defaultLogins, now),
    tokenLifetimeMs: settings.tokenLifetimeMs ?? 24 * HOUR_MS,
    services: (settings.services ?? defaultServices).map((service) => ({ id: stableId('service', service.type), ...service })),
    region: settings.region ?? 'RegionOne',
    now,
  }
  return {
    authenticator: createAuthenticator(ports),
    limits: projectLimits(ports, 'image'),
    limitsOf: (serviceType) => projectLimits(ports, serviceType),
    ports,
    bootstrap: (options) => bootstrap(ports, options),
    startSweeping(everyMs = HOUR_MS) {
      // What a sweep leaves behind is refused by its date all the same: a failed one waits for the next.
      const sweep = () => void sweepTokens(ports).catch(() => {})
      sweep()
      const timer = setInterval(sweep, everyMs).unref()
      return () => clearInterval(timer)
    },
  }
}

/** The same id at every start, for what is made by the settings and not by a user. */
export const stableId = (...words: readonly string[]): string =>
  createHash('sha256').update(words.join('\n')).digest('hex').slice(0, 32)
