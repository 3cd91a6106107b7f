/** Images and clones of servers that start from volumes. */
import assert from 'node:assert/strict'
import { after, beforeEach, test } from 'node:test'
import { ServiceError } from '../../base/errors.ts'
import { GiB } from '../../base/units.ts'
import { type Cut, type CutPort, openCut } from '../cut.suite.ts'
import { deleteInstance } from '../delete-instance.ts'
import { instanceWorld, someone } from '../instance-world.suite.ts'
import { rebuildInstance, restoreInstance } from '../rebuild/begin-rebuild.ts'
import { cloneInstance } from '../snapshots/clone.ts'
import { createBackup, createSnapshot } from '../snapshots/create-snapshot.ts'
import { statusOf } from '../states.ts'
import { attachments } from '../store.ts'
import { inOrder } from './attachment.ts'

const alice = someone('alice')
const world = await instanceWorld({ quota: { instances: -1 } })
after(() => world.close())
beforeEach(() => world.reopen())

const plain = { name: 'snap', properties: {}, withMemory: false, withMachine: false }
const volumesOf = async (id: string) =>
  inOrder(await attachments.ofInstance(world.catalog.documents, id)).map(({ volumeId }) => world.volumes.volumes.get(volumeId)!)
const statusNow = async (id: string) => {
  await world.idle()
  const instance = await world.get(id)
  return instance && [statusOf(instance), instance.taskState, instance.fault?.message ?? null]
}
/** One that starts from a volume that holds `system`, with one of 2 GiB that holds `data` beside it. */
async function volumeBacked(): Promise<string> {
  const from = (content: string, changes: object) =>
    ({ kind: 'volume', volumeId: world.volumes.add({ content, ...changes }) }) as const
  const plainDisk = { sizeGiB: null, deleteOnTermination: false, tag: null }
  const { id } = await world.createOne(alice, {
    imageId: '',
    volumes: [
      {
        ...plainDisk,
        from: from('system', {
          isBootable: true,
          imageMetadata: { hw_disk_bus: 'scsi', min_disk: '1', size: '5', image_name: 'x' },
        }),
        bootIndex: 0,
      },
      { ...plainDisk, from: from('data', { bytes: 2 * GiB }), bootIndex: null, deleteOnTermination: true, tag: 'db' },
    ],
  })
  return id
}

test('an image of it names snapshots of its volumes, all of the moment at which it stood still', async () => {
  const id = await volumeBacked()
  const imageId = await createSnapshot(world.ports, alice, id, plain)
  assert.deepEqual(await statusNow(id), ['ACTIVE', null, null])
  const image = world.images.images.get(imageId)!
  assert.equal(image.diskBytes, 0)
  const { block_device_mapping: text, bdm_v2, root_device_name, image_type, base_image_ref } = image.properties
  assert.deepEqual([bdm_v2, root_device_name, image_type, base_image_ref], ['True', '/dev/sda', 'snapshot', ''])
  assert.deepEqual(
    ['hw_disk_bus', 'min_disk', 'size', 'image_name'].map((name) => image.properties[name]),
    ['scsi', undefined, undefined, undefined],
  )
  const mapping = JSON.parse(text!) as Record<string, unknown>[]
  const [system, data] = mapping.map(({ snapshot_id }) => world.volumes.snapshots.get(String(snapshot_id))!)
  assert.deepEqual([system?.content, data?.content, system?.name], ['system', 'data', 'snapshot for snap'])
  assert.deepEqual(
    mapping.map(({ source_type, destination_type, volume_size, boot_index, device_name, delete_on_termination, tag }) => [
      ...[source_type, destination_type, volume_size, boot_index, device_name, delete_on_termination, tag],
    ]),
    [
      ['snapshot', 'volume', 1, 0, '/dev/sda', false, null],
      ['snapshot', 'volume', 2, null, '/dev/sdb', true, 'db'],
    ],
  )
})

test('a server of that image gets volumes of its own, made of those snapshots', async () => {
  const imageId = await createSnapshot(world.ports, alice, await volumeBacked(), plain)
  await world.idle()
  const made = await world.createOne(alice, { imageId })
  assert.deepEqual(await statusNow(made.id), ['ACTIVE', null, null])
  assert.deepEqual([made.imageId, made.rootBytes, made.imageProperties.block_device_mapping], ['', 0, undefined])
  assert.deepEqual(
    (await volumesOf(made.id)).map(({ content, bytes }) => [content, bytes]),
    [
      ['system', GiB],
      ['data', 2 * GiB],
    ],
  )
  assert.equal(world.host.machine(made.id).spec.disks.length, 2)
  const again = await createSnapshot(world.ports, alice, made.id, plain)
  await world.idle()
  assert.notEqual(
    world.images.images.get(again)?.properties.block_device_mapping,
    world.images.images.get(imageId)?.properties.block_device_mapping,
  )
})

test('what an image names is held against what the caller may have, and its form against what there is', async () => {
  const mapped = (text: unknown, bdm_v2 = 'True') =>
    world.images.add({ properties: { block_device_mapping: typeof text === 'string' ? text : JSON.stringify(text), bdm_v2 } })
  const root = { destination_type: 'volume', boot_index: 0 }
  const foreign = '00000000-0000-4000-8000-000000000000'
  for (const [imageId, message] of [
    [mapped([{ ...root, source_type: 'snapshot', snapshot_id: foreign }]), /Snapshot .* could not be found/],
    [mapped([{ ...root, source_type: 'snapshot', snapshot_id: '../x' }]), /without its id/],
    [mapped([{ ...root, source_type: 'blank' }]), /without volume_size/],
    [mapped([{ ...root, destination_type: 'local', source_type: 'blank' }]), /no volume/],
    [mapped([{ ...root, boot_index: 'x', source_type: 'blank' }]), /no whole number/],
    [mapped('{'), /no list/],
    [mapped([], 'False'), /older form/],
  ] as const) {
    await assert.rejects(world.create(alice, { imageId }), { code: 'invalid-request', message }, String(message))
  }
  const snapshotId = '00000000-0000-4000-8000-000000000001'
  const disk = {
    from: { kind: 'snapshot', snapshotId },
    bootIndex: 0,
    sizeGiB: null,
    deleteOnTermination: false,
    tag: null,
  } as const
  await assert.rejects(world.create(alice, { imageId: '', volumes: [disk] }), { message: /Snapshot .* could not be found/ })
})

test("an image names nothing that is there but snapshots and images of the caller's own project, whoever the caller is", async () => {
  const volumeId = world.volumes.add({ content: 'mine', isBootable: true })
  const device = { destination_type: 'volume', boot_index: 0, delete_on_termination: true }
  const naming = (device: object) =>
    world.images.add({ properties: { block_device_mapping: JSON.stringify([device]), bdm_v2: 'True' } })
  const imageId = naming({ ...device, source_type: 'volume', volume_id: volumeId })
  const message = /names a volume that is there: name it in block_device_mapping_v2/
  await assert.rejects(world.create(alice, { imageId }), { code: 'invalid-request', message })
  assert.equal(world.volumes.volumes.get(volumeId)?.status, 'available')

  const snapshotId = '00000000-0000-4000-8000-0000000000a1'
  await world.volumes.snapshot(alice, [{ id: snapshotId, volumeId, name: 's' }])
  const named = naming({ ...device, source_type: 'snapshot', snapshot_id: snapshotId })
  await assert.rejects(world.create(someone('bob', 'admin'), { imageId: named }), { message: /Snapshot .* could not be found/ })
  const { id } = await world.createOne(someone('alice', 'admin'), { imageId: named })
  assert.deepEqual(
    (await volumesOf(id)).map(({ content }) => content),
    ['mine'],
  )
})

test('where a disk is wanted, its image is refused: it holds none', async () => {
  const imageId = await createSnapshot(world.ports, alice, await volumeBacked(), plain)
  const { id } = await world.createOne(alice)
  const { boots } = world.host.machine(id)
  const refusal = { code: 'invalid-request', message: /holds no disk: .* names a volume to start from/ }
  await assert.rejects(rebuildInstance(world.ports, alice, id, { imageId }), refusal)
  const mine = world.images.images.get(imageId)!
  world.images.images.set(imageId, { ...mine, properties: { ...mine.properties, instance_uuid: id } })
  await assert.rejects(restoreInstance(world.ports, alice, id, { imageId, withMemory: false }), refusal)
  assert.deepEqual([await statusNow(id), world.host.machine(id).boots], [['ACTIVE', null, null], boots])
  const disk = { from: { kind: 'image', imageId }, sizeGiB: 1, deleteOnTermination: false, tag: null } as const
  await assert.rejects(world.create(alice, { imageId: '', volumes: [{ ...disk, bootIndex: 0 }] }), refusal)
  await assert.rejects(world.create(alice, { volumes: [{ ...disk, bootIndex: null }] }), refusal)
})

test('a backup of it is refused, as by Nova', async () => {
  const id = await volumeBacked()
  const wanted = { name: 'b', properties: {}, backupType: 'daily', rotation: 1 }
  await assert.rejects(createBackup(world.ports, alice, id, wanted), {
    code: 'invalid-request',
    message: /not supported for volume-backed/,
  })
})

test('where a snapshot of a volume is lost, there is no image, and none of the others stays', async () => {
  const id = await volumeBacked()
  const { snapshot } = world.volumes
  world.volumes.snapshot = async (caller, wanted) => {
    world.volumes.snapshot = snapshot
    await world.volumes.snapshot(caller, wanted)
    world.volumes.snapshots.delete(wanted[0]!.id)
  }
  const before = world.volumes.snapshots.size
  const imageId = await createSnapshot(world.ports, alice, id, plain)
  assert.deepEqual(await statusNow(id), ['ACTIVE', null, (await world.get(id))?.fault?.message])
  assert.match((await world.get(id))!.fault!.message, /is gone/)
  assert.deepEqual([world.images.images.has(imageId), world.images.begun.size, world.volumes.snapshots.size], [false, 0, before])
})

test('a clone of it has volumes of its own with what was in them, and nothing else stays', async () => {
  const id = await volumeBacked()
  const [images, snapshots] = [world.images.images.size, world.volumes.snapshots.size]
  const clone = await cloneInstance(world.ports, alice, id, { name: 'twin' })
  assert.deepEqual(await statusNow(clone.id), ['ACTIVE', null, null])
  assert.deepEqual(
    (await volumesOf(clone.id)).map(({ content }) => content),
    ['system', 'data'],
  )
  assert.deepEqual([world.images.images.size, world.volumes.snapshots.size], [images, snapshots])
  await deleteInstance(world.ports, alice, clone.id)
  assert.equal(await statusNow(clone.id), undefined)
})

test('a clone whose volumes cannot be made says so, and neither they nor what they were to be made of stay', async () => {
  const id = await volumeBacked()
  const before = [world.images.images.size, world.volumes.volumes.size, world.volumes.snapshots.size]
  const { create } = world.volumes
  let calls = 0
  world.volumes.create = async (...asked) => {
    calls += 1
    if (calls === 2) throw new ServiceError('over-quota', 'VolumeLimitExceeded')
    await create.apply(world.volumes, asked)
  }
  const named: string[] = []
  const { snapshot } = world.volumes
  world.volumes.snapshot = (caller, wanted) => {
    named.push(...wanted.map(({ name }) => name))
    return snapshot.call(world.volumes, caller, wanted)
  }
  const clone = await cloneInstance(world.ports, alice, id, { name: 'twin' })
  assert.deepEqual(await statusNow(clone.id), ['ERROR', null, 'VolumeLimitExceeded'])
  Object.assign(world.volumes, { create, snapshot })
  assert.deepEqual(named, ['snapshot for twin', 'snapshot for twin'])
  assert.deepEqual([world.images.images.size, world.volumes.volumes.size, world.volumes.snapshots.size], before)
  assert.deepEqual(await volumesOf(clone.id), [])
  assert.equal(await world.catalog.documents.get('instance-job', id), undefined)
  await deleteInstance(world.ports, alice, clone.id)
  assert.equal(await statusNow(clone.id), undefined)
})

test('stopped while the volumes of a clone that failed go, all of them are made again at the next start', async () => {
  const id = await volumeBacked()
  const before = world.volumes.snapshots.size
  const { create, delete: remove } = world.volumes
  const reached = Promise.withResolvers<void>()
  let calls = 0
  world.volumes.create = async (...asked) => {
    calls += 1
    if (calls === 2) throw new ServiceError('over-quota', 'VolumeLimitExceeded')
    await create.apply(world.volumes, asked)
  }
  world.volumes.delete = async (volumeId) => {
    await remove.call(world.volumes, volumeId)
    reached.resolve()
    return new Promise(() => {})
  }
  const clone = await cloneInstance(world.ports, alice, id, { name: 'twin' })
  await reached.promise
  Object.assign(world.volumes, { create, delete: remove })
  await world.reopen()
  assert.deepEqual(await statusNow(clone.id), ['ACTIVE', null, null])
  assert.deepEqual(
    (await volumesOf(clone.id)).map(({ content }) => content),
    ['system', 'data'],
  )
  assert.equal(world.volumes.snapshots.size, before)
})

test('a clone for whose volumes there is no quota is refused before there is anything of it', async () => {
  const id = await volumeBacked()
  const instances = () => world.catalog.documents.list('instance', { limit: 500 })
  const [before, snapshots] = [(await instances()).length, world.volumes.snapshots.size]
  const { checkCopies } = world.volumes
  world.volumes.checkCopies = async () => {
    throw new ServiceError('over-quota', 'VolumeLimitExceeded')
  }
  await assert.rejects(cloneInstance(world.ports, alice, id, { name: 'twin' }), { code: 'over-quota' })
  world.volumes.checkCopies = checkCopies
  assert.deepEqual([(await instances()).length, world.volumes.snapshots.size], [before, snapshots])
})

const cuts: readonly [string, CutPort, string, Cut][] = [
  ['instance:volume-snapshots-noted', 'hypervisor', 'seal', 'before'],
  ['instance:sealed', 'hypervisor', 'seal', 'after'],
  ['instance:sealing-noted', 'snapshots', 'save', 'before'],
  ['instance:saved', 'snapshots', 'save', 'after'],
]
for (const [step, port, method, cut] of cuts) {
  test(`stopped at ${step}, its image names snapshots of one moment, and there are no others`, async () => {
    const id = await volumeBacked()
    const before = world.volumes.snapshots.size
    const { reached } = await openCut(world, port, method, cut)
    const imageId = await createSnapshot(world.ports, alice, id, plain)
    await reached
    for (const volume of await volumesOf(id)) volume.content = `later ${volume.content}`
    await world.reopen()
    assert.deepEqual(await statusNow(id), ['ACTIVE', null, null])
    const mapping = JSON.parse(world.images.images.get(imageId)!.properties.block_device_mapping!) as { snapshot_id: string }[]
    const contents = mapping.map(({ snapshot_id }) => world.volumes.snapshots.get(snapshot_id)!.content)
    const isAnew = method === 'seal'
    assert.deepEqual(contents, isAnew ? ['later system', 'later data'] : ['system', 'data'])
    assert.equal(world.volumes.snapshots.size, before + 2)
  })
}
