import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, test } from 'node:test'
import { ServiceError } from '../base/errors.ts'
import { GiB } from '../base/units.ts'
import { deleteInstance } from './delete-instance.ts'
import { describeHosts } from './describe-host.ts'
import { changeFlavor, createFlavor, listFlavors } from './flavors/flavors.ts'
import { absentHypervisor } from './hypervisor/absent/absent-hypervisor.ts'
import { instanceWorld, someone, type WorldOptions } from './instance-world.suite.ts'
import { FORWARDS_KEY } from './launch/forwards.ts'
import { useOf } from './quotas.ts'

const admin = someone('operators', 'admin')

async function inWorld(options: WorldOptions = {}) {
  const world = await instanceWorld(options)
  after(() => world.close())
  return world
}
const world = await inWorld()
const member = someone('mine')

test('several at once are numbered, share a reservation, and each is a machine of its own', async () => {
  const made = await world.create(member, { least: 2, most: 5 })
  await world.idle()
  assert.deepEqual(
    made.map(({ name, launchIndex }) => [name, launchIndex]),
    [1, 2, 3, 4, 5].map((n) => [`web-${n}`, n - 1]),
  )
  assert.equal(new Set(made.map(({ reservationId }) => reservationId)).size, 1)
  assert.equal(new Set(made.map(({ id }) => world.host.machine(id).spec.networks[0]!.mac)).size, 5)
})

test('no more machines start at once than there are places, nor all of them of one project', async () => {
  let now = 0
  let most = 0
  world.host.beforeStart = async () => {
    most = Math.max(most, ++now)
    await new Promise(setImmediate)
    now -= 1
  }
  await world.create(member, { most: 40, least: 40 })
  await world.idle()
  assert.equal(most, 10)
  await Promise.all(['mine', 'other'].map((project) => world.create(someone(project), { most: 20, least: 20 })))
  await world.idle()
  assert.equal(most, 12)
  world.host.beforeStart = () => {}
})

test('concurrent requests never overshoot a quota, and what is deleted counts no more', async () => {
  const small = await inWorld({ quota: { instances: 7, cores: -1, ram: -1 } })
  const results = await Promise.allSettled(Array.from({ length: 20 }, () => small.create(member)))
  assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 7)
  for (const result of results) if (result.status === 'rejected') assert.equal(result.reason.code, 'over-quota')
  assert.deepEqual(await useOf(small.catalog.documents, 'mine'), { instances: 7, cores: 7, ram: 7 * 512 })
  await small.create(someone('other'), { most: 7 })
  await assert.rejects(small.create(member), {
    message: /^Quota exceeded for instances: Requested 1, but already used 7 of 7 instances/,
  })
  await small.idle()
  const [one, other] = results.flatMap((result) => (result.status === 'fulfilled' ? result.value : []))
  for (const gone of [one, other]) await deleteInstance(small.ports, member, gone!.id)
  await small.idle()
  assert.equal((await small.create(member, { least: 1, most: 5 })).length, 2)
})

test('of several, as many are made as the quota has room for; fewer than the least are none', async () => {
  const small = await inWorld({ quota: { instances: 100, cores: 4, ram: 1536 } })
  await assert.rejects(small.create(member, { least: 4, most: 9 }), {
    code: 'over-quota',
    message: /^Quota exceeded for ram: Requested 2048, but already used 0 of 1536 ram/,
  })
  assert.equal((await small.create(member, { least: 2, most: 9 })).length, 3)
  await assert.rejects(small.create(member, { flavorId: '4' }), { message: /Quota exceeded for cores, ram/ })
})

test('the memory of the host is promised one and a half times, and no more, whoever asks', async () => {
  const small = await inWorld({ abilities: { memoryBytes: 2 * GiB } })
  await small.create(member, { most: 4, least: 4 })
  const results = await Promise.allSettled([1, 2, 3].map((n) => small.create(someone(`project-${n}`))))
  assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'fulfilled', 'rejected'])
  await assert.rejects(small.create(member), { code: 'unavailable', message: /^No valid host was found: .* 3072 of 3072 MiB/ })
})

test('of several, as many are made as the host has room for; fewer than the least are none', async () => {
  const small = await inWorld({ abilities: { memoryBytes: 2 * GiB } })
  await assert.rejects(small.create(member, { least: 7, most: 9 }), {
    code: 'unavailable',
    message: /^No valid host was found: .* 0 of 3072 MiB of memory, and 3584 more do not fit/,
  })
  assert.equal((await small.create(member, { least: 2, most: 9 })).length, 6)
})

test('what guests may write is promised to them, and of the disk of the host no more than there is', async () => {
  const small = await inWorld({ promisableBytes: 5 * GiB })
  assert.equal((await small.create(member, { least: 2, most: 9 })).length, 5)
  await assert.rejects(small.create(member), {
    code: 'unavailable',
    message: /^No valid host was found: of 5.0 GiB that this host can promise .* 5.0 GiB are, and 1.0 GiB more/,
  })
})

test('ports that are drawn by requests at once are distinct, and none of the requests fails', async () => {
  for (let round = 0; round < 5; round += 1) {
    const small = await inWorld({ settings: { forwardPorts: { first: 20_000, last: 20_011 } } })
    const forwards = { metadata: { [FORWARDS_KEY]: 'tcp:0:22' } }
    const made = (await Promise.all(Array.from({ length: 8 }, () => small.create(member, forwards)))).flat()
    const ports = made.flatMap(({ network }) => network!.forwards.map(({ hostPort }) => hostPort))
    assert.equal(new Set(ports).size, 8)
    await small.idle()
  }
})

test('an instance may be asked for beside another, and not away from one: there is one host', async () => {
  const { id } = await world.createOne(member)
  const beside = (sameHost: readonly string[], differentHost: readonly string[]) =>
    world.create(member, { neighbours: { sameHost, differentHost } })
  const nobody = randomUUID()
  assert.equal((await beside([nobody, id], [nobody])).length, 1)
  await assert.rejects(beside([nobody], []), { code: 'invalid-request', message: /^No valid host was found: .*same_host/ })
  await assert.rejects(beside([], [id]), { code: 'invalid-request', message: /^No valid host was found: .*different_host/ })
  await world.idle()
})

test('where machines cannot be run, a request is told why and leaves nothing, and the rest works', async () => {
  const bare = await inWorld()
  await bare.reopen({ hypervisor: () => absentHypervisor(new ServiceError('unavailable', 'QEMU is not installed')) })
  await assert.rejects(bare.create(member), { code: 'unavailable', message: 'QEMU is not installed' })
  assert.deepEqual(await useOf(bare.catalog.documents, 'mine'), { instances: 0, cores: 0, ram: 0 })
  assert.equal((await describeHosts(bare.ports, admin))[0].isUp, false)
  assert.equal((await listFlavors(bare.ports, member, {})).length, 5)
})

const unfit: readonly [string, Parameters<typeof world.images.add>[0], RegExp][] = [
  ['a disk larger than the flavor', { diskBytes: 2 * GiB }, /Flavor's disk is too small.*fits is m1.small/],
  ['min_disk beyond the flavor', { minDisk: 30 }, /minimum size is 30 GiB; the smallest flavor that fits is m1.medium/],
  ['min_ram beyond the flavor', { minRam: 3000 }, /memory is too small.*fits is m1.medium/],
  ['min_ram beyond every flavor', { minRam: 2 ** 20 }, /no flavor that you may use fits/],
  ['another architecture', { properties: { hw_architecture: 's390x' } }, /hw_architecture="s390x".*which has: x86_64/],
  ['an unknown disk bus', { properties: { hw_disk_bus: 'fdc' } }, /hw_disk_bus="fdc".*virtio, scsi, sata, ide/],
  ['an unknown network card', { properties: { hw_vif_model: 'ne2k_pci' } }, /virtio, e1000, e1000e, rtl8139/],
  ['a machine type of nobody', { properties: { hw_machine_type: 'pc,accel=evil' } }, /pc, q35, pc-q35-7.2/],
  ['secure boot on BIOS', { properties: { os_secure_boot: 'required', hw_firmware_type: 'bios' } }, /needs uefi/],
  ['an unknown scsi card', { properties: { hw_scsi_model: 'buslogic' } }, /which has: virtio-scsi/],
]
for (const [name, image, says] of unfit) {
  test(`an image with ${name} is refused before anything is recorded`, async () => {
    const before = await useOf(world.catalog.documents, 'mine')
    const refusal = { code: 'invalid-request', message: says }
    await assert.rejects(world.create(member, { imageId: world.images.add(image) }), refusal)
    assert.deepEqual(await useOf(world.catalog.documents, 'mine'), before)
  })
}

test('the image chooses its hardware by its properties', async () => {
  const properties = {
    hw_disk_bus: 'SATA',
    hw_vif_model: 'e1000',
    hw_machine_type: 'pc-q35-7.2',
    os_secure_boot: 'required',
    hw_qemu_guest_agent: 'yes',
    architecture: 'amd64',
    hw_video_model: 'cirrus',
  }
  const { hardware } = await world.createOne(member, { imageId: world.images.add({ properties }) })
  assert.deepEqual(hardware, {
    architecture: 'x86_64',
    machineType: 'pc-q35-7.2',
    firmware: 'uefi',
    secureBoot: true,
    diskBus: 'sata',
    networkModel: 'e1000',
    cpuModel: null,
    qemuGuestAgent: true,
    randomness: true,
  })
})

test('a flavor that this host cannot give is refused; one without a disk takes the size of the image', async () => {
  const plain = { description: null, vcpus: 1, ramMiB: 64, diskGiB: 0, ephemeralGiB: 0, swapMiB: 0, isPublic: true }
  const huge = await createFlavor(world.ports, admin, { ...plain, name: 'huge', vcpus: 65 })
  const swap = await createFlavor(world.ports, admin, { ...plain, name: 'swap', swapMiB: 512 })
  const nano = await createFlavor(world.ports, admin, { ...plain, name: 'nano' })
  await assert.rejects(world.create(member, { flavorId: huge.id }), {
    message: /at most 64; the smallest flavor that fits is nano/,
  })
  await assert.rejects(world.create(member, { flavorId: swap.id }), { message: /root disk only/ })
  const { id, rootBytes } = await world.createOne(member, { flavorId: nano.id })
  assert.equal(rootBytes, GiB / 2)
  await changeFlavor(world.ports, admin, nano.id, (flavor) => ({ ...flavor, ramMiB: 1 }))
  assert.equal((await world.get(id))?.flavor.ramMiB, 64, 'an instance keeps the flavor that it was made with')
})

const wrong: readonly [string, Parameters<typeof world.create>[1], string, RegExp][] = [
  ['an unknown image', { imageId: 'none' }, 'invalid-request', /no image/],
  ['an unknown flavor', { flavorId: 'none' }, 'invalid-request', /Flavor none could not be found/],
  ['an unknown key', { keyName: 'none' }, 'invalid-request', /Invalid key_name/],
  ['user data that are no base64', { userData: '#!/bin/sh' }, 'invalid-request', /base 64/],
  ['too much user data', { userData: 'AAAA'.repeat(16384) }, 'invalid-request', /no larger than 65535/],
  ['more least than most', { least: 3, most: 2 }, 'invalid-request', /min_count/],
  ['a forward of no form', { metadata: { [FORWARDS_KEY]: 'tcp:80' } }, 'invalid-request', /tcp:8080:80/],
  ['a forward to port 0', { metadata: { [FORWARDS_KEY]: 'tcp:8080:0' } }, 'invalid-request', /at most 65535/],
  ['one port twice', { metadata: { [FORWARDS_KEY]: 'tcp:8080:1,tcp:8080:2' } }, 'invalid-request', /once/],
  ['a port outside the range', { metadata: { [FORWARDS_KEY]: 'tcp:22:22' } }, 'denied', /1024 to 32767/],
  ['a forward without a network', { network: 'none', metadata: { [FORWARDS_KEY]: 'tcp:0:22' } }, 'invalid-request', /network/],
  ['one port for two', { most: 2, metadata: { [FORWARDS_KEY]: 'tcp:8080:80' } }, 'invalid-request', /give 0/],
  ['a tag with a comma', { tags: ['a,b'] }, 'invalid-request', /tag/],
]
for (const [name, wanted, code, message] of wrong) {
  test(`${name} is refused`, () => assert.rejects(world.create(member, wanted), { code, message }))
}

test('a reader makes none, and a private image of another project is none', async () => {
  await assert.rejects(world.create(someone('mine', 'reader')), { code: 'denied' })
  const imageId = world.images.add({ projectId: 'theirs' })
  await assert.rejects(world.create(member, { imageId }), { code: 'invalid-request', message: /no image/ })
})

test('a port of the host has one holder: instances, requests at once, other programs', async () => {
  const metadata = { [FORWARDS_KEY]: 'tcp:9000:80' }
  const results = await Promise.allSettled([1, 2, 3].map(() => world.create(member, { metadata })))
  assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected', 'rejected'])
  for (const result of results) if (result.status === 'rejected') assert.equal(result.reason.code, 'conflict')
  world.listening.add(9001)
  await assert.rejects(world.create(member, { metadata: { [FORWARDS_KEY]: 'udp:9001:80' } }), { code: 'conflict' })
  const made = await world.create(member, { most: 9, least: 9, metadata: { [FORWARDS_KEY]: 'tcp:0:22,tcp:0:80' } })
  const chosen = made.flatMap(({ network }) => network!.forwards.map(({ hostPort }) => hostPort))
  assert.equal(new Set(chosen).size, 18)
  await world.idle()
})

test('an instance without a network has none', async () => {
  const { id } = await world.createOne(member, { network: 'none' })
  assert.deepEqual(world.host.machine(id).spec.networks, [])
  assert.equal(world.host.machine(id).spec.seed!.networkConfig, null)
})
