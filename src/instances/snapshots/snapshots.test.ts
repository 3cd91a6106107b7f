import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { ServiceError } from '../../base/errors.ts'
import { GiB } from '../../base/units.ts'
import { deleteInstance } from '../delete-instance.ts'
import { createFlavor } from '../flavors/flavors.ts'
import { instanceWorld, someone } from '../instance-world.suite.ts'
import { lockInstance } from '../lock.ts'
import type { SaveOptions } from '../ports.ts'
import { pauseInstance, startInstance, stopInstance } from '../power/actions.ts'
import { rebuildInstance, restoreInstance } from '../rebuild/begin-rebuild.ts'
import { statusOf } from '../states.ts'
import { cloneInstance } from './clone.ts'
import { createBackup, createSnapshot } from './create-snapshot.ts'

const world = await instanceWorld()
after(() => world.close())
const member = someone('mine')
const plain = { name: 'snap', properties: {}, withMemory: false, withMachine: false }

const FAR = 100 * 2 ** 20
const sector = (fill: string) => Buffer.alloc(512, fill)
const write = (id: string, offset: number, fill: string) => world.host.machine(id).write('root', offset, sector(fill))
const inImage = (imageId: string, offset: number) => world.images.images.get(imageId)?.sectors.get(offset)?.[0]
const leasesOf = (id: string) => [...world.images.lent.values()].filter(({ holder }) => holder === `instance ${id}`)
const statusNow = async (id: string) => {
  await world.idle()
  const instance = await world.get(id)
  return instance && [statusOf(instance), instance.power, instance.taskState]
}

test('a snapshot is what the disk was at that moment, and the guest goes on', async () => {
  const base = world.images.add({
    properties: { hw_disk_bus: 'scsi', os_distro: 'debian', image_type: 'golden' },
    sectors: new Map([[0, 'boot']]),
  })
  const { id } = await world.createOne(member, { imageId: base })
  write(id, FAR, 'a')
  const imageId = await createSnapshot(world.ports, member, id, { ...plain, properties: { team: 'web' } })
  assert.deepEqual([(await world.get(id))!.taskState, statusOf((await world.get(id))!)], ['image_snapshot', 'ACTIVE'])
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  const image = world.images.images.get(imageId)!
  assert.deepEqual([image.name, image.projectId, image.diskBytes], ['snap', 'mine', 2 ** 30])
  assert.deepEqual([inImage(imageId, 0), inImage(imageId, FAR)], ['b', 'a'])
  const { imprint_consistency_evidence: evidence, ...properties } = image.properties
  assert.deepEqual(properties, {
    hw_disk_bus: 'scsi',
    os_distro: 'debian',
    team: 'web',
    image_type: 'snapshot',
    instance_uuid: id,
    base_image_ref: base,
    user_id: member.userId,
    imprint_consistency: 'crash',
  })
  assert.match(evidence!, /./)
})

test('after a snapshot the instance lies on it: the next one reads only what was written since, and holds the rest', async () => {
  const { id, leaseId } = await world.createOne(member)
  write(id, FAR, 'a')
  const first = await createSnapshot(world.ports, member, id, plain)
  await world.idle()
  assert.equal(world.host.machine(id).layerNumbers('root').length, 1)
  assert.equal(leasesOf(id).length, 1)
  assert.notEqual(leasesOf(id)[0]!.leaseId, leaseId)
  write(id, FAR + 512, 'b')
  const second = await createSnapshot(world.ports, member, id, plain)
  await world.idle()
  assert.deepEqual([inImage(first, FAR), inImage(first, FAR + 512)], ['a', undefined])
  assert.deepEqual([inImage(second, FAR), inImage(second, FAR + 512)], ['a', 'b'])
})

test('what is off and what is paused can be kept as well, and what is locked', async () => {
  const { id } = await world.createOne(member)
  write(id, FAR, 'a')
  await pauseInstance(world.ports, member, id)
  await world.idle()
  await createSnapshot(world.ports, member, id, plain)
  assert.deepEqual(await statusNow(id), ['PAUSED', 'paused', null])
  await stopInstance(world.ports, member, id)
  await world.idle()
  await lockInstance(world.ports, someone('operators', 'admin'), id, null)
  const imageId = await createSnapshot(world.ports, member, id, plain)
  assert.deepEqual(await statusNow(id), ['SHUTOFF', 'shutdown', null])
  assert.equal(inImage(imageId, FAR), 'a')
})

test('an instance that has no memory to keep is told so, before anything is begun', async () => {
  const { id } = await world.createOne(member)
  await stopInstance(world.ports, member, id)
  await world.idle()
  await assert.rejects(createSnapshot(world.ports, member, id, { ...plain, withMemory: true }), {
    code: 'conflict',
    message: /is off/,
  })
  assert.equal((await world.get(id))!.taskState, null)
})

test('an image that is refused, and one that cannot be saved, leave the instance as it was', async () => {
  const { id } = await world.createOne(member)
  write(id, FAR, 'a')
  const full = new ServiceError('no-space', 'the disk is full')
  const deny = { begin: world.images.begin, save: world.images.save }
  world.images.begin = () => Promise.reject(new ServiceError('over-quota', 'too many images'))
  await assert.rejects(createSnapshot(world.ports, member, id, plain), { code: 'over-quota' })
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  world.images.begin = deny.begin
  world.images.save = () => Promise.reject(full)
  const lost = await createSnapshot(world.ports, member, id, plain)
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.equal(world.images.begun.has(lost), false)
  world.images.save = deny.save
  const imageId = await createSnapshot(world.ports, member, id, plain)
  await world.idle()
  assert.equal(inImage(imageId, FAR), 'a')
  assert.equal(leasesOf(id).length, 1)
})

test('where its image asks for it, a guest that did not stand still is not made an image of', async () => {
  const properties = { os_require_quiesce: 'yes' }
  const { id } = await world.createOne(member, { imageId: world.images.add({ properties }) })
  for (let asked = 0; asked < 40; asked += 1) {
    const lost = await createSnapshot(world.ports, member, id, plain)
    assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
    assert.match((await world.get(id))!.fault!.message, /did not stand still.*hw_qemu_guest_agent=yes/)
    assert.equal(world.images.begun.has(lost), false)
  }

  await stopInstance(world.ports, member, id)
  await world.idle()
  const off = await createSnapshot(world.ports, member, id, plain)
  await world.idle()
  assert.ok(world.images.images.has(off), 'what is off writes nothing')

  const withAgent = { ...properties, hw_qemu_guest_agent: 'yes' }
  const quiet = await world.createOne(member, { imageId: world.images.add({ properties: withAgent }) })
  const imageId = await createSnapshot(world.ports, member, quiet.id, plain)
  await world.idle()
  assert.equal(world.images.images.get(imageId)!.properties.imprint_consistency, 'file-system')
})

test('backups of a type are kept up to their number; a protected one and those of other types stay', async () => {
  const { id } = await world.createOne(member)
  const backup = async (backupType: string, rotation: number) => {
    const imageId = await createBackup(world.ports, member, id, { name: backupType, properties: {}, backupType, rotation })
    await world.idle()
    return imageId
  }
  const weekly = await backup('weekly', 1)
  const [first, second, third] = [await backup('daily', 2), await backup('daily', 2), await backup('daily', 2)]
  const there = [weekly, first, second, third].map((imageId) => world.images.images.has(imageId))
  assert.deepEqual(there, [true, false, true, true])
  assert.equal(world.images.images.get(third)!.properties.backup_type, 'daily')
  const none = await backup('daily', 0)
  assert.deepEqual(
    [second, third, none].filter((imageId) => world.images.images.has(imageId)),
    [],
  )
})

test('rebuilt, an instance is new from its image, and keeps its id, its card, its ports and its key', async () => {
  const metadata = { 'imprint:forwards': 'tcp:0:22', role: 'web' }
  const before = await world.createOne(member, { metadata, userData: 'I2E=' })
  const other = world.images.add({ name: 'other', properties: { hw_disk_bus: 'scsi' } })
  const { id } = before
  write(id, FAR, 'a')
  const answered = await rebuildInstance(world.ports, member, id, { imageId: other, name: 'again', metadata: { role: 'db' } })
  assert.deepEqual([answered.taskState, statusOf(answered)], ['rebuilding', 'REBUILD'])
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  const now = (await world.get(id))!
  assert.deepEqual([now.imageId, now.name, now.network, now.key], [other, 'again', before.network, before.key])
  assert.deepEqual(now.metadata, { role: 'db', 'imprint:forwards': before.metadata['imprint:forwards'] })
  const machine = world.host.machine(id)
  assert.deepEqual([machine.spec.hardware.diskBus, machine.boots], ['scsi', 1])
  assert.deepEqual(Buffer.from(await machine.read('root', FAR, 512)), Buffer.alloc(512))
  assert.equal(Buffer.from(machine.spec.seed!.userData).toString(), '#a')
  assert.deepEqual(
    leasesOf(id).map(({ image }) => image.id),
    [other],
  )
})

test('what was off is off again when it is rebuilt, and what never started can be', async () => {
  const { id } = await world.createOne(member)
  await stopInstance(world.ports, member, id)
  await world.idle()
  await rebuildInstance(world.ports, member, id, { imageId: world.image })
  assert.deepEqual(await statusNow(id), ['SHUTOFF', 'shutdown', null])

  world.host.beforeStart = () => Promise.reject(new ServiceError('unavailable', 'no'))
  const broken = await world.createOne(member)
  assert.equal(statusOf(broken), 'ERROR')
  world.host.beforeStart = () => {}
  await rebuildInstance(world.ports, member, broken.id, { imageId: world.image })
  assert.deepEqual(await statusNow(broken.id), ['ACTIVE', 'running', null])
})

test('a rebuild that makes a disk larger asks the host for the difference, which is promised from then on', async () => {
  const small = await instanceWorld({ promisableBytes: 4 * GiB })
  try {
    const flavor = {
      name: 'nano',
      description: null,
      vcpus: 1,
      ramMiB: 64,
      diskGiB: 0,
      ephemeralGiB: 0,
      swapMiB: 0,
      isPublic: true,
    }
    const { id: flavorId } = await createFlavor(small.ports, someone('root', 'admin'), flavor)
    const ofImage = (gib: number) => small.images.add({ diskBytes: gib * GiB })
    const [one, two] = [await small.createOne(member, { flavorId }), await small.createOne(member, { flavorId })]
    await assert.rejects(rebuildInstance(small.ports, member, one.id, { imageId: ofImage(4) }), {
      code: 'unavailable',
      message: /^No valid host was found: of 4.0 GiB that this host can promise .* 1.0 GiB are, and 3.5 GiB more do not fit/,
    })
    assert.equal((await small.get(one.id))!.taskState, null)
    await rebuildInstance(small.ports, member, one.id, { imageId: ofImage(3) })
    await assert.rejects(rebuildInstance(small.ports, member, two.id, { imageId: ofImage(3) }), { code: 'unavailable' })
    await small.idle()
    await rebuildInstance(small.ports, member, one.id, { imageId: ofImage(3) })
    await small.idle()
    assert.equal((await small.get(one.id))!.rootBytes, 3 * GiB)
  } finally {
    await small.close()
  }
})

test('a rebuild that cannot begin changes nothing; one that fails behind that says why and can be asked for again', async () => {
  const { id } = await world.createOne(member)
  const big = world.images.add({ diskBytes: 100 * 2 ** 30 })
  await assert.rejects(rebuildInstance(world.ports, member, id, { imageId: big }), {
    code: 'invalid-request',
    message: /too small/,
  })
  await assert.rejects(rebuildInstance(world.ports, member, id, { imageId: 'none' }), { code: 'invalid-request' })
  await assert.rejects(rebuildInstance(world.ports, member, id, { imageId: world.image, keyName: 'none' }), {
    code: 'invalid-request',
  })
  const ports = { metadata: { 'imprint:forwards': 'tcp:0:80' }, imageId: world.image }
  await assert.rejects(rebuildInstance(world.ports, member, id, ports), { code: 'conflict' })
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.equal(world.host.machine(id).boots, 1)

  world.host.beforeStart = () => Promise.reject(new ServiceError('no-space', 'the disk is full'))
  await rebuildInstance(world.ports, member, id, { imageId: world.image })
  assert.deepEqual(await statusNow(id), ['ERROR', null, null])
  assert.match((await world.get(id))!.fault!.message, /disk is full/)
  world.host.beforeStart = () => {}
  await rebuildInstance(world.ports, member, id, { imageId: world.image })
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
})

test('an instance is restored to a snapshot of its own, and to no other image', async () => {
  const { id } = await world.createOne(member)
  write(id, FAR, 'a')
  const imageId = await createSnapshot(world.ports, member, id, plain)
  await world.idle()
  write(id, FAR, 'b')
  await restoreInstance(world.ports, member, id, { imageId, withMemory: false })
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.deepEqual(
    leasesOf(id).map(({ image }) => image.id),
    [imageId],
  )
  assert.equal((await world.get(id))!.imageId, imageId)
  await assert.rejects(restoreInstance(world.ports, member, id, { imageId: world.image, withMemory: false }), {
    code: 'invalid-request',
    message: /no snapshot of instance/,
  })
})

test('a clone starts from the disk as it is, with an id, a card and ports of its own, and leaves no image', async () => {
  const source = await world.createOne(member, { metadata: { 'imprint:forwards': 'tcp:0:22', role: 'web' } })
  write(source.id, FAR, 'a')
  const images = world.images.images.size
  const made = await cloneInstance(world.ports, member, source.id, { name: 'twin' })
  assert.deepEqual([made.name, made.vmState, made.taskState], ['twin', 'building', 'block_device_mapping'])
  assert.deepEqual(await statusNow(made.id), ['ACTIVE', 'running', null])
  assert.deepEqual(await statusNow(source.id), ['ACTIVE', 'running', null])
  const [lease] = leasesOf(made.id)
  assert.equal(lease!.image.sectors.get(FAR)?.[0], 'a')
  assert.equal(world.images.images.size, images)
  const clone = (await world.get(made.id))!
  assert.notEqual(clone.network!.mac, source.network!.mac)
  assert.notEqual(clone.network!.forwards[0]!.hostPort, source.network!.forwards[0]!.hostPort)
  assert.deepEqual([clone.imageId, clone.flavor, clone.metadata.role], [source.imageId, source.flavor, 'web'])
})

test('where the disk of a clone cannot be made, the clone says so and the source goes on', async () => {
  const source = await world.createOne(member)
  const { save } = world.images
  world.images.save = () => Promise.reject(new ServiceError('no-space', 'the disk is full'))
  const made = await cloneInstance(world.ports, member, source.id, { name: 'twin' })
  assert.deepEqual(await statusNow(made.id), ['ERROR', null, null])
  assert.match((await world.get(made.id))!.fault!.message, /disk is full/)
  world.images.save = save
  assert.deepEqual(await statusNow(source.id), ['ACTIVE', 'running', null])
  await deleteInstance(world.ports, member, made.id)
  assert.equal(await statusNow(made.id), undefined)
})

test('deleted in the middle of a snapshot, an instance leaves neither image nor lease', async () => {
  const { id } = await world.createOne(member)
  const { save } = world.images
  const reached = Promise.withResolvers<void>()
  world.images.save = (_, __, { signal }: SaveOptions = {}) =>
    new Promise((_, reject) => {
      signal!.addEventListener('abort', () => reject(signal!.reason))
      reached.resolve()
    })
  const imageId = await createSnapshot(world.ports, member, id, plain)
  await reached.promise
  await deleteInstance(world.ports, member, id)
  assert.equal(await statusNow(id), undefined)
  world.images.save = save
  assert.deepEqual([world.images.begun.has(imageId), leasesOf(id)], [false, []])
  assert.equal(await world.catalog.documents.get('instance-job', id), undefined)
})

for (const happens of [false, true]) {
  test(`where the move to the image fails${happens ? ' after it happened' : ''}, the next start and the next snapshot end it first`, async () => {
    const { id } = await world.createOne(member)
    write(id, FAR, 'a')
    let fails = true
    await world.reopen({
      hypervisor: (real) =>
        new Proxy(real, {
          get(of, name) {
            const value: unknown = Reflect.get(of, name)
            if (name !== 'rebase') return typeof value === 'function' ? value.bind(of) : value
            return async (...args: Parameters<typeof real.rebase>) => {
              if (happens || !fails) await real.rebase(...args)
              if (fails) throw new ServiceError('unavailable', 'QEMU does not answer')
            }
          },
        }),
    })
    const imageId = await createSnapshot(world.ports, member, id, plain)
    assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
    assert.equal(inImage(imageId, FAR), 'a')
    assert.equal(leasesOf(id).length, 2, 'it may read by either')
    const refused = await createSnapshot(world.ports, member, id, plain)
    await world.idle()
    assert.equal(world.images.images.has(refused), false, 'nobody knows on what it lies')
    await stopInstance(world.ports, member, id)
    await world.idle()
    fails = false
    await startInstance(world.ports, member, id)
    assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
    assert.deepEqual(
      leasesOf(id).map(({ image }) => image.id),
      [imageId],
    )
    assert.deepEqual(world.host.machine(id).spec.disks[0]?.base, leasesOf(id)[0]!.address)
    const next = await createSnapshot(world.ports, member, id, plain)
    await world.idle()
    assert.equal(inImage(next, FAR), 'a')
    await world.reopen()
  })
}
