import assert from 'node:assert/strict'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { StoreFault } from './chunk-store.ts'
import { CHUNK_BYTES, openFsStore } from './kill-child.suite.ts'
import { freshFolder, ingestAndRelease, keysOf, noise, readAll, these } from './random-files.suite.ts'

/** Two files that share a part; all in one pack each. */
async function twoFiles(t: TestContext) {
  const folder = freshFolder()
  const { blobs, store, close } = await openFsStore(folder)
  t.after(close)
  const [shared, one, other] = [noise(20 * CHUNK_BYTES, 1), Buffer.alloc(20 * CHUNK_BYTES, 'one '), noise(20 * CHUNK_BYTES, 3)]
  const files = [Buffer.concat([shared, one]), Buffer.concat([other, shared])]
  const manifests: string[] = []
  const packs: string[] = []
  for (const bytes of files) {
    manifests.push((await ingestAndRelease(store, bytes)).manifest)
    packs.push(...(await keysOf(blobs, 'packs/')).filter((key) => !packs.includes(key)))
  }
  return { folder, blobs, store, close, files, manifests, packs }
}

async function faultsOf(iterable: AsyncIterable<StoreFault>): Promise<StoreFault[]> {
  const faults: StoreFault[] = []
  for await (const fault of iterable) faults.push(fault)
  return faults
}

test('any flipped bit of a pack is found by a check, which names the files that cannot be read, and no wrong byte is read', async (t) => {
  const { folder, store, files, manifests, packs } = await twoFiles(t)
  assert.equal(packs.length, 2)
  for (let round = 0; round < 24; round += 1) {
    const path = join(folder, 'blobs', packs[round % 2]!)
    const bytes = readFileSync(path)
    const length = statSync(path).size
    // the first and last bytes of header, frames, footer and trailer, then anywhere
    const edges = [0, 8, 9, 12, length - 1, length - 33, length - 64, length - 65]
    const at = edges[round >> 1] ?? Math.floor(Math.random() * length)
    const bit = 1 << Math.floor(Math.random() * 8)
    const damaged = Buffer.from(bytes)
    damaged[at]! ^= bit
    writeFileSync(path, damaged)
    const where = `byte ${at} of ${length}, bit ${bit}`
    try {
      const faults = await faultsOf(store.check(() => these(...manifests)))
      assert.ok(faults.length > 0, `found: ${where}`)
      const named = new Set(faults.flatMap((fault) => fault.manifests))
      for (const [index, manifest] of manifests.entries()) {
        const read = await readAll(store, manifest).catch((error) => assert.equal(error.code, 'corrupt', where))
        if (read) assert.equal(Buffer.compare(read, files[index]!), 0, `no wrong byte is read: ${where}`)
        else assert.ok(named.has(manifest), `named: ${where}`)
      }
      const chunkFaults = faults.filter(({ kind }) => kind === 'damaged-chunk')
      if (chunkFaults.length === 1 && round % 2 === 1)
        assert.deepEqual([...named], [manifests[1]], 'the first file has no part of it')
    } finally {
      writeFileSync(path, bytes)
    }
  }
})

test('a lost pack is named, and the chunks in it are stored again when they come again', async (t) => {
  const { folder, blobs, close, files, manifests } = await twoFiles(t)
  await close()
  for (const key of await keysOf(blobs, 'packs/')) await blobs.delete(key)
  const reopened = await openFsStore(folder)
  t.after(reopened.close)
  const faults = await faultsOf(reopened.store.check(() => these(...manifests)))
  assert.deepEqual(
    faults.filter(({ kind }) => kind === 'missing-blob').map((fault) => fault.manifests),
    [[...manifests].sort(), [manifests[1]]],
  )
  await assert.rejects(readAll(reopened.store, manifests[0]!), { code: 'corrupt' })
  for (const bytes of files) await ingestAndRelease(reopened.store, bytes)
  for (const [index, manifest] of manifests.entries())
    assert.equal(Buffer.compare(await readAll(reopened.store, manifest), files[index]!), 0)
  await reopened.store.collect(() => these(...manifests))
  assert.deepEqual(await faultsOf(reopened.store.check(() => these(...manifests))), [])
})

test('a deleted index is made again from footers and manifests, and answers the same', async (t) => {
  const { folder, store, close, files, manifests } = await twoFiles(t)
  const dropped = await ingestAndRelease(store, noise(5 * CHUNK_BYTES, 9))
  await store.drop(dropped.manifest)
  await store.collect(() => these(...manifests))
  const facts = async (from: typeof store) => ({
    sizes: await Promise.all(manifests.map((manifest) => from.sizes(manifest))),
    stats: { ...(await from.stats()), counters: undefined },
  })
  const before = await facts(store)
  await close()
  for (const name of ['index.db', 'index.db-wal']) writeFileSync(join(folder, name), '')
  const reopened = await openFsStore(folder)
  t.after(reopened.close)
  const rebuilt = await reopened.store.rebuild(() => these(...manifests))
  assert.equal(rebuilt.packs, before.stats.packs)
  assert.equal(rebuilt.chunks, before.stats.chunks)
  assert.deepEqual(await facts(reopened.store), before)
  for (const [index, manifest] of manifests.entries())
    assert.equal(Buffer.compare(await readAll(reopened.store, manifest), files[index]!), 0)
  assert.deepEqual(await faultsOf(reopened.store.check(() => these(...manifests))), [])
  const report = await reopened.store.collect(() => these(...manifests))
  assert.equal(report.chunksRemoved, 0)
})

test('a collection right after the index was lost keeps all that records name', async (t) => {
  const { folder, close, files, manifests } = await twoFiles(t)
  await close()
  for (const name of ['index.db', 'index.db-wal']) writeFileSync(join(folder, name), '')
  const reopened = await openFsStore(folder)
  t.after(reopened.close)
  await reopened.store.collect(() => these(manifests[0]!))
  await reopened.store.collect(() => these(manifests[0]!))
  assert.equal(Buffer.compare(await readAll(reopened.store, manifests[0]!), files[0]!), 0)
  const sizes = await reopened.store.sizes(manifests[0]!)
  assert.equal((await reopened.store.stats()).storedBytes, sizes.storedBytes)
})
