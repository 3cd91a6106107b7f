import assert from 'node:assert/strict'
import { test } from 'node:test'
import { JobRunner } from './jobs.ts'

test('no more jobs run at once than there may, and all are done', async () => {
  const jobs = new JobRunner({ concurrency: 3, onFailure: () => assert.fail() })
  let [running, most, done] = [0, 0, 0]
  for (let i = 0; i < 20; i += 1) {
    jobs.start(`job ${i}`, async () => {
      running += 1
      most = Math.max(most, running)
      await new Promise(setImmediate)
      running -= 1
      done += 1
    })
  }
  assert.deepEqual(jobs.depth, { running: 3, waiting: 17 })
  await jobs.idle()
  assert.deepEqual([most, done], [3, 20])
})

test('a job that throws is told of, and the next one runs', async () => {
  const failures: [string, unknown][] = []
  const jobs = new JobRunner({ concurrency: 1, onFailure: (name, error) => failures.push([name, error]) })
  const problem = new Error('broken')
  jobs.start('first', () => Promise.reject(problem))
  const second = Promise.withResolvers<void>()
  jobs.start('second', async () => second.resolve())
  await second.promise
  await jobs.idle()
  assert.deepEqual(failures, [['first', problem]])
})

test('a stop tells what runs to end, waits for it, and begins nothing more', async () => {
  const jobs = new JobRunner({ concurrency: 1, onFailure: () => {} })
  let ended = false
  jobs.start('long', async (signal) => {
    await new Promise<void>((end) => signal.addEventListener('abort', () => end()))
    ended = true
  })
  jobs.start('never', async () => assert.fail('begun after the stop'))
  await jobs.stop()
  assert.equal(ended, true)
  assert.throws(() => jobs.start('late', async () => {}), { code: 'unavailable' })
})
