import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { long, longestFirst } from './test-order.ts'

const root = resolve(import.meta.dirname, '..')

test('the files that are said to be long are there', () => {
  assert.deepEqual(
    long.filter((file) => !existsSync(join(root, file))),
    [],
  )
})

test('long files come first, the longest before all; the others stay in their order; none is lost', () => {
  const [longest, next] = long as [string, string]
  assert.deepEqual(longestFirst(['b.test.ts', next, 'a.test.ts', longest]), [longest, next, 'b.test.ts', 'a.test.ts'])
})
