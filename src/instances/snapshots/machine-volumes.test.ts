/** Machines as images, with their volumes: made again, and put back. */
import assert from 'node:assert/strict'
import { after, beforeEach, test } from 'node:test'
import { GiB } from '../../base/units.ts'
import { createFromMachine } from '../create-from-machine.ts'
import { type Cut, type CutPort, openCut } from '../cut.suite.ts'
import { deleteInstance } from '../delete-instance.ts'
import { instanceWorld, someone } from '../instance-world.suite.ts'
import { rebuildInstance, restoreInstance } from '../rebuild/begin-rebuild.ts'
import { statusOf } from '../states.ts'
import { attachments } from '../store.ts'
import { attachVolume } from '../volumes/attach-volume.ts'
import { inOrder } from '../volumes/attachment.ts'
import { detachVolume } from '../volumes/detach-volume.ts'
import { createSnapshot } from './create-snapshot.ts'

const alice = someone('alice')
const world = await instanceWorld()
after(() => world.close())
beforeEach(() => world.reopen())

const volumesOf = async (id: string) =>
  inOrder(await attachments.ofInstance(world.catalog.documents, id)).map(({ volumeId }) => world.volumes.volumes.get(volumeId)!)
const contentsOf = async (id: string) => (await volumesOf(id)).map(({ content }) => content)
const snapshot = async (id: string, what: { readonly withMemory?: boolean; readonly withMachine?: boolean } = {}) => {
  const imageId = await createSnapshot(world.ports, alice, id, {
    ...{ name: 'snap', properties: {}, withMemory: false, withMachine: false, ...what },
  })
  await world.idle()
  assert.ok(world.images.images.has(imageId), JSON.stringify((await world.get(id))?.fault))
  return imageId
}
const statusNow = async (id: string) => {
  await world.idle()
  const instance = await world.get(id)
  return instance && [statusOf(instance), instance.taskState, instance.fault?.message ?? null]
}
const RUNS = ['ACTIVE', null, null]
const attach = async (id: string, volumeId: string) => {
  await attachVolume(world.ports, alice, id, { volumeId, deleteOnTermination: false, tag: null })
  await world.idle()
}
/** With a volume of 2 GiB beside its own disk. */
async function withData(): Promise<string> {
  const { id } = await world.createOne(alice)
  await attach(id, world.volumes.add({ content: 'data', bytes: 2 * GiB }))
  return id
}
const IMAGE = '00000000-0000-4000-8000-00000000000a'
async function onVolume(): Promise<string> {
  const plain = { sizeGiB: null, deleteOnTermination: false, tag: null }
  const system = world.volumes.add({ content: 'system', isBootable: true, imageMetadata: { image_id: IMAGE } })
  const data = world.volumes.add({ content: 'data' })
  const { id } = await world.createOne(alice, {
    imageId: '',
    volumes: [
      { ...plain, from: { kind: 'volume', volumeId: system }, bootIndex: 0 },
      { ...plain, from: { kind: 'volume', volumeId: data }, bootIndex: null },
    ],
  })
  return id
}
const overwrite = async (id: string) => {
  for (const volume of await volumesOf(id)) volume.content = 'later'
}

for (const [what, make, contents] of [
  ['a disk of its own', withData, ['data']],
  ['a volume', onVolume, ['system', 'data']],
] as const) {
  test(`a machine that starts from ${what} is made again with volumes of its own`, async () => {
    const id = await make()
    const imageId = await snapshot(id, { withMachine: true })
    assert.equal(world.volumes.snapshots.size, 0, 'what they kept is in the image')
    await overwrite(id)
    const { id: again } = await createFromMachine(world.ports, alice, { name: 'again', imageId, withMemory: false })
    assert.deepEqual(await statusNow(again), RUNS)
    assert.deepEqual(await contentsOf(again), contents)
    assert.deepEqual(
      (await volumesOf(again)).map(({ bytes }) => bytes),
      (await volumesOf(id)).map(({ bytes }) => bytes),
    )
    assert.equal((await world.get(again))!.imageId === '', make === onVolume)
  })

  test(`restored from its machine, one that starts from ${what} has in its volumes what was there`, async () => {
    const id = await make()
    const before = (await volumesOf(id)).map((volume) => volume.id)
    const imageId = await snapshot(id, { withMachine: true })
    await overwrite(id)
    await restoreInstance(world.ports, alice, id, { imageId, withMemory: false })
    assert.deepEqual(await statusNow(id), RUNS)
    assert.deepEqual(await contentsOf(id), contents)
    assert.deepEqual(
      (await volumesOf(id)).map((volume) => volume.id),
      before,
    )
    assert.equal([...world.images.lent.values()].filter(({ withParts }) => withParts).length, 0)
  })

  test(`with memory, one that starts from ${what} goes on where it was, volumes and all, also when the image is deleted meanwhile`, async () => {
    const id = await make()
    world.host.machine(id).memory = 7
    const imageId = await snapshot(id, { withMemory: true })
    await overwrite(id)
    world.host.machine(id).memory = 9
    const twin = await createFromMachine(world.ports, alice, { name: 'twin', imageId, withMemory: true })
    assert.deepEqual(await statusNow(twin.id), RUNS)
    assert.deepEqual([await contentsOf(twin.id), world.host.machine(twin.id).memory], [contents, 7])

    const { reached } = await openCut(world, 'hypervisor', 'remove', 'before')
    await restoreInstance(world.ports, alice, id, { imageId, withMemory: true })
    await reached
    world.images.images.delete(imageId)
    await world.reopen()
    assert.deepEqual(await statusNow(id), RUNS)
    assert.deepEqual([await contentsOf(id), world.host.machine(id).memory], [contents, 7])
    assert.equal([...world.images.lent.values()].filter(({ withParts }) => withParts).length, 0)
  })
}

test("what a machine's image was made of goes with its instance, also when that is deleted after the image was saved", async () => {
  const id = await withData()
  const before = world.volumes.snapshots.size
  const [reached, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  await world.reopen({
    hypervisor: (real) =>
      new Proxy(real, {
        get(of, name) {
          const value: unknown = Reflect.get(of, name)
          if (name !== 'rebase') return typeof value === 'function' ? value.bind(of) : value
          return () => {
            reached.resolve()
            return held.promise
          }
        },
      }),
  })
  await createSnapshot(world.ports, alice, id, { name: 'snap', properties: {}, withMemory: false, withMachine: true })
  await reached.promise
  assert.equal(world.volumes.snapshots.size, before + 1)
  await deleteInstance(world.ports, alice, id)
  held.reject(new Error('cut off'))
  await world.idle()
  assert.deepEqual([await world.get(id), world.volumes.snapshots.size], [undefined, before])
})

test('an image that names snapshots puts the volumes back as well', async () => {
  const id = await onVolume()
  const imageId = await snapshot(id)
  await overwrite(id)
  await restoreInstance(world.ports, alice, id, { imageId, withMemory: false })
  assert.deepEqual(await statusNow(id), RUNS)
  assert.deepEqual(await contentsOf(id), ['system', 'data'])
})

test('memory of a machine that was otherwise is refused while the machine that there is runs on', async () => {
  const id = await withData()
  const imageId = await snapshot(id, { withMemory: true })
  await attach(id, world.volumes.add({ content: 'new' }))
  const { boots } = world.host.machine(id)
  await restoreInstance(world.ports, alice, id, { imageId, withMemory: true })
  const [status, task, fault] = (await statusNow(id))!
  assert.deepEqual([status, task, world.host.machine(id).boots], ['ACTIVE', null, boots])
  assert.match(fault!, /memory does not fit this machine: diskBytes/)
  assert.deepEqual(
    [world.volumes.reverts.size, [...world.images.lent.values()].filter(({ withParts }) => withParts).length],
    [0, 0],
  )
})

test('what a snapshot holds and the instance has no more, or starts from and it does not hold, is told', async () => {
  const id = await withData()
  const imageId = await snapshot(id, { withMachine: true })
  const [volume] = await volumesOf(id)
  await detachVolume(world.ports, alice, id, volume!.id)
  await world.idle()
  const restored = (instanceId: string, image: string) =>
    restoreInstance(world.ports, alice, instanceId, { imageId: image, withMemory: false })
  await assert.rejects(restored(id, imageId), { code: 'invalid-request', message: /has no more: attach it/ })
  const other = await onVolume()
  const empty = world.images.add({ properties: { instance_uuid: other } })
  await assert.rejects(restored(other, empty), {
    code: 'invalid-request',
    message: /does not hold the volume that .* starts from/,
  })
  await assert.rejects(restored(other, imageId), { code: 'invalid-request', message: /no snapshot of instance/ })
})

test('a rebuild of one that starts from a volume takes the image of that volume, and leaves what is in it', async () => {
  const id = await onVolume()
  const other = world.images.add()
  await assert.rejects(rebuildInstance(world.ports, alice, id, { imageId: other }), {
    code: 'invalid-request',
    message: /Unable to rebuild with a different image for a volume-backed server/,
  })
  const image = world.images.images.get(world.images.add())!
  world.images.images.set(IMAGE, { ...image, id: IMAGE })
  await overwrite(id)
  await rebuildInstance(world.ports, alice, id, { imageId: IMAGE, name: 'renamed', userData: 'I2E=' })
  assert.deepEqual(await statusNow(id), RUNS)
  const now = (await world.get(id))!
  assert.deepEqual([now.name, now.imageId, now.leaseId, await contentsOf(id)], ['renamed', '', null, ['later', 'later']])
  assert.equal(Buffer.from(world.host.machine(id).spec.seed!.userData).toString(), '#a')
})

const cuts: readonly [string, CutPort, string, Cut][] = [
  ['instance:parts-lent', 'images', 'lend', 'after'],
  ['the comparison', 'hypervisor', 'assertResumable', 'before'],
  ['the reverts', 'hypervisor', 'remove', 'before'],
  ['instance:rebuild-removed', 'hypervisor', 'remove', 'after'],
  ['instance:volumes-reverted', 'hypervisor', 'launch', 'before'],
  ['instance:rebuild-launched', 'hypervisor', 'launch', 'after'],
]
for (const [step, port, method, cut] of cuts) {
  test(`stopped at ${step}, a restore with memory and volumes is brought to its end`, async () => {
    const id = await onVolume()
    world.host.machine(id).memory = 7
    const imageId = await snapshot(id, { withMemory: true })
    await overwrite(id)
    const { reached } = await openCut(world, port, method, cut)
    await restoreInstance(world.ports, alice, id, { imageId, withMemory: true })
    await reached
    await world.reopen()
    assert.deepEqual(await statusNow(id), RUNS)
    assert.deepEqual([await contentsOf(id), world.host.machine(id).memory], [['system', 'data'], 7])
    assert.deepEqual([...world.images.lent.values()].filter(({ holder }) => holder === `instance ${id}`).length, 0)
  })
}
