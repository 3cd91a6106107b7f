import { createHash } from 'node:crypto'

/** A private key in a text. */
export interface PrivateKey {
  /** For people: `RSA`, `OpenSSH`, `PGP` … */
  readonly kind: string
  readonly isEncrypted: boolean
  /** Of the public half as ssh-keygen prints it where the file holds that, else the beginning of the SHA-256 of what is kept: the key is random, so neither says anything of it. */
  readonly fingerprint: string
}

const LABEL = /-----BEGIN ((?:[A-Z0-9]{1,12} ){0,3})PRIVATE KEY( BLOCK)?-----/g
/** Of the text after a label that is looked at. */
const MAX_BODY = 16_384
const MIN_BODY = 40
const MAX_KEYS = 100

/**
 * The private keys in a text: PEM in any of its labels (RFC 7468, RFC 1421 headers), PKCS #8, OpenSSH (PROTOCOL.key), PGP (RFC 9580),
 * PuTTY, WireGuard, age. A label without a key after it, as programs have that look for keys, is none.
 */
export function privateKeysIn(text: string): readonly PrivateKey[] {
  const keys: PrivateKey[] = []
  for (const label of text.matchAll(LABEL)) {
    const after = label.index + label[0].length
    const key = pemKey(label[1]!.trim(), label[2] !== undefined, text.slice(after, after + MAX_BODY))
    if (key) keys.push(key)
    if (keys.length >= MAX_KEYS) return keys
  }
  const putty = /^PuTTY-User-Key-File-[123]: {0,4}(\S{1,40})[^\n]{0,4}\nEncryption: {0,4}(\S{1,40})/.exec(text)
  if (putty) keys.push({ kind: `PuTTY ${putty[1]}`, isEncrypted: putty[2] !== 'none', fingerprint: shortDigest(text) })
  const wireGuard = /^[ \t]*PrivateKey[ \t]*=[ \t]*([A-Za-z0-9+/]{43}=)/m.exec(text)
  if (wireGuard) keys.push({ kind: 'WireGuard', isEncrypted: false, fingerprint: shortDigest(wireGuard[1]!) })
  const age = /\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b/.exec(text)
  if (age) keys.push({ kind: 'age', isEncrypted: false, fingerprint: shortDigest(age[0]) })
  return keys
}

function pemKey(algorithm: string, isPgp: boolean, after: string): PrivateKey | undefined {
  const end = after.indexOf('-----') // of no line within a key
  // a key inside JSON or YAML has its line ends as `\n`, or is indented and quoted
  const lines = (end < 0 ? after : after.slice(0, end)).replaceAll('\\r', '').replaceAll('\\n', '\n').split('\n')
  const isHeader = (line: string) => line.includes(': ')
  const body = lines
    .filter((line) => !isHeader(line))
    .join('')
    .replace(/[\s"'\\,|>]/g, '')
  if (!/^[A-Za-z0-9+/]{40}/.test(body)) return undefined
  const bytes = Buffer.from(body.slice(0, body.length - (body.length % 4)), 'base64')
  if (bytes.length < (MIN_BODY * 3) / 4) return undefined
  if (isPgp) return { kind: 'PGP', isEncrypted: false, fingerprint: shortDigest(body) } // it says so deep inside only: taken for the worse
  if (algorithm === 'OPENSSH') return openSshKey(bytes) ?? { kind: 'OpenSSH', isEncrypted: false, fingerprint: shortDigest(body) }
  const isEncrypted = algorithm === 'ENCRYPTED' || lines.some((line) => /^\s{0,16}Proc-Type: 4,ENCRYPTED/.test(line))
  const kind = algorithm === '' || algorithm === 'ENCRYPTED' ? 'PKCS #8' : algorithm
  return { kind, isEncrypted, fingerprint: shortDigest(body) }
}

const OPENSSH_MAGIC = 'openssh-key-v1\0'

/** OpenSSH PROTOCOL.key, section 1: magic, ciphername, kdfname, kdfoptions, number of keys, public key. */
function openSshKey(bytes: Buffer): PrivateKey | undefined {
  if (bytes.toString('latin1', 0, OPENSSH_MAGIC.length) !== OPENSSH_MAGIC) return undefined
  let at = OPENSSH_MAGIC.length
  const string = (): Buffer | undefined => {
    if (at + 4 > bytes.length) return undefined
    const start = at + 4
    const length = bytes.readUInt32BE(at)
    if (length > bytes.length - start) return undefined
    at = start + length
    return bytes.subarray(start, at)
  }
  const cipher = string()
  string()
  string()
  at += 4
  const publicKey = string()
  if (!cipher || !publicKey || publicKey.length < 8) return undefined
  const typeBytes = publicKey.readUInt32BE(0)
  const type = typeBytes <= 64 && typeBytes + 4 <= publicKey.length ? publicKey.toString('latin1', 4, 4 + typeBytes) : ''
  const digest = createHash('sha256').update(publicKey).digest('base64').replace(/=+$/, '')
  return {
    kind: `OpenSSH ${/^[a-z0-9@.-]+$/.test(type) ? type : ''}`.trim(),
    isEncrypted: cipher.toString('latin1') !== 'none',
    fingerprint: `SHA256:${digest}`,
  }
}

/** Of something random that nobody can guess: of a password it would give it away. */
export const shortDigest = (secret: string): string =>
  `sha256 ${createHash('sha256').update(secret, 'latin1').digest('hex').slice(0, 12)}…`
