import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32c, crc32cOfZeros } from './crc32c.ts'

test('the examples of RFC 3720, section B.4, have the checksums that it gives', () => {
  const ascending = Uint8Array.from({ length: 32 }, (_, index) => index)
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa)
  assert.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43)
  assert.equal(crc32c(ascending), 0x46dd794e)
  assert.equal(crc32c(ascending.toReversed()), 0x113fdb5c)
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
  assert.equal(crc32c(new Uint8Array(0)), 0)
})

test('a checksum can be made piece by piece', () => {
  const bytes = Uint8Array.from({ length: 100 }, (_, index) => (index * 37) % 256)
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    assert.equal(crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut))), crc32c(bytes))
  }
})

test('zeros can be skipped', () => {
  for (const count of [0, 1, 2, 7, 8, 100, 4096, 65_537, 1_000_000]) {
    const bytes = new Uint8Array(count + 3)
    bytes.set([1, 2, 3])
    assert.equal(crc32cOfZeros(count, crc32c(bytes.subarray(0, 3))), crc32c(bytes), `${count} zeros`)
  }
})
