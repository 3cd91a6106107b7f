import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { bytesSource } from '../../disk/block/memory-source.ts'
import type { PackOptions } from '../../disk/formats/index.ts'
import { PackedFiles, type Packing, type PackingLimits } from './packed-files.ts'

const forEver = () => ({ signal: new AbortController().signal })

async function made(t: TestContext, limits: Partial<PackingLimits> = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'imprint-packed-test-'))
  writeFileSync(join(folder, 'left-over'), 'by a kill')
  mkdirSync(join(folder, 'and-a-folder'))
  let now = 1000
  const files = await PackedFiles.at(
    folder,
    { maxBytes: 1000, atATime: 1, roomBytes: async () => Infinity, ...limits },
    () => now,
  )
  t.after(async () => {
    await files.close()
    assert.deepEqual(readdirSync(folder), [], 'no file has a name')
    rmSync(folder, { recursive: true })
  })
  const later = (ms: number) => {
    now += ms
  }
  return { files, folder, later }
}

/** Files of `bytes` bytes, whose first ten are known last; each counts how often it was made, and closed. */
function packing(bytes: number, owner = 'me') {
  const gate = Promise.withResolvers<void>()
  const begun = Promise.withResolvers<void>()
  const counts = { made: 0, closed: 0, ended: 0 }
  const packing: Packing = {
    owner,
    async open() {
      const close = async () => {
        counts.closed += 1
      }
      return { ...bytesSource(new Uint8Array(bytes).fill(7)), close }
    },
    writer: {
      async *pack(disk, { signal, rewrite }: PackOptions = {}) {
        counts.made += 1
        begun.resolve()
        signal?.addEventListener('abort', () => gate.resolve())
        yield new Uint8Array(10)
        await gate.promise
        signal?.throwIfAborted()
        yield await disk.read(10, disk.size - 10)
        await rewrite?.(0, new Uint8Array(10).fill(counts.made))
        counts.ended += 1
      },
    },
  }
  return { packing, counts, begun: begun.promise, go: gate.resolve }
}

test('those who ask for the same while it is made, and after, share one file', async (t) => {
  const { files, folder } = await made(t)
  const one = packing(100)
  const readers = [files.get('k', one.packing, forEver()), files.get('k', one.packing, forEver())]
  await one.begun
  assert.deepEqual([readdirSync(folder), files.has('k')], [[], false])
  one.go()
  const [first, second] = await Promise.all(readers)
  const third = await files.get('k', one.packing, forEver())
  for (const file of [first!, second!, third]) {
    assert.equal(file.size, 100)
    assert.deepEqual([...(await file.read(5, 10))], [1, 1, 1, 1, 1, 7, 7, 7, 7, 7])
    await file.close()
    await file.close()
  }
  assert.deepEqual(one.counts, { made: 1, closed: 1, ended: 1 })
  assert.deepEqual([files.has('k'), files.idleBytes, readdirSync(folder)], [true, 100, []])
})

test('one that nobody waits for any more ends, at once or when nobody came again', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { files, later } = await made(t)
  const [gone, lingering, waiting] = [packing(10), packing(20), packing(30)]
  const leave = new AbortController()
  const first = files.get('gone', gone.packing, { signal: leave.signal })
  await gone.begun
  const second = files.get('lingering', lingering.packing, { signal: leave.signal, lingerMs: 5000 })
  const never = files.get('waiting', waiting.packing, { signal: leave.signal })
  assert.equal(files.stateOf('lingering')?.isWaiting, true)
  leave.abort()
  for (const each of [first, second, never]) await assert.rejects(each, { code: 'cancelled' })
  await lingering.begun // the place of the first one is free
  assert.deepEqual(
    [gone.counts.closed, files.stateOf('gone'), files.stateOf('waiting'), waiting.counts.made],
    [1, undefined, undefined, 0],
  )
  assert.deepEqual(files.stateOf('lingering'), { isWaiting: false, doneBytes: 0, totalBytes: 20 })
  later(4000)
  const again = new AbortController()
  const coming = files.get('lingering', lingering.packing, { signal: again.signal, lingerMs: 5000 })
  again.abort()
  await assert.rejects(coming, { code: 'cancelled' })
  later(4000)
  t.mock.timers.tick(5000)
  assert.ok(files.stateOf('lingering'), 'somebody came again')
  later(2000)
  t.mock.timers.tick(1000)
  assert.equal(files.stateOf('lingering'), undefined)
})

test('one that is ready before who asked comes again is kept for them', async (t) => {
  const { files } = await made(t)
  const one = packing(10)
  const leave = new AbortController()
  const asked = files.get('k', one.packing, { signal: leave.signal, lingerMs: 60_000 })
  await one.begun
  leave.abort()
  await assert.rejects(asked, { code: 'cancelled' })
  one.go()
  await (await files.get('k', one.packing, forEver())).close()
  assert.equal(one.counts.made, 1)
})

test('a place goes to who has asked for fewest', async (t) => {
  const { files } = await made(t, { atATime: 2 })
  const [a, b, other] = [packing(10, 'greedy'), packing(10, 'greedy'), packing(10, 'modest')]
  const all = [a, b, other].map((each, index) => files.get(`k${index}`, each.packing, forEver()))
  await Promise.all([a.begun, other.begun])
  assert.equal(b.counts.made, 0, 'nobody has all places')
  for (const each of [a, b, other]) each.go()
  for (const file of await Promise.all(all)) await file.close()
})

test('what is kept goes for what is made, the oldest first, and what is read stays', async (t) => {
  const { files, later } = await made(t)
  const make = async (key: string, bytes: number) => {
    later(1)
    const one = packing(bytes)
    one.go()
    return files.get(key, one.packing, forEver())
  }
  for (const key of ['old', 'new']) await (await make(key, 300)).close()
  const reading = await make('read', 300)
  await (await make('fourth', 300)).close()
  assert.deepEqual(
    ['old', 'new', 'read', 'fourth'].map((key) => files.has(key)),
    [false, true, true, true],
  )
  await assert.rejects(make('huge', 1001), { code: 'too-large', message: /plain form/ })
  await assert.rejects(make('large', 800), { code: 'unavailable', message: /in use/ })
  assert.equal((await reading.read(299, 1))[0], 7)
  await reading.close()
  await (await make('large', 800)).close()
})

test('files go after an hour, when the file system fills, and when the image is gone', async (t) => {
  let room = Infinity
  const { files, later } = await made(t, { roomBytes: async () => room })
  const keep = async (key: string) => {
    const one = packing(50)
    one.go()
    return files.get(key, one.packing, forEver())
  }
  await (await keep('a 1')).close()
  later(PackedFiles.IDLE_MS + 1)
  await (await keep('b 1')).close()
  await files.sweep()
  assert.deepEqual([files.has('a 1'), files.has('b 1')], [false, true])
  room = -1
  await assert.rejects(keep('c 1'), { code: 'no-space' })
  await files.sweep()
  assert.equal(files.idleBytes, 0)
  room = Infinity
  const reading = await keep('d 1')
  await files.forget('d ')
  assert.equal(files.has('d 1'), false)
  assert.equal((await reading.read(49, 1))[0], 7)
  await reading.close()
  assert.equal(files.idleBytes, 0)
})

test('a failure is told to all who wait, and the next one tries anew', async (t) => {
  const { files } = await made(t)
  const damaged: Packing = { ...packing(10).packing, open: () => Promise.reject(new Error('damaged')) }
  const both = await Promise.allSettled([files.get('k', damaged, forEver()), files.get('k', damaged, forEver())])
  assert.deepEqual(
    both.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  const whole = packing(10)
  whole.go()
  await (await files.get('k', whole.packing, forEver())).close()
})

test('a stop ends what is made', async (t) => {
  const { files } = await made(t)
  const one = packing(10)
  const asked = assert.rejects(files.get('k', one.packing, forEver()), { code: 'cancelled' })
  await one.begun
  await files.close()
  await asked
  assert.equal(one.counts.closed, 1)
})
