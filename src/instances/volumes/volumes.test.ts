import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { GiB } from '../../base/units.ts'
import { deleteInstance } from '../delete-instance.ts'
import { type InstanceWorld, instanceWorld, someone } from '../instance-world.suite.ts'
import { startInstance, stopInstance } from '../power/actions.ts'
import { attachments } from '../store.ts'
import { attachVolume } from './attach-volume.ts'
import { detachVolume } from './detach-volume.ts'
import type { WantedDisk } from './new-disks.ts'
import { recordAllAttached, recordAttached } from './plug.ts'
import { takeUpVolumes } from './recover-volumes.ts'

const alice = someone('alice')
let world: InstanceWorld
before(async () => {
  world = await instanceWorld()
})
after(() => world.close())

const attach = async (instanceId: string, volumeId: string, deleteOnTermination = false) => {
  const made = await attachVolume(world.ports, alice, instanceId, { volumeId, deleteOnTermination, tag: null })
  await world.idle()
  return made
}
const detach = async (instanceId: string, volumeId: string) => {
  await detachVolume(world.ports, alice, instanceId, volumeId)
  await world.idle()
}
const disksOf = (id: string) => world.host.machine(id).spec.disks
const volume = (id: string) => world.volumes.volumes.get(id)
const known = (instanceId: string) => attachments.ofInstance(world.catalog.documents, instanceId)

test('a volume is plugged into a machine that runs or is off, and out of it again', async () => {
  const { id } = await world.createOne(alice)
  const [one, two] = [world.volumes.add(), world.volumes.add({ bytes: 3 * GiB })]
  assert.equal((await attach(id, one)).device, '/dev/vdb')
  assert.deepEqual([volume(one)?.status, volume(one)?.device], ['in-use', '/dev/vdb'])
  await stopInstance(world.ports, alice, id)
  await world.idle()
  assert.equal((await attach(id, two)).device, '/dev/vdc')
  const [root, first, second] = disksOf(id)
  assert.deepEqual([root?.name, first?.name, second?.name, second?.bytes], ['root', one, two, 3 * GiB])
  assert.deepEqual([first?.store, first?.serial], [volume(one)?.address, one.slice(0, 20)])
  await startInstance(world.ports, alice, id)
  await world.idle()
  assert.deepEqual(
    disksOf(id)
      .slice(1)
      .map(({ store }) => store),
    [volume(one)?.address, volume(two)?.address],
    'each start has addresses of its own',
  )
  await detach(id, one)
  assert.deepEqual([volume(one)?.status, disksOf(id).map(({ name }) => name)], ['available', ['root', two]])
  assert.equal((await attach(id, one)).device, '/dev/vdb', 'the first place that is free')
  await deleteInstance(world.ports, alice, id)
  await world.idle()
  assert.deepEqual([volume(one)?.status, volume(two)?.status, await known(id)], ['available', 'available', []])
})

test('a kill between the two records of an attachment is mended; a detach that came meanwhile is not undone', async () => {
  const { id } = await world.createOne(alice)
  const [one, two] = [world.volumes.add(), world.volumes.add()]
  await attach(id, one)
  await attach(id, two)
  for (const mend of [
    () => recordAllAttached(world.ports, id),
    () => takeUpVolumes(world.ports, { id, launchedAt: 1, taskState: null }),
  ]) {
    volume(one)!.status = 'attaching'
    await mend()
    assert.equal(volume(one)?.status, 'in-use')
  }
  const before = (await known(id)).find(({ volumeId }) => volumeId === two)!
  await world.catalog.write(({ documents }) => attachments.put(documents, { ...before, state: 'detaching' }))
  volume(two)!.status = 'detaching'
  await recordAttached(world.ports, before)
  const now = (await known(id)).find(({ volumeId }) => volumeId === two)
  assert.deepEqual([now?.state, volume(two)?.status], ['detaching', 'detaching'])
  await takeUpVolumes(world.ports, { id, launchedAt: 1, taskState: null })
  await world.idle()
  assert.equal(volume(two)?.status, 'available')
})

test('what cannot be plugged is given back; what the guest does not let go stays', async () => {
  const { id } = await world.createOne(alice)
  const [one, foreign] = [world.volumes.add(), world.volumes.add({ status: 'in-use', instanceId: 'another' })]
  await assert.rejects(attach(id, foreign), { code: 'conflict' })
  await assert.rejects(attach(id, 'none'), { code: 'not-found' })
  await assert.rejects(attachVolume(world.ports, someone('bob'), id, { volumeId: one, deleteOnTermination: false, tag: null }), {
    code: 'not-found',
  })
  await assert.rejects(detachVolume(world.ports, alice, id, one), { code: 'not-found' })
  await world.reopen({
    hypervisor: (real) =>
      new Proxy(real, {
        get(target, name) {
          if (name === 'attach') return () => Promise.reject(new Error('no place'))
          const value = Reflect.get(target, name) as unknown
          return typeof value === 'function' ? value.bind(target) : value
        },
      }),
  })
  await attach(id, one)
  assert.deepEqual([volume(one)?.status, await known(id)], ['available', []])
  assert.equal(world.problems.length, 1)
  await world.reopen()
})

test('what was being attached or detached when the service ended goes on, and what nobody knows of is given back', async () => {
  const { id } = await world.createOne(alice)
  const [attaching, detaching, lost] = [world.volumes.add(), world.volumes.add(), world.volumes.add()]
  await attach(id, detaching)
  const { documents } = world.catalog
  const [there] = await attachments.ofInstance(documents, id)
  await world.volumes.reserve(alice, attaching, id)
  await world.volumes.reserve(alice, lost, id)
  await world.catalog.write(async (tx) => {
    await attachments.put(tx.documents, { ...there!, state: 'detaching' })
    await attachments.put(tx.documents, { ...there!, volumeId: attaching, device: '/dev/vdc', state: 'attaching' })
  })
  await world.reopen()
  await world.idle()
  assert.deepEqual(
    [attaching, detaching, lost].map((one) => volume(one)?.status),
    ['in-use', 'available', 'available'],
  )
  assert.deepEqual(
    disksOf(id).map(({ name }) => name),
    ['root', attaching],
  )
})

test('a volume that a machine has since before a kill is not taken from its guest to be given again', async () => {
  const { id } = await world.createOne(alice)
  const one = world.volumes.add()
  await attach(id, one)
  const { address } = volume(one)!
  const [there] = await attachments.ofInstance(world.catalog.documents, id)
  await world.catalog.write((tx) => attachments.put(tx.documents, { ...there!, state: 'attaching' }))
  volume(one)!.status = 'attaching'
  world.host.guest = { ...world.host.guest, letsGo: () => assert.fail('the guest was asked to let go') }
  await world.reopen()
  await world.idle()
  assert.deepEqual([volume(one)?.status, volume(one)?.address], ['in-use', address])
  assert.deepEqual(
    (await known(id)).map(({ state }) => state),
    ['attached'],
  )
})

const disk = (from: WantedDisk['from'], more: Partial<WantedDisk> = {}): WantedDisk => ({
  ...{ from, bootIndex: null, sizeGiB: null, deleteOnTermination: false, tag: null },
  ...more,
})

test('an instance starts from a volume, with others beside it, made for it or not', async () => {
  const system = world.volumes.add({ isBootable: true, bytes: 5 * GiB, imageMetadata: { hw_disk_bus: 'scsi' } })
  const { id, vmState, imageId, hardware, rootBytes } = await world.createOne(alice, {
    imageId: '',
    volumes: [
      disk({ kind: 'blank' }, { sizeGiB: 2, deleteOnTermination: true }),
      disk({ kind: 'volume', volumeId: system }, { bootIndex: 0 }),
    ],
  })
  assert.deepEqual([vmState, imageId, hardware.diskBus, rootBytes], ['active', '', 'scsi', 0])
  const [first, second] = disksOf(id)
  assert.deepEqual([first?.name, first?.store, first?.bytes], [system, volume(system)?.address, 5 * GiB])
  assert.equal(second?.bytes, 2 * GiB)
  assert.deepEqual(
    (await known(id)).map(({ state }) => state),
    ['attached', 'attached'],
  )
  await assert.rejects(detachVolume(world.ports, alice, id, system), { code: 'denied', message: /root device/ })
  await deleteInstance(world.ports, alice, id)
  await world.idle()
  assert.deepEqual([volume(system)?.status, volume(second!.name)], ['available', undefined])
})

test('where a volume cannot be had, the launch fails, and the others are given back', async () => {
  const [one, other] = [world.volumes.add(), world.volumes.add()]
  const wanted = { volumes: [disk({ kind: 'volume', volumeId: one }), disk({ kind: 'volume', volumeId: other })] }
  await assert.rejects(world.create(alice, { ...wanted, most: 2 }), { code: 'invalid-request', message: /one at a time/ })
  await assert.rejects(world.create(alice, { imageId: '' }), { code: 'invalid-request', message: /0 are named/ })
  await assert.rejects(
    world.create(alice, { imageId: '', volumes: [disk({ kind: 'volume', volumeId: one }, { bootIndex: 0 })] }),
    {
      message: /not bootable/,
    },
  )
  const made = await world.create(alice, wanted)
  volume(other)!.status = 'detaching' // somebody else was quicker
  await world.idle()
  const { vmState } = (await world.get(made[0]!.id))!
  assert.deepEqual([vmState, volume(one)?.status, await known(made[0]!.id)], ['error', 'available', []])
})
