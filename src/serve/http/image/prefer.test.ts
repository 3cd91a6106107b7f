import assert from 'node:assert/strict'
import { test } from 'node:test'
import { waitAsked } from './prefer.ts'

for (const [prefer, ms] of [
  [undefined, null],
  ['', null],
  ['wait=5', null], // a wish, and no leave to answer without the bytes
  ['respond-async', 10_000],
  ['respond-async, wait=2', 2000],
  ['wait = "3"; x=y , Respond-Async', 3000],
  ['respond-async, wait=0', 0],
  ['respond-async, wait=999999999', 60_000],
  ['respond-async, wait=soon', 10_000],
  ['respond-asynchronous', null],
] as const) {
  test(`Prefer: ${prefer} waits ${ms}`, () => assert.equal(waitAsked(prefer), ms))
}
