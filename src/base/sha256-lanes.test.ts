import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { createSha256Lanes, MAX_LANE_BYTES } from './sha256-lanes.ts'

const lanes = createSha256Lanes()
const slow = (messages: readonly Uint8Array[]) => Buffer.concat(messages.map((message) => hash('sha256', message, 'buffer')))
const filled = (length: number, seed: number) => Uint8Array.from({ length }, (_, n) => (n * 31 + seed * 17 + (n >> 8)) & 255)

test('four messages of any one length hash as each does alone', () => {
  for (let length = 0; length <= 260; length += 1) {
    const messages = [0, 1, 2, 3].map((seed) => filled(length, seed))
    assert.deepEqual(Buffer.from(lanes.digests(messages)), slow(messages), `length ${length}`)
  }
})

test('any messages in any order hash as each does alone', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(0, 1, 55, 56, 64, 4096, 65_536), { maxLength: 14 }), fc.nat(255), (lengths, seed) => {
      const messages = lengths.map((length, n) => filled(length, seed + n))
      assert.deepEqual(Buffer.from(lanes.digests(messages)), slow(messages))
    }),
    { numRuns: 40 },
  )
})

test('the longest message fits, and a longer one is hashed all the same', () => {
  for (const length of [MAX_LANE_BYTES, MAX_LANE_BYTES + 1]) {
    const messages = [0, 1, 2, 3].map((seed) => filled(length, seed))
    assert.deepEqual(Buffer.from(lanes.digests(messages)), slow(messages))
  }
})

test('messages in shared memory are read where they lie', () => {
  const shared = new Uint8Array(new SharedArrayBuffer(4 * 65_536)).map((_, n) => n % 251)
  const messages = [0, 1, 2, 3].map((n) => shared.subarray(n * 65_536, (n + 1) * 65_536))
  assert.deepEqual(Buffer.from(lanes.digests(messages)), slow(messages.map((message) => Uint8Array.from(message))))
})
