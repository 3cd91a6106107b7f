import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ServiceError } from '../../../base/errors.ts'
import { parseDescriptor } from './descriptor.ts'
import { parseManifest } from './manifest.ts'
import { imageHints } from './properties.ts'
import { descriptor, manifestOf } from './small-packages.suite.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 2000)
const base = descriptor()
const words = [
  '<',
  '>',
  '/>',
  '</',
  '"',
  "'",
  '&',
  '&amp;',
  '&#0;',
  '&#x10ffff;',
  ']]>',
  '<![CDATA[',
  '-->',
  '<!--',
  '<?',
  'xmlns="',
  ':',
  '=',
  '\0',
  '<Item>',
  '<Disk ovf:capacity="',
  '9'.repeat(30),
  'ovf:',
  '\u{1f600}',
  '$' + '{x}',
  '<!DOCTYPE',
]

function mustAnswerOrRefuse(use: () => unknown): void {
  try {
    use()
  } catch (error) {
    assert.ok(error instanceof ServiceError, `leaked ${error instanceof Error ? error.stack : error}`)
    assert.ok(error.code === 'invalid-image' || error.code === 'unsupported', `${error.code}: ${error.message}`)
  }
}

test('ovf: any damaged descriptor is read or refused, and nothing crashes', () => {
  const edit = fc.record({
    at: fc.nat(base.length),
    cut: fc.oneof(fc.constant(0), fc.nat(60)),
    put: fc.oneof(fc.constantFrom(...words), fc.string({ maxLength: 5 })),
  })
  const property = fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
    let text = base
    for (const { at, cut, put } of edits) text = text.slice(0, at) + put + text.slice(at + cut)
    mustAnswerOrRefuse(() => imageHints(parseDescriptor(Buffer.from(text))))
  })
  fc.assert(property, { numRuns: RUNS })
})

test('ovf: any bytes at all are refused', () => {
  const property = fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (bytes, isLater) => {
    const at = isLater ? 400 : 0
    assert.throws(() => parseDescriptor(Buffer.concat([Buffer.from(base).subarray(0, at), bytes])), { name: 'ServiceError' })
  })
  fc.assert(property, { numRuns: RUNS })
})

test('ovf: any damaged manifest is read or refused', () => {
  const text = manifestOf({ 'a.ovf': 'x', 'b (1).vmdk': 'y' })
  const property = fc.property(fc.nat(text.length), fc.nat(20), fc.string({ maxLength: 10 }), (at, cut, put) => {
    mustAnswerOrRefuse(() => parseManifest(Buffer.from(text.slice(0, at) + put + text.slice(at + cut))))
  })
  fc.assert(property, { numRuns: RUNS })
})
