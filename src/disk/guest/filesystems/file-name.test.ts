import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { bytesOfName, nameOfBytes, nameOfUnits, unitsOfName } from './file-name.ts'

test('every name of bytes has one text, which turns back into it', () => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 12 }),
    fc.constantFrom('ü', '🐧', 'é', '日本').map((text) => new Uint8Array(Buffer.from(text))),
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 6 }), (pieces) => {
      const bytes = new Uint8Array(Buffer.concat(pieces))
      assert.deepEqual(new Uint8Array(bytesOfName(nameOfBytes(bytes))), bytes)
    }),
  )
})

test('UTF-8 is shown as it is, and what is not as lone surrogates', () => {
  assert.equal(nameOfBytes(Buffer.from('Grüße 🐧')), 'Grüße 🐧')
  assert.equal(nameOfBytes(Buffer.from([0x61, 0xff, 0xe2, 0x82])), 'a\udcff\udce2\udc82')
})

test('names of 16-bit units differ where the units do, and are bytes like any other', () => {
  fc.assert(
    fc.property(fc.uint16Array({ maxLength: 12, min: 0xd7f0, max: 0xe010 }), fc.string({ unit: 'binary' }), (odd, plain) => {
      const units = Uint16Array.of(...odd, ...Array.from(plain.toWellFormed(), (each) => each.charCodeAt(0)))
      const name = nameOfUnits(units)
      assert.equal(nameOfBytes(bytesOfName(name)), name)
      assert.deepEqual(unitsOfName(name), units)
      assert.equal(name === String.fromCharCode(...units), String.fromCharCode(...units).isWellFormed())
    }),
  )
  assert.equal(nameOfUnits(Uint16Array.of(0xd83d, 0xdc27, 0xd83d)), '🐧\udced\udca0\udcbd')
  const odd = Uint16Array.of(0xd83d, 0xdced, 0xdca0, 0xdcbd, 0xdced, 0xdca0, 0xdcbd)
  assert.deepEqual(unitsOfName(nameOfUnits(odd)), odd)
})
