import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { after, type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import type { Worker } from 'node:worker_threads'
import fc from 'fast-check'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { GiB, MiB } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { MemoryBlobStore } from '../blobs/memory/memory-blob-store.ts'
import type { KnownFile } from './chunk-store.ts'
import { fileOf, ingestAndRelease, inSteps, memoryStore, noise, readAll, these } from './random-files.suite.ts'

const CHUNK = 4096
const store = await memoryStore(undefined, CHUNK)
after(() => store.close())

/** Fails one read, after so many that succeed. */
class FailingReads extends MemoryBlobStore {
  failAfter = Number.POSITIVE_INFINITY
  override async read(key: string, offset: number, length: number): Promise<Uint8Array> {
    this.failAfter -= 1
    if (this.failAfter < 0) {
      this.failAfter = Number.NEGATIVE_INFINITY
      throw new ServiceError('unavailable', 'this read fails')
    }
    return super.read(key, offset, length)
  }
}

const trueDigests = (bytes: Uint8Array) => ({
  md5: createHash('md5').update(bytes).digest('hex'),
  sha512: createHash('sha512').update(bytes).digest('hex'),
})
/** Digests that nobody can compute: where they come out, nothing was computed. */
const told = { md5: 'the md5 that was told', sha512: 'the sha512 that was told' }

/** Stores the file and says of it what is not true. */
async function known(bytes: Uint8Array): Promise<KnownFile> {
  return { manifest: (await ingestAndRelease(store, bytes)).manifest, digests: told }
}
async function digestsOf(bytes: Uint8Array, likely: readonly KnownFile[]) {
  const { digests, lease } = await store.ingest(inSteps(bytes, 50_000), { owner: 'p', digests: ['md5', 'sha512'], likely })
  await lease.release()
  return { ...digests }
}

const file = (seed: number) =>
  fileOf([
    { fill: 'noise', bytes: 700 * CHUNK, seed },
    { fill: 'zeros', bytes: 3000 * CHUNK, seed: 0 },
    { fill: 'text', bytes: 600 * CHUNK, seed },
    { fill: 'zeros', bytes: 20 * CHUNK + 7, seed: 0 },
  ])

test('a file that the store has already, and that was said to be likely, is not digested again', async () => {
  const [one, other] = [file(1), file(2)]
  const likely = [await known(other), await known(one)]
  assert.deepEqual(await digestsOf(one, likely), told)
  assert.deepEqual(await digestsOf(one, []), trueDigests(one))
})

test('a file that goes on where the likely one ends, or ends before it, has digests of its own', async () => {
  const bytes = file(3)
  const likely = [await known(bytes)]
  for (const end of [0, 1, CHUNK, 700 * CHUNK, bytes.length - 1])
    assert.deepEqual(await digestsOf(bytes.slice(0, end), likely), trueDigests(bytes.slice(0, end)))
  for (const more of [noise(1, 5), noise(3 * CHUNK, 5), new Uint8Array(1), new Uint8Array(9 * CHUNK)]) {
    const longer = new Uint8Array(Buffer.concat([bytes, more]))
    assert.deepEqual(await digestsOf(longer, likely), trueDigests(longer))
  }
})

test('wherever a file parts from the likely ones, its digests are right', async () => {
  const [one, other] = [file(4), file(4)]
  other.set(noise(CHUNK, 77), 3600 * CHUNK)
  const likely = [await known(one), await known(other)]
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(one, other),
      fc.nat(one.length - 1),
      fc.integer({ min: 1, max: 255 }),
      async (base, at, by) => {
        const changed = base.slice()
        changed[at] = (changed[at]! + by) % 256
        assert.deepEqual(await digestsOf(changed, likely), trueDigests(changed))
      },
    ),
    { numRuns: 25 },
  )
  assert.deepEqual(await digestsOf(other, likely), told)
})

test('a likely file that is gone, or of which a digest is not known, is of no use and does no harm', async () => {
  const bytes = file(6)
  const gone = await known(bytes)
  await store.drop(gone.manifest)
  await store.collect(() => these())
  assert.deepEqual(await digestsOf(bytes, [gone, { manifest: gone.manifest, digests: { md5: 'x' } }]), trueDigests(bytes))
  const here = await known(bytes)
  assert.deepEqual(await digestsOf(bytes, [{ ...here, digests: { md5: 'x' } }]), trueDigests(bytes))
})

test('a file that parts late is digested when it is stored', async () => {
  const zeros = { fill: 'zeros', bytes: 129 * MiB, seed: 0 } as const
  const [one, other] = [8, 9].map((seed) => fileOf([zeros, { fill: 'noise', bytes: 3 * CHUNK + 1, seed }]))
  assert.deepEqual(await digestsOf(other!, [await known(one!)]), trueDigests(other!))
})

test('where reads fail while a file is compared with a likely one, no wrong digest comes out', async (t) => {
  const blobs = new FailingReads()
  const fragile = await memoryStore(blobs, CHUNK)
  t.after(() => fragile.close())
  const [one, other] = [file(10), file(10)]
  other.set(noise(CHUNK, 78), 600 * CHUNK)
  const { manifest } = await ingestAndRelease(fragile, one)
  let failed = 0
  for (const bytes of [one, other]) {
    for (let reads = 0; reads < 12; reads += 1) {
      blobs.failAfter = reads
      const likely = [{ manifest, digests: trueDigests(one) }]
      await fragile.ingest(inSteps(bytes, 50_000), { owner: 'p', digests: ['md5', 'sha512'], likely }).then(
        async ({ digests, lease }) => {
          await lease.release()
          assert.deepEqual({ ...digests }, trueDigests(bytes))
        },
        (error: unknown) => assert.ok(isServiceError(error, 'unavailable')), // it was the stored file that was read
      )
      if (blobs.failAfter < 0) failed += 1
    }
  }
  assert.ok(failed > 2, 'some reads failed')
})

/** A store whose threads a test can end. */
async function mortalStore(t: TestContext) {
  await new Promise(setImmediate) // of threads that other stores have started, the process has told by then
  const threads: Worker[] = []
  const note = (thread: Worker) => void (thread.threadName === 'chunk-worker' && threads.push(thread))
  process.on('worker', note)
  t.after(() => process.off('worker', note))
  const mortal = await memoryStore()
  t.after(() => mortal.close())
  return {
    store: mortal,
    async untilIdle(): Promise<void> {
      while ((await mortal.stats()).counters.queueDepth > 0) await pause(1)
    },
    /** When it has done what it was told by now. Resolves when another stands in its place. */
    async end(thread: number): Promise<void> {
      const replaced = once(process, 'worker')
      threads[thread]!.postMessage(null)
      await replaced
    },
  }
}

for (const thread of [0, 1]) {
  test(`where thread ${thread} ends over a file that the store knows, the ingest does not go on without its digests`, async (t) => {
    const { store, untilIdle, end } = await mortalStore(t)
    const block = noise(MiB, 12)
    await ingestAndRelease(store, block)
    async function* body(): AsyncGenerator<Uint8Array> {
      yield block
      await untilIdle() // so that thread 0 gets the next block's chunks, and each thread one digest of it
      const ended = end(thread)
      yield block
      await ended
      for (let more = 0; more < 20; more += 1) yield block
      throw new Error('nobody heard of it')
    }
    await assert.rejects(store.ingest(body(), { owner: 'p', digests: ['md5', 'sha512'] }), { code: 'unavailable' })
  })
}

test('whichever thread ends between two parts of a file, no digest of the rest alone comes out', async (t) => {
  const { store, untilIdle, end } = await mortalStore(t)
  const bytes = noise(2 * MiB + 5, 13)
  for (const thread of [0, 1]) {
    async function* body(): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(0, MiB)
      await untilIdle()
      await end(thread)
      yield bytes.subarray(MiB)
    }
    await assert.rejects(store.ingest(body(), { owner: 'p', digests: ['md5', 'sha512'] }), { code: 'unavailable' })
  }
  const { digests, lease } = await store.ingest(inSteps(bytes, 50_000), { owner: 'p', digests: ['md5', 'sha512'] })
  await lease.release()
  assert.deepEqual({ ...digests }, trueDigests(bytes))
})

test('a hole of a whole TiB keeps nobody waiting, and can be cancelled', async () => {
  const small = file(11)
  const { manifest, lease } = await store.ingest(inSteps(small, 50_000), { owner: 'p' })
  await lease.release()
  const stop = new AbortController()
  const hole: BlockSource = {
    size: 1024 * GiB,
    read: async (_, length) => new Uint8Array(length),
    async *extents(offset, length) {
      yield { offset, length, kind: 'hole' }
    },
    close: async () => {},
  }
  const { promise: underWay, resolve } = Promise.withResolvers<void>()
  const ingesting = store.ingestDisk(hole, { owner: 'p', digests: ['md5'], signal: stop.signal, onProgress: () => resolve() })
  await Promise.race([underWay, ingesting])
  assert.equal(Buffer.compare(await readAll(store, manifest), small), 0)
  stop.abort()
  await assert.rejects(ingesting, { code: 'cancelled' })
})

test('an ingest that is broken off in the middle leaves the likely file alone and to the collector', async () => {
  const bytes = file(7)
  const likely = await known(bytes)
  const broken = async function* () {
    yield bytes.slice(0, 800 * CHUNK)
    throw new Error('the sender is gone')
  }
  await assert.rejects(store.ingest(broken(), { owner: 'p', digests: ['md5', 'sha512'], likely: [likely] }), /sender is gone/)
  await store.collect(() => these(likely.manifest))
  assert.deepEqual(await digestsOf(bytes, [likely]), told)
  await store.drop(likely.manifest)
  const { packs } = await store.collect(() => these()).then(() => store.stats())
  assert.equal(packs, 0, 'nobody reads it any more')
})
