import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { after, before, beforeEach, test } from 'node:test'
import type { Caller } from '../../base/caller.ts'
import { isServiceError } from '../../base/errors.ts'
import { wrapDisk } from '../../disk/formats/index.ts'
import { MemoryBlobStore } from '../../store/blobs/memory/memory-blob-store.ts'
import { deactivate } from '../activation.ts'
import { listAudit } from '../audit.ts'
import { deleteImage } from '../delete-image.ts'
import { type ImageWorld, imageWorld, sent, someone } from '../image-world.suite.ts'
import { recordedManifests } from '../recorded-manifests.ts'
import { StoreJobs } from '../store-jobs.ts'
import { upload } from '../upload.ts'
import { DiskLeases } from './disk-leases.ts'
import { createExport, type ExportPorts, endExport, listExports, renewExport, showExport, sweepExports } from './exports.ts'
import { allLeases } from './lease.ts'
import { type LeasedDisk, LeasedDisks } from './leased-disks.ts'

const SOCKET = '/run/imprint/nbd.sock'
let world: ImageWorld
let disks: LeasedDisks
let ports: ExportPorts
let leases: DiskLeases
/** What tests add to the clock. */
let later = 0
before(async () => {
  world = await imageWorld()
})
beforeEach(() => {
  later = 0
  const now = () => Date.now() + later
  disks = new LeasedDisks({ catalog: world.ports.catalog, chunks: world.chunks, now }, null)
  const hostDisk = { promisable: async () => 0, promised: async () => 0 } // what is only read is promised no room
  ports = { catalog: world.ports.catalog, now, disks, scratchQuotaBytes: 0, hostDisk }
  leases = new DiskLeases({ ...world.ports, ...ports }, SOCKET)
})
after(() => world.close())

const alice = someone('alice')
const bob = someone('bob')
const admin = someone('root', 'admin')

async function newImage(owner: Caller, bytes: Buffer, members: Record<string, unknown> = {}): Promise<string> {
  const { id } = await world.create(owner, members)
  await upload(world.ports, owner, id, sent(bytes))
  return id
}
const newExport = (caller: Caller, imageId: string, seconds?: number) =>
  createExport(ports, caller, { imageId, isWritable: false, seconds })
async function opened(name: string): Promise<LeasedDisk> {
  const disk = await disks.open(name)
  assert.ok(disk, 'the name is good')
  return disk
}
/** The whole disk, over a connection of its own. */
async function readAll(name: string): Promise<Buffer> {
  const { disk, release } = await opened(name)
  try {
    return Buffer.from(await disk.read(0, disk.size))
  } finally {
    await release()
  }
}
const ended = async ({ revoked }: LeasedDisk) => {
  if (!revoked.aborted) await once(revoked, 'abort')
}
async function assertNothingLeft(): Promise<void> {
  await world.collect()
  const { chunks, manifests, packs } = await world.chunks.stats()
  assert.deepEqual({ chunks, manifests, packs }, { chunks: 0, manifests: 0, packs: 0 })
  assert.deepEqual(await Array.fromAsync(allLeases(ports.catalog)), [])
  assert.equal(disks.openDisks, 0)
}

test('what is lent is read after its image was deleted, over collections and a lost index, until it is released', async () => {
  const bytes = randomBytes(300_000)
  const id = await newImage(alice, bytes, { name: 'debian', min_disk: 3, min_ram: 64, hw_disk_bus: 'scsi' })
  const { leaseId, image, address } = await leases.lend(alice, id, 'instance i-1')
  assert.deepEqual(image, {
    id,
    name: 'debian',
    diskBytes: bytes.length,
    minDisk: 3,
    minRam: 64,
    properties: { hw_disk_bus: 'scsi' },
  })
  assert.equal(address.socketPath, SOCKET)
  await deleteImage(world.ports, alice, id)
  const jobs = new StoreJobs(world.ports, { blobs: new MemoryBlobStore(), open: async () => assert.fail() })
  for (const job of ['collect', 'collect', 'rebuild', 'collect'] as const) {
    await jobs[job]()
    assert.ok(bytes.equals(await readAll(address.exportName)), job)
    assert.deepEqual(await jobs.check({ readData: true }, ({ message }) => assert.fail(message)), { faults: 0 })
  }
  assert.deepEqual(await Array.fromAsync(leases.held('instance')), [{ leaseId, holder: 'instance i-1' }])
  assert.deepEqual(await Array.fromAsync(leases.held('volume')), [])
  await leases.release(leaseId)
  await leases.release(leaseId)
  assert.equal(await disks.open(address.exportName), undefined)
  await assertNothingLeft()
})

test('the check names a deleted image that is lent, where damage touches it', async (t) => {
  const own = await imageWorld()
  t.after(() => own.close())
  const { catalog, now } = own.ports
  const lent = new LeasedDisks({ catalog, chunks: own.chunks, now }, null)
  const { id } = await own.create(alice, { name: 'gone' })
  await upload(own.ports, alice, id, sent(randomBytes(200_000)))
  await new DiskLeases({ ...own.ports, disks: lent, scratchQuotaBytes: 0 }, SOCKET).lend(alice, id, 'instance 1')
  await deleteImage(own.ports, alice, id)
  for (const pack of await Array.fromAsync(own.blobs.list('packs/'))) await own.blobs.delete(pack)
  const jobs = new StoreJobs(own.ports, { blobs: own.blobs, open: async () => assert.fail() })
  const touched: unknown[] = []
  await jobs.check({}, ({ images }) => touched.push(...images))
  assert.ok(touched.length > 0)
  for (const image of touched) assert.deepEqual(image, { id, name: 'gone' })
})

test('a release harms neither the image nor what others were lent of it', async () => {
  const bytes = randomBytes(200_000)
  const [id, twin] = [await newImage(alice, bytes), await newImage(bob, bytes)]
  const mine = await leases.lend(alice, id, 'instance 1')
  const theirs = await leases.lend(bob, twin, 'instance 2')
  await leases.release(mine.leaseId)
  await world.collect()
  assert.ok(bytes.equals(await readAll(theirs.address.exportName)))
  await deleteImage(world.ports, bob, twin)
  await deleteImage(world.ports, alice, id)
  await world.collect()
  assert.ok(bytes.equals(await readAll(theirs.address.exportName)))
  await leases.release(theirs.leaseId)
  await assertNothingLeft()
})

test('a new address makes the old one good no more, and cuts off who uses it', async () => {
  const id = await newImage(alice, randomBytes(1000))
  const { leaseId, address } = await leases.lend(alice, id, 'instance 1')
  const before = await opened(address.exportName)
  const again = await leases.readdress(leaseId)
  assert.notEqual(again.exportName, address.exportName)
  assert.ok(before.revoked.aborted)
  await before.release()
  assert.equal(await disks.open(address.exportName), undefined)
  assert.equal((await readAll(again.exportName)).length, 1000)
  await leases.release(leaseId)
  await assert.rejects(leases.readdress(leaseId), { code: 'not-found' })
  await deleteImage(world.ports, alice, id)
  await assertNothingLeft()
})

test('the names of leases are kept nowhere', async () => {
  const id = await newImage(alice, randomBytes(1000))
  const { leaseId, address } = await leases.lend(alice, id, 'instance 1')
  assert.match(address.exportName, /^[A-Za-z0-9_-]{43}$/)
  const [stored] = await Array.fromAsync(allLeases(ports.catalog))
  assert.equal(stored!.body.nameHash, createHash('sha256').update(address.exportName).digest('hex'))
  assert.ok(!JSON.stringify(stored).includes(address.exportName))
  const { records } = await auditOf(id)
  assert.ok(!JSON.stringify(records).includes(address.exportName))
  assert.deepEqual(await disks.list(), [])
  await leases.release(leaseId)
  await deleteImage(world.ports, alice, id)
})

async function auditOf(imageId: string) {
  const records = await listAudit(ports.catalog, { imageId }, { limit: 100 })
  return { records, actions: records.map(({ record }) => record.action).reverse() }
}

test('lending and releasing stand in the audit record, in their order', async () => {
  const id = await newImage(alice, randomBytes(1000))
  const { leaseId } = await leases.lend(alice, id, 'instance 1')
  await leases.release(leaseId)
  const mine = await newExport(alice, id)
  await endExport(ports, alice, mine.id)
  const { records, actions } = await auditOf(id)
  assert.deepEqual(actions.slice(-4), ['lend', 'release', 'lend', 'release'])
  const [last] = records
  assert.deepEqual([last!.record.userId, last!.record.details], [alice.userId, { lease: mine.id, holder: 'export' }])
  await deleteImage(world.ports, alice, id)
})

test('a disk is lent to who may download the image, while it is active, in formats that we open', async () => {
  const bytes = randomBytes(2000)
  const id = await newImage(alice, bytes)
  await assert.rejects(leases.lend(bob, id, 'instance 1'), { code: 'not-found' })
  await assert.rejects(leases.show(bob, id), { code: 'not-found' })
  await assert.rejects(leases.lend(someone('alice', 'reader'), id, 'instance 1'), { code: 'denied' })
  const { id: queued } = await world.create(alice)
  await assert.rejects(leases.lend(alice, queued, 'instance 1'), { code: 'conflict', message: /queued/ })
  await assert.rejects(leases.show(alice, queued), { code: 'conflict' })
  await deactivate(world.ports, alice, id)
  await assert.rejects(leases.lend(alice, id, 'instance 1'), { code: 'denied' })
  await assert.rejects(leases.lend(admin, id, 'instance 1'), { code: 'conflict', message: /deactivated/ })
  const kernel = await newImage(alice, bytes, { disk_format: 'aki', container_format: 'aki' })
  await assert.rejects(leases.lend(alice, kernel, 'instance 1'), { code: 'unsupported', message: /aki\/aki.*qcow2, .*raw, iso/ })
  await assert.rejects(leases.show(alice, kernel), { code: 'unsupported' })
  assert.deepEqual(await Array.fromAsync(allLeases(ports.catalog)), [])
  for (const one of [id, queued, kernel]) await deleteImage(world.ports, alice, one)
  await assert.rejects(leases.lend(alice, id, 'instance 1'), { code: 'not-found' })
  await assertNothingLeft()
})

test('of a qcow2 its disk is lent', async () => {
  const disk = Buffer.concat([randomBytes(65_536), Buffer.alloc(131_072), randomBytes(512)])
  const file = await wrapDisk('qcow2', {
    size: disk.length,
    read: async (offset, length) => disk.subarray(offset, offset + length),
    async *extents(offset, length) {
      yield { offset, length, kind: 'data' as const }
    },
    close: async () => {},
  })
  const id = await newImage(alice, Buffer.from(await file.read(0, file.size)), { disk_format: 'qcow2' })
  const { leaseId, image, address } = await leases.lend(alice, id, 'instance 1')
  assert.equal(image.diskBytes, disk.length)
  assert.ok(disk.equals(await readAll(address.exportName)))
  await leases.release(leaseId)
  await deleteImage(world.ports, alice, id)
  await assertNothingLeft()
})

test('all connections to a manifest share one open disk, which the last of them closes', async () => {
  const bytes = randomBytes(100_000)
  const ids = [await newImage(alice, bytes), await newImage(bob, bytes)]
  const names = [await newExport(alice, ids[0]!), await newExport(bob, ids[1]!)]
  const open = await Promise.all([...names, ...names].map(({ name }) => opened(name)))
  assert.equal(disks.openDisks, 1)
  assert.equal(new Set(open.map(({ disk }) => disk)).size, 1)
  const [first, ...others] = open
  for (const one of others) await one.release()
  assert.ok(bytes.equals(await first!.disk.read(0, bytes.length)))
  await first!.release()
  assert.equal(disks.openDisks, 0)
  for (const [at, { id }] of names.entries()) await endExport(ports, [alice, bob][at]!, id)
  for (const [at, id] of ids.entries()) await deleteImage(world.ports, [alice, bob][at]!, id)
  await assertNothingLeft()
})

test('an export is good until it expires, which cuts off who reads it; a renewal comes before', async () => {
  const id = await newImage(alice, randomBytes(1000))
  const short = await newExport(alice, id, 1)
  const long = await newExport(alice, id, 1)
  await renewExport(ports, alice, long.id, 1000)
  const [first, second] = [await opened(short.name), await opened(long.name)]
  await ended(first)
  assert.equal(second.revoked.aborted, false)
  assert.equal(await disks.open(short.name), undefined)
  await assert.rejects(showExport(ports, alice, short.id), { code: 'not-found' })
  await assert.rejects(renewExport(ports, alice, short.id), { code: 'not-found' })
  assert.deepEqual(
    (await listExports(ports, alice)).map((one) => one.id),
    [long.id],
  )
  await first.release()
  assert.equal(await sweepExports(ports), 1)
  await renewExport(ports, alice, long.id, 0)
  assert.ok(second.revoked.aborted, 'a renewal may also shorten it')
  await second.release()
  assert.equal(await sweepExports(ports), 1)
  await deleteImage(world.ports, alice, id)
  await assertNothingLeft()
})

test('leases of the service do not expire, are no exports, and cannot be ended as such', async () => {
  const id = await newImage(alice, randomBytes(1000))
  const { leaseId, address } = await leases.lend(alice, id, 'instance 1')
  for (const caller of [alice, admin]) {
    await assert.rejects(showExport(ports, caller, leaseId), { code: 'not-found' })
    await assert.rejects(endExport(ports, caller, leaseId), { code: 'not-found' })
    await assert.rejects(renewExport(ports, caller, leaseId), { code: 'not-found' })
  }
  later = 100 * 365 * 24 * 3600 * 1000
  assert.equal(await sweepExports(ports), 0)
  assert.equal((await readAll(address.exportName)).length, 1000)
  await leases.release(leaseId)
  await deleteImage(world.ports, alice, id)
})

test('exports belong to the project that asked: its readers see them, its members end them, others know of none', async () => {
  const id = await newImage(alice, randomBytes(1000), { visibility: 'shared' })
  const mine = await newExport(alice, id)
  const reader = someone('alice', 'reader')
  assert.deepEqual((await listExports(ports, reader))[0]?.id, mine.id)
  assert.equal('name' in (await showExport(ports, reader, mine.id)), false)
  await assert.rejects(endExport(ports, reader, mine.id), { code: 'denied' })
  await assert.rejects(renewExport(ports, reader, mine.id), { code: 'denied' })
  await assert.rejects(newExport(reader, id), { code: 'denied' })
  for (const stranger of [bob, someone('alice', 'none')]) {
    assert.deepEqual(await listExports(ports, stranger), [])
    await assert.rejects(showExport(ports, stranger, mine.id), { code: 'not-found' })
    await assert.rejects(endExport(ports, stranger, mine.id), { code: 'not-found' })
    await assert.rejects(newExport(stranger, id), { code: 'not-found' })
  }
  await assert.rejects(newExport(someone(null), id), { code: 'denied' })
  await endExport(ports, admin, mine.id)
  await assert.rejects(endExport(ports, alice, mine.id), { code: 'not-found' })
  await deleteImage(world.ports, alice, id)
  await assertNothingLeft()
})

test('a project has a limit of exports at once', async () => {
  const id = await newImage(alice, randomBytes(1000))
  const made = []
  const refused = await (async () => {
    for (;;) made.push(await newExport(alice, id))
  })().catch((error: unknown) => error)
  assert.ok(isServiceError(refused, 'over-quota'), String(refused))
  assert.equal((await Array.fromAsync(allLeases(ports.catalog))).length, made.length)
  later = 2 * 3600 * 1000
  assert.equal(await sweepExports(ports), made.length)
  later = 0
  await newExport(alice, id)
  later = 2 * 3600 * 1000
  await sweepExports(ports)
  await deleteImage(world.ports, alice, id)
  await assertNothingLeft()
})

test('a lease that races with the deletion of the image and with collections is refused, or keeps every byte', async () => {
  const counts = { lent: 0, refused: 0 }
  for (let round = 0; round < 16; round += 1) {
    const bytes = randomBytes(150_000)
    const id = await newImage(alice, bytes)
    const collections = (async () => {
      for (let at = 0; at < 3; at += 1) await world.collect()
    })()
    const lend = async () => {
      for (let turn = 0; turn < round % 8; turn += 1) await new Promise(setImmediate)
      return leases.lend(alice, id, `instance ${round}`)
    }
    const [lent] = await Promise.allSettled([lend(), deleteImage(world.ports, alice, id), collections])
    await world.collect()
    if (lent.status === 'rejected') {
      assert.ok(isServiceError(lent.reason, 'not-found'), String(lent.reason))
      counts.refused += 1
    } else {
      assert.ok(bytes.equals(await readAll(lent.value.address.exportName)))
      await leases.release(lent.value.leaseId)
      counts.lent += 1
    }
    await assertNothingLeft()
  }
  assert.ok(counts.lent > 0 && counts.refused > 0, JSON.stringify(counts))
})

test('a lease that ends while a client opens it is not open afterwards', async () => {
  const id = await newImage(alice, randomBytes(1000))
  for (let round = 0; round < 30; round += 1) {
    const { leaseId, address } = await leases.lend(alice, id, 'instance 1')
    const opening = (async () => {
      for (let turn = 0; turn < round % 6; turn += 1) await new Promise(setImmediate)
      return disks.open(address.exportName)
    })()
    await leases.release(leaseId)
    const open = await opening
    assert.ok(!open || open.revoked.aborted)
    await open?.release()
  }
  await deleteImage(world.ports, alice, id)
  await assertNothingLeft()
})

test('what is lent is told to the store as being read, beside what records name', async () => {
  const id = await newImage(alice, randomBytes(1000))
  const { leaseId } = await leases.lend(alice, id, 'instance 1')
  const told = await Array.fromAsync(recordedManifests(ports.catalog))
  assert.deepEqual(
    told.map(({ isRead = false, owner }) => [isRead, owner]),
    [
      [false, 'alice'],
      [true, undefined],
    ],
  )
  await leases.release(leaseId)
  await deleteImage(world.ports, alice, id)
})
