import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TaskLines } from './task-lines.ts'

const fail = (error: unknown) => assert.fail(String(error))
const lines = () => new TaskLines({ pools: { short: { places: 1, share: 1 }, long: { places: 1, share: 1 } }, onProblem: fail })
const settled = () => new Promise((done) => setImmediate(done))

/** A work that runs until it is told to end. */
function held() {
  const [begun, end] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const work = () => {
    begun.resolve()
    return end.promise
  }
  return { work, begun: begun.promise, end: end.resolve }
}

test('what is long keeps nothing short waiting', async () => {
  const tasks = lines()
  const long = held()
  tasks.start('one', long.work, { pool: 'long', owner: 'a' })
  await long.begun
  const short = held()
  tasks.start('two', short.work, { pool: 'short', owner: 'a' })
  await short.begun
  short.end()
  long.end()
  await tasks.idle()
})

test('what is interrupted while it waits for a place is over at once, and what comes after it in its line begins', async () => {
  const tasks = lines()
  const long = held()
  tasks.start('one', long.work, { pool: 'long', owner: 'a' })
  await long.begun
  tasks.start('two', () => assert.fail('it was interrupted'), { pool: 'long', owner: 'b' })
  await settled()
  tasks.interrupt('two')
  const next = held()
  tasks.start('two', next.work)
  await next.begun
  next.end()
  await tasks.idleAt('two')
  long.end()
  await tasks.idle()
})

test('what has nothing to do but to end does so without a place', async () => {
  const tasks = lines()
  const long = held()
  const ends = new AbortController()
  tasks.start('one', long.work, { pool: 'long', owner: 'a' })
  await long.begun
  const ended = held()
  tasks.start('two', ended.work, { pool: 'long', owner: 'b', ends: ends.signal })
  await settled()
  ends.abort()
  await ended.begun
  ended.end()
  await tasks.idleAt('two')
  long.end()
  await tasks.idle()
})

test('a stop ends what waits for a place', async () => {
  const tasks = lines()
  const long = held()
  tasks.start('one', long.work, { pool: 'long', owner: 'a' })
  await long.begun
  tasks.start('two', () => assert.fail('it was stopped'), { pool: 'long', owner: 'b' })
  const stopped = tasks.stop()
  await tasks.idleAt('two')
  long.end()
  await stopped
  assert.throws(() => tasks.start('three', async () => {}), { code: 'unavailable' })
})
