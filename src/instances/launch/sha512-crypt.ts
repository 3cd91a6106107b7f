import { hash, randomBytes } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'

/** Of crypt's Base64, six bits a character, the lowest first. */
const ALPHABET = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const ROUNDS = 5000 // the method's own number where none is written
const ROUNDS_AT_ONCE = 500 // other requests have their turn in between
const DIGEST_BYTES = 64
const SALT_CHARACTERS = 16

/**
 * A password as `/etc/shadow` has it. Takes some milliseconds, on purpose.
 * Source: U. Drepper, "Unix crypt using SHA-256 and SHA-512", 2016, by the numbers of its steps.
 * @param salt at most 16 characters of `./0-9A-Za-z`
 * @returns `$6$<salt>$<hash>`
 */
export async function sha512Crypt(password: string, salt = randomSalt()): Promise<string> {
  const [key, saltBytes] = [Buffer.from(password), Buffer.from(salt)]
  const inner = sha512(key, saltBytes, key) // 4 to 8
  const first = [key, saltBytes, repeated(inner, key.length)] // 1 to 3, 9 and 10
  for (let bits = key.length; bits > 0; bits >>= 1) first.push(bits & 1 ? inner : key) // 11
  let digest = sha512(...first) // 12
  const keys = repeated(sha512(...Array.from({ length: key.length }, () => key)), key.length) // 13 to 16
  const salts = repeated(sha512(...Array.from({ length: 16 + digest[0]! }, () => saltBytes)), saltBytes.length) // 17 to 20
  for (let round = 0; round < ROUNDS; round += 1) {
    if (round % ROUNDS_AT_ONCE === 0) await setImmediate()
    const [one, other] = round % 2 ? [keys, digest] : [digest, keys]
    digest = sha512(one, ...(round % 3 ? [salts] : []), ...(round % 7 ? [keys] : []), other) // 21
  }
  return `$6$${salt}$${encoded(digest)}` // 22
}

const sha512 = (...parts: readonly Uint8Array[]): Buffer => hash('sha512', Buffer.concat(parts), 'buffer')

const repeated = (bytes: Buffer, length: number): Buffer => (length === 0 ? Buffer.alloc(0) : Buffer.alloc(length, bytes))

const randomSalt = (): string => Array.from(randomBytes(SALT_CHARACTERS), (byte) => ALPHABET[byte % ALPHABET.length]).join('')

/** Three bytes make four characters, the bytes being taken from the three thirds of the digest in turn; the last byte makes two. */
function encoded(digest: Buffer): string {
  let text = ''
  let places: readonly [number, number, number] = [0, 21, 42]
  const put = (bits: number, characters: number) => {
    for (let at = 0; at < characters; at += 1) text += ALPHABET[(bits >> (6 * at)) & 63]
  }
  for (let group = 0; group < 21; group += 1) {
    const [high, middle, low] = places
    put((digest[high]! << 16) | (digest[middle]! << 8) | digest[low]!, 4)
    places = [middle + 1, low + 1, high + 1]
  }
  put(digest[DIGEST_BYTES - 1]!, 2)
  return text
}
