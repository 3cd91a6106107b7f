import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import { GiB, MiB } from '../base/units.ts'
import { memorySource } from '../disk/block/memory-source.ts'
import { wrapDisk } from '../disk/formats/index.ts'
import { deleteImage } from '../images/delete-image.ts'
import { deleteVolume } from './delete-volume.ts'
import { extendVolume } from './extend-volume.ts'
import { limitsOf } from './limits.ts'
import { listVolumes } from './list.ts'
import { resetVolumeStatus } from './reset-status.ts'
import { deleteSnapshot } from './snapshots/delete-snapshot.ts'
import { mergeVolumeMetadata, removeVolumeMetadata, setReadOnly, updateVolume } from './update-volume.ts'
import { someone, type VolumeWorld, volumeWorld } from './volume-world.suite.ts'

const BLOCK = 65_536
const alice = someone('alice')
const bob = someone('bob')
const root = someone('operators', 'admin')
let world: VolumeWorld
before(async () => {
  world = await volumeWorld()
})
after(() => world.close())

const all = { allProjects: false, conditions: [], sort: [], offset: 0, limit: 1000 } as const
/** Deletes all volumes and images: then nothing is left in the store. */
async function assertNothingLeft(): Promise<void> {
  for (const { id } of (await listVolumes(world.ports, root, { ...all, allProjects: true })).items) {
    await deleteVolume(world.ports, root, id, { cascade: true, force: true })
  }
  await world.idle()
  const images = await world.catalog.images.list({ viewer: { all: true }, visibility: 'all', limit: 100 })
  for (const { id, owner } of images) await deleteImage(world.images.ports, someone(owner), id)
  await world.images.collect()
  const { chunks, manifests } = await world.images.chunks.stats()
  assert.deepEqual([chunks, manifests, world.folders(), world.problems], [0, 0, [], []])
}

test('a blank volume is zeros, keeps what is written over restarts, and grows', async () => {
  const volume = await world.createOne(alice)
  assert.deepEqual([volume.status, volume.sizeGiB, volume.isBootable, volume.source], ['available', 1, false, { kind: 'blank' }])
  await world.write(volume.id, GiB - 5, Buffer.from('owned'))
  await world.reopen()
  assert.equal((await world.read(volume.id, GiB - 6, 6)).toString(), '\0owned')
  await assert.rejects(extendVolume(world.ports, alice, volume.id, 1), {
    code: 'invalid-request',
    message: /greater than current/,
  })
  await assert.rejects(extendVolume(world.ports, alice, volume.id, 1025), { code: 'too-large' })
  await extendVolume(world.ports, alice, volume.id, 3)
  await world.idle()
  const { status, sizeGiB, growingTo } = (await world.showVolume(volume.id))!
  assert.deepEqual([status, sizeGiB, growingTo], ['available', 3, null])
  assert.equal((await world.read(volume.id, GiB - 5, 8)).toString(), 'owned\0\0\0')
  await world.write(volume.id, 3 * GiB - 3, Buffer.from('end'))
  assert.equal((await world.read(volume.id, 3 * GiB - 3, 3)).toString(), 'end')
  await deleteVolume(world.ports, alice, volume.id)
  await world.idle()
  assert.equal(await world.showVolume(volume.id), undefined)
  await assertNothingLeft()
})

for (const format of ['raw', 'qcow2']) {
  test(`a volume from a ${format} image has its disk at once, zeros behind it, and outlives it`, async () => {
    const bytes = randomBytes(3 * MiB)
    const file = await wrapDisk(format, memorySource(bytes.length, [{ offset: 0, bytes }]))
    const imageId = await world.addImage(alice, Buffer.from(await file.read(0, file.size)), {
      disk_format: format,
      name: 'debian',
    })
    const volume = await world.createOne(alice, { from: { kind: 'image', imageId }, sizeGiB: 2 })
    assert.deepEqual([volume.status, volume.isBootable, volume.imageMetadata?.image_name], ['available', true, 'debian'])
    await world.write(volume.id, MiB, Buffer.from('mine'))
    await deleteImage(world.images.ports, alice, imageId)
    await world.images.collect()
    const expected = Buffer.from(bytes)
    expected.write('mine', MiB)
    assert.ok(expected.equals(await world.read(volume.id, 0, bytes.length)))
    assert.ok((await world.read(volume.id, bytes.length, MiB)).every((byte) => byte === 0))

    // the first snapshot puts it on a plain base; the second reads what changed since
    const first = await world.snapshotOne(alice, volume.id)
    assert.deepEqual([first.status, first.sizeGiB], ['available', 2])
    await world.write(volume.id, 2 * MiB, Buffer.from('more'))
    const { bytesIngested } = (await world.images.chunks.stats()).counters
    const second = await world.snapshotOne(alice, volume.id)
    assert.ok((await world.images.chunks.stats()).counters.bytesIngested - bytesIngested <= BLOCK, 'no more than changed')
    const [one, two] = [
      await world.createOne(alice, { from: { kind: 'snapshot', snapshotId: first.id }, sizeGiB: null }),
      await world.createOne(alice, { from: { kind: 'snapshot', snapshotId: second.id }, sizeGiB: 5 }),
    ]
    assert.deepEqual([one.sizeGiB, two.sizeGiB, one.isBootable], [2, 5, true])
    assert.ok(expected.equals(await world.read(one.id, 0, bytes.length)))
    expected.write('more', 2 * MiB)
    assert.ok(expected.equals(await world.read(two.id, 0, bytes.length)))
    assert.ok((await world.read(two.id, 4 * GiB, MiB)).every((byte) => byte === 0))
    await assertNothingLeft()
  })
}

test('a snapshot is of one moment, also while it is written: what comes after is not in it, and the volume lies on it then', async () => {
  const { id } = await world.createOne(alice)
  const disk = await world.openDisk(id)
  await disk.writer.write(0, Buffer.alloc(4 * BLOCK, 1))
  const snapshots: string[] = []
  for (let round = 2; round <= 6; round += 1) {
    const writing = Array.from({ length: 4 }, (_, block) => disk.writer.write(block * BLOCK, Buffer.alloc(BLOCK, round)))
    snapshots.push((await world.snapshotOne(alice, id)).id)
    await Promise.all(writing)
  }
  await world.idle()
  assert.equal(world.files(id).length, 3, 'one layer is left')
  for (const [n, snapshotId] of snapshots.entries()) {
    const copy = await world.createOne(alice, { from: { kind: 'snapshot', snapshotId }, sizeGiB: null })
    const bytes = await world.read(copy.id, 0, 4 * BLOCK)
    for (let block = 0; block < 4; block += 1)
      assert.ok([n + 1, n + 2].includes(bytes[block * BLOCK]!), `round ${n}: ${bytes[block * BLOCK]}`)
  }
  assert.deepEqual([...(await disk.disk.read(BLOCK - 1, 2))], [6, 6], 'it went on under who has it open')
  await disk.release()
  await assertNothingLeft()
})

test('snapshots that are asked for together are each of their own moment', async () => {
  const { id } = await world.createOne(alice)
  const disk = await world.openDisk(id)
  const taken: Promise<{ readonly id: string }>[] = []
  for (let round = 1; round <= 5; round += 1) {
    await disk.writer.write(0, Buffer.alloc(BLOCK, round))
    taken.push(world.snapshotOne(alice, id))
    if (round === 3) taken.push(world.createOne(alice, { from: { kind: 'volume', volumeId: id }, sizeGiB: null }))
    await new Promise(setImmediate)
  }
  const made = await Promise.all(taken)
  await world.idle()
  for (const { id: one } of made) {
    const found = (await world.showSnapshot(one)) ?? (await world.showVolume(one))
    assert.equal(found?.status, 'available')
  }
  await disk.release()
  await assertNothingLeft()
})

test('a copy of a volume is as the volume was, and each goes its own way', async () => {
  const source = await world.createOne(alice)
  await world.write(source.id, 100, Buffer.from('before'))
  const copy = await world.createOne(alice, { from: { kind: 'volume', volumeId: source.id }, sizeGiB: 2 })
  assert.deepEqual([copy.status, copy.sizeGiB, copy.source.kind], ['available', 2, 'volume'])
  await world.write(source.id, 100, Buffer.from('source'))
  await world.write(copy.id, 106, Buffer.from('copy'))
  assert.equal((await world.read(source.id, 100, 10)).toString(), 'source\0\0\0\0')
  assert.equal((await world.read(copy.id, 100, 10)).toString(), 'beforecopy')
  await deleteVolume(world.ports, alice, source.id)
  await world.idle()
  await world.images.collect()
  assert.equal((await world.read(copy.id, 100, 10)).toString(), 'beforecopy')
  await assert.rejects(world.create(alice, { from: { kind: 'volume', volumeId: copy.id }, sizeGiB: 1 }), {
    code: 'invalid-request',
    message: /cannot be smaller/,
  })
  await assertNothingLeft()
})

test('a volume with snapshots is deleted with them only; a deleted snapshot takes nothing from what was made of it', async () => {
  const volume = await world.createOne(alice)
  await world.write(volume.id, 0, Buffer.from('kept'))
  const snapshot = await world.snapshotOne(alice, volume.id)
  const made = await world.createOne(alice, { from: { kind: 'snapshot', snapshotId: snapshot.id } })
  await assert.rejects(deleteVolume(world.ports, alice, volume.id), {
    code: 'conflict',
    message: /still has 1 dependent snapshots/,
  })
  const other = await world.snapshotOne(alice, volume.id)
  await deleteSnapshot(world.ports, alice, snapshot.id)
  await world.idle()
  await world.images.collect()
  for (const id of [volume.id, made.id]) assert.equal((await world.read(id, 0, 4)).toString(), 'kept')
  await deleteVolume(world.ports, alice, volume.id, { cascade: true })
  await world.idle()
  assert.deepEqual([await world.showVolume(volume.id), await world.showSnapshot(other.id)], [undefined, undefined])
  await assertNothingLeft()
})

test('what cannot be is refused before anything is recorded', async () => {
  const imageId = await world.addImage(bob, Buffer.alloc(MiB), { min_disk: 3 })
  const foreign = await world.createOne(bob)
  const refused = (wanted: Parameters<VolumeWorld['create']>[1], code: string, message: RegExp, caller = alice) =>
    assert.rejects(world.create(caller, wanted), { code, message })
  await refused({ from: { kind: 'image', imageId } }, 'invalid-request', /Invalid image identifier/)
  const empty = await world.addImage(alice, Buffer.alloc(0), { block_device_mapping: '[{}]' })
  await refused({ from: { kind: 'image', imageId: empty } }, 'invalid-request', /holds no disk: .* names snapshots of volumes/)
  await refused({ from: { kind: 'image', imageId }, sizeGiB: 2 }, 'invalid-request', /cannot be smaller than the 3GB/, bob)
  await refused({ from: { kind: 'volume', volumeId: foreign.id } }, 'not-found', /could not be found/)
  await refused({ from: { kind: 'snapshot', snapshotId: foreign.id } }, 'not-found', /could not be found/)
  await refused({ sizeGiB: 2000 }, 'too-large', /at most 1024 GiB/)
  await refused({}, 'denied', /the role "member"/, someone('alice', 'reader'))
  await refused({}, 'denied', /belongs to a project/, someone(null))
  world.host.promisedBytes = 99 * GiB - MiB
  await refused({}, 'no-space', /No valid backend was found/)
  world.host.promisedBytes = 0
  world.host.freeBytes = GiB
  await assert.rejects(world.snapshotOne(bob, foreign.id), { code: 'no-space' })
  world.host.freeBytes = 100 * GiB
  assert.deepEqual((await listVolumes(world.ports, alice, all)).items, [])
  await assertNothingLeft()
})

test('notes, flags and statuses are changed as their rules say', async () => {
  const { id } = await world.createOne(alice, { metadata: { a: '1' } })
  await updateVolume(world.ports, alice, id, { name: 'renamed', isBootable: true })
  await mergeVolumeMetadata(world.ports, alice, id, { b: '2' })
  await removeVolumeMetadata(world.ports, alice, id, 'a')
  await assert.rejects(removeVolumeMetadata(world.ports, alice, id, 'a'), { code: 'not-found' })
  await setReadOnly(world.ports, alice, id, true)
  const { name, metadata, isBootable, isReadOnly } = (await world.showVolume(id))!
  assert.deepEqual([name, metadata, isBootable, isReadOnly], ['renamed', { b: '2' }, true, true])
  const tooMany = Object.fromEntries(Array.from({ length: 129 }, (_, n) => [`k${n}`, '']))
  await assert.rejects(mergeVolumeMetadata(world.ports, alice, id, tooMany), { code: 'too-large' })
  await assert.rejects(resetVolumeStatus(world.ports, alice, id, 'error'), { code: 'denied' })
  await assert.rejects(resetVolumeStatus(world.ports, root, id, 'in-use'), { code: 'conflict', message: /attached to nothing/ })
  await resetVolumeStatus(world.ports, root, id, 'error')
  await assert.rejects(extendVolume(world.ports, alice, id, 2), { code: 'conflict', message: /current status is: error/ })
  await deleteVolume(world.ports, alice, id)
  await world.idle()
  await assertNothingLeft()
})

test('a project has limits of volumes, snapshots and gigabytes, of which snapshots take some', async () => {
  const limited = await volumeWorld({ quota: { volumes: 2, snapshots: 1, gigabytes: 6, per_volume_gigabytes: 4 } })
  try {
    await assert.rejects(limited.create(alice, { sizeGiB: 5 }), {
      code: 'over-quota',
      message: /larger than maximum allowed limit 4G/,
    })
    const { id } = await limited.createOne(alice, { sizeGiB: 2 })
    await limited.snapshotOne(alice, id)
    await assert.rejects(limited.snapshotOne(alice, id), { code: 'over-quota', message: /"snapshots" and 1 has been consumed/ })
    await assert.rejects(limited.create(alice, { sizeGiB: 3 }), {
      code: 'over-quota',
      message: /"gigabytes" and 4 has been consumed/,
    })
    await limited.createOne(alice, { sizeGiB: 1 })
    await assert.rejects(limited.create(alice), { code: 'over-quota', message: /"volumes"/ })
    await assert.rejects(extendVolume(limited.ports, alice, id, 4), { code: 'over-quota' })
    await extendVolume(limited.ports, alice, id, 3)
    await limited.idle()
    const { use } = await limitsOf(limited.ports, alice)
    assert.deepEqual(use, { volumes: 2, snapshots: 1, gigabytes: 6 })
    await assert.rejects(limitsOf(limited.ports, alice, 'bob'), { code: 'denied' })
    await limited.createOne(bob)
  } finally {
    await limited.close()
  }
})
