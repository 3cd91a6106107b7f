import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MiB } from '../../base/units.ts'
import { MemoryBlobStore } from '../blobs/memory/memory-blob-store.ts'
import { ingestAndRelease, memoryStore, noise } from './random-files.suite.ts'

const CHUNK = 4096

/** Counts the reads of packs, and can make them wrong. */
class WatchedBlobStore extends MemoryBlobStore {
  reads = 0
  spoil = (_bytes: Uint8Array): void | Promise<void> => undefined

  override async read(key: string, offset: number, length: number): Promise<Uint8Array> {
    const bytes = (await super.read(key, offset, length)).slice()
    if (!key.startsWith('packs/')) return bytes
    this.reads += 1
    await this.spoil(bytes)
    return bytes
  }
}

async function watchedStore() {
  const watched = new WatchedBlobStore()
  return { store: await memoryStore(watched, CHUNK), watched }
}

test('a chunk is read once for all who ask', async (t) => {
  const { store, watched } = await watchedStore()
  t.after(() => store.close())
  const bytes = noise(64 * CHUNK, 1)
  const { manifest } = await ingestAndRelease(store, bytes)
  const [one, other] = [await store.open(manifest), await store.open(manifest)]
  await one.read(0, 1) // root and page are in memory
  await other.read(0, 1)
  const before = watched.reads
  const reads = await Promise.all([
    one.read(5 * CHUNK, 100),
    one.read(5 * CHUNK + 100, 200),
    other.read(5 * CHUNK + 50, CHUNK - 50),
  ])
  reads.push(await other.read(5 * CHUNK + 7, 9))
  assert.equal(watched.reads, before + 1)
  assert.deepEqual(Buffer.from(reads[1]!), bytes.subarray(5 * CHUNK + 100, 5 * CHUNK + 300))
})

test('a longer read fills the memory that it is given, zeros too', async (t) => {
  const { store } = await watchedStore()
  t.after(() => store.close())
  const bytes = Buffer.concat([noise(3 * CHUNK, 1), Buffer.alloc(4 * CHUNK), noise(40 * CHUNK + 17, 2)])
  const file = await store.open((await ingestAndRelease(store, bytes)).manifest)
  for (const [offset, length] of [
    [CHUNK + 5, 5 * CHUNK],
    [0, bytes.length],
    [bytes.length - CHUNK - 20, CHUNK + 20],
  ] as const) {
    const into = new Uint8Array(length).fill(0xff)
    assert.equal(await file.read(offset, length, into), into)
    assert.deepEqual(Buffer.from(into), bytes.subarray(offset, offset + length))
  }
})

test('what was prefetched is read from memory', async (t) => {
  const { store, watched } = await watchedStore()
  t.after(() => store.close())
  const bytes = noise(64 * CHUNK, 1)
  const file = await store.open((await ingestAndRelease(store, bytes)).manifest)
  await file.prefetch(10 * CHUNK + 1, 20 * CHUNK)
  const before = watched.reads
  const read = await file.read(10 * CHUNK, 21 * CHUNK)
  assert.deepEqual(Buffer.from(read), bytes.subarray(10 * CHUNK, 31 * CHUNK))
  assert.equal(watched.reads, before)
})

test('a damaged chunk spoils no other that was fetched together with it', async (t) => {
  const { store, watched } = await watchedStore()
  t.after(() => store.close())
  const bytes = noise(16 * CHUNK, 1)
  const file = await store.open((await ingestAndRelease(store, bytes)).manifest)
  await file.read(15 * CHUNK, 1)
  const bad = bytes.subarray(3 * CHUNK, 3 * CHUNK + 32)
  watched.spoil = (read) => {
    const at = Buffer.from(read.buffer).indexOf(bad)
    if (at >= 0) read[at]! ^= 1
  }
  const together = file.prefetch(0, 8 * CHUNK)
  const neighbour = file.read(4 * CHUNK, CHUNK)
  await assert.rejects(together, { code: 'corrupt' })
  assert.deepEqual(Buffer.from(await neighbour), bytes.subarray(4 * CHUNK, 5 * CHUNK))
  await assert.rejects(file.read(3 * CHUNK, 1), { code: 'corrupt' })
})

test('reads outside the file and of a closed one are refused as rejections', async (t) => {
  const { store } = await watchedStore()
  t.after(() => store.close())
  const file = await store.open((await ingestAndRelease(store, noise(CHUNK, 1))).manifest)
  await assert.rejects(file.read(1, CHUNK), { code: 'invalid-request' })
  await assert.rejects(file.prefetch(0, CHUNK + 1), { code: 'invalid-request' })
  assert.equal((await file.read(CHUNK, 0)).length, 0)
  await file.close()
  await assert.rejects(file.read(0, 1), { code: 'invalid-request' })
})

test('a read that fails writes to the memory that it was given no more', async (t) => {
  const { store, watched } = await watchedStore()
  t.after(() => store.close())
  const [first, second] = [noise(MiB, 1), noise(4 * CHUNK, 2)]
  await ingestAndRelease(store, first) // in a pack of its own
  const file = await store.open((await ingestAndRelease(store, Buffer.concat([first, second]))).manifest)
  const gate = Promise.withResolvers<void>()
  watched.spoil = (read) => {
    if (Buffer.from(read.buffer).includes(second.subarray(0, 32))) return gate.promise
    if (Buffer.from(read.buffer).includes(first.subarray(0, 32))) read.fill(0)
  }
  let hasEnded = false
  const reading = file.read(0, MiB + CHUNK, new Uint8Array(MiB + CHUNK)).finally(() => {
    hasEnded = true
  })
  const refused = assert.rejects(reading, { code: 'corrupt' })
  await assert.rejects(file.read(0, 1), { code: 'corrupt' })
  for (let turn = 0; turn < 100; turn += 1) await new Promise(setImmediate)
  assert.equal(hasEnded, false, 'the second part is still on its way')
  gate.resolve()
  await refused
})
