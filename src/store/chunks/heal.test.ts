import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { ServiceError } from '../../base/errors.ts'
import type { BlobStore } from '../blobs/blob-store.ts'
import { MemoryBlobStore } from '../blobs/memory/memory-blob-store.ts'
import type { ChunkStore, StoreFault } from './chunk-store.ts'
import { CHUNK_BYTES, openFsStore } from './kill-child.suite.ts'
import { freshFolder, ingestAndRelease, keysOf, memoryStore, noise, readAll, these } from './random-files.suite.ts'

const CHUNKS = 20

/** A store in a folder with one file, all of which lies in one pack. */
async function oneFile(t: TestContext) {
  const folder = freshFolder()
  const opened = await openFsStore(folder)
  t.after(opened.close)
  const bytes = noise(CHUNKS * CHUNK_BYTES, 1)
  const { manifest } = await ingestAndRelease(opened.store, bytes)
  const [pack = ''] = await keysOf(opened.blobs, 'packs/')
  return { ...opened, folder, bytes, manifest, pack, path: join(folder, 'blobs', pack) }
}

async function faultsOf(store: ChunkStore, manifests: readonly string[], readData = true): Promise<StoreFault[]> {
  return Array.fromAsync(store.check(() => these(...manifests), { readData }))
}

const digestOf = (bytes: Uint8Array, chunk: number) =>
  new Uint8Array(
    createHash('sha256')
      .update(bytes.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES))
      .digest(),
  )

/** Flips a bit of a chunk of noise, which is stored plain, one after the other. */
function damage(path: string, chunk: number): void {
  const bytes = readFileSync(path)
  bytes[8 + chunk * CHUNK_BYTES + 100]! ^= 4
  writeFileSync(path, bytes)
}

const isWhole = async (store: ChunkStore, manifest: string, bytes: Uint8Array) =>
  Buffer.compare(await readAll(store, manifest), bytes) === 0

for (const finder of ['a read', 'a check'] as const) {
  test(`what ${finder} finds damaged is stored anew when the same bytes come again, and every file that uses it is whole again`, async (t) => {
    const { folder, blobs, store, close, bytes, manifest, path } = await oneFile(t)
    const other = Buffer.concat([noise(3 * CHUNK_BYTES, 2), bytes.subarray(5 * CHUNK_BYTES, 9 * CHUNK_BYTES)])
    const second = await ingestAndRelease(store, other)
    damage(path, 7)
    const manifests = [manifest, second.manifest]
    if (finder === 'a read') await assert.rejects(readAll(store, manifest), { code: 'corrupt' })
    else assert.equal((await faultsOf(store, manifests)).length, 1)
    for (const readData of [true, false]) {
      const faults = await faultsOf(store, manifests, readData)
      assert.deepEqual(
        faults.map((fault) => [fault.kind, fault.manifests]),
        [['damaged-chunk', [...manifests].sort()]],
      )
    }
    const upload = await store.beginUpload({ owner: 'project' })
    assert.deepEqual([...(await upload.lacks(Buffer.concat([digestOf(bytes, 6), digestOf(bytes, 7)])))], [0, 1])
    await upload.abandon()

    const again = await ingestAndRelease(store, bytes)
    assert.equal(again.manifest, manifest)
    assert.equal(again.newBytes, CHUNK_BYTES, 'only the damaged chunk is stored')
    assert.ok(await isWhole(store, manifest, bytes))
    assert.ok(await isWhole(store, second.manifest, other), 'the file that did not come again reads too')
    assert.deepEqual(await faultsOf(store, manifests), [])
    assert.equal((await ingestAndRelease(store, bytes)).newBytes, 0)

    await store.collect(() => these(manifest, manifest, manifest, second.manifest))
    assert.deepEqual(await faultsOf(store, manifests), [])
    await close()
    const reopened = await openFsStore(folder)
    t.after(reopened.close)
    assert.ok(await isWhole(reopened.store, manifest, bytes))
    assert.ok(await isWhole(reopened.store, second.manifest, other))
    assert.deepEqual(await faultsOf(reopened.store, manifests), [])
    await reopened.store.collect(() => these())
    assert.deepEqual(await keysOf(blobs, 'packs/'), [], 'nothing of either copy is left')
  })
}

test('an upload by chunks mends what it sends', async (t) => {
  const { store, bytes, manifest, path } = await oneFile(t)
  damage(path, 3)
  await assert.rejects(readAll(store, manifest), { code: 'corrupt' })
  const upload = await store.beginUpload({ owner: 'project' })
  const digests = Array.from({ length: CHUNKS }, (_, chunk) => digestOf(bytes, chunk))
  const lacking = [...(await upload.lacks(Buffer.concat(digests)))]
  assert.deepEqual(
    lacking.flatMap((isLacking, chunk) => (isLacking ? [chunk] : [])),
    [3],
  )
  await assert.rejects(upload.commit(bytes.length, ofAll(digests)), { code: 'conflict', message: /Chunk 3 was never sent/ })
  await upload.put([{ digest: digests[3]!, codec: 'plain', bytes: bytes.subarray(3 * CHUNK_BYTES, 4 * CHUNK_BYTES) }])
  const sent = await upload.commit(bytes.length, ofAll(digests))
  await sent.lease.release()
  assert.ok(await isWhole(store, manifest, bytes))
})

async function* ofAll(digests: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* digests
}

for (const [what, harm] of [
  ['cut short', (path: string) => truncateSync(path, 8 + 10 * CHUNK_BYTES + 50)],
  ['gone', (path: string) => rmSync(path)],
  ['full of something else', (path: string) => writeFileSync(path, Buffer.alloc(readFileSync(path).length, 'x'))],
] as const) {
  test(`a pack that is ${what} while the store is open is mended by the same bytes`, async (t) => {
    const { folder, blobs, store, close, bytes, manifest, path } = await oneFile(t)
    harm(path)
    const faults = await faultsOf(store, [manifest])
    assert.ok(faults.length > 0)
    for (const fault of faults) assert.deepEqual(fault.manifests, [manifest], fault.message)
    await ingestAndRelease(store, bytes)
    assert.ok(await isWhole(store, manifest, bytes))
    assert.deepEqual(await faultsOf(store, [manifest]), [])
    await store.collect(() => these(manifest))
    assert.equal((await keysOf(blobs, 'packs/')).length, 1)
    await close()
    const reopened = await openFsStore(folder)
    t.after(reopened.close)
    assert.ok(await isWhole(reopened.store, manifest, bytes))
    assert.deepEqual(await faultsOf(reopened.store, [manifest]), [])
  })
}

test('a pack whose footer is damaged is emptied by the next collection, and nothing is lost', async (t) => {
  for (const at of [0, -10, -70]) {
    const { blobs, store, bytes, manifest, path, pack } = await oneFile(t)
    const packBytes = readFileSync(path)
    packBytes[(packBytes.length + at) % packBytes.length]! ^= 1
    writeFileSync(path, packBytes)
    assert.deepEqual(
      (await faultsOf(store, [manifest])).map(({ kind }) => kind),
      ['damaged-footer'],
    )
    const { packsRewritten } = await store.collect(() => these(manifest))
    assert.equal(packsRewritten, 1)
    assert.ok(!(await keysOf(blobs, 'packs/')).includes(pack))
    assert.deepEqual(await faultsOf(store, [manifest]), [])
    await store.rebuild(() => these(manifest))
    assert.ok(await isWhole(store, manifest, bytes))
  }
})

test('a collection moves what is whole out of a damaged pack once, and keeps the rest for a backup to mend', async (t) => {
  const { blobs, store, bytes, manifest, pack, path } = await oneFile(t)
  const before = readFileSync(path)
  damage(path, 4)
  await faultsOf(store, [manifest])
  assert.equal((await store.collect(() => these(manifest))).packsRewritten, 1)
  const { storedBytes } = await store.stats()
  assert.equal((await store.collect(() => these(manifest))).packsRewritten, 0)
  assert.equal((await store.stats()).storedBytes, storedBytes)
  assert.ok((await keysOf(blobs, 'packs/')).includes(pack))
  await assert.rejects(readAll(store, manifest), { code: 'corrupt' })
  writeFileSync(path, before)
  assert.ok(await isWhole(store, manifest, bytes))
  assert.deepEqual(await faultsOf(store, [manifest]), [], 'and is trusted again')
  assert.equal((await ingestAndRelease(store, bytes)).newBytes, 0)
})

test('an index that is made again takes the good copy of a chunk, whichever pack it meets first', async (t) => {
  for (let round = 0; round < 6; round += 1) {
    const { store, bytes, manifest, path } = await oneFile(t) // packs have random names
    damage(path, 2)
    await assert.rejects(readAll(store, manifest), { code: 'corrupt' })
    await ingestAndRelease(store, bytes)
    await store.rebuild(() => these(manifest))
    assert.ok(await isWhole(store, manifest, bytes))
    assert.deepEqual(await faultsOf(store, [manifest]), [])
    const { storedBytes } = await store.sizes(manifest)
    assert.equal((await store.stats()).storedBytes, storedBytes, 'each chunk counts once')
  }
})

/** Fails reads that `meets` says yes to, as a disk does. */
function failingReads(blobs: BlobStore, meets: (offset: number, length: number, key: string) => boolean): BlobStore {
  return {
    get: (key) => blobs.get(key),
    size: (key) => blobs.size(key),
    list: (prefix) => blobs.list(prefix),
    put: (key, parts) => blobs.put(key, parts),
    delete: (key) => blobs.delete(key),
    read: async (key, offset, length, into) => {
      if (meets(offset, length, key)) throw new ServiceError('unavailable', 'EIO')
      return blobs.read(key, offset, length, into)
    },
  }
}

test('a disk that does not answer condemns nothing; a place on it that cannot be read is mended', async (t) => {
  let meets = (_offset: number, _length: number, _key: string) => false
  const blobs = new MemoryBlobStore()
  const store = await memoryStore(
    failingReads(blobs, (offset, length, key) => meets(offset, length, key)),
    CHUNK_BYTES,
  )
  t.after(() => store.close())
  const bytes = noise(CHUNKS * CHUNK_BYTES, 1)
  const { manifest } = await ingestAndRelease(store, bytes)
  meets = () => true
  await assert.rejects(readAll(store, manifest), { code: 'unavailable' })
  assert.deepEqual(
    (await faultsOf(store, [manifest])).map((fault) => [fault.kind, fault.manifests]),
    [['unreadable', [manifest]]],
  )
  let failures = 1
  meets = (_, length) => length > CHUNK_BYTES && failures-- > 0
  assert.deepEqual(await faultsOf(store, [manifest]), [], 'the second try brings it')
  meets = () => false
  assert.equal((await ingestAndRelease(store, bytes)).newBytes, 0)

  const bad = 8 + 5 * CHUNK_BYTES
  const [pack] = await keysOf(blobs, 'packs/')
  meets = (offset, length, key) => key === pack && offset <= bad && offset + length > bad
  const faults = await faultsOf(store, [manifest])
  assert.deepEqual(
    faults.map((fault) => [fault.kind, fault.manifests]),
    [['damaged-chunk', [manifest]]],
  )
  assert.equal((await ingestAndRelease(store, bytes)).newBytes, CHUNK_BYTES)
  await store.collect(() => these(manifest)) // until then a read of its neighbours may still meet the bad place
  assert.ok(await isWhole(store, manifest, bytes))
  assert.deepEqual(await faultsOf(store, [manifest]), [])
})

test('a pack that cannot be read is reported and left alone, and everything else is checked and collected', async (t) => {
  let bad: string | undefined
  const blobs = new MemoryBlobStore()
  const store = await memoryStore(
    failingReads(blobs, (_offset, _length, key) => key === bad),
    CHUNK_BYTES,
  )
  t.after(() => store.close())
  const bring = async (bytes: Uint8Array) => {
    const before = await keysOf(blobs, 'packs/')
    const { manifest } = await ingestAndRelease(store, bytes)
    return { manifest, pack: (await keysOf(blobs, 'packs/')).find((key) => !before.includes(key))! }
  }
  const files = [noise(CHUNKS * CHUNK_BYTES, 1), noise(CHUNKS * CHUNK_BYTES, 2)]
  const [unreadable, gone, kept] = [await bring(files[0]!), await bring(noise(CHUNKS * CHUNK_BYTES, 3)), await bring(files[1]!)]
  await store.drop(gone.manifest)
  bad = unreadable.pack
  const live = [unreadable.manifest, kept.manifest]
  const faults = await faultsOf(store, live)
  assert.deepEqual(
    faults.map(({ kind, blob, manifests }) => ({ kind, blob, manifests })),
    [{ kind: 'unreadable', blob: unreadable.pack, manifests: [unreadable.manifest] }],
  )
  for (const round of [1, 2]) {
    const collecting = store.collect(() => these(...live))
    await assert.rejects(collecting, { code: 'unavailable', message: /everything else was collected/ }, `collection ${round}`)
    assert.ok(!(await keysOf(blobs, 'packs/')).includes(gone.pack), 'what nobody uses is freed')
    assert.ok(await isWhole(store, kept.manifest, files[1]!))
  }
  bad = undefined
  assert.deepEqual(await faultsOf(store, live), [])
  await store.collect(() => these(...live))
  for (const [index, manifest] of live.entries()) assert.ok(await isWhole(store, manifest, files[index]!))
  assert.deepEqual(await faultsOf(store, live), [])
})

test('where a manifest that cannot be read has no row, nothing is removed', async (t) => {
  let isBad = false
  const blobs = new MemoryBlobStore()
  const store = await memoryStore(
    failingReads(blobs, () => isBad),
    CHUNK_BYTES,
  )
  t.after(() => store.close())
  const bytes = noise(CHUNKS * CHUNK_BYTES, 1)
  const { manifest } = await ingestAndRelease(store, bytes)
  await store.rebuild(() => these())
  isBad = true
  await assert.rejects(
    store.collect(() => these(manifest)),
    { code: 'unavailable' },
  )
  isBad = false
  await store.collect(() => these(manifest))
  assert.ok(await isWhole(store, manifest, bytes))
})
