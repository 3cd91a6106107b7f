import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { type BlockSource, stack } from '../../disk/block/block-source.ts'
import { memorySource } from '../../disk/block/memory-source.ts'
import { layer } from '../../disk/filters/layer.ts'
import { wrapDisk } from '../../disk/formats/index.ts'
import { encodeBootRecord, PREFIX_BYTES } from '../../store/content/boot-record.ts'
import { listAudit } from '../audit.ts'
import { findBootRecord, putBootRecord } from '../boot-records/boot-records.ts'
import { ChunkDigests } from '../boot-records/chunk-digests.ts'
import { deleteImage } from '../delete-image.ts'
import { type ImageWorld, imageWorld, sent, someone } from '../image-world.suite.ts'
import { DiskLeases } from '../leases/disk-leases.ts'
import { getLease } from '../leases/lease.ts'
import { LeasedDisks } from '../leases/leased-disks.ts'
import { allParts } from '../parts/image-parts.ts'
import { stage } from '../stage.ts'
import { upload } from '../upload.ts'
import type { ChangedDisk } from './changed-disk.ts'
import { ImageSnapshots, type SnapshotDraft } from './snapshots.ts'

const KiB = 1024
const CHUNK = 64 * KiB
const DISK = 40 * CHUNK

let world: ImageWorld
let snapshots: ImageSnapshots
let leases: DiskLeases
before(async () => {
  world = await imageWorld()
  snapshots = new ImageSnapshots(world.ports)
  const { catalog, now } = world.ports
  const disks = new LeasedDisks({ catalog, chunks: world.chunks, now }, null)
  leases = new DiskLeases({ ...world.ports, now, disks, scratchQuotaBytes: 0 }, '/run/nbd.sock')
})
after(() => world.close())

const alice = someone('alice')
const bob = someone('bob')

const draft = (members: Partial<SnapshotDraft> = {}): SnapshotDraft => ({
  id: randomUUID(),
  name: 'snapshot',
  bytes: DISK,
  minDisk: 1,
  minRam: 64,
  properties: { hw_disk_bus: 'scsi' },
  ...members,
})
async function begun(members: Partial<SnapshotDraft> = {}, caller = alice): Promise<string> {
  const wanted = draft(members)
  await snapshots.begin(caller, wanted)
  return wanted.id
}
const shown = async (id: string) => (await world.ports.catalog.images.get(id))!
const bytesOf = async (id: string) => {
  const { manifest } = await shown(id)
  return buffer(world.chunks.stream(manifest!, 0, (await shown(id)).size!))
}

/** An image of `bytes` in the format, lent; its record is gone at once, as an instance may outlive it. */
async function lent(bytes: Uint8Array, format = 'raw', caller = alice): Promise<string> {
  const { id } = await world.create(caller, { disk_format: format })
  const file = await wrapDisk(format, memorySource(bytes.length, [{ offset: 0, bytes }]))
  await upload(world.ports, caller, id, sent(Buffer.from(await file.read(0, file.size))))
  const { leaseId } = await leases.lend(caller, id, 'instance 1')
  await deleteImage(world.ports, caller, id)
  return leaseId
}
/** A layer of a disk: pieces that were written, of which those without bytes are zeros. */
function layerOf(bytes: number, pieces: readonly { offset: number; bytes?: Uint8Array; zeros?: number }[]): BlockSource {
  const runs = pieces.map(({ offset, bytes, zeros = 0 }) => ({
    offset,
    length: bytes?.length ?? zeros,
    kind: bytes ? ('data' as const) : ('zero' as const),
  }))
  const written = pieces.flatMap(({ offset, bytes }) => (bytes ? [{ offset, bytes }] : []))
  return {
    ...memorySource(bytes, written),
    async *extents(offset, length) {
      let at = offset
      const end = offset + length
      for (const run of runs) {
        const [from, to] = [Math.max(at, run.offset), Math.min(end, run.offset + run.length)]
        if (from >= to) continue
        if (from > at) yield { offset: at, length: from - at, kind: 'hole' }
        yield { offset: from, length: to - from, kind: run.kind }
        at = to
      }
      if (at < end) yield { offset: at, length: end - at, kind: 'hole' }
    },
  }
}
const twoLayers = (bytes: number) => [
  layerOf(bytes, [
    { offset: 5 * CHUNK + 100, bytes: randomBytes(3000) },
    { offset: 20 * CHUNK, bytes: randomBytes(2 * CHUNK) },
  ]),
  layerOf(bytes, [
    { offset: 20 * CHUNK + 512, zeros: CHUNK },
    { offset: 33 * CHUNK + 1024, zeros: 2048 },
    { offset: bytes - 10, bytes: randomBytes(10) },
  ]),
]
/** What the disk must be. */
async function modelOf(below: Uint8Array, { bytes, layers }: Pick<ChangedDisk, 'bytes' | 'layers'>): Promise<Buffer> {
  const base = Buffer.alloc(bytes)
  base.set(below.subarray(0, bytes))
  const disk = stack(memorySource(bytes, [{ offset: 0, bytes: base }]), layers.map(layer))
  return Buffer.from(await disk.read(0, bytes))
}
async function assertNothingLeft(): Promise<void> {
  await world.ports.jobs.idle()
  for await (const { leaseId } of leases.held('instance')) await leases.release(leaseId)
  for (const { id, owner } of await world.ports.catalog.images.list({ viewer: { all: true }, visibility: 'all', limit: 100 })) {
    await deleteImage(world.ports, someone(owner), id)
  }
  await world.collect()
  const { chunks, packs, manifests } = await world.chunks.stats()
  assert.deepEqual({ chunks, packs, manifests }, { chunks: 0, packs: 0, manifests: 0 })
  assert.deepEqual(await Array.fromAsync(allParts(world.ports.catalog)), [])
  assert.deepEqual(world.problems, [])
}

for (const [format, grown] of [
  ['raw', 0],
  ['raw', 30 * CHUNK + 512],
  ['qcow2', 0],
  ['qcow2', 3 * CHUNK],
] as const) {
  test(`the disk of an instance on a ${format} image, grown by ${grown}, becomes a raw image`, async () => {
    const bytes = randomBytes(DISK - 100 * 512)
    const leaseId = await lent(bytes, format)
    const size = bytes.length + grown
    const disk = { bytes: size, leaseId, layers: twoLayers(size) }
    const id = await begun({ bytes: size })
    assert.deepEqual([(await shown(id)).status, (await shown(id)).size], ['queued', null])
    const { bytesIngested } = (await world.chunks.stats()).counters
    await snapshots.save(id, { disk, properties: { image_type: 'snapshot' } })
    const read = (await world.chunks.stats()).counters.bytesIngested - bytesIngested
    const image = await shown(id)
    assert.deepEqual(
      [image.status, image.diskFormat, image.containerFormat, image.size, image.virtualSize, image.visibility, image.owner],
      ['active', 'raw', 'bare', size, size, 'private', 'alice'],
    )
    assert.deepEqual(image.properties, { hw_disk_bus: 'scsi', image_type: 'snapshot' })
    assert.equal(image.notes.parentImage, (await getLease(world.ports.catalog, leaseId))!.body.image!.id)
    assert.ok((await bytesOf(id)).equals(await modelOf(bytes, disk)))
    if (format === 'raw' && grown === 0) assert.ok(read <= 5 * CHUNK, `${read} bytes were read`)
    await world.ports.jobs.idle()
    const { checksum, hashValue } = await shown(id)
    assert.deepEqual([checksum?.length, hashValue?.length], [32, 128], 'digests follow')
    const [save, begin] = (await listAudit(world.ports.catalog, { imageId: id }, { limit: 2 })).map(({ record }) => record)
    assert.deepEqual([begin!.action, begin!.userId, save!.action], ['create', 'user-of-alice', 'snapshot'])
    await assertNothingLeft()
  })
}

test('a disk on nothing becomes an image as well, and the lease below must be there', async () => {
  const disk = { bytes: DISK, leaseId: null, layers: twoLayers(DISK) }
  const id = await begun()
  await assert.rejects(snapshots.save(id, { disk: { ...disk, leaseId: randomUUID() }, properties: {} }), { code: 'not-found' })
  await snapshots.save(id, { disk, properties: {} })
  assert.ok((await bytesOf(id)).equals(await modelOf(new Uint8Array(), disk)))
  assert.equal((await shown(id)).notes.parentImage, undefined)
  await assertNothingLeft()
})

test('what is asked for twice is done once', async () => {
  const wanted = draft()
  await snapshots.begin(alice, wanted)
  await snapshots.begin(alice, wanted)
  await assert.rejects(snapshots.begin(bob, wanted), { code: 'conflict' })
  const disk = { bytes: DISK, leaseId: null, layers: twoLayers(DISK) }
  await Promise.all([snapshots.save(wanted.id, { disk, properties: {} }), snapshots.save(wanted.id, { disk, properties: {} })])
  const { version } = await shown(wanted.id)
  await world.ports.jobs.idle()
  await snapshots.save(wanted.id, { disk, properties: { other: 'x' } })
  await snapshots.begin(alice, wanted)
  await snapshots.addPart(wanted.id, { kind: 'machine', name: 'machine', text: '{}' })
  await snapshots.giveUp(wanted.id)
  const { status, properties, notes } = await shown(wanted.id)
  assert.deepEqual(
    [status, properties, notes.partBytes],
    ['active', { hw_disk_bus: 'scsi' }, undefined],
    `as of version ${version}`,
  )
  await assertNothingLeft()
})

/** A layer whose first read waits for `go`, so that a test can do something meanwhile. */
function slow(disk: BlockSource) {
  const [reached, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const source: BlockSource = {
    ...disk,
    async read(offset, length) {
      reached.resolve()
      await go.promise
      return disk.read(offset, length)
    },
  }
  return { source, reached: reached.promise, go: () => go.resolve() }
}

test('an image that is deleted while its disk is read is gone, and so is what was read', async () => {
  const id = await begun()
  const [first] = twoLayers(DISK)
  const { source, reached, go } = slow(first!)
  const saving = snapshots.save(id, { disk: { bytes: DISK, leaseId: null, layers: [source] }, properties: {} })
  const ended = assert.rejects(saving, { code: 'not-found' })
  await reached
  assert.equal((await shown(id)).status, 'saving')
  await deleteImage(world.ports, alice, id)
  go()
  await ended
  await assert.rejects(snapshots.save(id, { disk: { bytes: DISK, leaseId: null, layers: [] }, properties: {} }), {
    code: 'not-found',
  })
  await snapshots.giveUp(id)
  await assertNothingLeft()
})

test('cut short, by its maker or by a restart, it is queued and is saved when it is asked for again', async () => {
  const id = await begun()
  const layers = twoLayers(DISK)
  const { source, reached, go } = slow(layers[0]!)
  const over = new AbortController()
  const disk = { bytes: DISK, leaseId: null, layers: [source, layers[1]!] }
  const saving = assert.rejects(snapshots.save(id, { disk, properties: {} }, { signal: over.signal }), { code: 'cancelled' })
  await reached
  over.abort()
  await saving
  assert.equal((await shown(id)).status, 'queued')

  const late = slow(layers[0]!)
  const again = snapshots.save(id, { disk: { ...disk, layers: [late.source, layers[1]!] }, properties: {} })
  const ended = assert.rejects(again, { code: 'not-found' }, 'who had it is not believed any more')
  await late.reached
  const other = await world.reopen() // a start of the service finds it in `saving`
  const recovered = await shown(id)
  assert.equal(recovered.status, 'queued')
  assert.match(String(recovered.notes.failure), /goes on by itself/)
  late.go()
  await ended
  go()
  const restarted = new ImageSnapshots(other.ports)
  await restarted.save(id, { disk, properties: {} })
  const image = await shown(id)
  assert.deepEqual([image.status, image.notes.failure], ['active', undefined])
  assert.ok((await bytesOf(id)).equals(await modelOf(new Uint8Array(), disk)))
  await other.close()
  await assertNothingLeft()
})

test('giving up ends what runs and leaves nothing', async () => {
  const id = await begun()
  await snapshots.addPart(id, { kind: 'machine', name: 'machine', text: '{"a":1}' })
  const { source, reached, go } = slow(twoLayers(DISK)[0]!)
  const saving = snapshots.save(id, { disk: { bytes: DISK, leaseId: null, layers: [source] }, properties: {} })
  const ended = assert.rejects(saving, { code: 'cancelled' })
  await reached
  const givenUp = snapshots.giveUp(id)
  go()
  await Promise.all([ended, givenUp])
  await snapshots.giveUp(id)
  assert.equal((await shown(id)).status, 'deleted')
  await snapshots.giveUp(randomUUID())
  await assertNothingLeft()
})

test('what is refused is refused at the beginning, and an image that is no snapshot is not touched', async () => {
  await assert.rejects(begun({ bytes: 2 ** 50 }), { code: 'too-large' })
  await assert.rejects(begun({}, someone('alice', 'reader')), { code: 'denied' })
  await assert.rejects(begun({}, someone(null)), { code: 'denied' })
  await assert.rejects(begun({ id: 'x' }), { code: 'invalid-request' })
  await assert.rejects(begun({ properties: { visibility: 'public' } }), { code: 'invalid-request' })
  await assert.rejects(begun({ properties: { imprint_x: 'y' } }), { code: 'denied' })
  const { id } = await world.create(alice)
  const disk = { bytes: DISK, leaseId: null, layers: [] }
  await assert.rejects(snapshots.save(id, { disk, properties: {} }), { code: 'not-found' })
  await assert.rejects(snapshots.addPart(id, { kind: 'machine', name: 'm', text: '' }), { code: 'not-found' })
  await assert.rejects(snapshots.begin(alice, draft({ id })), { code: 'conflict' })
  await snapshots.giveUp(id)
  assert.equal((await shown(id)).status, 'queued')
  await assertNothingLeft()
})

test('nobody else puts bytes into an image that becomes a snapshot', async () => {
  const id = await begun()
  await assert.rejects(upload(world.ports, alice, id, sent(Buffer.from('x'))), { code: 'conflict', message: /instance/ })
  await assert.rejects(stage(world.ports, alice, id, sent(Buffer.from('x'))), { code: 'conflict' })
  await snapshots.giveUp(id)
  await assertNothingLeft()
})

test('the disk and its parts count against the quota of the project', async (t) => {
  t.after(() => world.limits.clear())
  const MiB = 2 ** 20
  world.limits.set('alice', { image_size_total: 4 })
  await assert.rejects(begun({ bytes: 5 * MiB }), { code: 'over-quota' })
  const id = await begun({ bytes: 4 * MiB })
  const memory = async function* () {
    yield randomBytes(MiB)
  }
  await snapshots.addPart(id, { kind: 'memory', name: 'memory', body: memory() })
  assert.equal((await world.ports.catalog.images.usage('alice')).totalBytes, MiB)
  await snapshots.addPart(id, { kind: 'memory', name: 'memory', body: memory() })
  assert.equal((await world.ports.catalog.images.usage('alice')).totalBytes, MiB, 'it took the place of the one before')
  const disk = (bytes: number) => ({ disk: { bytes, leaseId: null, layers: [] }, properties: {} })
  await assert.rejects(snapshots.save(id, disk(3 * MiB + 512)), { code: 'over-quota' })
  await snapshots.save(id, disk(3 * MiB))
  assert.equal((await world.ports.catalog.images.usage('alice')).totalBytes, 4 * MiB)
  const next = draft({ bytes: 0 })
  await assert.rejects(snapshots.begin(alice, next), { code: 'over-quota' })
  await deleteImage(world.ports, alice, id)
  assert.equal((await world.ports.catalog.images.usage('alice')).totalBytes, 0)
  await assertNothingLeft()
})

test("of a project's snapshots with the same properties so many stay as are asked for, the youngest", async () => {
  let createdAt = Date.now()
  const save = async (properties: Record<string, string>, caller = alice) => {
    const id = await begun({ bytes: CHUNK, properties }, caller)
    await snapshots.save(id, { disk: { bytes: CHUNK, leaseId: null, layers: [] }, properties: {} })
    const { version } = await shown(id)
    createdAt += 1
    await world.ports.catalog.write(({ images }) => images.update(id, version, { createdAt }))
    return id
  }
  const backup = { image_type: 'backup', backup_type: 'daily' }
  const [protectedOne, ...others] = [await save(backup), await save(backup), await save(backup), await save(backup)]
  const [weekly, bobs] = [await save({ ...backup, backup_type: 'weekly' }), await save(backup, bob)]
  const { id: uploaded } = await world.create(alice, backup)
  await upload(world.ports, alice, uploaded, sent(Buffer.from('x')))
  await world.ports.jobs.idle()
  const { version } = await shown(protectedOne!)
  await world.ports.catalog.write(({ images }) => images.update(protectedOne!, version, { protected: true }))
  assert.equal(await snapshots.rotate('alice', backup, 2), 2)
  assert.equal(await snapshots.rotate('alice', backup, 2), 0)
  const statuses = await Promise.all(
    [protectedOne!, ...others, weekly, bobs, uploaded].map(async (id) => (await shown(id)).status),
  )
  assert.deepEqual(statuses, ['active', 'deleted', 'deleted', 'active', 'active', 'active', 'active'])
  await snapshots.remove(protectedOne!)
  await snapshots.remove(protectedOne!)
  await snapshots.remove(uploaded)
  assert.deepEqual([(await shown(protectedOne!)).status, (await shown(uploaded)).status], ['deleted', 'active'])
  await assertNothingLeft()
})

test('a snapshot starts by what is known of its image, until it was started itself', async () => {
  const bytes = randomBytes(DISK)
  const leaseId = await lent(bytes, 'raw', bob)
  const below = (await getLease(world.ports.catalog, leaseId))!.body.image!
  const digests = await ChunkDigests.open(world.chunks, below.manifest)
  const entries = await Promise.all(
    [1, 5, 20, 30].map(async (chunk) => ({
      chunk,
      afterMs: chunk,
      prefix: (await digests.of(chunk))!.subarray(0, PREFIX_BYTES),
    })),
  )
  await putBootRecord(world.ports, below, encodeBootRecord(entries), false)
  const id = await begun()
  await snapshots.save(id, { disk: { bytes: DISK, leaseId, layers: twoLayers(DISK) }, properties: {} })
  await leases.release(leaseId)
  const { manifest, name, owner } = await shown(id)
  const image = { id, name, owner, manifest: manifest!, diskFormat: 'raw' }
  const found = await findBootRecord(world.ports, image)
  assert.deepEqual([found?.isOwn, found?.entries.map(({ chunk }) => chunk)], [false, [1, 30]], 'what holds for it too')
  const own = await ChunkDigests.open(world.chunks, manifest!)
  const record = encodeBootRecord([{ chunk: 5, afterMs: 1, prefix: (await own.of(5))!.subarray(0, PREFIX_BYTES) }])
  await putBootRecord(world.ports, image, record, false)
  assert.equal((await findBootRecord(world.ports, image))?.isOwn, true)
  await assert.rejects(putBootRecord(world.ports, image, record, false), { code: 'conflict' })
  await assertNothingLeft()
})
