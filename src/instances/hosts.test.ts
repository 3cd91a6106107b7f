import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ServiceError } from '../base/errors.ts'
import { describeHosts } from './describe-host.ts'
import { absentHypervisor } from './hypervisor/absent/absent-hypervisor.ts'
import { but, instanceWorld, someone } from './instance-world.suite.ts'
import type { MachineHost } from './ports.ts'
import { hardReboot, startInstance, stopInstance } from './power/actions.ts'
import { attachVolume } from './volumes/attach-volume.ts'

const [member, admin] = [someone('mine'), someone('admins', 'admin')]
const GiB = 2 ** 30
const away = () => absentHypervisor(new ServiceError('unavailable', 'The agent of the host does not answer.'))

test('instances go where most memory is left, and an administrator may name the host', async (context) => {
  const world = await instanceWorld({ otherHosts: ['left', 'right'], abilities: { memoryBytes: GiB } })
  context.after(() => world.close())
  const made = await world.create(member, { least: 3, most: 3 })
  await world.idle()
  const placed = await Promise.all(made.map(async ({ id }) => (await world.get(id))?.host))
  assert.deepEqual([...new Set(placed)].sort(), ['left', 'right', null].sort(), 'each has one')
  assert.equal(world.host.machines.size, 1)
  assert.equal(world.otherHosts.get('left')!.machines.size, 1)
  const named = await world.createOne(admin, { host: 'right' })
  assert.equal(named.host, 'right')
  assert.equal(world.otherHosts.get('right')!.machine(named.id).power, 'running')
  await assert.rejects(world.create(member, { host: 'right' }), { code: 'denied' })
  await assert.rejects(world.create(admin, { host: 'nowhere' }), { code: 'invalid-request', message: /"left", "right"/ })
  const hosts = await describeHosts(world.ports, admin)
  assert.deepEqual(
    hosts.map(({ hostName, use }) => [hostName, use.running]),
    [
      ['host', 1],
      ['left', 1],
      ['right', 2],
    ],
  )
  assert.equal(new Set(hosts.map(({ id }) => id)).size, 3)
})

test('beside an instance is its host, and apart from it any other', async (context) => {
  const world = await instanceWorld({ otherHosts: ['left'] })
  context.after(() => world.close())
  const first = await world.createOne(admin, { host: 'left' })
  const asked = async (sameHost: readonly string[], differentHost: readonly string[]) =>
    (await world.createOne(member, { neighbours: { sameHost, differentHost } })).host
  assert.equal(await asked([first.id], []), 'left')
  assert.equal(await asked([], [first.id]), null)
  await assert.rejects(asked([first.id], [first.id]), { code: 'invalid-request', message: /^No valid host was found/ })
})

test('of a host that is away all is shown as it was, and it is asked again when it is back', async (context) => {
  const world = await instanceWorld({ otherHosts: ['left'] })
  context.after(() => world.close())
  const here = await world.createOne(member)
  const there = await world.createOne(admin, { host: 'left' })
  const beside = await world.createOne(admin, { host: 'left' })
  world.otherHosts.get('left')!.machine(there.id).crash('the power went')
  await world.idle()
  await world.reopen({ others: away })
  assert.equal((await world.get(there.id))?.vmState, 'error')
  assert.equal((await world.get(here.id))?.power, 'running')
  const volumeId = world.volumes.add()
  const refused = { code: 'unavailable', message: /does not answer/ }
  await assert.rejects(startInstance(world.ports, admin, there.id), refused)
  await assert.rejects(hardReboot(world.ports, admin, there.id), refused)
  await assert.rejects(attachVolume(world.ports, admin, beside.id, { volumeId, deleteOnTermination: false, tag: null }), refused)
  assert.equal(world.volumes.volumes.get(volumeId)?.status, 'available')
  assert.equal((await world.get(there.id))?.taskState, null)
  await stopInstance(world.ports, admin, here.id)
  await world.idle()
  assert.equal((await describeHosts(world.ports, admin))[1]?.isUp, false)
  await assert.rejects(world.create(admin, { host: 'left' }), { code: 'unavailable', message: /none that may have it answers/ })
  await world.reopen()
  assert.equal((await world.get(there.id))?.power, 'crashed')
})

test('what one host cannot give is given by another, and refused where none of those named can', async (context) => {
  const world = await instanceWorld({ otherHosts: ['left'] })
  context.after(() => world.close())
  const biosOnly = (real: MachineHost) =>
    but(real, { abilities: { ...real.abilities, firmwares: ['bios'], memoryBytes: 64 * GiB } })
  await world.reopen({ hypervisor: biosOnly })
  const imageId = world.images.add({ properties: { hw_firmware_type: 'uefi' } })
  for (let count = 0; count < 3; count += 1) assert.equal((await world.createOne(member, { imageId })).host, 'left')
  await assert.rejects(world.create(admin, { imageId, host: 'host' }), { code: 'invalid-request', message: /hw_firmware_type/ })
})
