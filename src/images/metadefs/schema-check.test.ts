import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ServiceError } from '../../base/errors.ts'
import { propertySchemaFrom } from './property-schema.ts'
import { checkSchema } from './schema-check.ts'
import { namespaceSchema, objectSchema, propertySchema, resourceTypeSchema, tagListSchema, tagSchema } from './schemas.ts'

const property = { title: 'T', type: 'string' }
const refused: readonly [string, unknown, typeof tagSchema, RegExp][] = [
  ['a required member is missing', {}, tagSchema, /must have "name"/],
  ['a member is unknown', { name: 'a', colour: 'red' }, tagSchema, /must not have "colour"/],
  ['text is too long', { name: 'x'.repeat(81) }, tagSchema, /body\.name must not be longer than 80/],
  ['81 emoji, which are 162 units of UTF-16', { name: '🙂'.repeat(81) }, tagSchema, /longer than 80/],
  ['NUL in a name', { name: 'a\0' }, tagSchema, /without NUL/],
  ['half a surrogate pair', { name: '\ud800' }, tagSchema, /surrogate/],
  [
    'text where a truth value belongs',
    { namespace: 'n', protected: 'yes' },
    namespaceSchema,
    /body\.protected must be of type boolean/,
  ],
  ['a value that is not among the choices', { namespace: 'n', visibility: 'shared' }, namespaceSchema, /one of public, private/],
  ['a list given twice the same', { name: 'o', required: ['a', 'a'] }, objectSchema, /twice/],
  [
    'an inner property without a type',
    { name: 'o', properties: { a: { title: 'A' } } },
    objectSchema,
    /body\.properties\.a must have "type"/,
  ],
  ['a negative count', { ...property, name: 'p', minLength: -1 }, propertySchema, /0 or more/],
  ['an item that is no object', { tags: ['a'] }, tagListSchema, /body\.tags\[0\]/],
]
for (const [name, body, schema, says] of refused) {
  test(`checkSchema refuses ${name}`, () => {
    assert.throws(() => checkSchema(body, schema), { code: 'invalid-request', message: says })
  })
}

test('80 emoji are 80 characters', () => checkSchema({ name: '🙂'.repeat(80) }, tagSchema))

test('any body is taken or refused with a reason, and nothing else happens', () => {
  const schemas = [namespaceSchema, objectSchema, propertySchema, resourceTypeSchema, tagListSchema, tagSchema]
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 4 }), fc.constantFrom(...schemas), (body, schema) => {
      try {
        checkSchema(body, schema)
      } catch (error) {
        assert.ok(error instanceof ServiceError, `leaked ${error}`)
      }
    }),
  )
})

test('a default becomes text, and bounds become whole numbers', () => {
  const kept = (more: object) => propertySchemaFrom({ ...property, ...more }, 'body')
  assert.equal(kept({ default: 3 }).default, '3')
  assert.equal(kept({ default: true }).default, 'True')
  assert.equal(kept({ default: ['a'] }).default, null)
  assert.equal(kept({ minimum: 1.5 }).minimum, 1)
  assert.deepEqual(Object.keys(kept({ enum: ['a'], description: 'd' })), ['type', 'title', 'description', 'enum'])
})

test('a property called __proto__ changes nobody else', () => {
  const body = JSON.parse('{"name":"o","properties":{"__proto__":{"title":"T","type":"string"}}}')
  checkSchema(body, objectSchema)
  assert.equal(({} as { title?: string }).title, undefined)
})
