import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isServiceError } from '../../base/errors.ts'
import { decodeFrames, decodeLayout } from './decode-chunks.ts'
import { encodeChunks, encodeLayout, type WireChunk } from './encode-chunks.ts'

/** `bytes` as a network would bring them. */
async function* inPieces(bytes: Uint8Array, piece: number): AsyncIterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += piece) yield bytes.subarray(at, at + piece)
}
async function* each<T>(items: readonly T[]): AsyncIterable<T> {
  yield* items
}
const digest = fc.uint8Array({ minLength: 32, maxLength: 32 })
const piece = fc.integer({ min: 1, max: 300 })
const chunk = fc.record({
  digest,
  codec: fc.constantFrom('plain' as const, 'zstd' as const),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 100 }),
})

test('frames come out as they went in, however the network cuts them', () =>
  fc.assert(
    fc.asyncProperty(fc.array(chunk, { maxLength: 20 }), piece, async (chunks, size) => {
      const decoded = await Array.fromAsync(decodeFrames(inPieces(encodeChunks(chunks), size), 100, 1e6))
      const plain = (one: WireChunk) => ({ ...one, digest: [...one.digest], bytes: [...one.bytes] })
      assert.deepEqual(decoded.map(plain), chunks.map(plain))
    }),
  ))

test('a layout comes out as it went in', () =>
  fc.assert(
    fc.asyncProperty(fc.array(fc.option(digest), { maxLength: 50 }), piece, async (chunks, size) => {
      const encoded = Buffer.concat(await Array.fromAsync(encodeLayout(each(chunks))))
      const decoded = await Array.fromAsync(decodeLayout(inPieces(encoded, size), chunks.length))
      assert.deepEqual(
        decoded.map((one) => one && [...one]),
        chunks.map((one) => one && [...one]),
      )
    }),
  ))

test('any bytes are frames, a layout, or refused, and never more than was allowed', () =>
  fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), piece, fc.integer({ min: 0, max: 20 }), async (bytes, size, chunks) => {
      for (const decode of [
        () => decodeFrames(inPieces(bytes, size), 64, 200),
        () => decodeLayout(inPieces(bytes, size), chunks),
      ]) {
        try {
          let count = 0
          for await (const _ of decode()) count += 1
          assert.ok(count <= 400)
        } catch (error) {
          assert.ok(isServiceError(error, 'invalid-request') || isServiceError(error, 'too-large'), String(error))
        }
      }
    }),
  ))

const head = (codec: number, length: number) => {
  const bytes = Buffer.alloc(37)
  bytes[32] = codec
  bytes.writeUInt32BE(length, 33)
  return bytes
}
const run = (kind: number, count: number) => Buffer.from([kind, 0, 0, 0, count])
const refused: readonly [string, () => AsyncIterable<unknown>, RegExp][] = [
  ['a frame of 4 GiB', () => decodeFrames(each([head(0, 0xffff_ffff)]), 65_536, 1e9), /4294967295 bytes/],
  ['an empty frame', () => decodeFrames(each([head(0, 0)]), 65_536, 1e9), /0 bytes/],
  ['an unknown codec', () => decodeFrames(each([head(2, 1)]), 65_536, 1e9), /codec 2/],
  ['a frame cut off', () => decodeFrames(each([head(0, 9)]), 65_536, 1e9), /ends inside frame 0/],
  ['more chunks than the file has', () => decodeLayout(each([run(0, 4)]), 3), /3 left/],
  ['fewer chunks than the file has', () => decodeLayout(each([run(0, 2)]), 3), /1 chunks before/],
  ['a run of none', () => decodeLayout(each([run(0, 0)]), 3), /has 0 chunks/],
]
for (const [name, decode, says] of refused) {
  test(`the binary body is refused for ${name}`, () =>
    assert.rejects(Array.fromAsync(decode()), { code: 'invalid-request', message: says }))
}
