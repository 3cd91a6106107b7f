import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { type BlockSource, stack } from '../../disk/block/block-source.ts'
import { bytesSource, memorySource } from '../../disk/block/memory-source.ts'
import { window } from '../../disk/filters/window.ts'
import { MemoryBlobStore } from '../blobs/memory/memory-blob-store.ts'
import type { ByteRange, ChunkStore, Ingested } from './chunk-store.ts'
import { fileOf, ingestAndRelease, keysOf, memoryStore, noise, type Piece, readAll, these } from './random-files.suite.ts'

const CHUNK = 4096
const store = await memoryStore(new MemoryBlobStore(), CHUNK)
after(() => store.close())

/** Counts what is read of a disk, by the chunks that it touches. */
function watched(disk: BlockSource) {
  const chunks = new Set<number>()
  const source: BlockSource = {
    ...disk,
    read: (offset, length) => {
      for (let chunk = Math.floor(offset / CHUNK); chunk * CHUNK < offset + length; chunk += 1) chunks.add(chunk)
      return disk.read(offset, length)
    },
  }
  return { source, chunks }
}

/** What a new file is in the store, apart from how much of it was new. */
const factsOf = ({ manifest, fileBytes, allocatedBytes, storedBytes, exclusiveBytes }: Ingested) => ({
  manifest,
  fileBytes,
  allocatedBytes,
  storedBytes,
  exclusiveBytes,
})

const piece: fc.Arbitrary<Piece> = fc.record({
  fill: fc.constantFrom('zeros', 'text', 'noise'),
  bytes: fc.oneof(fc.nat(3 * CHUNK), fc.constantFrom(CHUNK, 2 * CHUNK, 1024 * CHUNK, 1100 * CHUNK)),
  seed: fc.nat(3),
})
/** Where a change begins, in thousandths of the disk; how long it is; what is there then. */
const change = fc.record({ at: fc.nat(999), piece })

/** The base, resized and with the changes on it: the disk, and the ranges that changed. */
function changedDisk(base: Uint8Array, diskBytes: number, changes: readonly { at: number; piece: Piece }[]) {
  const disk = new Uint8Array(diskBytes)
  disk.set(base.subarray(0, diskBytes))
  const changed: ByteRange[] = []
  let end = 0
  for (const { at, piece } of [...changes].sort((a, b) => a.at - b.at)) {
    const offset = Math.max(end, Math.floor((at * diskBytes) / 1000))
    const bytes = fileOf([piece]).subarray(0, Math.max(0, Math.min(diskBytes - offset, 5 * CHUNK)))
    disk.set(bytes, offset)
    changed.push({ offset, length: bytes.length })
    end = offset + bytes.length
  }
  return { disk, changed }
}

test('a disk by its changes has the manifest that it has by all its bytes, whatever changed and however large it became', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(piece, { maxLength: 4 }),
      fc.array(change, { maxLength: 6 }),
      fc.oneof(fc.constant(0), fc.integer({ min: -3 * CHUNK, max: 3 * CHUNK }), fc.constantFrom(-1500 * CHUNK, 1500 * CHUNK)),
      fc.boolean(),
      async (pieces, changes, grown, isSparse) => {
        const base = fileOf(pieces)
        const { manifest, lease } = await store.ingest(pieceOf(base), { owner: 'p' })
        await lease.release()
        const { disk, changed } = changedDisk(base, Math.max(0, base.length + grown), changes)
        const whole = await store.ingest(pieceOf(disk), { owner: 'p' })
        const { source, chunks } = watched(isSparse ? sparse(disk) : bytesSource(disk))
        const over = await store.ingestDisk(source, { owner: 'p', over: { manifest, changed } })
        assert.deepEqual(factsOf(over), factsOf(whole))
        assert.equal(over.newBytes, 0)
        assert.equal(Buffer.compare(await readAll(store, over.manifest), disk), 0)
        const touched = touchedChunks(changed, base.length, disk.length)
        for (const chunk of chunks) assert.ok(touched(chunk), `chunk ${chunk} was read and nothing in it changed`)
        for (const one of [whole, over]) await one.lease.abandon()
        await store.drop(manifest, 'p')
      },
    ),
    { numRuns: 40 },
  )
})

async function* pieceOf(bytes: Uint8Array) {
  yield bytes
}

/** Runs of zeros are holes. */
function sparse(bytes: Uint8Array): BlockSource {
  const pieces = []
  for (let offset = 0; offset < bytes.length; offset += 512) {
    const part = bytes.subarray(offset, offset + 512)
    if (part.some((byte) => byte !== 0)) pieces.push({ offset, bytes: part })
  }
  return memorySource(bytes.length, pieces)
}

function touchedChunks(changed: readonly ByteRange[], baseBytes: number, diskBytes: number) {
  const known = baseBytes === diskBytes ? diskBytes : Math.floor(Math.min(baseBytes, diskBytes) / CHUNK) * CHUNK
  return (chunk: number): boolean =>
    (chunk + 1) * CHUNK > known ||
    changed.some(({ offset, length }) => offset < (chunk + 1) * CHUNK && offset + length > chunk * CHUNK)
}

test('what changed may come piece by piece, and is asked for in order', async () => {
  const base = noise(3000 * CHUNK, 40)
  const { manifest } = await ingestAndRelease(store, base)
  const disk = new Uint8Array(base)
  const ranges = async function* () {
    for (let offset = 100; offset < disk.length; offset += 500 * CHUNK) {
      disk.fill(9, offset, offset + 10)
      yield { offset, length: 5 }
      yield { offset: offset + 5, length: 5 }
      yield { offset: offset + 5 * CHUNK, length: 0 }
    }
  }
  const { source, chunks } = watched(bytesSource(disk))
  const over = await store.ingestDisk(source, { owner: 'p', over: { manifest, changed: ranges() } })
  assert.deepEqual([...chunks], [0, 500, 1000, 1500, 2000, 2500])
  assert.equal(Buffer.compare(await readAll(store, over.manifest), disk), 0)
  await over.lease.abandon()
})

test('ranges that do not ascend or lie outside are refused, and nothing is left of the disk', async (t) => {
  const mine = await memoryStore(new MemoryBlobStore(), CHUNK)
  t.after(() => mine.close())
  const { manifest } = await ingestAndRelease(mine, noise(100 * CHUNK, 1))
  const disk = bytesSource(noise(90 * CHUNK, 2))
  const { chunks } = await mine.stats()
  for (const changed of [
    [
      { offset: CHUNK, length: 10 },
      { offset: CHUNK + 9, length: 1 },
    ],
    [{ offset: -1, length: 5 }],
    [{ offset: 0, length: 90 * CHUNK + 1 }],
    [{ offset: 0.5, length: 1 }],
    [{ offset: 5, length: -1 }],
    [{ offset: 0, length: Number.NaN }],
  ]) {
    await assert.rejects(mine.ingestDisk(disk, { owner: 'p', over: { manifest, changed } }), { code: 'invalid-request' })
  }
  const changed = [{ offset: 0, length: CHUNK }]
  await assert.rejects(mine.ingestDisk(disk, { owner: 'p', over: { manifest: '0'.repeat(64), changed } }), { code: 'not-found' })
  await assert.rejects(mine.ingestDisk(disk, { owner: 'p', over: { manifest: 'x', changed } }), { code: 'not-found' })
  await assert.rejects(mine.ingestDisk(disk, { owner: 'p', maxBytes: 1, over: { manifest, changed } }), { code: 'too-large' })
  const stopped = AbortSignal.abort()
  await assert.rejects(mine.ingestDisk(disk, { owner: 'p', signal: stopped, over: { manifest, changed } }), { code: 'cancelled' })
  await mine.collect(() => these(manifest))
  assert.equal((await mine.stats()).chunks, chunks)
})

test('what is said to be unchanged and is not, harms the new file alone', async (t) => {
  const mine = await memoryStore(new MemoryBlobStore(), CHUNK)
  t.after(() => mine.close())
  const base = noise(100 * CHUNK, 1)
  const { manifest } = await ingestAndRelease(mine, base)
  const lied = await mine.ingestDisk(bytesSource(noise(100 * CHUNK, 2)), { owner: 'q', over: { manifest, changed: [] } })
  assert.equal(lied.manifest, manifest, 'it is what it was said to be')
  const { chunks } = await mine.stats()
  assert.equal(chunks, 102)
  await lied.lease.abandon()
  await mine.collect(() => these({ manifest, owner: 'project' }))
  assert.equal(Buffer.compare(await readAll(mine, manifest), base), 0)
})

test('who owns the new file has the chunks of the old one, and others who look are told nothing', async () => {
  const base = noise(50 * CHUNK, 60)
  const { manifest } = await ingestAndRelease(store, base, 'alice')
  const disk = new Uint8Array(base)
  disk.fill(1, 0, 10)
  const over = await store.ingestDisk(bytesSource(disk), {
    owner: 'bob',
    over: { manifest, changed: [{ offset: 0, length: 10 }] },
  })
  await over.lease.release()
  const lacking = async (owner: string) => {
    const upload = await store.beginUpload({ owner })
    const [first, second] = await upload.lacks(digestsOf(base.subarray(0, 2 * CHUNK)))
    await upload.abandon()
    return [first, second]
  }
  assert.deepEqual(await lacking('alice'), [0, 0])
  assert.deepEqual(await lacking('bob'), [1, 0], 'the first chunk is another one now')
  assert.deepEqual(await lacking('carol'), [1, 1])
  await store.drop(over.manifest, 'bob')
  await store.drop(manifest, 'alice')
})

const digestsOf = (bytes: Uint8Array): Uint8Array =>
  new Uint8Array(
    Buffer.concat(
      Array.from({ length: bytes.length / CHUNK }, (_, chunk) =>
        createHash('sha256')
          .update(bytes.subarray(chunk * CHUNK, (chunk + 1) * CHUNK))
          .digest(),
      ),
    ),
  )

test('the file below may be deleted and collected meanwhile, and afterwards', async (t) => {
  const blobs = new MemoryBlobStore()
  const mine = await memoryStore(blobs, CHUNK)
  t.after(() => mine.close())
  const base = noise(3000 * CHUNK, 70)
  const { manifest } = await ingestAndRelease(mine, base)
  const disk = new Uint8Array(base)
  disk.fill(3, 2000 * CHUNK, 2001 * CHUNK)
  const changed = async function* () {
    yield { offset: 0, length: 1 }
    await mine.drop(manifest, 'project')
    await mine.collect(() => these())
    yield { offset: 2000 * CHUNK, length: CHUNK }
    await mine.collect(() => these())
  }
  const over = await mine.ingestDisk(bytesSource(disk), { owner: 'p', over: { manifest, changed: changed() } })
  await mine.collect(() => these())
  assert.equal(Buffer.compare(await readAll(mine, over.manifest), disk), 0, 'the lease keeps all of it')
  await over.lease.release()
  await mine.collect(() => these({ manifest: over.manifest, owner: 'p' }))
  assert.equal(Buffer.compare(await readAll(mine, over.manifest), disk), 0)
  await mine.drop(over.manifest, 'p')
  await mine.collect(() => these())
  assert.deepEqual(await keysOf(blobs), ['store.json'])
})

test('chunks that the store lost are read from the disk, and the file below is whole again', async (t) => {
  const blobs = new MemoryBlobStore()
  const mine = await memoryStore(blobs, CHUNK)
  t.after(() => mine.close())
  const base = noise(300 * CHUNK, 80)
  const { manifest } = await ingestAndRelease(mine, base)
  await damageOneChunk(mine, blobs, manifest)
  const { source, chunks } = watched(bytesSource(base))
  const over = await mine.ingestDisk(source, { owner: 'p', over: { manifest, changed: [] } })
  assert.deepEqual([chunks.size, over.newBytes], [1, CHUNK])
  assert.equal(over.manifest, manifest)
  assert.equal(Buffer.compare(await readAll(mine, manifest), base), 0)
  await over.lease.abandon()
})

/** Has the store find out that a chunk in the middle of a pack is not what it was. */
async function damageOneChunk(mine: ChunkStore, blobs: MemoryBlobStore, manifest: string): Promise<void> {
  const [pack = ''] = await keysOf(blobs, 'packs/')
  const bytes = Buffer.from(await blobs.get(pack))
  bytes[100 * CHUNK]! ^= 1
  await blobs.delete(pack)
  await blobs.put(pack, [bytes])
  for await (const _ of mine.check(() => these(manifest), { readData: true }));
}

test('a window of a larger disk will do as well', async () => {
  const base = noise(20 * CHUNK, 90)
  const { manifest } = await ingestAndRelease(store, base)
  const disk = stack(bytesSource(new Uint8Array(Buffer.concat([noise(CHUNK, 1), base]))), [window(CHUNK, base.length)])
  const over = await store.ingestDisk(disk, { owner: 'p', over: { manifest, changed: [{ offset: 0, length: base.length }] } })
  assert.equal(over.manifest, manifest)
  await over.lease.abandon()
})
