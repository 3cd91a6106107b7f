import { hash } from 'node:crypto'

/** A hash of crypt(5) that passwords can be compared with. */
export interface PasswordHash {
  /** What one comparison costs. */
  readonly rounds: number
  matches(password: string): boolean
}

const ALPHABET = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const DEFAULT_ROUNDS = 5000
const MIN_ROUNDS = 1000
const MD5_ROUNDS = 1000

/**
 * A hash of a scheme that is cheap to compare with: `$6$`, `$5$` and `$1$`. Undefined for any other, yescrypt and bcrypt among them.
 * Sources: U. Drepper, "Unix crypt using SHA-256 and SHA-512", version 0.6; crypt(5), "md5crypt".
 */
export function passwordHash(written: string): PasswordHash | undefined {
  const md5 = /^\$1\$([^$]{0,8})\$([./0-9A-Za-z]{22})$/.exec(written)
  if (md5) {
    const [, salt = '', sum] = md5
    return { rounds: MD5_ROUNDS, matches: (password) => md5Crypt(Buffer.from(password), Buffer.from(salt)) === sum }
  }
  const sha = /^\$([56])\$(?:rounds=(\d{1,9})\$)?([^$]{0,16})\$([./0-9A-Za-z]{43}|[./0-9A-Za-z]{86})$/.exec(written)
  if (!sha) return undefined
  const [, id, given, salt = '', sum] = sha
  const algorithm = id === '6' ? 'sha512' : 'sha256'
  const rounds = given === undefined ? DEFAULT_ROUNDS : Math.max(MIN_ROUNDS, Number(given))
  return { rounds, matches: (password) => shaCrypt(algorithm, Buffer.from(password), Buffer.from(salt), rounds) === sum }
}

type Algorithm = 'md5' | 'sha256' | 'sha512'
const digest = (algorithm: Algorithm, ...parts: readonly Uint8Array[]): Buffer => hash(algorithm, Buffer.concat(parts), 'buffer')

/** `bytes` again and again, to a length. */
function repeated(bytes: Uint8Array, length: number): Buffer {
  const all = Buffer.alloc(length)
  for (let at = 0; at < length; at += bytes.length) all.set(bytes.subarray(0, Math.min(bytes.length, length - at)), at)
  return all
}

function shaCrypt(algorithm: 'sha256' | 'sha512', key: Buffer, salt: Buffer, rounds: number): string {
  const b = digest(algorithm, key, salt, key)
  const bits: Buffer[] = []
  for (let left = key.length; left > 0; left >>>= 1) bits.push((left & 1) === 1 ? b : key)
  let a = digest(algorithm, key, salt, repeated(b, key.length), ...bits)
  const p = repeated(digest(algorithm, repeated(key, key.length ** 2)), key.length)
  const s = repeated(digest(algorithm, repeated(salt, salt.length * (16 + a[0]!))), salt.length)
  for (let round = 0; round < rounds; round += 1) a = digest(algorithm, ...mixed(round, a, p, s))
  return algorithm === 'sha512' ? encoded512(a) : encoded256(a)
}

function mixed(round: number, sum: Buffer, key: Buffer, salt: Buffer): Buffer[] {
  const isOdd = round % 2 === 1
  const parts = [isOdd ? key : sum]
  if (round % 3 !== 0) parts.push(salt)
  if (round % 7 !== 0) parts.push(key)
  parts.push(isOdd ? sum : key)
  return parts
}

function md5Crypt(key: Buffer, salt: Buffer): string {
  const b = digest('md5', key, salt, key)
  const bits: Buffer[] = []
  for (let left = key.length; left > 0; left >>>= 1) bits.push((left & 1) === 1 ? Buffer.alloc(1) : key.subarray(0, 1))
  let a = digest('md5', key, Buffer.from('$1$'), salt, repeated(b, key.length), ...bits)
  for (let round = 0; round < MD5_ROUNDS; round += 1) a = digest('md5', ...mixed(round, a, key, salt))
  let text = ''
  for (let at = 0; at < 5; at += 1) text += encoded(a[at]!, a[at + 6]!, at === 4 ? a[5]! : a[at + 12]!, 4)
  return text + encoded(0, 0, a[11]!, 2)
}

/** Three bytes as `count` characters, the low bits first. */
function encoded(high: number, middle: number, low: number, count: number): string {
  let word = (high << 16) | (middle << 8) | low
  let text = ''
  for (let at = 0; at < count; at += 1, word >>>= 6) text += ALPHABET[word & 63]
  return text
}

/** The order that the specification spells out is a rotation of three counters. */
function encoded512(sum: Buffer): string {
  let [text, a, b, c] = ['', 0, 21, 42]
  for (let at = 0; at < 21; at += 1) {
    text += encoded(sum[a]!, sum[b]!, sum[c]!, 4)
    ;[a, b, c] = [b + 1, c + 1, a + 1]
  }
  return text + encoded(0, 0, sum[63]!, 2)
}

function encoded256(sum: Buffer): string {
  let [text, a, b, c] = ['', 0, 10, 20]
  for (let at = 0; at < 10; at += 1) {
    text += encoded(sum[a]!, sum[b]!, sum[c]!, 4)
    ;[a, b, c] = [c + 1, a + 1, b + 1]
  }
  return text + encoded(0, sum[31]!, sum[30]!, 3)
}
