import { createHash, createPublicKey, generateKeyPairSync, type JsonWebKey, randomBytes } from 'node:crypto'
import { ServiceError } from '../../base/errors.ts'

/** Keys of OpenSSH: RFC 4253, section 6.6; RFC 5656, section 3.1; RFC 8709; private ones: OpenSSH, PROTOCOL.key. */

export interface PublicKey {
  /** `type base64 comment`, one line. */
  readonly line: string
  /** MD5 of the key's bytes, as `aa:bb:…`: how Nova and older ssh-keygen show it. */
  readonly fingerprint: string
}

const MAX_LINE_CHARACTERS = 16 * 1024 // an RSA key of 16,384 bits has 2,800
const MIN_RSA_BITS = 1024 // OpenSSH's own limit; below, no sshd takes it
const curves: Readonly<Record<string, { readonly curve: string; readonly jwk: string; readonly bytes: number }>> = {
  'ecdsa-sha2-nistp256': { curve: 'nistp256', jwk: 'P-256', bytes: 32 },
  'ecdsa-sha2-nistp384': { curve: 'nistp384', jwk: 'P-384', bytes: 48 },
  'ecdsa-sha2-nistp521': { curve: 'nistp521', jwk: 'P-521', bytes: 66 },
}
const types = ['ssh-ed25519', 'ssh-rsa', ...Object.keys(curves)]

/**
 * A public key as it stands in a `.pub` file: one line, its bytes a key of the type that it names.
 * @throws ServiceError `invalid-request`
 */
export function parsePublicKey(text: string): PublicKey {
  const line = text.trim()
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a second line would be a second key, or options of one
  if (line.length > MAX_LINE_CHARACTERS || /[\u0000-\u001f\u007f]/.test(line) || !line.isWellFormed()) {
    refuse(`it must be one line of at most ${MAX_LINE_CHARACTERS} characters`)
  }
  const [type = '', base64 = '', ...comment] = line.split(/ +/)
  if (!types.includes(type)) refuse(`it must begin with its type, one of ${types.join(', ')}`)
  const blob = Buffer.from(base64, 'base64')
  if (unpadded(blob.toString('base64')) !== unpadded(base64)) refuse('its second word must be base64')
  assertKey(type, blob)
  return { line: [type, blob.toString('base64'), ...comment].join(' '), fingerprint: fingerprintOf(blob) }
}

const unpadded = (base64: string): string => base64.replace(/={1,2}$/, '')

/** A new pair; the private key is told once and kept nowhere. */
export function generateKeypair(comment: string): PublicKey & { readonly privateKey: string } {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const key = Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url')
  const seed = Buffer.from(privateKey.export({ format: 'jwk' }).d ?? '', 'base64url')
  const blob = Buffer.concat([field('ssh-ed25519'), field(key)])
  const line = `ssh-ed25519 ${blob.toString('base64')} ${comment}`
  return { line, fingerprint: fingerprintOf(blob), privateKey: privateKeyFile(blob, key, seed, comment) }
}

/** PROTOCOL.key: cipher and kdf "none", one key; the check number twice, the private part padded with 1, 2, 3 … to 8 bytes. */
function privateKeyFile(blob: Buffer, key: Buffer, seed: Buffer, comment: string): string {
  const check = randomBytes(4)
  const secret = [check, check, field('ssh-ed25519'), field(key), field(Buffer.concat([seed, key])), field(comment)]
  const bytes = Buffer.concat(secret)
  const padding = Buffer.from(Array.from({ length: (8 - (bytes.length % 8)) % 8 }, (_, n) => n + 1))
  const file = Buffer.concat([
    Buffer.from('openssh-key-v1\0'),
    field('none'),
    field('none'),
    field(''),
    Buffer.from([0, 0, 0, 1]),
    field(blob),
    field(Buffer.concat([bytes, padding])),
  ])
  const lines = file.toString('base64').match(/.{1,70}/g) ?? []
  return ['-----BEGIN OPENSSH PRIVATE KEY-----', ...lines, '-----END OPENSSH PRIVATE KEY-----', ''].join('\n')
}

/** RFC 4251, section 5: `string`, its length before it. */
function field(value: string | Buffer): Buffer {
  const bytes = Buffer.from(value as string)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

function fieldsOf(blob: Buffer): readonly Buffer[] {
  const found: Buffer[] = []
  for (let at = 0; at < blob.length; ) {
    const length = at + 4 <= blob.length ? blob.readUInt32BE(at) : Number.POSITIVE_INFINITY
    if (at + 4 + length > blob.length || found.length === 4) refuse('its bytes are no key')
    found.push(blob.subarray(at + 4, at + 4 + length))
    at += 4 + length
  }
  return found
}

function assertKey(type: string, blob: Buffer): void {
  const [name, ...parts] = fieldsOf(blob)
  if (name?.toString() !== type) refuse(`its bytes are not of the type ${type}`)
  try {
    const key = createPublicKey({ key: jwkOf(type, parts), format: 'jwk' })
    const { modulusLength } = key.asymmetricKeyDetails ?? {}
    if (type === 'ssh-rsa' && !(modulusLength !== undefined && modulusLength >= MIN_RSA_BITS)) {
      refuse(`an RSA key has at least ${MIN_RSA_BITS} bits`)
    }
  } catch (cause) {
    if (cause instanceof ServiceError) throw cause
    refuse('its bytes are no key')
  }
}

/** As OpenSSL is given it: a point that is not on the curve, or a wrong length, does not pass. */
function jwkOf(type: string, parts: readonly Buffer[]): JsonWebKey {
  const [first, second] = parts
  const text = (bytes: Buffer) => bytes.toString('base64url')
  if (type === 'ssh-rsa' && first && second && parts.length === 2) {
    return { kty: 'RSA', e: text(unsigned(first)), n: text(unsigned(second)) }
  }
  if (type === 'ssh-ed25519' && first?.length === 32 && parts.length === 1) return { kty: 'OKP', crv: 'Ed25519', x: text(first) }
  const curve = curves[type]
  const isPoint = curve && parts.length === 2 && first?.toString() === curve.curve && second?.length === 1 + 2 * curve.bytes
  if (!isPoint || second[0] !== 4) return refuse('its bytes are no key') // 4: both coordinates, SEC 1, section 2.3.3
  return { kty: 'EC', crv: curve.jwk, x: text(second.subarray(1, 1 + curve.bytes)), y: text(second.subarray(1 + curve.bytes)) }
}

/** RFC 4251: a positive `mpint` whose first bit is set has a zero before it. */
const unsigned = (bytes: Buffer): Buffer => (bytes[0] === 0 ? bytes.subarray(1) : bytes)

const fingerprintOf = (blob: Buffer): string => (createHash('md5').update(blob).digest('hex').match(/../g) ?? []).join(':') // an identifier, by which nothing is trusted

function refuse(problem: string): never {
  throw new ServiceError('invalid-request', `Keypair data is invalid: ${problem}`)
}
