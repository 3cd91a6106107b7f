import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addressFor, baseUrl, hostAndPort } from './address.ts'

const plain = { listen: '127.0.0.1:9797', publicUrl: '', tlsCertificate: '' }

test('an address may be of either family', () => {
  assert.deepEqual(hostAndPort('127.0.0.1:9797'), { host: '127.0.0.1', port: 9797 })
  assert.deepEqual(hostAndPort('[::1]:80'), { host: '::1', port: 80 })
})

test('people are told the port that was bound, and the scheme that is spoken', () => {
  assert.equal(addressFor({ ...plain, listen: '127.0.0.1:0' }, 4711), 'http://127.0.0.1:4711')
  assert.equal(addressFor({ ...plain, tlsCertificate: 'cert.pem' }, 9797), 'https://127.0.0.1:9797')
  assert.equal(addressFor({ ...plain, publicUrl: 'https://images.example' }, 9797), 'https://images.example')
})

test('links repeat the host that was asked, if it is one', () => {
  const of = baseUrl(plain)
  assert.equal(of({ protocol: 'http', host: 'images.example:8080' }), 'http://images.example:8080')
  assert.equal(of({ protocol: 'http', host: '[::1]:80' }), 'http://[::1]:80')
  for (const host of ['', 'a b', 'x/../y', 'evil"><script>', 'user@host']) {
    assert.equal(of({ protocol: 'http', host }), 'http://127.0.0.1:9797', host)
  }
  assert.equal(baseUrl({ ...plain, publicUrl: 'https://p' })({ protocol: 'http', host: 'x' }), 'https://p')
})
