import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { ServiceError } from '../../base/errors.ts'
import { generateKeypair, parsePublicKey } from './openssh.ts'

const folder = mkdtempSync(join(tmpdir(), 'imprint-keys-'))
after(() => rmSync(folder, { recursive: true }))
const keygen = (...args: string[]): string => execFileSync('ssh-keygen', args, { encoding: 'utf8' })
const isThere = (() => {
  try {
    execFileSync('ssh-keygen', ['-?'], { stdio: 'ignore' })
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ENOENT'
  }
})()
const needs = { skip: isThere ? false : 'ssh-keygen is not installed' }

const kinds = [
  ['ed25519', '256'],
  ['rsa', '2048'],
  ['ecdsa', '256'],
  ['ecdsa', '384'],
  ['ecdsa', '521'],
] as const
for (const [type, bits] of kinds) {
  test(`a key that ssh-keygen made is taken, with its fingerprint: ${type} ${bits}`, needs, () => {
    const path = join(folder, `${type}-${bits}`)
    keygen('-q', '-t', type, '-b', bits, '-N', '', '-C', 'ann at work', '-f', path)
    const text = readFileSync(`${path}.pub`, 'utf8')
    const { line, fingerprint } = parsePublicKey(text)
    assert.equal(line, text.trim())
    assert.equal(keygen('-l', '-E', 'md5', '-f', `${path}.pub`).split(' ')[1], `MD5:${fingerprint}`)
  })
}

test('ssh-keygen reads the private key of a pair that was made, and finds its public one', needs, () => {
  const { line, fingerprint, privateKey } = generateKeypair('made here')
  const path = join(folder, 'made')
  writeFileSync(path, privateKey, { mode: 0o600 })
  assert.equal(keygen('-y', '-f', path).trim(), line)
  assert.equal(keygen('-l', '-E', 'md5', '-f', path).split(' ')[1], `MD5:${fingerprint}`)
  writeFileSync(join(folder, 'file'), 'signed')
  keygen('-Y', 'sign', '-n', 'test', '-f', path, join(folder, 'file'))
  assert.equal(parsePublicKey(line).fingerprint, fingerprint)
})

const made = generateKeypair('c').line
const [, base64 = ''] = made.split(' ')
const refused: readonly [string, string][] = [
  ['nothing', ''],
  ['another type', `ssh-dss ${base64} c`],
  ['a type that its bytes are not', `ssh-rsa ${base64} c`],
  ['options before it', `command="sh" ${made}`],
  ['a second line', `${made}\nssh-rsa AAAA`],
  ['half of its bytes', `ssh-ed25519 ${base64.slice(0, 40)} c`],
  ['more bytes', `ssh-ed25519 ${Buffer.concat([Buffer.from(base64, 'base64'), Buffer.alloc(4)]).toString('base64')} c`],
  ['what is no base64', `ssh-ed25519 ${base64.replace('A', '!')} c`],
  ['a point that is on no curve', `ecdsa-sha2-nistp256 ${pointOf(Buffer.alloc(65, 4))} c`],
  ['a private key', generateKeypair('c').privateKey],
]
for (const [name, text] of refused) {
  test(`${name} is refused`, () => {
    assert.throws(() => parsePublicKey(text), { code: 'invalid-request', message: /^Keypair data is invalid/ })
  })
}
function pointOf(point: Buffer): string {
  const field = (bytes: Buffer) => Buffer.concat([Buffer.from([0, 0, 0, bytes.length]), bytes])
  return Buffer.concat([...['ecdsa-sha2-nistp256', 'nistp256'].map((word) => field(Buffer.from(word))), field(point)]).toString(
    'base64',
  )
}

test('any bytes are taken or refused, and nothing breaks', () => {
  const type = fc.constantFrom('ssh-rsa', 'ssh-ed25519', 'ecdsa-sha2-nistp256')
  fc.assert(
    fc.property(type, fc.uint8Array({ maxLength: 120 }), fc.string(), (word, bytes, comment) => {
      const name = Buffer.concat([Buffer.from([0, 0, 0, word.length]), Buffer.from(word), bytes]).toString('base64')
      try {
        parsePublicKey(`${word} ${name} ${comment}`)
      } catch (error) {
        assert.ok(error instanceof ServiceError, String(error))
      }
    }),
  )
})
