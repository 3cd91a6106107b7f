import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { patterned, randomDisk } from '../../../test/fixtures/disk/disks.ts'
import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { bytesSource, memorySource } from '../../disk/block/memory-source.ts'
import { wrapDisk } from '../../disk/formats/index.ts'
import { createExaminer } from './examiner.ts'

const MiB = 1024 * 1024
const examiner = createExaminer({ workers: 2 })
after(() => examiner.close())

/** A worker program that does the one thing instead of examining. */
const misbehaving = (action: string) =>
  new URL(
    `data:text/javascript,import{parentPort as p}from'node:worker_threads';p.on('message',(m)=>{${encodeURIComponent(action)}})`,
  )

test('examine tells format, virtual size and warnings', async () => {
  const file = await wrapDisk('qcow2', randomDisk(30 * MiB, 10, 1))
  assert.deepEqual(await examiner.examine(file, 'qcow2'), { format: 'qcow2', virtualBytes: 30 * MiB, warnings: [] })
  const odd = await examiner.examine(bytesSource(patterned(1000, 1)), 'raw')
  assert.equal(odd.virtualBytes, 1000)
  assert.match(odd.warnings.join(), /multiple of 512/)
  assert.deepEqual(await examiner.examine(bytesSource(patterned(1000, 1)), 'aki'), {
    format: 'aki',
    virtualBytes: 1000,
    warnings: [],
  })
})

test('examine refuses what is not what it is declared to be, and the worker goes on', async () => {
  const file = await wrapDisk('qcow2', randomDisk(MiB, 2, 1))
  for (let round = 0; round < 20; round += 1) {
    await assert.rejects(examiner.examine(file, 'raw'), { code: 'invalid-image', message: /declared as raw.*qcow2/ })
  }
  await assert.rejects(examiner.examine(file, 'qcow3'), { code: 'unsupported' })
  assert.equal((await examiner.examine(file, 'qcow2')).virtualBytes, MiB)
})

test('many at a time are examined in turn', async () => {
  const files = await Promise.all(
    Array.from({ length: 30 }, (_, index) => wrapDisk('qcow2', randomDisk((index + 1) * MiB, 3, index))),
  )
  const results = await Promise.all(files.map((file) => examiner.examine(file, 'qcow2')))
  assert.deepEqual(
    results.map(({ virtualBytes }) => virtualBytes),
    files.map((_, index) => (index + 1) * MiB),
  )
})

test('a virtual size above the limit is too large', async () => {
  const file = await wrapDisk('qcow2', memorySource(2 ** 40, []))
  assert.equal((await examiner.examine(file, 'qcow2')).virtualBytes, 2 ** 40)
  await assert.rejects(examiner.examine(file, 'qcow2', { maxVirtualBytes: 2 ** 39 }), { code: 'too-large' })
})

const disk = randomDisk(4000 * MiB, 300, 3)
const over: readonly { name: string; limits: object; says: RegExp }[] = [
  { name: 'too many bytes', limits: { maxReadBytes: 300_000 }, says: /too large/ },
  { name: 'too many reads', limits: { maxReads: 3 }, says: /too many pieces/ },
]
for (const { name, limits, says } of over) {
  test(`reading ${name} ends the examination`, async () => {
    const file = await wrapDisk('qcow2', disk)
    await assert.rejects(examiner.examine(file, 'qcow2', limits), { code: 'invalid-image', message: says })
    await examiner.examine(file, 'qcow2')
  })
}

const never: BlockSource = { ...bytesSource(patterned(1000, 1)), read: () => new Promise(() => {}) }

test('an examination that outlasts its deadline is ended, and so is one that is given up', async () => {
  await assert.rejects(examiner.examine(never, 'raw', { deadlineMs: 1 }), { code: 'invalid-image', message: /too long/ })
  const given = new AbortController()
  const examined = examiner.examine(never, 'raw', { signal: given.signal })
  given.abort()
  await assert.rejects(examined, { code: 'cancelled' })
  await assert.rejects(examiner.examine(never, 'raw', { signal: given.signal }), { code: 'cancelled' })
})

test('a failing source is not the fault of the image', async () => {
  const failing = (error: Error): BlockSource => ({ ...never, read: () => Promise.reject(error) })
  const corrupt = new ServiceError('corrupt', 'a chunk is damaged')
  await assert.rejects(examiner.examine(failing(corrupt), 'raw'), corrupt)
  await assert.rejects(examiner.examine(failing(new Error('EIO')), 'raw'), { code: 'unavailable' })
  assert.equal((await examiner.examine(bytesSource(patterned(512, 1)), 'raw')).virtualBytes, 512)
})

const crashes = [
  { name: 'runs out of memory', action: 'const a=[];for(;;)a.push(new Array(1e5).fill(m))', says: /memory/ },
  { name: 'throws', action: 'throw new Error("bug")', says: /memory|astray/ },
  { name: 'exits', action: 'process.exit(3)', says: /ended early/ },
  {
    name: 'sends an unknown error',
    action: 'p.postMessage({kind:"failed",job:m.job,message:"x is not a function"})',
    says: /astray/,
  },
  { name: 'never ends', action: 'for(;;);', says: /too long/ },
  {
    name: 'asks for bytes beyond the end',
    action: 'p.postMessage({kind:"read",job:m.job,id:1,offset:1e9,length:2e9})',
    says: /too large/,
  },
]
for (const { name, action, says } of crashes) {
  test(`a worker that ${name} is replaced, and the image is refused`, async () => {
    const small = createExaminer({ workers: 1, heapMiB: 16, program: misbehaving(action) })
    for (let round = 0; round < 2; round += 1) {
      const examined = small.examine(bytesSource(patterned(512, 1)), 'raw', { deadlineMs: name === 'never ends' ? 50 : 60_000 })
      await assert.rejects(examined, { code: 'invalid-image', message: says })
    }
    await small.close()
  })
}

test('close ends what is under way', async () => {
  const closing = createExaminer({ workers: 1 })
  const examined = [closing.examine(never, 'raw'), closing.examine(never, 'raw')]
  const outcomes = Promise.allSettled(examined)
  await closing.close()
  for (const outcome of await outcomes) assert.equal(outcome.status === 'rejected' && outcome.reason.code, 'cancelled')
  await assert.rejects(closing.examine(never, 'raw'), { code: 'cancelled' })
})
