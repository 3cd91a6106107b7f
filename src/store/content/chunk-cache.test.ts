import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ChunkCache } from './chunk-cache.ts'

const chunk = (bytes = 10) => new Uint8Array(bytes)

test('what was put in last is there, up to the number of bytes', () => {
  const cache = new ChunkCache(100)
  for (let key = 0; key < 12; key += 1) cache.set(String(key), chunk())
  const there = Array.from({ length: 12 }, (_, key) => cache.get(String(key)) !== undefined)
  assert.deepEqual(there, [false, false, ...new Array(10).fill(true)])
})

test('what came back after it had left outlasts a long copy of other chunks', () => {
  const cache = new ChunkCache(100)
  for (let round = 0; round < 2; round += 1) {
    for (const key of ['kernel', 'initrd']) if (!cache.get(key)) cache.set(key, chunk())
    for (let key = 0; key < 12; key += 1) cache.set(`copy ${round} ${key}`, chunk())
  }
  for (let key = 0; key < 1000; key += 1) cache.set(`long copy ${key}`, chunk())
  assert.ok(cache.get('kernel'))
  assert.ok(cache.get('initrd'))
})

test('many reads of one chunk while it is there do not make it outlast others', () => {
  const cache = new ChunkCache(100)
  cache.set('read in small pieces', chunk())
  for (let piece = 0; piece < 16; piece += 1) cache.get('read in small pieces')
  for (let key = 0; key < 10; key += 1) cache.set(`copy ${key}`, chunk())
  assert.equal(cache.get('read in small pieces'), undefined)
})

test('a chunk larger than the whole cache is not kept', () => {
  const cache = new ChunkCache(100)
  cache.set('small', chunk())
  cache.set('large', chunk(101))
  assert.ok(cache.get('small'))
  assert.equal(cache.get('large'), undefined)
})

test('never holds more than its bytes, and answers with what was put in', () => {
  const step = fc.record({ key: fc.integer({ min: 0, max: 40 }), isPut: fc.boolean() })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), fc.integer({ min: 0, max: 300 }), (steps, maxBytes) => {
      const cache = new ChunkCache(maxBytes)
      const chunks = Array.from({ length: 41 }, (_, key) => chunk(1 + ((key * 7) % 30)))
      for (const { key, isPut } of steps) {
        if (isPut) cache.set(String(key), chunks[key]!)
        const found = cache.get(String(key))
        assert.ok(found === undefined || found === chunks[key])
        assert.ok(cache.bytes <= maxBytes)
      }
    }),
  )
})
