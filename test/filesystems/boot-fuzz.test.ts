import assert from 'node:assert/strict'
import { test } from 'node:test'
import { described, fuzzInThread } from '../fixtures/fuzz/fuzz.ts'
import { targets } from './boot-fuzz-targets.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 1000)
const SEED = Number(process.env.FUZZ_SEED ?? 1)
const url = new URL('./boot-fuzz-targets.ts', import.meta.url).href

for (const { name, leastTaken } of targets) {
  test(`whatever they say, an answer: ${name}`, async () => {
    const { mutants, taken, find } = await fuzzInThread({ url, name, seed: SEED, first: 0, runs: RUNS })
    if (find) assert.fail(await described(name, SEED, find))
    assert.ok(taken * 100 >= mutants * leastTaken, `${taken} of ${mutants} taken`)
  })
}
