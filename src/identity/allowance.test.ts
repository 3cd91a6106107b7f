import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Allowance } from './allowance.ts'

function allowance() {
  const clock = { ms: 0 }
  return { clock, logins: new Allowance({ burst: 3, perSecond: 2 }, () => clock.ms) }
}
const refused = { code: 'too-many-requests' }

test('a burst is allowed, and what goes on for ever is as fast as the rate', () => {
  const { clock, logins } = allowance()
  for (let n = 0; n < 3; n += 1) logins.take('ann')
  assert.throws(() => logins.take('ann'), refused)
  for (let n = 0; n < 10; n += 1) {
    clock.ms += 500
    logins.take('ann')
    assert.throws(() => logins.take('ann'), refused)
  }
})

test('a refusal costs nothing, and one user does not use up what another has', () => {
  const { clock, logins } = allowance()
  for (let n = 0; n < 3; n += 1) logins.take('ann')
  for (let n = 0; n < 100; n += 1) assert.throws(() => logins.take('ann'), refused)
  logins.take('bob')
  clock.ms += 500
  logins.take('ann')
})
