import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isServiceError } from '../../base/errors.ts'
import { decodeBootRecord, encodeBootRecord, looksLikeBoot, MAX_BOOT_ENTRIES, MAX_BOOT_RECORD_BYTES } from './boot-record.ts'

const entries = fc
  .uniqueArray(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { maxLength: 200 })
  .chain((chunks) =>
    fc.tuple(
      fc.constant(chunks),
      fc.array(fc.nat(120_000), { minLength: chunks.length, maxLength: chunks.length }).map((all) => all.sort((a, b) => a - b)),
    ),
  )
  .map(([chunks, times]) =>
    chunks.map((chunk, index) => ({ chunk, afterMs: times[index]!, prefix: Buffer.from([chunk % 256, 2, 3, index % 256]) })),
  )

test('a boot record comes out as it went in', () =>
  fc.assert(
    fc.property(entries, (all) => {
      const out = decodeBootRecord(encodeBootRecord(all))
      assert.deepEqual(
        out.map((one) => ({ ...one, prefix: [...one.prefix] })),
        all.map((one) => ({ ...one, prefix: [...one.prefix] })),
      )
    }),
  ))

test('a boot record of a whole Debian fits, and what does not fit is left out at the end', () => {
  const entry = (chunk: number) => ({ chunk, afterMs: chunk % 100_000, prefix: new Uint8Array(4) })
  const many = Array.from({ length: 20_000 }, (_, index) => entry(index * 17))
  const record = encodeBootRecord(many)
  assert.ok(record.length <= MAX_BOOT_RECORD_BYTES)
  const kept = decodeBootRecord(record).length
  assert.ok(kept > 6000 && kept <= MAX_BOOT_ENTRIES, `${kept}`)
})

test('any bytes are a boot record or refused', () => {
  const good = encodeBootRecord([{ chunk: 3, afterMs: 0, prefix: new Uint8Array(4) }])
  const start = fc.constantFrom(new Uint8Array(), good.slice(0, 16), good)
  fc.assert(
    fc.property(start, fc.uint8Array({ maxLength: 200 }), (known, random) => {
      try {
        decodeBootRecord(Buffer.concat([known, random]))
      } catch (error) {
        assert.ok(isServiceError(error, 'invalid-request'), String(error))
      }
    }),
  )
})

test('a copy and a glance are no boots', () => {
  assert.equal(looksLikeBoot(Array.from({ length: 1000 }, (_, index) => index)), false)
  assert.equal(looksLikeBoot([0, 100]), false)
  // four connections with sixteen requests of four chunks each, taken as they come
  const requests = Array.from({ length: 500 }, (_, index) => 4 * ((index & ~63) + (index % 4) * 16 + ((index & 63) >> 2)))
  assert.equal(looksLikeBoot(requests.flatMap((first) => [first, first + 1, first + 2, first + 3])), false)
  assert.equal(looksLikeBoot([0, 16, 17, 18, 19, 900, 33, 34, 35]), true)
})
