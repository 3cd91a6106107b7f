import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { decodeFrames } from '../content/decode-chunks.ts'
import { hexOf, sha256Hex } from '../content/digests.ts'
import type { WireChunk } from '../content/encode-chunks.ts'
import type { ChunkStore, LendChunksOptions } from './chunk-store.ts'
import { CHUNK_BYTES, openFsStore } from './kill-child.suite.ts'
import { freshFolder, ingestAndRelease, keysOf, memoryStore, noise } from './random-files.suite.ts'

async function* given(store: ChunkStore, manifest: string, numbers: readonly number[], options?: LendChunksOptions) {
  for await (const { bytes, giveBack } of store.lendChunks(manifest, numbers, options)) {
    yield Uint8Array.from(bytes)
    giveBack()
  }
}
const framesOf = (
  store: ChunkStore,
  manifest: string,
  numbers: readonly number[],
  options?: LendChunksOptions,
): Promise<WireChunk[]> => Array.fromAsync(decodeFrames(given(store, manifest, numbers, options), store.chunkBytes, 2 ** 30))
const upTo = (count: number) => Array.from({ length: count }, (_, number) => number)
const matches = ({ digest, bytes }: WireChunk): boolean => hexOf(digest) === sha256Hex(bytes) // noise is stored plain

test('a damaged chunk is given as it lies, for its receiver to find; verified it is refused, until its bytes come again', async (t) => {
  const folder = freshFolder()
  const { store, blobs, close } = await openFsStore(folder)
  t.after(close)
  const bytes = noise(20 * CHUNK_BYTES, 1)
  const { manifest } = await ingestAndRelease(store, bytes)
  const [pack = ''] = await keysOf(blobs, 'packs/')
  const path = join(folder, 'blobs', pack)
  const stored = readFileSync(path)
  stored[8 + 7 * CHUNK_BYTES + 100]! ^= 4
  writeFileSync(path, stored)
  const frames = await framesOf(store, manifest, upTo(20))
  assert.deepEqual(
    upTo(20).filter((number) => !matches(frames[number]!)),
    [7],
  )
  await assert.rejects(framesOf(store, manifest, [6, 7], { isVerified: true }), { code: 'corrupt' })
  await ingestAndRelease(store, noise(20 * CHUNK_BYTES, 1))
  assert.ok((await framesOf(store, manifest, [6, 7], { isVerified: true })).every(matches))
  assert.ok((await framesOf(store, manifest, upTo(20))).every(matches), 'the new copy is found')
})

test('read slots come back from readers that leave, are stopped, and end; more than there are slots are served', async () => {
  const store = await memoryStore()
  const chunks = 600
  const { manifest } = await ingestAndRelease(store, noise(chunks * store.chunkBytes, 2))
  for (let round = 0; round < 3; round += 1) {
    const readers = Array.from({ length: 40 }, () => store.lendChunks(manifest, upTo(chunks))[Symbol.asyncIterator]())
    const first = await Promise.all(readers.map((reader) => reader.next()))
    assert.ok(
      first.some(({ value }) => value.bytes.buffer instanceof SharedArrayBuffer),
      `round ${round}: slots are free`,
    )
    for (const { value } of first) value.giveBack()
    await Promise.all(readers.map((reader) => reader.return?.()))
  }
  const stop = new AbortController()
  const stopped = framesOf(store, manifest, upTo(chunks), { signal: stop.signal })
  stop.abort()
  await assert.rejects(stopped, { code: 'cancelled' })
  assert.equal((await framesOf(store, manifest, upTo(chunks).toReversed())).length, chunks)
  await store.close()
})

test('a number beyond the file is refused, and so is a page that is not there', async () => {
  const store = await memoryStore()
  const { manifest } = await ingestAndRelease(store, noise(3 * store.chunkBytes, 3))
  for (const numbers of [[3], [0, -1], [0.5]])
    await assert.rejects(framesOf(store, manifest, numbers), { code: 'invalid-request', message: /the file has 3/ })
  await assert.rejects(store.layoutPage(manifest, 1), { code: 'not-found' })
  assert.equal(sha256Hex(await store.layout(manifest)), manifest)
  await store.close()
})
