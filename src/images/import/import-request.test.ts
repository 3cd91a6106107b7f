import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isServiceError } from '../../base/errors.ts'
import { importRequestFrom } from './import-request.ts'

const hex = 'AB'.repeat(32)
const web = { name: 'web-download', uri: 'https://example.org/x' }

test('a request is read with what Glance takes, and with the digest that a publisher names', () => {
  assert.deepEqual(importRequestFrom({ method: { name: 'glance-direct' } }), {
    method: { name: 'glance-direct' },
    allStores: false,
    allStoresMustSucceed: true,
  })
  assert.deepEqual(importRequestFrom({ method: web, stores: ['a', 'a', 'b'], all_stores_must_succeed: false }), {
    method: web,
    stores: ['a', 'b'],
    allStores: false,
    allStoresMustSucceed: false,
  })
  const digest = { algorithm: 'sha256', value: hex.toLowerCase() }
  assert.deepEqual(importRequestFrom({ method: { ...web, sha256: hex } }).method, { ...web, digest })
  assert.deepEqual(importRequestFrom({ method: { ...web, os_hash_algo: 'sha256', os_hash_value: hex } }).method, {
    ...web,
    digest,
  })
})

const refused: readonly [unknown, RegExp][] = [
  [{}, /"method" must be/],
  [[], /the body must be/],
  [{ method: {} }, /method must be one of/],
  [{ method: { name: 'glance-download' } }, /method must be one of/],
  [{ method: { name: 'web-download' } }, /needs "uri"/],
  [{ method: { name: 'web-download', uri: 5 } }, /needs "uri"/],
  [{ method: web, all_stores: 'yes' }, /"all_stores" must be true or false/],
  [{ method: web, all_stores_must_succeed: 1 }, /"all_stores_must_succeed" must be/],
  [{ method: web, stores: 'a' }, /list of names/],
  [{ method: web, stores: [] }, /list of names/],
  [{ method: web, stores: ['a'], all_stores: true }, /cannot both/],
  [{ method: { ...web, sha256: 'abc' } }, /64 digits/],
  [{ method: { ...web, sha256: `${hex.slice(1)}g` } }, /64 digits/],
  [{ method: { ...web, sha256: hex, sha512: hex + hex } }, /give one digest/],
  [{ method: { ...web, os_hash_algo: 'md5', os_hash_value: hex } }, /sha256 or sha512/],
  [{ method: { ...web, os_hash_algo: 'sha256' } }, /64 digits/],
  [{ method: { ...web, os_hash_value: hex } }, /os_hash_algo must be/],
]
for (const [body, says] of refused) {
  test(`importRequestFrom refuses ${JSON.stringify(body).slice(0, 90)}`, () => {
    assert.throws(() => importRequestFrom(body), { code: 'invalid-request', message: says })
  })
}

test('any body is read or refused, and nothing else happens', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (body, method) => {
      for (const given of [body, { method }, { method: { ...web, sha256: method } }]) {
        try {
          importRequestFrom(given)
        } catch (error) {
          assert.ok(isServiceError(error, 'invalid-request'), String(error))
        }
      }
    }),
  )
})
