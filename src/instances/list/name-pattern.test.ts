import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isServiceError } from '../../base/errors.ts'
import { namePattern } from './name-pattern.ts'

/** Patterns of what is taken here, small enough that JavaScript's own expressions are quick. */
const { pattern } = fc.letrec<{ pattern: string; piece: string }>((tie) => ({
  piece: fc.oneof(
    { depthSize: 'small' },
    fc.constantFrom('a', 'b', '-', '1', '.', '\\d', '\\.', '[ab]', '[^a]', '[a-c1]', '^', '$', '\\w'),
    fc
      .tuple(tie('pattern'), fc.constantFrom('', '*', '+', '?', '{2}', '{1,2}', '{0,}'))
      .map(([inner, times]) => `(${inner})${times}`),
  ),
  pattern: fc
    .array(tie('piece'), { minLength: 1, maxLength: 3 })
    .chain((pieces) => fc.constantFrom(pieces.join(''), pieces.join('|'))),
}))

test('a pattern matches what the expression of JavaScript matches', () => {
  const name = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '1', '-', '.', 'é'), maxLength: 8 })
  fc.assert(
    fc.property(pattern, name, (text, value) => {
      let matches: (name: string) => boolean
      try {
        matches = namePattern(text)
      } catch (error) {
        assert.ok(isServiceError(error, 'invalid-request'))
        assert.match(error.message, /too large|longer/)
        return
      }
      assert.equal(matches(value), new RegExp(text, 'su').test(value), `${text} on ${value}`)
    }),
    { numRuns: 3000 },
  )
})

test('a pattern that would hold up other engines for ever is answered', () => {
  for (const hostile of ['(a+)+$', '^(a|a)*$', '(a*)*b', '(.*)(.*)(.*)(.*)[^x]$', '((a{1,9}){1,9}){1,2}b']) {
    assert.equal(namePattern(hostile)(`${'a'.repeat(254)}x`), false, hostile)
  }
  assert.equal(namePattern('(){999}{999}{999}{999}x')('x'), true)
})

test('what is no expression is refused, and any text is taken or refused', () => {
  for (const wrong of ['(', ')', '[', 'a{3,1}', '*', '[z-a]', '\\', '(?=a)', 'a'.repeat(256), '(a{99}){99}']) {
    assert.throws(() => namePattern(wrong), { code: 'invalid-request', message: /not a regular expression/ }, wrong)
  }
  fc.assert(
    fc.property(fc.string({ maxLength: 40 }), fc.string(), (text, value) => {
      try {
        namePattern(text)(value)
      } catch (error) {
        assert.ok(isServiceError(error), String(error))
      }
    }),
  )
})
