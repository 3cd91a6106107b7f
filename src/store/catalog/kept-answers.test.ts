import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KeptAnswers } from './kept-answers.ts'

test('an answer is kept until there is no room, the idlest going first', () => {
  const kept = new KeptAnswers<number>(4_000)
  for (let n = 0; n < 16; n += 1) kept.keep(String(n), n, 20)
  assert.equal(kept.get('0'), 0) // used: now the idlest is 1
  for (let n = 16; n < 20; n += 1) kept.keep(String(n), n, 20)
  assert.equal(kept.get('0'), 0)
  assert.equal(kept.get('1'), undefined)
  assert.equal(kept.get('17'), 17)
})

test('an answer that would take much of the room is not kept, and short ones cost room too', () => {
  const kept = new KeptAnswers<number>(4_000)
  kept.keep('long', 1, 300)
  assert.equal(kept.get('long'), undefined)
  for (let n = 0; n < 10_000; n += 1) kept.keep(String(n), n, 0)
  const left = Array.from({ length: 10_000 }, (_, n) => kept.get(String(n))).filter((answer) => answer !== undefined)
  assert.ok(left.length < 20, `${left.length} are kept`)
})

test('an answer given anew takes the place of the old one', () => {
  const kept = new KeptAnswers<number>(4_000)
  for (let n = 0; n < 100; n += 1) kept.keep('same', n, 10)
  kept.keep('other', 1, 10)
  assert.equal(kept.get('same'), 99)
})
