import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import { GiB, MiB } from '../base/units.ts'
import { deleteImage } from '../images/delete-image.ts'
import { AttachedVolumes } from './attachments/attached-volumes.ts'
import { deleteVolume } from './delete-volume.ts'
import { setReadOnly } from './update-volume.ts'
import { uploadVolume } from './upload-volume.ts'
import { someone, type VolumeWorld, volumeWorld } from './volume-world.suite.ts'

const alice = someone('alice')
let world: VolumeWorld
let attached: AttachedVolumes
before(async () => {
  world = await volumeWorld()
  attached = new AttachedVolumes(world.ports)
})
after(() => world.close())
const upload = (id: string, mayBeInUse = false) => uploadVolume(world.ports, alice, id, { name: 'uploaded', mayBeInUse })

test('a volume becomes a raw image of what it was when it was asked for, by what changed', async () => {
  const bytes = randomBytes(MiB)
  const imageId = await world.addImage(alice, bytes, { hw_disk_bus: 'scsi', min_ram: 64 })
  const { id } = await world.createOne(alice, { from: { kind: 'image', imageId } })
  await world.write(id, 1000, Buffer.from('changed'))
  const { volume, imageId: made } = await upload(id)
  assert.equal(volume.status, 'uploading')
  await world.write(id, 1000, Buffer.from('too late'))
  await world.idle()
  const image = (await world.catalog.images.get(made))!
  assert.deepEqual(
    [image.status, image.diskFormat, image.size, image.minDisk, image.minRam, image.properties, image.owner, image.name],
    ['active', 'raw', GiB, 1, 64, { hw_disk_bus: 'scsi' }, 'alice', 'uploaded'],
  )
  const stored = Buffer.concat(await Array.fromAsync(world.images.chunks.stream(image.manifest!, 0, 2 * MiB)))
  const expected = Buffer.concat([bytes, Buffer.alloc(MiB)])
  expected.write('changed', 1000)
  assert.ok(stored.equals(expected))
  assert.equal((await world.showVolume(id))?.status, 'available')
  assert.equal((await world.read(id, 1000, 8)).toString(), 'too late')
  assert.deepEqual(await Array.fromAsync(world.contents.held('volume-upload')), [])
  await deleteVolume(world.ports, alice, id)
  for (const one of [made, imageId]) await deleteImage(world.images.ports, alice, one)
})

test('where the image cannot be, or is deleted meanwhile, the volume is as it was', async () => {
  const { id } = await world.createOne(alice)
  world.images.limits.set('alice', { image_count_total: 0 })
  await assert.rejects(upload(id), { code: 'over-quota' })
  world.images.limits.delete('alice')
  assert.equal((await world.showVolume(id))?.status, 'available')
  const { imageId } = await upload(id)
  await deleteImage(world.images.ports, alice, imageId)
  await world.idle()
  const { status, upload: left } = (await world.showVolume(id))!
  assert.deepEqual([status, left], ['available', null])
  await deleteVolume(world.ports, alice, id)
})

test('a volume has one holder, who may write to it by the newest address until it is released', async () => {
  const { id } = await world.createOne(alice)
  await setReadOnly(world.ports, alice, id, true)
  await assert.rejects(attached.reserve(alice, id, 'i-1'), { code: 'unsupported', message: /read-only/ })
  await setReadOnly(world.ports, alice, id, false)
  assert.deepEqual(await attached.reserve(alice, id, 'i-1'), { id, bytes: GiB, isBootable: false, imageMetadata: null })
  await assert.rejects(attached.reserve(alice, id, 'i-2'), { code: 'conflict', message: /current status is: attaching/ })
  await assert.rejects(attached.address(id, 'i-2'), { code: 'not-found' })
  await assert.rejects(deleteVolume(world.ports, someone('alice', 'admin'), id, { force: true }), {
    code: 'conflict',
    message: /attached/,
  })
  await attached.attached(id, 'i-1', '/dev/vdb')
  const { status, attachment } = (await world.showVolume(id))!
  assert.deepEqual([status, attachment?.device, attachment?.instanceId], ['in-use', '/dev/vdb', 'i-1'])
  await assert.rejects(world.snapshotOne(alice, id), { code: 'conflict' })
  assert.equal((await world.snapshotOne(alice, id, true)).status, 'available')
  const disk = await world.openDisk(id)
  await assert.rejects(upload(id), { code: 'conflict' })
  await upload(id, true)
  await attached.released(id, 'i-2')
  assert.equal((await world.showVolume(id))?.attachment?.instanceId, 'i-1', 'who has it not releases nothing')
  await attached.detaching(id, 'i-1')
  await attached.released(id, 'i-1')
  assert.ok(disk.revoked.aborted, 'the address is good no more')
  await disk.release()
  await world.idle()
  const left = (await world.showVolume(id))!
  assert.deepEqual([left.status, left.attachment, await attached.held()], ['available', null, []])
  await attached.reserve(alice, id, 'i-3')
  await attached.released(id, 'i-3')
  await attached.delete(id)
  await attached.delete(id)
  await world.idle()
  assert.equal(await world.showVolume(id), undefined)
})
