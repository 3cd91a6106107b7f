import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto'
import { ServiceError } from '../base/errors.ts'

/** Cost of one hash: `128 × blockSize × cost` bytes of memory, and time in proportion to that × `parallel`. */
export interface ScryptCost {
  /** A power of two. */
  readonly cost: number
  readonly blockSize: number
  readonly parallel: number
}
/** The setting of least memory among those of OWASP's Password Storage Cheat Sheet: 16 MiB, 0.15 to 0.25 s here. */
export const defaultCost: ScryptCost = { cost: 2 ** 14, blockSize: 8, parallel: 5 }

const HASH_BYTES = 32
const SALT_BYTES = 16
/** More is no safer, and hashing it first costs time that anybody may ask for. */
export const MAX_PASSWORD_CHARACTERS = 4096
/** A stored hash with a higher cost was not written by us. */
const MAX_MEMORY_BYTES = 128 * 1024 * 1024

export interface PasswordSettings {
  readonly cost?: ScryptCost
  /** Hashes computed at once; each holds one of libuv's four threads and the memory above. */
  readonly running?: number
  /** Logins that may wait for their turn, over all and for one address; the next is told to come again. */
  readonly waiting?: number
  readonly waitingPerAddress?: number
}

/**
 * Hashes and checks passwords by scrypt, never more than `running` at once.
 * Stored form: `scrypt$<cost>$<blockSize>$<parallel>$<salt>$<hash>`, the last two in base64url.
 */
export class Passwords {
  readonly #cost: ScryptCost
  readonly #limits: Required<Omit<PasswordSettings, 'cost'>>
  readonly #queue: (() => void)[] = []
  readonly #waitingOf = new Map<string, number>()
  #running = 0
  /** What an unknown user's password is compared with, so that the answer takes as long as a known one's. */
  readonly #nobody: string

  constructor(settings: PasswordSettings = {}) {
    this.#cost = settings.cost ?? defaultCost
    this.#limits = {
      running: settings.running ?? 2,
      waiting: settings.waiting ?? 64,
      waitingPerAddress: settings.waitingPerAddress ?? 32,
    }
    this.#nobody = stored(this.#cost, randomBytes(SALT_BYTES), randomBytes(HASH_BYTES))
  }

  /** @param address who caused the work: one address cannot fill the queue */
  async hash(password: string, address = ''): Promise<string> {
    const salt = randomBytes(SALT_BYTES)
    return stored(this.#cost, salt, await this.#derive(password, salt, this.#cost, address))
  }

  /**
   * Whether `password` is the one behind `hash`; takes as long without a hash as with one.
   * @throws ServiceError `too-many-requests` when too many wait already
   */
  async verify(password: string, hash: string | null | undefined, address = ''): Promise<boolean> {
    const { cost, salt, expected } = parse(hash ?? this.#nobody)
    const actual = await this.#derive(password, salt, cost, address)
    return timingSafeEqual(actual, expected) && typeof hash === 'string'
  }

  async #derive(password: string, salt: Buffer, cost: ScryptCost, address: string): Promise<Buffer> {
    await this.#turn(address)
    try {
      return await derive(password.slice(0, MAX_PASSWORD_CHARACTERS), salt, cost)
    } finally {
      const next = this.#queue.shift() // takes over the turn, so that nobody slips in between
      if (next) next()
      else this.#running -= 1
    }
  }

  async #turn(address: string): Promise<void> {
    if (this.#running < this.#limits.running) {
      this.#running += 1
      return
    }
    const mine = this.#waitingOf.get(address) ?? 0
    if (this.#queue.length >= this.#limits.waiting || mine >= this.#limits.waitingPerAddress) {
      throw new ServiceError('too-many-requests', 'too many logins are being checked at once: try again in a moment', {
        retryAfterSeconds: 2,
      })
    }
    this.#waitingOf.set(address, mine + 1)
    await new Promise<void>((resolve) => this.#queue.push(resolve))
    const left = (this.#waitingOf.get(address) ?? 1) - 1
    if (left > 0) this.#waitingOf.set(address, left)
    else this.#waitingOf.delete(address)
  }
}

function derive(password: string, salt: Buffer, { cost, blockSize, parallel }: ScryptCost): Promise<Buffer> {
  const options: ScryptOptions = { N: cost, r: blockSize, p: parallel, maxmem: MAX_MEMORY_BYTES }
  return new Promise((resolve, reject) => {
    scrypt(password.normalize('NFC'), salt, HASH_BYTES, options, (error, key) => (error ? reject(error) : resolve(key)))
  })
}

const stored = ({ cost, blockSize, parallel }: ScryptCost, salt: Buffer, hash: Buffer): string =>
  ['scrypt', cost, blockSize, parallel, salt.toString('base64url'), hash.toString('base64url')].join('$')

function parse(text: string): { cost: ScryptCost; salt: Buffer; expected: Buffer } {
  const [scheme, cost, blockSize, parallel, salt, hash] = text.split('$')
  const expected = Buffer.from(hash ?? '', 'base64url')
  if (scheme !== 'scrypt' || expected.length !== HASH_BYTES || salt === undefined) {
    throw new ServiceError('corrupt', 'a stored password hash is not in a form we write: set that password anew')
  }
  return {
    cost: { cost: Number(cost), blockSize: Number(blockSize), parallel: Number(parallel) },
    salt: Buffer.from(salt, 'base64url'),
    expected,
  }
}

// Without letters and digits that look alike; 32 of them, so that a random byte picks without bias.
const READABLE = 'abcdefghijkmnpqrstuvwxyz23456789'

/** A password for people to copy: five groups of five characters, 125 bits. */
export function readablePassword(): string {
  const letters = [...randomBytes(25)].map((byte) => READABLE[byte % READABLE.length])
  return [0, 5, 10, 15, 20].map((at) => letters.slice(at, at + 5).join('')).join('-')
}
