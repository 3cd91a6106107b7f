import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Throttle } from './throttle.ts'

const settings = { free: 3, longestWaitMs: 8_000, memoryMs: 60_000 }

function throttle() {
  const clock = { ms: 1_000_000 }
  return { clock, guesses: new Throttle(settings, () => clock.ms) }
}
const refused = { code: 'too-many-requests' }

test('the first failures cost nothing', () => {
  const { guesses } = throttle()
  for (let n = 0; n < 2; n += 1) guesses.failed('ann')
  guesses.check('ann')
})

test('each further failure doubles the wait, up to the longest', () => {
  const { guesses, clock } = throttle()
  for (let n = 0; n < 3; n += 1) guesses.failed('ann')
  for (const waitMs of [1000, 2000, 4000, 8000, 8000]) {
    clock.ms += waitMs - 1
    assert.throws(() => guesses.check('ann'), refused)
    clock.ms += 1
    guesses.check('ann')
    guesses.failed('ann')
  }
})

test('one account waits and another does not', () => {
  const { guesses } = throttle()
  for (let n = 0; n < 5; n += 1) guesses.failed('ann')
  assert.throws(() => guesses.check('ann'), refused)
  guesses.check('bob')
})

test('a success, or a long time without failure, forgives', () => {
  const { guesses, clock } = throttle()
  for (let n = 0; n < 5; n += 1) guesses.failed('ann')
  guesses.succeeded('ann')
  guesses.check('ann')
  for (let n = 0; n < 5; n += 1) guesses.failed('ann')
  clock.ms += settings.memoryMs
  guesses.failed('ann')
  guesses.check('ann')
})

test('a flood of names is forgotten oldest first, and the newest are remembered', () => {
  const { guesses } = throttle()
  for (let n = 0; n < 5; n += 1) guesses.failed('first')
  for (let n = 0; n < 10_000; n += 1) guesses.failed(`name ${n}`)
  for (let n = 0; n < 5; n += 1) guesses.failed('last')
  guesses.check('first')
  assert.throws(() => guesses.check('last'), refused)
})
