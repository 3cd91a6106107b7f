import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BlobStore } from './blob-store.ts'
import { MemoryBlobStore } from './memory/memory-blob-store.ts'
import { mirrorBlobs } from './mirror-blobs.ts'

const filled = async (keys: readonly string[]): Promise<MemoryBlobStore> => {
  const store = new MemoryBlobStore()
  for (const key of keys) await store.put(key, [Buffer.from(key)])
  return store
}
const keysOf = async (store: BlobStore): Promise<string[]> => {
  const keys: string[] = []
  for await (const key of store.list('')) keys.push(key)
  return keys
}

test('a mirror holds the same blobs, and the next one copies only what is new', async () => {
  const from = await filled(['journal/1', 'packs/a', 'packs/b', 'store.json'])
  const to = new MemoryBlobStore()
  assert.deepEqual(await mirrorBlobs(from, to, 'journal/'), { copied: 4, copiedBytes: 33, kept: 0, removed: 0 })
  await from.put('packs/c', [Buffer.from('new')])
  await from.delete('packs/a')
  assert.deepEqual(await mirrorBlobs(from, to, 'journal/'), { copied: 1, copiedBytes: 3, kept: 3, removed: 1 })
  assert.deepEqual(await keysOf(to), await keysOf(from))
})

test('what the journal names is copied after the journal', async () => {
  const order: string[] = []
  const to = new MemoryBlobStore()
  const put = to.put.bind(to)
  to.put = (key, parts) => {
    order.push(key)
    return put(key, parts)
  }
  await mirrorBlobs(await filled(['a/1', 'journal/1', 'journal/2', 'packs/a']), to, 'journal/')
  assert.deepEqual(order, ['journal/1', 'journal/2', 'a/1', 'packs/a'])
})

test('a cancelled mirror goes on where it stopped', async () => {
  const from = await filled(['journal/1', 'packs/a', 'packs/b'])
  const to = new MemoryBlobStore()
  const stop = new AbortController()
  const cancelled = mirrorBlobs(from, to, 'journal/', { signal: stop.signal, onProgress: () => stop.abort() })
  await assert.rejects(cancelled, { code: 'cancelled' })
  assert.deepEqual(await mirrorBlobs(from, to, 'journal/'), { copied: 2, copiedBytes: 14, kept: 1, removed: 0 })
})

test('a blob that is merged into another during the copy is not missed', async () => {
  const from = await filled(['journal/1', 'journal/2', 'packs/a'])
  const get = from.get.bind(from)
  from.get = async (key) => {
    if (key === 'journal/2') {
      await from.put('journal/0-merged', [Buffer.from('1 and 2')])
      for (const merged of ['journal/1', 'journal/2']) await from.delete(merged)
    }
    return get(key)
  }
  const to = new MemoryBlobStore()
  await mirrorBlobs(from, to, 'journal/')
  assert.deepEqual(await keysOf(to), await keysOf(from))
})

test('the mirror of another store, or of another past of this one, is refused before anything is removed', async () => {
  for (const key of ['store.json', 'journal/1']) {
    const from = await filled(['journal/1', 'packs/b', 'store.json'])
    const to = await filled(['packs/a'])
    await to.put(key, [Buffer.from('of another')])
    await assert.rejects(mirrorBlobs(from, to, 'journal/'), { code: 'conflict' })
    assert.ok((await keysOf(to)).includes('packs/a'))
  }
})
