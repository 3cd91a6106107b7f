import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { AttachedVolumes } from './attachments/attached-volumes.ts'
import { deleteVolume } from './delete-volume.ts'
import { extendVolume } from './extend-volume.ts'
import { createSnapshot } from './snapshots/create-snapshot.ts'
import { deleteSnapshot } from './snapshots/delete-snapshot.ts'
import { someone, type VolumeWorld, volumeWorld } from './volume-world.suite.ts'

const alice = someone('alice')
const INSTANCE = 'instance-1'
let world: VolumeWorld
before(async () => {
  world = await volumeWorld()
})
after(() => world.close())
const sector = (fill: string) => Buffer.alloc(512, fill)
/** One that an instance has, with `a` when a snapshot was taken, and `b` at two places now. */
async function written() {
  const { id } = await world.createOne(alice)
  await new AttachedVolumes(world.ports).reserve(alice, id, INSTANCE)
  await world.write(id, 0, sector('a'))
  const attached = new AttachedVolumes(world.ports)
  await attached.attached(id, INSTANCE, '/dev/vdb')
  const snapshot = await world.snapshotOne(alice, id, true)
  await world.write(id, 0, sector('b'))
  await world.write(id, 2 ** 20, sector('b'))
  return { id, attached, snapshot, to: { kind: 'snapshot', snapshotId: snapshot.id } as const }
}
const contentOf = async (id: string) => [await world.read(id, 0, 512), await world.read(id, 2 ** 20, 512)]
const BEFORE = [sector('a'), Buffer.alloc(512)]
const NOW = [sector('b'), sector('b')]

test('a volume is what it was when the snapshot was taken, and goes on from there', async () => {
  const { id, attached, to } = await written()
  await attached.prepareRevert(alice, id, INSTANCE, to)
  assert.deepEqual(await contentOf(id), NOW, 'it is only prepared')
  await attached.revert(id, INSTANCE)
  assert.deepEqual(await contentOf(id), BEFORE)
  assert.equal(world.files(id).length, 3, 'one layer')
  await attached.revert(id, INSTANCE) // nothing is prepared
  await world.write(id, 2 ** 20, sector('c'))
  const next = await world.snapshotOne(alice, id, true)
  const made = await world.createOne(alice, { from: { kind: 'snapshot', snapshotId: next.id }, sizeGiB: null })
  assert.deepEqual(await contentOf(made.id), [sector('a'), sector('c')])
})

test('the snapshot may go when it is prepared; a start in between changes nothing', async () => {
  const { id, attached, snapshot, to } = await written()
  await attached.prepareRevert(alice, id, INSTANCE, to)
  await deleteSnapshot(world.ports, alice, snapshot.id)
  await world.idle()
  await world.reopen()
  assert.deepEqual(await contentOf(id), NOW)
  await new AttachedVolumes(world.ports).revert(id, INSTANCE)
  assert.deepEqual(await contentOf(id), BEFORE)
  await world.reopen()
  assert.deepEqual(await contentOf(id), BEFORE)
})

test('what is called off stays as it is; what is of another volume or project is refused', async () => {
  const { id, attached, to } = await written()
  const other = await written()
  await assert.rejects(attached.prepareRevert(alice, id, INSTANCE, other.to), {
    code: 'invalid-request',
    message: /another volume/,
  })
  await assert.rejects(attached.prepareRevert(alice, id, 'another', to), { code: 'not-found' })
  await assert.rejects(attached.prepareRevert(someone('bob'), id, INSTANCE, to), { code: 'not-found' })
  await attached.prepareRevert(alice, id, INSTANCE, to)
  await attached.cancelRevert(id)
  await attached.revert(id, INSTANCE)
  assert.deepEqual(await contentOf(id), NOW)
})

test('a snapshot that is asked for meanwhile is stored before; one that has grown since is as large as it was', async () => {
  const { id, attached, to } = await written()
  await attached.released(id, INSTANCE)
  await extendVolume(world.ports, alice, id, 2)
  await world.idle()
  await attached.reserve(alice, id, INSTANCE)
  await attached.attached(id, INSTANCE, '/dev/vdb')
  await attached.prepareRevert(alice, id, INSTANCE, to)
  const wanted = { volumeId: id, name: 's', description: null, metadata: {}, mayBeInUse: true }
  const meanwhile = await createSnapshot(world.ports, alice, wanted)
  await attached.revert(id, INSTANCE)
  const made = await world.createOne(alice, { from: { kind: 'snapshot', snapshotId: meanwhile.id }, sizeGiB: null })
  assert.deepEqual(await contentOf(made.id), NOW)
  assert.deepEqual(await contentOf(id), BEFORE)
  assert.deepEqual(await world.read(id, 2 ** 31 - 512, 512), Buffer.alloc(512))
  await attached.released(id, INSTANCE)
  await deleteVolume(world.ports, alice, id, { cascade: true })
  await world.idle()
})
