import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { BlobStore } from './blob-store.ts'

const bytes = (text: string) => new TextEncoder().encode(text)
const keysOf = async (store: BlobStore, prefix: string) => {
  const keys: string[] = []
  for await (const key of store.list(prefix)) keys.push(key)
  return keys
}

/**
 * What every BlobStore must do: the port's meaning, in a form that runs.
 * @param open a fresh, empty store
 * @param waivers title → the reason why this adapter may skip it
 */
export function blobStoreSuite(adapter: string, open: () => Promise<BlobStore>, waivers: Record<string, string> = {}): void {
  const must = (title: string, check: (store: BlobStore) => Promise<void>) =>
    test(`${adapter} must ${title}`, { skip: waivers[title] ?? false }, async () => check(await open()))

  must('give back the joined parts', async (store) => {
    await store.put('a/b.json', [bytes('one'), bytes(''), bytes('two')])
    assert.deepEqual(Buffer.from(await store.get('a/b.json')).toString(), 'onetwo')
    assert.equal(await store.size('a/b.json'), 6)
    assert.deepEqual(Buffer.from(await store.read('a/b.json', 2, 3)).toString(), 'etw')
    assert.equal((await store.read('a/b.json', 6, 0)).length, 0)
  })

  must('keep an empty blob', async (store) => {
    await store.put('empty', [])
    assert.equal((await store.get('empty')).length, 0)
    assert.deepEqual(await keysOf(store, ''), ['empty'])
  })

  must('throw not-found for an absent key', async (store) => {
    await assert.rejects(store.get('absent'), { code: 'not-found' })
    await assert.rejects(store.read('absent/too', 0, 1), { code: 'not-found' })
    await assert.rejects(store.size('absent'), { code: 'not-found' })
  })

  must('throw corrupt where a blob ends before the bytes asked for', async (store) => {
    await store.put('short', [bytes('abc')])
    await assert.rejects(store.read('short', 2, 2), { code: 'corrupt' })
    await assert.rejects(store.read('short', 9, 1), { code: 'corrupt' })
  })

  must('keep its bytes when the caller reuses the buffer', async (store) => {
    const buffer = Uint8Array.of(7)
    await store.put('key', [buffer])
    buffer.fill(0)
    assert.deepEqual([...(await store.get('key'))], [7])
    const answer = await store.get('key')
    answer.fill(1)
    assert.deepEqual([...(await store.get('key'))], [7])
  })

  must('take the same bytes twice and refuse others', async (store) => {
    await store.put('key', [bytes('same')])
    await store.put('key', [bytes('sa'), bytes('me')])
    await assert.rejects(store.put('key', [bytes('other')]), { code: 'conflict' })
    await assert.rejects(store.put('key', [bytes('some')]), { code: 'conflict' })
    assert.equal(Buffer.from(await store.get('key')).toString(), 'same')
  })

  must('let one of many concurrent writers of a key win, and tell the others', async (store) => {
    const results = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => store.put('race', [Uint8Array.of(i)])))
    const winners = results.flatMap((result, i) => (result.status === 'fulfilled' ? [i] : []))
    assert.equal(winners.length, 1)
    assert.deepEqual([...(await store.get('race'))], winners)
  })

  must('list by prefix, ascending by code unit', async (store) => {
    const keys = ['a-b', 'a.b', 'a/b', 'a/b-c', 'a/c/d', 'a0', 'ab/c', 'b', 'a/b.x', 'a_']
    for (const key of keys) await store.put(key, [bytes(key)])
    assert.deepEqual(await keysOf(store, ''), [...keys].sort())
    assert.deepEqual(await keysOf(store, 'a/'), ['a/b', 'a/b-c', 'a/b.x', 'a/c/d'])
    assert.deepEqual(await keysOf(store, 'a/b'), ['a/b', 'a/b-c', 'a/b.x'])
    assert.deepEqual(await keysOf(store, 'a/c/d'), ['a/c/d'])
    assert.deepEqual(await keysOf(store, 'zebra/none'), [])
  })

  must('go on listing while blobs come and go', async (store) => {
    for (let i = 0; i < 300; i += 1) await store.put(`k/${String(i).padStart(3, '0')}`, [])
    const seen: string[] = []
    for await (const key of store.list('k/')) {
      seen.push(key)
      if (seen.length === 10) await store.delete('k/299')
    }
    assert.ok(seen.length >= 299)
    assert.deepEqual(seen, [...seen].sort())
  })

  must('forget what was deleted, and not mind a second time', async (store) => {
    await store.put('gone/soon', [bytes('x')])
    await store.delete('gone/soon')
    await store.delete('gone/soon')
    await store.delete('never/there')
    await assert.rejects(store.get('gone/soon'), { code: 'not-found' })
    assert.deepEqual(await keysOf(store, ''), [])
    await store.put('gone/soon', [bytes('other')])
    assert.equal(await store.size('gone/soon'), 5)
  })

  must('refuse what is not a key', async (store) => {
    for (const key of ['', '/a', 'a/', 'a//b', '../a', 'a/../b', '.', 'a/.b', 'A', 'a\0', 'a b', 'é', 'a..b', 'a'.repeat(513)]) {
      await assert.rejects(store.put(key, []), { code: 'invalid-request' }, key)
      await assert.rejects(store.get(key), { code: 'invalid-request' }, key)
      await assert.rejects(store.delete(key), { code: 'invalid-request' }, key)
    }
  })

  must('answer like a map, whatever the order of calls', async (store) => {
    const name = fc.constantFrom('x', 'y/1', 'y/2', 'z-1')
    const step = fc.oneof(
      fc.record({ put: name, byte: fc.nat(3), length: fc.nat(9000) }),
      fc.record({ delete: name }),
      fc.record({ get: name }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 15 }), async (steps) => {
        for (const key of await keysOf(store, '')) await store.delete(key)
        const model = new Map<string, Uint8Array>()
        for (const one of steps) {
          if ('put' in one) {
            const value = new Uint8Array(one.length).fill(one.byte)
            const before = model.get(one.put)
            const put = store.put(one.put, [value])
            if (before && Buffer.compare(before, value) !== 0) await assert.rejects(put, { code: 'conflict' })
            else await put.then(() => model.set(one.put, value))
          } else if ('delete' in one) await store.delete(one.delete).then(() => model.delete(one.delete))
          else if (model.has(one.get)) assert.equal(Buffer.compare(await store.get(one.get), model.get(one.get)!), 0)
          else await assert.rejects(store.get(one.get), { code: 'not-found' })
        }
        assert.deepEqual(await keysOf(store, ''), [...model.keys()].sort())
      }),
      { numRuns: 15 },
    )
  })
}
