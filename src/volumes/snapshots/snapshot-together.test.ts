import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, before, test } from 'node:test'
import { GiB } from '../../base/units.ts'
import { AttachedVolumes } from '../attachments/attached-volumes.ts'
import { someone, type VolumeWorld, volumeWorld } from '../volume-world.suite.ts'
import { deleteSnapshot } from './delete-snapshot.ts'

const alice = someone('alice')
let world: VolumeWorld
before(async () => {
  world = await volumeWorld({ quota: { snapshots: 4 } })
})
after(() => world.close())
const wantedOf = (volumeIds: readonly string[]) => volumeIds.map((volumeId) => ({ id: randomUUID(), volumeId, name: 'together' }))
const forever = new AbortController().signal

test('snapshots of several volumes are of the moment at which they were asked for, and stored behind it', async () => {
  const attached = new AttachedVolumes(world.ports)
  const [one, two] = [await world.createOne(alice), await world.createOne(alice)]
  for (const { id } of [one, two]) await world.write(id, 0, Buffer.alloc(512, 'a'))
  const wanted = wantedOf([two.id, one.id])
  await attached.checkSnapshots(alice, [one.id, two.id])
  await attached.snapshot(alice, wanted)
  for (const { id } of [one, two]) await world.write(id, 0, Buffer.alloc(512, 'b'))
  await attached.stored(wanted, forever)
  for (const { id, volumeId } of wanted) {
    const snapshot = await world.showSnapshot(id)
    assert.deepEqual([snapshot?.status, snapshot?.volumeId, snapshot?.name], ['available', volumeId, 'together'])
    const { bytes, isBootable } = await attached.checkSnapshot(alice, id)
    assert.deepEqual([bytes, isBootable], [2 ** 30, false])
    const made = await world.createOne(alice, { from: { kind: 'snapshot', snapshotId: id }, sizeGiB: null })
    assert.deepEqual(await world.read(made.id, 0, 512), Buffer.alloc(512, 'a'))
    assert.deepEqual(await world.read(volumeId, 0, 512), Buffer.alloc(512, 'b'))
  }
  await assert.rejects(attached.checkSnapshot(someone('bob'), wanted[0]!.id), { code: 'not-found' })
  for (const { id } of wanted) await attached.deleteSnapshot(id)
  await world.idle()
  await attached.deleteSnapshot(wanted[0]!.id)
  await assert.rejects(attached.stored(wanted, forever), { code: 'conflict', message: /deleted meanwhile/ })
})

test('where one of them cannot be taken, none is', async () => {
  const attached = new AttachedVolumes(world.ports)
  const volumes = await Promise.all([1, 2, 3, 4, 5].map(() => world.createOne(alice)))
  const ids = volumes.map(({ id }) => id)
  await assert.rejects(attached.checkSnapshots(alice, ids), { code: 'over-quota' })
  const wanted = wantedOf(ids)
  await assert.rejects(attached.snapshot(alice, wanted), { code: 'over-quota' })
  await assert.rejects(attached.snapshot(someone('bob'), wanted.slice(0, 1)), { code: 'not-found' })
  for (const { id } of wanted) assert.equal(await world.showSnapshot(id), undefined)
  const [first] = wanted
  await world.snapshotOne(alice, first!.volumeId) // what was sealed for nothing is in the next one
  assert.deepEqual(world.files(first!.volumeId).length, 3)
})

test('copies of them need quota for the snapshots and for the volumes, and room for the volumes', async () => {
  const quota = { volumes: 4, snapshots: 2, gigabytes: 8 }
  const small = await volumeWorld({ quota })
  const attached = new AttachedVolumes(small.ports)
  const ids = [(await small.createOne(alice)).id, (await small.createOne(alice)).id]
  await attached.checkCopies(alice, ids)
  for (const name of ['volumes', 'snapshots', 'gigabytes'] as const) {
    const most = quota[name]
    quota[name] -= name === 'gigabytes' ? 3 : 1
    await assert.rejects(attached.checkCopies(alice, ids), { code: 'over-quota', details: { [name]: quota[name] } })
    quota[name] = most
  }
  await assert.rejects(attached.checkCopies(someone('bob'), ids), { code: 'not-found' })
  small.host.promisedBytes = 100 * GiB
  await assert.rejects(attached.checkCopies(alice, ids), { code: 'no-space' })
  await small.close()
})

test('killed before they are recorded, there are none; killed afterwards, they are stored at the next start', async () => {
  const { id: volumeId } = await world.createOne(alice)
  await world.write(volumeId, 0, Buffer.alloc(512, 'a'))
  const [wanted] = wantedOf([volumeId])
  const never = Promise.withResolvers<void>()
  await world.reopen(
    (real) => new Proxy(real, { get: (target, name) => (name === 'settle' ? () => never.promise : bound(target, name)) }),
  )
  await new AttachedVolumes(world.ports).snapshot(alice, [wanted!])
  assert.equal((await world.showSnapshot(wanted!.id))?.status, 'creating')
  never.reject(new Error('cut off'))
  await world.reopen()
  await world.idle()
  assert.equal((await world.showSnapshot(wanted!.id))?.status, 'available')
  await deleteSnapshot(world.ports, alice, wanted!.id)
  await world.idle()
})

test('who waits until a volume is open is told when it is, or lets go', async () => {
  const attached = new AttachedVolumes(world.ports)
  const { id } = await world.createOne(alice)
  const cut = new AbortController()
  const cutOff = attached.whenOpen(id, cut.signal)
  cut.abort()
  await assert.rejects(cutOff, { code: 'cancelled' })
  const open = attached.whenOpen(id, forever)
  const disk = await world.openDisk(id)
  await open
  await attached.whenOpen(id, forever)
  await disk.release()
})

function bound(target: object, name: string | symbol): unknown {
  const value = Reflect.get(target, name) as unknown
  return typeof value === 'function' ? value.bind(target) : value
}
