import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { MemoryBlobStore } from '../blobs/memory/memory-blob-store.ts'
import {
  fileOf,
  ingestAndRelease,
  inSteps,
  keysOf,
  memoryStore,
  noise,
  type Piece,
  readAll,
  these,
} from './random-files.suite.ts'

const CHUNK = 4096
const blobs = new MemoryBlobStore()
const store = await memoryStore(blobs, CHUNK)
after(() => store.close())

const piece: fc.Arbitrary<Piece> = fc.record({
  fill: fc.constantFrom('zeros', 'text', 'noise'),
  bytes: fc.oneof(fc.nat(3 * CHUNK), fc.constantFrom(CHUNK, 2 * CHUNK, 300 * CHUNK)),
  seed: fc.nat(3),
})

test('what is ingested in any pieces is read back the same, whole and in ranges', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(piece, { maxLength: 6 }),
      fc.integer({ min: 100, max: 2_000_000 }),
      fc.nat(),
      fc.nat(),
      async (pieces, step, a, b) => {
        const bytes = fileOf(pieces)
        const ingested = await store.ingest(inSteps(bytes, step), { owner: 'p', digests: ['md5', 'sha512'] })
        assert.equal(ingested.fileBytes, bytes.length)
        assert.equal(ingested.digests.md5, createHash('md5').update(bytes).digest('hex'))
        assert.equal(ingested.digests.sha512, createHash('sha512').update(bytes).digest('hex'))
        assert.equal(Buffer.compare(await readAll(store, ingested.manifest), bytes), 0)
        const offset = a % (bytes.length + 1)
        const length = b % (bytes.length - offset + 1)
        const slice = bytes.subarray(offset, offset + length)
        assert.equal(Buffer.compare(await readAll(store, ingested.manifest, offset, length), slice), 0)
        const source = await store.open(ingested.manifest)
        assert.equal(Buffer.compare(await source.read(offset, length), slice), 0)
        for await (const extent of source.extents(offset, length))
          if (extent.kind !== 'data')
            assert.ok(bytes.subarray(extent.offset, extent.offset + extent.length).every((x) => x === 0))
        const again = await store.ingestDisk(source, { owner: 'p', digests: ['md5'] })
        assert.equal(again.manifest, ingested.manifest, 'one file has one manifest')
        assert.equal(again.digests.md5, ingested.digests.md5)
        assert.equal(again.newBytes, 0)
        assert.equal(again.allocatedBytes, ingested.allocatedBytes)
        await source.close()
        await ingested.lease.release()
        await again.lease.abandon()
      },
    ),
    { numRuns: 25 },
  )
})

test('what nobody names is gone after one collection, and what somebody names is not', async (t) => {
  const mine = await memoryStore(new MemoryBlobStore(), CHUNK)
  t.after(() => mine.close())
  const keep = noise(200 * CHUNK, 1)
  const both = noise(100 * CHUNK, 2)
  const kept = await ingestAndRelease(mine, Buffer.concat([keep, both]))
  const dropped = await ingestAndRelease(mine, Buffer.concat([both, noise(300 * CHUNK, 3)]))
  assert.ok(dropped.exclusiveBytes < dropped.storedBytes)
  await mine.drop(dropped.manifest)
  const report = await mine.collect(() => these(kept.manifest))
  assert.ok(report.chunksRemoved >= 300)
  assert.equal(report.liveManifests, 1)
  assert.equal(Buffer.compare(await readAll(mine, kept.manifest), Buffer.concat([keep, both])), 0)
  await assert.rejects(readAll(mine, dropped.manifest), { code: 'not-found' })
  const sizes = await mine.sizes(kept.manifest)
  assert.equal(sizes.exclusiveBytes, sizes.storedBytes)
  assert.equal((await mine.stats()).storedBytes, sizes.storedBytes)
  await mine.drop(kept.manifest)
  await mine.collect(() => these())
  assert.equal((await mine.stats()).chunks, 0)
})

test('a store without manifests has no packs after a collection', async () => {
  await store.collect(() => these())
  assert.deepEqual(await keysOf(blobs), ['store.json'])
})
