import assert from 'node:assert/strict'
import { createCipheriv } from 'node:crypto'
import { test } from 'node:test'
import { deflateSync } from 'node:zlib'
import { looksRandom } from './random-bytes.ts'

const random = (bytes: number) => createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16)).update(Buffer.alloc(bytes))

test('random bytes look random, at every size of a chunk', () => {
  for (const bytes of [4096, 16_384, 65_536, 100_000, 262_144]) assert.equal(looksRandom(random(bytes)), true, `${bytes}`)
})

test('what compresses does not', () => {
  const text = Buffer.from('the quick brown fox jumps over the lazy dog; '.repeat(2000)).subarray(0, 65_536)
  assert.equal(looksRandom(text), false)
  assert.equal(looksRandom(Buffer.from(random(49_152).toString('base64'))), false)
  assert.equal(looksRandom(Buffer.concat([random(32_768), Buffer.alloc(32_768)])), false)
  assert.equal(looksRandom(new Uint8Array(65_536)), false)
})

test('what is compressed already does', () => {
  const compressed = deflateSync(random(150_000).toString('base64'), { level: 9 })
  assert.equal(looksRandom(compressed.subarray(1000, 1000 + 65_536)), true)
})

test('too few bytes to judge are worth a try', () => {
  assert.equal(looksRandom(random(4095)), false)
})
