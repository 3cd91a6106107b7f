import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemoryBlobStore } from '../blobs/memory/memory-blob-store.ts'
import type { Lent } from './chunk-store.ts'
import { fileOf, ingestAndRelease, memoryStore, readAll } from './random-files.suite.ts'

const CHUNK = 4096
const MORE_THAN_SLOTS = 20
const content = fileOf([
  { fill: 'noise', bytes: 300 * CHUNK, seed: 1 },
  { fill: 'zeros', bytes: 700 * CHUNK, seed: 0 },
  { fill: 'text', bytes: 90 * CHUNK + 5, seed: 2 },
  { fill: 'noise', bytes: 200 * CHUNK, seed: 3 },
  { fill: 'noise', bytes: 10 * CHUNK, seed: 1 }, // in the store already, elsewhere
  { fill: 'text', bytes: 777, seed: 4 },
])
/** The next piece of data: zeros need no memory. */
async function nextData(reader: AsyncIterator<Lent>): Promise<Lent | undefined> {
  for (;;) {
    const { done, value } = await reader.next()
    if (done) return undefined
    if (value.bytes.some((byte: number) => byte !== 0)) return value
  }
}
const isShared = ({ bytes }: Lent): boolean => bytes.buffer instanceof SharedArrayBuffer

test('what is lent stays as it is until it is given back, however many others read', async () => {
  const store = await memoryStore()
  const { manifest } = await ingestAndRelease(store, content)
  const readers = Array.from({ length: MORE_THAN_SLOTS }, () => store.lend(manifest, 0, content.length)[Symbol.asyncIterator]())
  const kept = await Promise.all(readers.map(async (reader) => [(await reader.next()).value!, (await reader.next()).value!]))
  assert.ok(kept.flat().some(isShared))
  assert.ok(!kept.flat().every(isShared), 'who finds no slot reads into memory of its own')
  assert.equal(Buffer.compare(await readAll(store, manifest), content), 0)
  for (const lent of kept) {
    const bytes = Buffer.concat(lent.map((part: Lent) => part.bytes))
    assert.equal(Buffer.compare(bytes, content.subarray(0, bytes.length)), 0)
  }
  for (const { giveBack } of kept.flat()) {
    giveBack()
    giveBack()
  }
  for (const reader of readers) await reader.return?.()
  assert.equal(Buffer.compare(await readAll(store, manifest), content), 0)
  await store.close()
})

test('slots come back from readers that leave, are stopped, or meet a damaged chunk', async () => {
  const blobs = new MemoryBlobStore()
  let damage = (bytes: Uint8Array) => bytes
  const store = await memoryStore({
    get: (key) => blobs.get(key),
    read: async (key, offset, length) => damage(await blobs.read(key, offset, length)),
    size: (key) => blobs.size(key),
    list: (prefix) => blobs.list(prefix),
    put: (key, parts) => blobs.put(key, parts),
    delete: (key) => blobs.delete(key),
  })
  const { manifest } = await ingestAndRelease(store, content)
  for (let reader = 0; reader < MORE_THAN_SLOTS; reader += 1) {
    for await (const { giveBack } of store.lend(manifest, 0, content.length)) {
      giveBack()
      break
    }
    const stop = new AbortController()
    const stopped = store.lend(manifest, 0, content.length, stop.signal)[Symbol.asyncIterator]()
    ;(await stopped.next()).value!.giveBack()
    stop.abort()
    await assert.rejects(Promise.resolve(stopped.next()), { code: 'cancelled' })
    damage = (bytes) => bytes.map((byte) => byte ^ 1)
    await assert.rejects(readAll(store, manifest), { code: 'corrupt' })
    damage = (bytes) => bytes
  }
  assert.equal(Buffer.compare(await readAll(store, manifest), content), 0)
  const reader = store.lend(manifest, 0, content.length)[Symbol.asyncIterator]()
  for (let lent = await nextData(reader); lent; lent = await nextData(reader)) {
    assert.ok(isShared(lent))
    lent.giveBack()
  }
  await store.close()
})
