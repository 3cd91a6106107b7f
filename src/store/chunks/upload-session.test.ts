import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import type { WireChunk } from '../content/encode-chunks.ts'
import { CHUNK_BYTES, openFsStore } from './kill-child.suite.ts'
import { fileOf, freshFolder, ingestAndRelease, memoryStore, noise, readAll, these } from './random-files.suite.ts'

const fresh = async (t: TestContext) => {
  const store = await memoryStore(undefined, CHUNK_BYTES)
  t.after(() => store.close())
  return store
}
const sha256 = (bytes: Uint8Array) => new Uint8Array(createHash('sha256').update(bytes).digest())

/** As a client cuts a file; zeros are null. */
function cut(bytes: Uint8Array) {
  return Array.from({ length: Math.ceil(bytes.length / CHUNK_BYTES) }, (_, index) => {
    const plain = bytes.slice(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES)
    return plain.every((byte) => byte === 0) ? null : { plain, digest: sha256(plain) }
  })
}
type Cut = ReturnType<typeof cut>
const plain = (chunks: Cut): WireChunk[] =>
  chunks.flatMap((chunk) => (chunk ? [{ digest: chunk.digest, codec: 'plain', bytes: chunk.plain }] : []))
const zstd = (chunks: Cut): WireChunk[] =>
  chunks.flatMap((chunk) => (chunk ? [{ digest: chunk.digest, codec: 'zstd', bytes: zstdCompressSync(chunk.plain) }] : []))
const digestsOf = (chunks: Cut) => Buffer.concat(chunks.map((chunk) => chunk?.digest ?? new Uint8Array(32)))
async function* list(chunks: Cut) {
  for (const chunk of chunks) yield chunk?.digest ?? null
}
const file = (seed: number) =>
  fileOf([
    { fill: 'noise', bytes: 300 * CHUNK_BYTES, seed },
    { fill: 'zeros', bytes: 1500 * CHUNK_BYTES, seed: 0 },
    { fill: 'text', bytes: 10 * CHUNK_BYTES + 5, seed },
  ])

test('a file sent by chunks has the same manifest as the same file sent whole', async (t) => {
  const store = await fresh(t)
  const bytes = file(1)
  const chunks = cut(bytes)
  const upload = await store.beginUpload({ owner: 'p' })
  await Promise.all([upload.put(plain(chunks.slice(0, 200))), upload.put(zstd(chunks.slice(100)))])
  const sent = await upload.commit(bytes.length, list(chunks))
  assert.equal(Buffer.compare(await readAll(store, sent.manifest), bytes), 0)
  const whole = await ingestAndRelease(store, bytes)
  assert.equal(whole.manifest, sent.manifest)
  assert.equal(whole.newBytes, 0)
  assert.equal(sent.newBytes, sent.storedBytes)
  await sent.lease.release()
})

test('which chunks are lacking is answered from what the owner has, and from nothing else', async (t) => {
  const store = await fresh(t)
  const bytes = file(2)
  const chunks = cut(bytes).slice(0, 50)
  await ingestAndRelease(store, bytes, 'alice')
  const asked = await Promise.all(
    ['alice', 'mallory'].map(async (owner) => (await store.beginUpload({ owner })).lacks(digestsOf(chunks))),
  )
  assert.ok(asked[0]!.every((lacking) => lacking === 0))
  assert.ok(asked[1]!.every((lacking) => lacking === 1))
  const mallory = await store.beginUpload({ owner: 'mallory' })
  await assert.rejects(mallory.commit(50 * CHUNK_BYTES, list(chunks)), { code: 'conflict', message: /Chunk 0 was never sent/ })
  await mallory.put(plain(chunks.slice(0, 20)))
  await assert.rejects(mallory.commit(50 * CHUNK_BYTES, list(chunks)), { code: 'conflict', message: /Chunk 20 was never sent/ })
})

test('chunks that were said to be there stay until the upload ends, though their image is deleted and collected', async (t) => {
  const store = await fresh(t)
  const bytes = file(3)
  const chunks = cut(bytes)
  const old = await ingestAndRelease(store, bytes)
  const upload = await store.beginUpload({ owner: 'project' })
  assert.ok((await upload.lacks(digestsOf(chunks.slice(0, 300)))).every((lacking) => lacking === 0))
  await store.drop(old.manifest)
  await store.collect(() => these())
  await upload.put(plain(chunks.slice(300)))
  const { manifest } = await upload.commit(bytes.length, list(chunks))
  assert.equal(Buffer.compare(await readAll(store, manifest), bytes), 0)
})

test('an upload goes on after a restart, with what was durable', async (t) => {
  const folder = freshFolder()
  const first = await openFsStore(folder)
  const bytes = file(4)
  const chunks = cut(bytes)
  const begun = await first.store.beginUpload({ owner: 'p' })
  await begun.put(plain(chunks.slice(0, 250)))
  await first.close()
  const second = await openFsStore(folder)
  t.after(second.close)
  const resumed = await second.store.resumeUpload(begun.id)
  assert.equal(resumed.owner, 'p')
  const lacking = await resumed.lacks(digestsOf(chunks))
  assert.deepEqual([lacking[0], lacking[249], lacking[250]], [0, 0, 1])
  await second.store.collect(() => these())
  await resumed.put(plain(chunks.filter((_, index) => lacking[index] === 1)))
  const { manifest, lease } = await resumed.commit(bytes.length, list(chunks))
  await lease.release()
  assert.equal(Buffer.compare(await readAll(second.store, manifest), bytes), 0)
  await assert.rejects(second.store.resumeUpload(begun.id), { code: 'not-found' })
})

test('chunks that lie are refused, and nothing of them is kept', async (t) => {
  const store = await fresh(t)
  const upload = await store.beginUpload({ owner: 'p' })
  const bytes = noise(CHUNK_BYTES, 1)
  const digest = sha256(bytes)
  const bomb = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024))
  const lies: WireChunk[] = [
    { digest, codec: 'plain', bytes: noise(CHUNK_BYTES, 2) },
    { digest, codec: 'zstd', bytes },
    { digest: sha256(Buffer.alloc(64 * 1024 * 1024)), codec: 'zstd', bytes: bomb.subarray(0, CHUNK_BYTES) },
    { digest, codec: 'plain', bytes: Buffer.concat([bytes, bytes]) },
    { digest, codec: 'plain', bytes: new Uint8Array(0) },
    { digest: digest.slice(1), codec: 'plain', bytes },
  ]
  for (const lie of lies) await assert.rejects(upload.put([lie]), { code: 'invalid-request' })
  await assert.rejects(upload.commit(CHUNK_BYTES, list([{ plain: new Uint8Array(bytes), digest }])), { code: 'conflict' })
  assert.equal((await store.stats()).chunks, 0)
})

test('a commit is refused where entries and size do not fit each other', async (t) => {
  const store = await fresh(t)
  const upload = await store.beginUpload({ owner: 'p' })
  const chunks = cut(noise(3 * CHUNK_BYTES + 10, 8))
  await upload.put(plain(chunks))
  const turned = [...chunks].reverse()
  for (const [bytes, entries] of [
    [3 * CHUNK_BYTES + 10, chunks.slice(1)],
    [2 * CHUNK_BYTES, chunks],
    [3 * CHUNK_BYTES + 11, chunks],
    [3 * CHUNK_BYTES + 10, turned],
    [-1, []],
    [2 ** 53, []],
  ] as const)
    await assert.rejects(upload.commit(bytes, list([...entries])), { code: 'invalid-request' })
  const { manifest } = await upload.commit(3 * CHUNK_BYTES + 10, list(chunks))
  assert.equal((await readAll(store, manifest)).length, 3 * CHUNK_BYTES + 10)
})

test('zeros that a client sends as chunks become entries', async (t) => {
  const store = await fresh(t)
  const bytes = new Uint8Array(2 * CHUNK_BYTES + 100)
  const parts = [0, 1, 2].map((index) => bytes.slice(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES))
  const upload = await store.beginUpload({ owner: 'p' })
  await upload.put(parts.map((part) => ({ digest: sha256(part), codec: 'plain', bytes: part })))
  const { manifest, allocatedBytes } = await upload.commit(
    bytes.length,
    (async function* () {
      for (const part of parts) yield sha256(part)
    })(),
  )
  assert.equal(allocatedBytes, 0)
  assert.equal(manifest, (await ingestAndRelease(store, bytes)).manifest)
})

test('chunks that come beside or after the end of an upload are kept by nothing', async (t) => {
  const store = await fresh(t)
  const bytes = noise(10 * CHUNK_BYTES, 1)
  const chunks = cut(bytes)
  const late = plain(cut(noise(20 * CHUNK_BYTES, 2)))
  for (const ending of ['commit', 'abandon'] as const) {
    const upload = await store.beginUpload({ owner: 'p' })
    await upload.put(plain(chunks))
    const beside = late.map((chunk) => upload.put([chunk]).catch((error) => assert.equal(error.code, 'conflict')))
    const ended = ending === 'commit' ? await upload.commit(bytes.length, list(chunks)) : await upload.abandon()
    await Promise.all(beside)
    await ended?.lease.release()
    await assert.rejects(upload.put(late), { code: 'conflict' })
    await assert.rejects(upload.lacks(late[0]!.digest), { code: 'conflict' })
    await store.collect(() => these(...(ended ? [ended.manifest] : [])))
    assert.equal((await store.stats()).chunks, ended ? 12 : 0, ending)
  }
})
