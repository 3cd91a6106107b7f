import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { MemoryBlobStore } from '../blobs/memory/memory-blob-store.ts'
import type { ChunkStore } from './chunk-store.ts'
import { fileOf, inSteps, keysOf, memoryStore, noise, readAll, these } from './random-files.suite.ts'

const CHUNK = 4096
const WRITERS = 4
const ROUNDS = 12

/** Files are made of a few parts that all writers use, so that nearly every chunk is dropped and wanted again all the time. */
const parts = Array.from({ length: 6 }, (_, seed) => noise(30 * CHUNK, seed))
const fileFrom = (seed: number) =>
  new Uint8Array(Buffer.concat([parts[seed % 6]!, parts[(seed * 5 + 1) % 6]!, fileOf([{ fill: 'text', bytes: 100, seed }])]))

test('no chunk in use is lost while files come and go and the collector runs all the time', async (t) => {
  const blobs = new MemoryBlobStore()
  const store = await memoryStore(blobs, CHUNK)
  t.after(() => store.close())
  /** What records name: manifest → how many records. */
  const records = new Map<string, number>()
  const change = (manifest: string, by: number) => {
    const count = (records.get(manifest) ?? 0) + by
    if (count > 0) records.set(manifest, count)
    else records.delete(manifest)
    return count
  }
  let collections = 0
  let over = false
  const collector = async () => {
    while (!over) {
      await store.collect(() => these(...records.keys()))
      collections += 1
    }
  }
  const writer = async (number: number) => {
    const mine: { manifest: string; seed: number }[] = []
    for (let round = 0; round < ROUNDS; round += 1) {
      const seed = number * 31 + round * 7
      const bytes = fileFrom(seed)
      const ingested = await store.ingest(inSteps(bytes, 50_000), { owner: `p${number}` })
      change(ingested.manifest, 1)
      await ingested.lease.release()
      mine.push({ manifest: ingested.manifest, seed })
      const old = mine[round % mine.length]!
      assert.equal(
        Buffer.compare(await readAll(store, old.manifest), fileFrom(old.seed)),
        0,
        `file ${old.seed} in round ${round}`,
      )
      if (mine.length > 3) {
        const gone = mine.splice(1, 1)[0]! // the oldest stays
        if (change(gone.manifest, -1) === 0) await store.drop(gone.manifest)
      }
    }
    return mine
  }
  const running = collector()
  const kept = await Promise.all(Array.from({ length: WRITERS }, (_, number) => writer(number))).finally(() => {
    over = true
  })
  await running
  assert.ok(collections > 2, 'the collector ran beside the writers')
  for (const { manifest, seed } of kept.flat())
    if (records.has(manifest)) assert.equal(Buffer.compare(await readAll(store, manifest), fileFrom(seed)), 0)
  await store.collect(() => these(...records.keys()))
  for await (const fault of store.check(() => these(...records.keys()))) assert.fail(fault.message)
  await store.collect(() => these())
  assert.deepEqual(await keysOf(blobs), ['store.json'])
})

test('the same new bytes from many at once are stored once', async (t) => {
  const blobs = new MemoryBlobStore()
  const store = await memoryStore(blobs, CHUNK)
  t.after(() => store.close())
  const bytes = noise(200 * CHUNK, 77)
  const all = await Promise.all(Array.from({ length: 6 }, () => store.ingest(inSteps(bytes, 70_000), { owner: 'p' })))
  assert.equal(new Set(all.map(({ manifest }) => manifest)).size, 1)
  const { storedBytes, chunks } = await store.stats()
  assert.equal(
    all.reduce((sum, { newBytes }) => sum + newBytes, 0),
    storedBytes,
  )
  assert.equal(chunks, 200 + 2)
  for (const { lease } of all.slice(1)) await lease.abandon()
  await all[0]!.lease.release()
  await store.collect(() => these(all[0]!.manifest))
  assert.equal(Buffer.compare(await readAll(store, all[0]!.manifest), bytes), 0)
})

test('who reads a file may finish although it was dropped and collected meanwhile', async (t) => {
  const store = await memoryStore(new MemoryBlobStore(), CHUNK)
  t.after(() => store.close())
  const bytes = noise(600 * CHUNK, 5)
  const { manifest, lease } = await store.ingest(inSteps(bytes, 70_000), { owner: 'p' })
  await lease.release()
  const read: Uint8Array[] = []
  for await (const part of store.stream(manifest, 0, bytes.length)) {
    if (read.length === 0) {
      await store.drop(manifest)
      await store.collect(() => these())
    }
    read.push(part)
  }
  assert.equal(Buffer.compare(Buffer.concat(read), bytes), 0)
  await store.collect(() => these())
  await assert.rejects(readAll(store, manifest), { code: 'not-found' })
})

test('of many records of the same bytes each keeps its own row, however their deletion was told', async (t) => {
  const store = await memoryStore(new MemoryBlobStore(), CHUNK)
  t.after(() => store.close())
  const bytes = noise(20 * CHUNK, 5)
  const bring = async (owner: string) => {
    const { manifest, lease } = await store.ingest(inSteps(bytes, 70_000), { owner })
    await lease.release()
    await lease.abandon() // after a release it does nothing
    return manifest
  }
  const has = (owner: string) => hasFirstChunk(store, owner, bytes)
  const manifest = await bring('alice')
  await bring('bob')
  await bring('bob')
  await store.drop(manifest, 'bob')
  assert.deepEqual([await has('alice'), await has('bob')], [true, true])
  const recordsOf = (...owners: string[]) => these(...owners.map((owner) => ({ manifest, owner })))
  await store.collect(() => recordsOf('alice', 'bob'))
  assert.deepEqual([await has('alice'), await has('bob')], [true, true])
  await store.drop(manifest, 'bob')
  await store.collect(() => recordsOf('alice'))
  assert.deepEqual([await has('alice'), await has('bob')], [true, false])
  await bring('bob')
  await store.collect(() => recordsOf('alice')) // bob's record was deleted, and the process ended before it said so
  assert.deepEqual([await has('alice'), await has('bob')], [true, false], 'the younger row is not the one that stays')
  await bring('bob')
  await store.collect(() => recordsOf('bob')) // and now alice's
  assert.deepEqual([await has('alice'), await has('bob')], [false, true])
  await store.drop(manifest, 'bob')
  await store.collect(() => recordsOf('bob')) // the record was committed after all
  assert.equal(await has('bob'), true)
  await store.collect(() => recordsOf('carol')) // bob's image was given to her
  assert.equal(await has('carol'), true)
  await store.collect(() => recordsOf('carol'))
  assert.deepEqual([await has('bob'), await has('carol')], [false, true])
  await store.rebuild(() => recordsOf('alice', 'carol'))
  assert.deepEqual([await has('alice'), await has('bob'), await has('carol')], [true, false, true])
  await store.collect(() => these(manifest)) // a record of nobody knows whom keeps a row, whosever it is
  assert.equal(Buffer.compare(await readAll(store, manifest), bytes), 0)
})

test('what is only being read stays, and no record comes of it', async (t) => {
  const store = await memoryStore(new MemoryBlobStore(), CHUNK)
  t.after(() => store.close())
  const bytes = noise(20 * CHUNK, 5)
  const { manifest, lease } = await store.ingest(inSteps(bytes, 70_000), { owner: 'alice' })
  await lease.release()
  await store.drop(manifest, 'alice')
  for (const round of [1, 2]) {
    await store.collect(() => these({ manifest, isRead: true }))
    assert.equal(Buffer.compare(await readAll(store, manifest), bytes), 0, `after collection ${round}`)
    assert.equal((await store.stats()).manifests, 0)
    assert.equal(await hasFirstChunk(store, 'alice', bytes), false)
  }
  await store.rebuild(() => these({ manifest, isRead: true }))
  assert.equal((await store.stats()).manifests, 0)
  await store.collect(() => these())
  await assert.rejects(readAll(store, manifest), { code: 'not-found' })
})

/** Whether this project is told that the store has the first chunk of these bytes. */
async function hasFirstChunk(store: ChunkStore, owner: string, bytes: Uint8Array): Promise<boolean> {
  const upload = await store.beginUpload({ owner })
  const [lacking] = await upload.lacks(new Uint8Array(createHash('sha256').update(bytes.subarray(0, CHUNK)).digest()))
  await upload.abandon()
  return lacking === 0
}
