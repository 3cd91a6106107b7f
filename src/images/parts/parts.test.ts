import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { memorySource } from '../../disk/block/memory-source.ts'
import { MemoryBlobStore } from '../../store/blobs/memory/memory-blob-store.ts'
import { deactivate } from '../activation.ts'
import { deleteImage } from '../delete-image.ts'
import { imageSizes } from '../image-sizes.ts'
import { type ImageWorld, imageWorld, sent, someone } from '../image-world.suite.ts'
import { DiskLeases } from '../leases/disk-leases.ts'
import { LeasedDisks } from '../leases/leased-disks.ts'
import { addMember } from '../members.ts'
import type { NewPart } from '../snapshots/add-part.ts'
import { ImageSnapshots } from '../snapshots/snapshots.ts'
import { StoreJobs } from '../store-jobs.ts'
import { upload } from '../upload.ts'
import { allParts, MAX_PARTS } from './image-parts.ts'

const MiB = 2 ** 20
let world: ImageWorld
let snapshots: ImageSnapshots
let leases: DiskLeases
let disks: LeasedDisks
before(async () => {
  world = await imageWorld()
  snapshots = new ImageSnapshots(world.ports)
  disks = new LeasedDisks(world.ports, null)
  leases = new DiskLeases({ ...world.ports, disks, scratchQuotaBytes: 0 }, '/run/nbd.sock')
})
after(() => world.close())

const alice = someone('alice')
const bob = someone('bob')
const machine: NewPart = { kind: 'machine', name: 'machine', text: '{"memoryMiB":64}' }
const memory = (bytes: Uint8Array): NewPart => ({
  kind: 'memory',
  name: 'memory',
  body: (async function* () {
    for (let at = 0; at < bytes.length; at += 10_000) yield bytes.subarray(at, at + 10_000)
  })(),
})
const disk = (name: string, bytes: Uint8Array): NewPart => ({ kind: 'disk', name, disk: diskOf(bytes) })
const diskOf = (bytes: Uint8Array) => ({
  bytes: bytes.length,
  leaseId: null,
  layers: [memorySource(bytes.length, [{ offset: 0, bytes }])],
})

async function queued(): Promise<string> {
  const id = randomUUID()
  await snapshots.begin(alice, { id, name: 'machine', bytes: MiB, minDisk: 0, minRam: 0, properties: {} })
  return id
}
/** An image with all kinds of parts. */
async function machineImage() {
  const [root, data, ram] = [randomBytes(MiB), randomBytes(300_032), randomBytes(200_000)]
  const id = await queued()
  await snapshots.addPart(id, machine)
  await snapshots.addPart(id, memory(ram))
  await snapshots.addPart(id, disk('data', data))
  await snapshots.save(id, { disk: diskOf(root), properties: {} })
  await world.ports.jobs.idle()
  return { id, root, data, ram }
}
const partOf = (caller: typeof alice, id: string, name: string) => buffer(leases.readPart(caller, id, name))
async function assertNothingLeft(): Promise<void> {
  await world.collect()
  const { chunks, packs, manifests } = await world.chunks.stats()
  assert.deepEqual({ chunks, packs, manifests }, { chunks: 0, packs: 0, manifests: 0 })
  assert.deepEqual(await Array.fromAsync(allParts(world.ports.catalog)), [])
}

test('parts are read over collections and a lost index, by whoever may download the image, and go with it', async () => {
  const { id, data, ram } = await machineImage()
  assert.deepEqual(await leases.parts(alice, id), [
    { name: 'data', kind: 'disk', bytes: data.length },
    { name: 'machine', kind: 'machine', bytes: 16 },
    { name: 'memory', kind: 'memory', bytes: ram.length },
  ])
  const jobs = new StoreJobs(world.ports, { blobs: new MemoryBlobStore(), open: async () => assert.fail() })
  for (const job of ['collect', 'rebuild', 'collect'] as const) {
    await jobs[job]()
    assert.ok(ram.equals(await partOf(alice, id, 'memory')), job)
    assert.equal((await partOf(alice, id, 'machine')).toString(), '{"memoryMiB":64}')
    assert.deepEqual(await jobs.check({ readData: true }, ({ message }) => assert.fail(message)), { faults: 0 })
    assert.equal((await world.chunks.stats()).manifests, 4, 'a row for each')
  }
  assert.equal((await leases.showPart(alice, id, 'data')).diskBytes, data.length)
  const lent = await leases.lend(alice, id, 'instance 1', { withParts: true })
  const reading = leases.readPart(alice, id, 'memory')[Symbol.asyncIterator]()
  const first = Buffer.from((await reading.next()).value!)
  await deleteImage(world.ports, alice, id)
  await world.collect()
  assert.ok(data.equals(Buffer.concat(await Array.fromAsync(leases.readLentPart(lent.leaseId, 'data')))), 'a lease keeps it')
  const rest = await Array.fromAsync({ [Symbol.asyncIterator]: () => reading })
  assert.ok(ram.equals(Buffer.concat([first, ...rest])), 'who reads goes on to the end')
  await assert.rejects(partOf(alice, id, 'memory'), { code: 'not-found' })
  await leases.release(lent.leaseId)
  await assertNothingLeft()
})

test('what is lent with its parts may be deleted: they are there until it is released', async () => {
  const { id, ram } = await machineImage()
  const disk = await leases.lend(alice, id, 'instance 1')
  const whole = await leases.lend(alice, id, 'instance 1', { withParts: true })
  await assert.rejects(leases.lend(bob, id, 'instance 1', { withParts: true }), { code: 'not-found' })
  await deleteImage(world.ports, alice, id)
  await world.collect()
  const read = async (leaseId: string, part: string) => Buffer.concat(await Array.fromAsync(leases.readLentPart(leaseId, part)))
  assert.deepEqual(
    (await leases.lentParts(whole.leaseId)).map(({ name }) => name),
    ['data', 'machine', 'memory'],
  )
  assert.ok(ram.equals(await read(whole.leaseId, 'memory')))
  assert.deepEqual(await leases.lentParts(disk.leaseId), [])
  await assert.rejects(read(disk.leaseId, 'memory'), { code: 'not-found' })
  await assert.rejects(read(whole.leaseId, 'other'), { code: 'not-found' })
  for (const { leaseId } of [disk, whole]) await leases.release(leaseId)
  await assert.rejects(leases.lentParts(whole.leaseId), { code: 'not-found' })
  await assertNothingLeft()
})

test('who may not download the image learns nothing of its parts', async () => {
  const { id, ram } = await machineImage()
  for (const [caller, code] of [
    [bob, 'not-found'],
    [someone('alice', 'reader'), 'denied'],
  ] as const) {
    await assert.rejects(leases.parts(caller, id), { code })
    await assert.rejects(partOf(caller, id, 'memory'), { code })
    await assert.rejects(leases.showPart(caller, id, 'data'), { code })
  }
  const { version } = (await world.ports.catalog.images.get(id))!
  await world.ports.catalog.write(({ images }) => images.update(id, version, { visibility: 'shared' }))
  await addMember(world.ports, alice, id, 'bob')
  assert.ok(ram.equals(await partOf(bob, id, 'memory')))
  await assert.rejects(leases.showPart(alice, id, 'memory'), { code: 'unsupported', message: /no disk/ })
  await assert.rejects(leases.showPart(alice, id, 'other'), { code: 'not-found' })
  await deactivate(world.ports, alice, id)
  await assert.rejects(leases.parts(alice, id), { code: 'denied' })
  await assert.rejects(leases.showPart(someone('root', 'admin'), id, 'data'), { code: 'conflict' })
  await deleteImage(world.ports, alice, id)
  await assertNothingLeft()
})

test('parts are seen when their image is active, and not of an image that was uploaded', async () => {
  const id = await queued()
  await snapshots.addPart(id, machine)
  assert.deepEqual(await leases.parts(alice, id), [])
  await assert.rejects(partOf(alice, id, 'machine'), { code: 'not-found' })
  await world.collect()
  await snapshots.save(id, { disk: diskOf(randomBytes(512)), properties: {} })
  assert.equal((await partOf(alice, id, 'machine')).toString(), '{"memoryMiB":64}')
  await assert.rejects(leases.showPart(alice, id, 'machine'), { code: 'unsupported' })
  const { id: other } = await world.create(alice)
  await upload(world.ports, alice, other, sent(Buffer.from('x')))
  assert.deepEqual(await leases.parts(alice, other), [])
  await world.ports.jobs.idle()
  for (const each of [id, other]) await deleteImage(world.ports, alice, each)
  await assertNothingLeft()
})

test('a part of the same name takes the place of the one before, and what is refused leaves nothing', async () => {
  const id = await queued()
  const [first, second] = [randomBytes(200_000), randomBytes(100_000)]
  await snapshots.addPart(id, memory(first))
  await snapshots.addPart(id, memory(second))
  await snapshots.addPart(id, memory(second))
  await world.collect()
  assert.equal((await world.chunks.stats()).chunks, 2 + 2, 'of the second alone')
  for (const name of ['', 'a/b', 'a b', 'ü', 'x'.repeat(41)]) {
    await assert.rejects(snapshots.addPart(id, { ...machine, name }), { code: 'invalid-request' })
  }
  await assert.rejects(snapshots.addPart(id, { ...machine, text: ' '.repeat(MiB + 1) }), { code: 'too-large' })
  const broken = async function* () {
    yield randomBytes(100_000)
    throw new Error('the machine is gone')
  }
  await assert.rejects(snapshots.addPart(id, { kind: 'memory', name: 'memory', body: broken() }), /machine is gone/)
  for (let part = 1; part < MAX_PARTS; part += 1) await snapshots.addPart(id, { ...machine, name: `part-${part}` })
  await assert.rejects(snapshots.addPart(id, machine), { code: 'too-large', message: /at most 64 parts/ })
  await snapshots.save(id, { disk: diskOf(randomBytes(512)), properties: {} })
  assert.ok(second.equals(await partOf(alice, id, 'memory')))
  await world.ports.jobs.idle()
  await deleteImage(world.ports, alice, id)
  await assertNothingLeft()
})

test('parts are in the sizes of the image and in what the project uses', async () => {
  const { id, root, data, ram } = await machineImage()
  const parts = data.length + ram.length + 16
  const sizes = await imageSizes(world.ports, alice, id)
  assert.deepEqual(
    [sizes.virtualBytes, sizes.fileBytes, sizes.partBytes, sizes.allocatedBytes],
    [root.length, root.length, parts, root.length + parts],
  )
  assert.equal(sizes.storedBytes, (await world.chunks.stats()).storedBytes)
  assert.equal(sizes.exclusiveBytes, sizes.storedBytes)
  assert.equal((await world.ports.catalog.images.usage('alice')).totalBytes, root.length + parts)
  await deleteImage(world.ports, alice, id)
  assert.equal((await world.ports.catalog.images.usage('alice')).totalBytes, 0)
  await assertNothingLeft()
})

test('the check names the image where damage touches a part of it', async (t) => {
  const own = await imageWorld()
  t.after(() => own.close())
  const mine = new ImageSnapshots(own.ports)
  const id = randomUUID()
  await mine.begin(alice, { id, name: 'touched', bytes: 0, minDisk: 0, minRam: 0, properties: {} })
  await mine.addPart(id, memory(randomBytes(100_000)))
  for (const pack of await Array.fromAsync(own.blobs.list('packs/'))) await own.blobs.delete(pack)
  const jobs = new StoreJobs(own.ports, { blobs: own.blobs, open: async () => assert.fail() })
  const touched: unknown[] = []
  await jobs.check({}, ({ images }) => touched.push(...images))
  assert.ok(touched.length > 0)
  for (const image of touched) assert.deepEqual(image, { id, name: 'touched' })
})
