import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { bytes, struct, u8, u16be, u16le, u32be, u32le, u64be, u64le } from './struct.ts'

const record = struct('test record', {
  a: u8(0),
  b: u16be(1),
  c: u16le(3),
  d: u32be(5),
  e: u32le(9),
  f: u64be(13),
  g: u64le(21),
  h: bytes(31, 3),
})

test('a record that was built parses to the same values', () => {
  const fields = {
    a: fc.nat(0xff),
    b: fc.nat(0xffff),
    c: fc.nat(0xffff),
    d: fc.nat(0xffffffff),
    e: fc.nat(0xffffffff),
    f: fc.nat(Number.MAX_SAFE_INTEGER),
    g: fc.nat(Number.MAX_SAFE_INTEGER),
    h: fc.uint8Array({ minLength: 3, maxLength: 3 }),
  }
  const values = fc.record(fields, { noNullPrototype: true })
  fc.assert(
    fc.property(values, (value) => {
      const built = record.build(value)
      assert.equal(built.length, 34)
      assert.deepEqual(record.parse(built), value)
      assert.deepEqual(record.parse(Buffer.concat([Buffer.alloc(5), built, Buffer.alloc(9)]).subarray(5)), value)
    }),
  )
})

test('big-endian and little-endian fields read the bytes in their order', () => {
  const order = struct('order', { big: u32be(0), little: u32le(4) })
  assert.deepEqual(order.parse(Uint8Array.of(1, 2, 3, 4, 1, 2, 3, 4)), { big: 0x01020304, little: 0x04030201 })
})

test('short input and values that a number cannot hold are refused by name', () => {
  assert.throws(() => record.parse(new Uint8Array(33)), { code: 'invalid-image', message: /test record is cut off.*34.*33/ })
  const large = record.build({ a: 0, b: 0, c: 0, d: 0, e: 0, f: 0, g: 0, h: new Uint8Array(3) })
  large[13] = 0x20 // 2^61
  assert.throws(() => record.parse(large), { code: 'invalid-image', message: /field "f"/ })
})

test('overlapping fields are found when the module loads', () => {
  assert.throws(() => struct('bad', { a: u32be(0), b: u16be(3) }), /overlaps/)
})
