import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import fc from 'fast-check'
import { sha512Crypt } from './sha512-crypt.ts'

const openssl = (password: string, salt: string): string =>
  spawnSync('openssl', ['passwd', '-6', '-salt', salt, '-stdin'], { input: `${password}\n`, encoding: 'utf8' }).stdout.trim()
const noOpenssl = spawnSync('openssl', ['version']).status === 0 ? false : 'openssl is not installed'

test('the example of the specification', async () => {
  assert.equal(
    await sha512Crypt('Hello world!', 'saltstring'),
    '$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1',
  )
})

test('it says what OpenSSL says', { skip: noOpenssl }, async () => {
  const password = fc.string({ unit: 'binary', minLength: 1, maxLength: 250 }).filter((text) => !/[\0\n\r]/.test(text))
  const salt = fc.stringMatching(/^[./0-9A-Za-z]{1,16}$/)
  const says = fc.asyncProperty(password, salt, async (text, grain) =>
    assert.equal(await sha512Crypt(text, grain), openssl(text, grain)),
  )
  await fc.assert(says, { numRuns: 40 })
})

test('no two of a password are the same', async () => {
  const [one, other] = await Promise.all([sha512Crypt('secret'), sha512Crypt('secret')])
  assert.match(one, /^\$6\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{86}$/)
  assert.notEqual(one, other)
})
