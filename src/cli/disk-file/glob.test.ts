import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { UsageError } from '../exit-codes.ts'
import { globExpression } from './glob.ts'

const cases: readonly (readonly [pattern: string, yes: readonly string[], no: readonly string[]])[] = [
  ['*.conf', ['a.conf', '.conf'], ['a.confx', 'x/a.conf']],
  ['?b[0-9]', ['ab3', 'üb0'], ['b3', 'abx']],
  ['[!a-c]x', ['dx', '-x'], ['ax', '/x']],
  ['/etc/**/*.pem', ['/etc/a.pem', '/etc/.ssl/x/a.pem'], ['/etca.pem', '/srv/a.pem']],
  ['/a/**', ['/a/b', '/a/b/c'], ['/ab']],
  ['*.{so,a}', ['x.so', 'y.a'], ['x.o', 'x.{so,a}']],
  ['a.b+(c)$', ['a.b+(c)$'], ['aab+(c)$']],
  ['[x', ['[x'], ['x']],
  ['{x', ['{x'], ['x']],
]

for (const [pattern, yes, no] of cases) {
  test(`the pattern ${pattern}`, () => {
    for (const name of yes) assert.match(name, globExpression(pattern))
    for (const name of no) assert.doesNotMatch(name, globExpression(pattern))
  })
}

test('any text is a pattern, or said to be none', () => {
  const piece = fc.constantFrom('*', '**', '?', '[', ']', '{', '}', ',', '!', '^', '-', '\\', '/', 'a', 'z', '.', '(', '🐧')
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      try {
        globExpression(pieces.join(''))
      } catch (error) {
        assert.ok(error instanceof UsageError)
      }
    }),
    { numRuns: 3000 },
  )
})
