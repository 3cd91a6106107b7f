import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isServiceError } from '../../../base/errors.ts'
import { parseIsoTime, splitOperator, splitValues } from './filter-values.ts'
import { listRequestFrom, queryAgain, withMarker } from './list-query.ts'

test('any query is understood or refused with a code', () => {
  const name = fc.oneof(
    fc.constantFrom(
      'name',
      'id',
      'sort',
      'sort_key',
      'sort_dir',
      'limit',
      'marker',
      'created_at',
      'size_min',
      'tag',
      'visibility',
      '__proto__',
    ),
    fc.string({ maxLength: 20 }),
  )
  const value = fc.oneof(
    fc.constantFrom('in:"a', 'gt:2020-01-01', 'name:asc,id', '1e9', 'asc', '2020-02-30T25:00:00Z'),
    fc.string({ unit: 'binary', maxLength: 60 }),
  )
  fc.assert(
    fc.property(fc.array(fc.tuple(name, value), { maxLength: 8 }), (pairs) => {
      try {
        listRequestFrom(new URLSearchParams(pairs))
      } catch (error) {
        assert.ok(isServiceError(error, 'invalid-request'), `leaked ${error}`)
      }
    }),
    { numRuns: 200 },
  )
})

test('values in a list come apart as they were put together', () => {
  const value = fc.string({ minLength: 1, unit: fc.constantFrom('a', 'b', ',', ' ', ':') })
  const plain = fc.string({ minLength: 1, unit: fc.constantFrom('a', 'b', ' ', ':') })
  fc.assert(
    fc.property(
      fc.array(
        fc.oneof(
          value.map((text) => ({ text, form: `"${text}"` })),
          plain.map((text) => ({ text, form: text })),
        ),
        { minLength: 1 },
      ),
      (items) => {
        assert.deepEqual(
          splitValues(items.map(({ form }) => form).join(',')),
          items.map(({ text }) => text),
        )
      },
    ),
  )
})

test('times are read as ISO 8601 has them, and kept from being taken for operators', () => {
  assert.equal(parseIsoTime('2026-11-21T09:46:45Z'), Date.UTC(2026, 10, 21, 9, 46, 45))
  assert.equal(parseIsoTime('2026-11-21 09:46:45+02:30'), Date.UTC(2026, 10, 21, 7, 16, 45))
  assert.equal(parseIsoTime('2026-11-21'), Date.UTC(2026, 10, 21))
  for (const wrong of ['', 'x', '2026-02-30', '2026-11-21T24:00:00Z', '2026-11-21T00:60:00Z', '26-11-21'])
    assert.equal(parseIsoTime(wrong), undefined, wrong)
  assert.deepEqual(splitOperator('2026-11-21T09:46:45Z'), { operator: 'eq', operand: '2026-11-21T09:46:45Z' })
  assert.deepEqual(splitOperator('gt:2026-11-21T09:46:45Z'), { operator: 'gt', operand: '2026-11-21T09:46:45Z' })
})

test('ties are broken downwards, or as the one direction says', () => {
  const sort = (query: string) =>
    listRequestFrom(new URLSearchParams(query)).sort?.map(({ field, direction }) => `${field} ${direction}`)
  assert.equal(sort(''), undefined)
  assert.deepEqual(sort('sort_key=name&sort_dir=asc'), ['name asc', 'createdAt asc', 'id asc'])
  assert.deepEqual(sort('sort=name:asc,size:desc'), ['name asc', 'size desc', 'createdAt desc', 'id desc'])
  assert.deepEqual(sort('sort_dir=asc'), ['createdAt asc', 'id asc'])
  assert.deepEqual(sort('sort_key=id&sort_key=name&sort_dir=asc&sort_dir=desc'), ['id asc', 'name desc', 'createdAt desc'])
})

test('links repeat every parameter, in order, with the marker replaced', () => {
  const query = new URLSearchParams('tag=a&marker=old&tag=b&name=c%20d')
  assert.equal(queryAgain(query), '?tag=a&tag=b&name=c+d')
  assert.equal(withMarker(queryAgain(query), 'new'), '?tag=a&tag=b&name=c+d&marker=new')
  assert.equal(queryAgain(new URLSearchParams()), '')
  assert.equal(withMarker('', 'new'), '?marker=new')
})
