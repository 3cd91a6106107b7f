import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Caller, serviceCaller } from '../../base/caller.ts'
import { matchesPattern } from './name-pattern.ts'
import { assertAllowed, noProtections, parseProtections, readable, verbs } from './protections.ts'

const caller = (...roles: string[]): Caller => ({
  ...serviceCaller('req-test'),
  isAdmin: roles.includes('admin'),
  roles: new Set(roles),
  projectId: 'p1',
  userId: 'u1',
})
const everyone = { create: ['@'], read: ['@'], update: ['@'], delete: ['@'] }
const file = (rules: readonly object[], policies: object = {}) => parseProtections(JSON.stringify({ rules, policies }))

test('the first rule that matches decides', () => {
  const rules = file([
    { property: 'x_billing_*', create: ['Accountant'], read: ['@'], update: ['admin', 'accountant'], delete: ['!'] },
    { property: '*', ...everyone },
  ])
  assert.equal(rules.check(caller('member', 'accountant'), 'x_billing_code', 'create'), true)
  assert.equal(rules.check(caller('member'), 'x_billing_code', 'create'), false)
  assert.equal(rules.check(caller('reader'), 'x_billing_code', 'read'), true)
  assert.equal(rules.check(caller('admin'), 'x_billing_code', 'delete'), false)
  assert.equal(rules.check(caller('member'), 'colour', 'delete'), true)
})

test('a property that no rule matches is closed to everyone', () => {
  const rules = file([{ property: 'open', ...everyone }])
  for (const verb of verbs) assert.equal(rules.check(caller('admin'), 'other', verb), false)
})

test('an empty list lets nobody, and no rules let everybody', () => {
  const rules = file([{ property: '*', create: [], read: [], update: [], delete: [] }])
  assert.equal(rules.check(caller('admin'), 'any', 'read'), false)
  assert.equal(file([]), noProtections)
  assert.equal(noProtections.check(caller(), 'any', 'delete'), true)
})

test('a policy is satisfied by role, project or user', () => {
  const by = (policy: object) =>
    file([{ property: '*', ...everyone, update: ['policy:them'] }], { them: policy }).check(caller('member'), 'x', 'update')
  assert.equal(by({ roles: ['MEMBER'] }), true)
  assert.equal(by({ projects: ['p1'] }), true)
  assert.equal(by({ users: ['u1'] }), true)
  assert.equal(by({ roles: ['admin'], projects: ['p2'], users: ['u2'] }), false)
})

test('readable leaves out what may not be read, and assertAllowed refuses with a reason', () => {
  const rules = file([
    { property: 'secret_*', ...everyone, read: ['admin'] },
    { property: '*', ...everyone },
  ])
  assert.deepEqual(readable(rules, caller('member'), { secret_a: '1', plain: '2' }), { plain: '2' })
  assert.throws(() => assertAllowed(rules, caller('member'), 'secret_a', 'read'), { code: 'denied', message: /secret_a/ })
})

const refused: readonly [string, string][] = [
  ['{', 'not well-formed'],
  ['[]', 'must be a JSON object'],
  ['{"rules": {}}', 'must be a list'],
  ['{"rule": []}', 'means nothing'],
  ['{"rules": [{"property": "a"}]}', 'rules[0].create'],
  ['{"rules": [{"property": "", "create": [], "read": [], "update": [], "delete": []}]}', 'rules[0].property'],
  ['{"rules": [{"property": "a", "create": ["@", "!"], "read": [], "update": [], "delete": []}]}', 'both everyone'],
  ['{"rules": [{"property": "a", "create": ["policy:none"], "read": [], "update": [], "delete": []}]}', 'not among the policies'],
  ['{"rules": [{"property": "a", "creat": []}]}', 'means nothing'],
]
for (const [text, says] of refused) {
  test(`a rules file is refused: ${text}`, () => {
    assert.throws(
      () => parseProtections(text),
      (error: Error & { code?: string }) => error.code === 'invalid-request' && error.message.includes(says),
    )
  })
}

test('a pattern agrees with the regular expression that it stands for', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', '.', '('), maxLength: 8 })
  const patterns = fc.string({ unit: fc.constantFrom('a', 'b', '.', '(', '*'), maxLength: 8 })
  fc.assert(
    fc.property(letters, patterns, (name, pattern) => {
      const expression = new RegExp(`^${pattern.replace(/[.(]/g, '\\$&').replaceAll('*', '.*')}$`)
      assert.equal(matchesPattern(name, pattern), expression.test(name))
    }),
  )
})

test('a pattern of many stars costs no more than name × pattern', () => {
  assert.equal(matchesPattern('a'.repeat(20_000), `${'*a'.repeat(100)}b`), false)
})
