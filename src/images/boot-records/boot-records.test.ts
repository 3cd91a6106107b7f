import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import type { Caller } from '../../base/caller.ts'
import { stack } from '../../disk/block/block-source.ts'
import type { FirstRead } from '../../disk/filters/record-reads.ts'
import { encodeBootRecord } from '../../store/content/boot-record.ts'
import { sha256 } from '../../store/content/digests.ts'
import { deleteImage } from '../delete-image.ts'
import { type ImageWorld, imageWorld, sent, someone } from '../image-world.suite.ts'
import type { LeasedImage } from '../leases/lease.ts'
import { upload } from '../upload.ts'
import { bootFilters } from './boot-filters.ts'
import { findBootRecord, putBootRecord, saveFirstReads, sweepBootRecords } from './boot-records.ts'

const CHUNK = 65_536
let world: ImageWorld
before(async () => {
  world = await imageWorld()
})
after(() => world.close())
const alice = someone('alice')
const bob = someone('bob')
const admin = someone('root', 'admin')

async function newImage(owner: Caller, bytes: Buffer, members: Record<string, unknown> = {}): Promise<LeasedImage> {
  const { id } = await world.create(owner, members)
  await upload(world.ports, owner, id, sent(bytes))
  const { manifest, name } = (await world.ports.catalog.images.get(id))!
  return { id, name, owner: owner.projectId, manifest: manifest!, diskFormat: 'raw' }
}
const disk = (chunks = 200) =>
  Buffer.concat([randomBytes(20 * CHUNK), Buffer.alloc(10 * CHUNK), randomBytes((chunks - 30) * CHUNK)])
const order = [0, 1, 16, 17, 150, 40, 41, 42, 90, 33, 199, 60]
const reads = (units = order): FirstRead[] => units.map((unit, index) => ({ unit, afterMs: index * 10 }))
const chunksOf = async (image: LeasedImage) => {
  const found = await findBootRecord(world.ports, image)
  return found && { isOwn: found.isOwn, chunks: found.entries.map(({ chunk }) => chunk) }
}
const recordOf = (bytes: Buffer, units = order) =>
  encodeBootRecord(
    units.map((chunk, index) => ({
      chunk,
      afterMs: index,
      prefix: sha256(bytes.subarray(chunk * CHUNK, (chunk + 1) * CHUNK)).subarray(0, 4),
    })),
  )

test('the first start is recorded, and stays; what was no start is not kept', async () => {
  const image = await newImage(alice, disk())
  assert.equal(await chunksOf(image), undefined)
  const copy = Array.from({ length: 200 }, (_, unit) => unit)
  await saveFirstReads(world.ports, image, reads(copy))
  await saveFirstReads(world.ports, image, reads([0, 5]))
  assert.equal(await chunksOf(image), undefined)
  await saveFirstReads(world.ports, image, reads([...order, 25]))
  assert.deepEqual(await chunksOf(image), { isOwn: true, chunks: order })
  await saveFirstReads(world.ports, image, reads(order.toReversed()))
  assert.deepEqual(await chunksOf(image), { isOwn: true, chunks: order })
})

test('a descendant gets of the record what holds for it too; of several the one that is most like it', async () => {
  const bytes = disk()
  await saveFirstReads(world.ports, await newImage(alice, bytes), reads())
  const child = Buffer.from(bytes)
  randomBytes(CHUNK).copy(child, 150 * CHUNK)
  const image = await newImage(alice, child)
  assert.deepEqual(await chunksOf(image), { isOwn: false, chunks: order.filter((chunk) => chunk !== 150) })
  await saveFirstReads(world.ports, image, reads([0, 1, 17, 150, 16]))
  const grandchild = Buffer.from(child)
  randomBytes(CHUNK).copy(grandchild, 60 * CHUNK)
  const like = await newImage(alice, grandchild)
  assert.deepEqual(
    (await chunksOf(like))?.chunks,
    order.filter((chunk) => chunk !== 150 && chunk !== 60),
    'more of it holds',
  )
  assert.equal(await chunksOf(await newImage(alice, disk())), undefined, 'nothing in common')
})

test('nobody learns by a record what others store, unless all may see it', async () => {
  const bytes = disk()
  await saveFirstReads(world.ports, await newImage(alice, bytes), reads())
  const twin = await newImage(bob, bytes)
  assert.equal(await chunksOf(twin), undefined)
  const shared = await newImage(admin, Buffer.concat([bytes, randomBytes(10)]), { visibility: 'public' })
  await saveFirstReads(world.ports, shared, reads())
  assert.deepEqual(await chunksOf(twin), { isOwn: false, chunks: order })
  await deleteImage(world.ports, admin, shared.id)
  assert.equal(await chunksOf(twin), undefined)
})

test('a record that a host sends must be of chunks of this image; the first stays unless its owner replaces it', async () => {
  const bytes = disk()
  const image = await newImage(alice, bytes)
  const put = (record: Uint8Array, mayReplace = false) => putBootRecord(world.ports, image, record, mayReplace)
  await assert.rejects(put(new Uint8Array(30)), { code: 'invalid-request', message: /no boot record/ })
  await assert.rejects(put(recordOf(randomBytes(bytes.length))), { code: 'invalid-request', message: /0 of which/ })
  await assert.rejects(put(recordOf(bytes, [0, 1, 25, 2])), { code: 'invalid-request' }, 'chunk 25 is zeros')
  await assert.rejects(put(recordOf(Buffer.concat([bytes, bytes]), [0, 399])), { code: 'invalid-request' }, 'beyond the end')
  await assert.rejects(put(encodeBootRecord([])), { code: 'invalid-request' })
  await put(recordOf(bytes))
  await assert.rejects(put(recordOf(bytes, [5, 4, 3, 2])), { code: 'conflict' })
  assert.deepEqual((await chunksOf(image))?.chunks, order)
  await put(recordOf(bytes, [5, 4, 3, 2]), true)
  assert.deepEqual((await chunksOf(image))?.chunks, [5, 4, 3, 2])
})

test('a record goes when nothing names its manifest any more', async () => {
  await sweepBootRecords(world.ports.catalog)
  const bytes = disk()
  const [one, two] = [await newImage(alice, bytes), await newImage(alice, bytes)]
  await saveFirstReads(world.ports, one, reads())
  await deleteImage(world.ports, alice, one.id)
  assert.equal(await sweepBootRecords(world.ports.catalog), 0)
  assert.deepEqual((await chunksOf(two))?.chunks, order)
  await deleteImage(world.ports, alice, two.id)
  assert.equal(await sweepBootRecords(world.ports.catalog), 1)
  for (const kind of ['boot-record', 'boot-record-start']) {
    const left = await world.ports.catalog.documents.list<{ manifest?: string }>(kind, { limit: 1000 })
    assert.ok(!left.some(({ key }) => key.includes(two.manifest)), kind)
  }
})

test('a disk that is opened to start machines records the first start, and fetches ahead by it at the next', async () => {
  const bytes = disk()
  const image = await newImage(alice, bytes)
  const start = async (units: readonly number[]) => {
    const file = await world.chunks.open(image.manifest)
    const fetched: number[] = []
    const watched = {
      ...{ size: file.size, read: file.read.bind(file), extents: file.extents.bind(file), close: file.close.bind(file) },
      prefetch: async (offset: number, length: number) => {
        for (let at = offset; at < offset + length; at += CHUNK) fetched.push(at / CHUNK)
        await file.prefetch(offset, length)
      },
    }
    const source = stack(watched, await bootFilters(world.ports, image, watched))
    for (const unit of units) assert.equal((await source.read(unit * CHUNK, 512)).length, 512)
    await source.close()
    return fetched
  }
  assert.deepEqual(await start(order), [])
  while (!(await chunksOf(image))) await new Promise(setImmediate) // it is written behind the reader's back
  const fetched = await start([0])
  assert.deepEqual(fetched.slice(0, 3), order.slice(1, 4))
})
