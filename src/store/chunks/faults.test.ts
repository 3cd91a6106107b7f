import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { BlobStore } from '../blobs/blob-store.ts'
import { type Fault, faultyFiles } from '../blobs/fs/faulty-files.suite.ts'
import { FsBlobStore } from '../blobs/fs/fs-blob-store.ts'
import { MemoryBlobStore } from '../blobs/memory/memory-blob-store.ts'
import { SqliteChunkIndex } from './index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from './open.ts'
import {
  fileOf,
  freshFolder,
  ingestAndRelease,
  inSteps,
  keysOf,
  memoryStore,
  noise,
  readAll,
  these,
} from './random-files.suite.ts'

const CHUNK = 4096

async function storeOver(t: TestContext, blobs: BlobStore) {
  const store = await memoryStore(blobs, CHUNK)
  t.after(() => store.close())
  return store
}

for (const [code, answer] of [
  ['ENOSPC', 'no-space'],
  ['EIO', 'unavailable'],
] as const) {
  test(`${code} at each call below an ingest gives "${answer}", and neither loses what was there nor leaks`, async (t) => {
    const fault: Fault = { failAt: Number.POSITIVE_INFINITY, code, everyWriteAtMost: 100_000 }
    const faulty = faultyFiles(fault)
    const blobs = await FsBlobStore.open(freshFolder(), faulty.files)
    t.after(() => blobs.close())
    const store = await storeOver(t, blobs)
    const old = await ingestAndRelease(store, noise(50 * CHUNK, 1))
    for (let failAt = 1; ; failAt += 1) {
      const bytes = fileOf([{ fill: 'noise', bytes: 60 * CHUNK, seed: failAt + 10 }])
      fault.failAt = faulty.calls() + failAt
      const ingested = await store.ingest(inSteps(bytes, 9000), { owner: 'p' }).catch((error) => {
        assert.equal(error.code, answer, error.message)
      })
      const clean = ingested !== undefined && faulty.calls() < fault.failAt
      fault.failAt = Number.POSITIVE_INFINITY
      if (ingested) {
        assert.equal(Buffer.compare(await readAll(store, ingested.manifest), bytes), 0)
        await ingested.lease.abandon()
      }
      await store.collect(() => these(old.manifest))
      assert.equal((await keysOf(blobs, 'packs/')).length, 1, `nothing leaks after a fault at call ${failAt}`)
      assert.equal((await readAll(store, old.manifest)).length, 50 * CHUNK)
      if (clean) return assert.ok(failAt > 6)
    }
  })
}

test('an ingest whose sender fails, goes on for ever, or is stopped leaves nothing', async (t) => {
  const blobs = new MemoryBlobStore()
  const store = await storeOver(t, blobs)
  const breaks = async function* () {
    yield noise(700 * CHUNK, 1)
    throw new Error('the client went away')
  }
  const endless = async function* () {
    for (let seed = 0; ; seed += 1) yield noise(50 * CHUNK, seed)
  }
  const silent: AsyncIterable<Uint8Array> = {
    [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined), return: () => new Promise(() => undefined) }),
  }
  await assert.rejects(store.ingest(breaks(), { owner: 'p', digests: ['md5'] }), /the client went away/)
  await assert.rejects(store.ingest(endless(), { owner: 'p', maxBytes: 900 * CHUNK }), { code: 'too-large' })
  const stop = new AbortController()
  const stopped = store.ingest(silent, { owner: 'p', signal: stop.signal })
  stop.abort()
  await assert.rejects(stopped, { code: 'cancelled' })
  await store.collect(() => these())
  await store.collect(() => these())
  assert.deepEqual(await keysOf(blobs, 'packs/'), [])
  const fine = await ingestAndRelease(store, noise(10 * CHUNK, 5))
  assert.equal((await readAll(store, fine.manifest)).length, 10 * CHUNK)
})

test('a stopped download ends at once, and others go on', async (t) => {
  const store = await storeOver(t, new MemoryBlobStore())
  const { manifest } = await ingestAndRelease(store, noise(2000 * CHUNK, 1))
  const stop = new AbortController()
  const stopped = (async () => {
    for await (const part of store.stream(manifest, 0, 2000 * CHUNK, stop.signal)) {
      assert.ok(part.length > 0)
      stop.abort()
    }
  })()
  await assert.rejects(stopped, { code: 'cancelled' })
  for await (const _ of store.stream(manifest, 5, 900 * CHUNK)) break
  assert.equal((await readAll(store, manifest)).length, 2000 * CHUNK)
})

test('two processes cannot have one store open', async (t) => {
  const path = join(freshFolder(), 'index.db')
  const first = await SqliteChunkIndex.open(path)
  t.after(() => first.close())
  await assert.rejects(SqliteChunkIndex.open(path), { code: 'unavailable', message: /Another process uses this store/ })
})

test('a store keeps its chunk size and refuses what it does not understand', async () => {
  const blobs = new MemoryBlobStore()
  const open = async (chunkBytes?: number) => {
    const index = await SqliteChunkIndex.open(':memory:')
    try {
      const store = await openChunkStore({ blobs, index, ...(chunkBytes ? { chunkBytes } : {}) })
      await store.close()
      return store.chunkBytes
    } finally {
      await index.close()
    }
  }
  await assert.rejects(open(5000), { code: 'invalid-request' })
  assert.equal(await open(8192), 8192)
  assert.equal(await open(), 8192)
  await assert.rejects(open(4096), { code: 'invalid-request' })
  for (const [document, code] of [
    ['{"format":"imprint-store","version":2,"chunkBytes":8192}', 'unsupported'],
    ['{"format":"other","version":1,"chunkBytes":8192}', 'corrupt'],
    ['{"format":"imprint-store","version":1,"chunkBytes":8191}', 'corrupt'],
    ['{"format', 'corrupt'],
    ['null', 'corrupt'],
  ] as const) {
    await blobs.delete('store.json')
    await blobs.put('store.json', [Buffer.from(document)])
    await assert.rejects(open(), { code }, document)
  }
})
