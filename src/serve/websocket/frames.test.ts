import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { closePayload, encodeFrame, FrameReader, opcode, ProtocolError, readClose } from './frames.ts'

const mask = Buffer.from([0x37, 0xfa, 0x21, 0x3d])
/** Reads `bytes`, cut as `cuts` say. */
function readAll(bytes: Buffer, cuts: readonly number[] = [], isMasked = true) {
  const control: { code: number; text: string }[] = []
  const reader = new FrameReader(isMasked, ({ code, payload }) => control.push({ code, text: Buffer.from(payload).toString() }))
  const data: Buffer[] = []
  const ends = [...new Set(cuts.map((cut) => Math.min(cut, bytes.length)))].sort((a, b) => a - b)
  let from = 0
  for (const to of [...ends, bytes.length]) {
    data.push(Buffer.from(reader.read(Buffer.from(bytes.subarray(from, to)))))
    from = to
  }
  return { data: Buffer.concat(data), control }
}

test('the examples of RFC 6455, section 5.7', () => {
  const hello = (hex: string, isMasked: boolean) => readAll(Buffer.from(hex.replaceAll(' ', ''), 'hex'), [], isMasked)
  assert.equal(hello('81 05 48 65 6c 6c 6f', false).data.toString(), 'Hello')
  assert.equal(hello('81 85 37 fa 21 3d 7f 9f 4d 51 58', true).data.toString(), 'Hello')
  assert.equal(hello('01 03 48 65 6c 80 02 6c 6f', false).data.toString(), 'Hello')
  assert.deepEqual(hello('89 05 48 65 6c 6c 6f', false).control, [{ code: opcode.ping, text: 'Hello' }])
  assert.equal(encodeFrame(opcode.pong, Buffer.from('Hello'), mask).toString('hex'), '8a8537fa213d7f9f4d5158')
})

test('whatever is written is read, however the connection cuts it, with pings in between', () => {
  const payloads = fc.array(fc.uint8Array({ maxLength: 400 }), { maxLength: 8 })
  fc.assert(
    fc.property(payloads, fc.array(fc.nat(3000)), fc.boolean(), (parts, cuts, isMasked) => {
      const key = isMasked ? mask : undefined
      const frames = parts.flatMap((part) => [
        encodeFrame(opcode.binary, part, key),
        encodeFrame(opcode.ping, part.subarray(0, 125), key),
      ])
      const { data, control } = readAll(Buffer.concat(frames), cuts, isMasked)
      assert.deepEqual(data, Buffer.concat(parts))
      assert.equal(control.length, parts.length)
    }),
  )
})

test('lengths at the edges of their encodings', () => {
  for (const length of [0, 125, 126, 65_535, 65_536, 200_000]) {
    const payload = Buffer.alloc(length, 7)
    assert.deepEqual(readAll(encodeFrame(opcode.binary, payload, mask), [1, 5, 11, 14]).data, payload, `${length}`)
  }
})

const refused: readonly [string, string, RegExp][] = [
  ['a frame that is not masked', '8205', /must mask/],
  ['a reserved bit', 'c280 00000000', /reserved/],
  ['an unknown opcode', '8380 00000000', /opcode 3/],
  ['a ping in pieces', '0980 00000000', /control frame/],
  ['a ping of 126 bytes', '89fe 007e 00000000', /control frame/],
  ['an end without a beginning', '8080 00000000', /no beginning/],
  ['a beginning without an end', '0280 00000000 8280 00000000', /no end/],
  ['a short length in 16 bits', '82fe 0010 00000000', /more bytes than it needs/],
  ['a short length in 64 bits', '82ff 0000000000000100 00000000', /more bytes than it needs/],
  ['a length with its first bit set', '82ff 8000000000000000 00000000', /longer than any/],
]
for (const [name, hex, says] of refused) {
  test(`${name} breaks the protocol`, () => {
    const bytes = Buffer.from(hex.replaceAll(' ', ''), 'hex')
    const broken = (error: unknown) => error instanceof ProtocolError && says.test(error.message)
    assert.throws(() => readAll(Buffer.concat([bytes, Buffer.alloc(14)])), broken)
  })
}

test('any bytes are read or refused, and nothing is kept of them', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), fc.array(fc.nat(600)), fc.boolean(), (bytes, cuts, isMasked) => {
      try {
        assert.ok(readAll(Buffer.from(bytes), cuts, isMasked).data.length <= bytes.length)
      } catch (error) {
        assert.ok(error instanceof ProtocolError, `leaked ${error}`)
      }
    }),
    { numRuns: 2000 },
  )
})

test('the reason of a close frame is cut between characters', () => {
  const payload = closePayload(4001, 'ü'.repeat(100))
  assert.ok(payload.length <= 125)
  assert.deepEqual(readClose(payload), { code: 4001, reason: 'ü'.repeat(61) })
  assert.equal(readClose(new Uint8Array()).code, 1005)
  assert.throws(() => readClose(new Uint8Array(1)), ProtocolError)
})
