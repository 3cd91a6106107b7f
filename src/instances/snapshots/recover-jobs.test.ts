/** A stop at every step of a snapshot, a clone and a rebuild; a new service starts on what is there. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { type Cut, type CutPort, openCut } from '../cut.suite.ts'
import { deleteInstance } from '../delete-instance.ts'
import { instanceWorld, someone } from '../instance-world.suite.ts'
import { rebuildInstance } from '../rebuild/begin-rebuild.ts'
import { statusOf } from '../states.ts'
import { cloneInstance } from './clone.ts'
import { createSnapshot } from './create-snapshot.ts'

const world = await instanceWorld({ settings: { forwardPorts: { first: 3000, last: 3999 } } })
after(() => world.close())
const member = someone('mine')
const plain = { name: 'snap', properties: {}, withMemory: false, withMachine: false }
const FAR = 100 * 2 ** 20

const statusNow = async (id: string) => {
  await world.idle()
  const instance = await world.get(id)
  return instance && [statusOf(instance), instance.power, instance.taskState]
}
const write = (id: string, offset: number, fill: string) => world.host.machine(id).write('root', offset, Buffer.alloc(512, fill))
const leasesOf = (id: string) => [...world.images.lent.values()].filter(({ holder }) => holder === `instance ${id}`)
const jobOf = (id: string) => world.catalog.documents.get('instance-job', id)
/** The machine reads by the one lease that there is for it. */
async function assertOneBase(id: string): Promise<void> {
  const leases = leasesOf(id)
  assert.equal(leases.length, 1)
  assert.equal((await world.get(id))!.leaseId, leases[0]!.leaseId)
  assert.deepEqual(world.host.machine(id).spec.disks[0]?.base, leases[0]!.address)
  assert.equal(await jobOf(id), undefined)
}

const snapshotCuts: readonly [string, CutPort, string, Cut][] = [
  ['instance:snapshot-begun', 'hypervisor', 'seal', 'before'],
  ['instance:sealed', 'hypervisor', 'seal', 'after'],
  ['instance:sealing-noted', 'snapshots', 'save', 'before'],
  ['instance:saved', 'snapshots', 'save', 'after'],
  ['a lease that nobody noted', 'images', 'lend', 'after'],
  ['instance:move-lent', 'hypervisor', 'rebase', 'before'],
  ['instance:rebased', 'hypervisor', 'rebase', 'after'],
]
for (const [step, port, method, cut] of snapshotCuts) {
  test(`stopped at ${step}, a snapshot becomes an image at the next start, and the instance lies on it`, async () => {
    await world.reopen()
    const { id } = await world.createOne(member)
    write(id, FAR, 'a')
    const { reached } = await openCut(world, port, method, cut)
    const imageId = await createSnapshot(world.ports, member, id, plain)
    await reached
    await world.reopen()
    assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
    assert.equal(world.images.images.get(imageId)?.sectors.get(FAR)?.[0], 'a')
    assert.equal(world.host.machine(id).layerNumbers('root').length, 1)
    await assertOneBase(id)
    write(id, FAR, 'b')
    const next = await createSnapshot(world.ports, member, id, plain)
    await world.idle()
    assert.equal(world.images.images.get(next)?.sectors.get(FAR)?.[0], 'b')
    await deleteInstance(world.ports, member, id)
    await world.idle()
    assert.deepEqual([leasesOf(id), await jobOf(id)], [[], undefined])
  })
}

test('stopped at instance:snapshot-asked, before there was an image, a snapshot comes to nothing', async () => {
  await world.reopen()
  const { id } = await world.createOne(member)
  const { reached } = await openCut(world, 'snapshots', 'begin', 'before')
  void createSnapshot(world.ports, member, id, plain)
  await reached
  await world.reopen()
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.deepEqual([await jobOf(id), world.images.begun.size], [undefined, 0])
})

const cloneCuts: readonly [string, CutPort, string, Cut, number][] = [
  ['instance:snapshot-begun', 'hypervisor', 'seal', 'before', 1],
  ['instance:saved', 'snapshots', 'save', 'after', 1],
  ['instance:clone-lent', 'images', 'lend', 'after', 2], // the first is for the source
  ['the image going', 'snapshots', 'remove', 'before', 1],
]
for (const [step, port, method, cut, nth] of cloneCuts) {
  test(`stopped at ${step}, a clone starts at the next start, and no image stays`, async () => {
    await world.reopen()
    const { id } = await world.createOne(member)
    write(id, FAR, 'a')
    const images = world.images.images.size
    const { reached } = await openCut(world, port, method, cut, nth)
    const clone = await cloneInstance(world.ports, member, id, { name: 'twin' })
    await reached
    await world.reopen()
    assert.deepEqual(await statusNow(clone.id), ['ACTIVE', 'running', null])
    assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
    assert.equal(leasesOf(clone.id)[0]!.image.sectors.get(FAR)?.[0], 'a')
    await assertOneBase(clone.id)
    await assertOneBase(id)
    assert.equal(world.images.images.size, images)
  })
}

test('stopped before anybody was to make its disk, a clone says so and can be deleted', async () => {
  await world.reopen()
  const { id } = await world.createOne(member)
  const { reached } = await openCut(world, 'snapshots', 'begin', 'before')
  void cloneInstance(world.ports, member, id, { name: 'orphan' })
  await reached
  await world.catalog.write(({ documents }) => documents.delete('instance-job', id)) // as if that had been cut off too
  await world.reopen()
  await world.idle()
  const [orphan] = await Promise.all(
    (await world.catalog.documents.list<{ name: string; id: string }>('instance', { limit: 500 }))
      .filter(({ body }) => body.name === 'orphan')
      .map(({ body }) => world.get(body.id)),
  )
  assert.equal(statusOf(orphan!), 'ERROR')
  await deleteInstance(world.ports, member, orphan!.id)
  assert.equal(await statusNow(orphan!.id), undefined)
})

const rebuildCuts: readonly [string, CutPort, string, Cut][] = [
  ['instance:rebuild-asked', 'images', 'lend', 'before'],
  ['a lease that nobody noted', 'images', 'lend', 'after'],
  ['instance:rebuild-lent', 'hypervisor', 'remove', 'before'],
  ['instance:rebuild-removed', 'hypervisor', 'remove', 'after'],
  ['instance:rebuild-cleared', 'images', 'release', 'before'],
  ['the launch', 'hypervisor', 'launch', 'before'],
  ['instance:rebuild-launched', 'hypervisor', 'launch', 'after'],
]
for (const [step, port, method, cut] of rebuildCuts) {
  test(`stopped at ${step}, a rebuild is brought to its end at the next start`, async () => {
    await world.reopen()
    const other = world.images.add({ name: 'other' })
    const { id, network } = await world.createOne(member, { metadata: { 'imprint:forwards': 'tcp:0:22' } })
    write(id, FAR, 'a')
    const { reached } = await openCut(world, port, method, cut)
    await rebuildInstance(world.ports, member, id, { imageId: other, adminPassword: 'once' })
    await reached
    await world.reopen()
    assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
    const now = (await world.get(id))!
    assert.deepEqual([now.imageId, now.network], [other, network])
    assert.deepEqual(Buffer.from(await world.host.machine(id).read('root', FAR, 512)), Buffer.alloc(512))
    assert.match(world.host.machine(id).spec.seed!.vendorData!, /"password": "\$6\$/)
    assert.equal(await world.catalog.documents.get('instance-seed', id), undefined)
    await assertOneBase(id)
  })
}
