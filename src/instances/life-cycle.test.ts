import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { ServiceError } from '../base/errors.ts'
import { consoleLog } from './console-log.ts'
import { deleteInstance } from './delete-instance.ts'
import { showInstance } from './find-instance.ts'
import { absentHypervisor } from './hypervisor/absent/absent-hypervisor.ts'
import { instanceWorld, someone } from './instance-world.suite.ts'
import { createKeypair, deleteKeypair } from './keypairs/keypairs.ts'
import { FORWARDS_KEY } from './launch/forwards.ts'
import { sha512Crypt } from './launch/sha512-crypt.ts'
import { lockInstance, unlockInstance } from './lock.ts'
import { mergeMetadata, removeMetadata, replaceMetadata } from './metadata.ts'
import { hardReboot, pauseInstance, softReboot, startInstance, stopInstance, unpauseInstance } from './power/actions.ts'
import { statusOf } from './states.ts'
import { updateInstance } from './update-instance.ts'

const world = await instanceWorld()
after(() => world.close())
const member = someone('mine')
const admin = someone('operators', 'admin')

const statusNow = async (id: string) => {
  await world.idle()
  const instance = await world.get(id)
  return instance && [statusOf(instance), instance.power, instance.taskState]
}

test('an instance is building at once, runs after that, and knows its machine', async () => {
  const [made] = await world.create(member, { name: 'Web Server_1', tags: ['a'], metadata: { role: 'web' } })
  assert.deepEqual([made!.vmState, made!.taskState, statusOf(made!)], ['building', 'scheduling', 'BUILD'])
  assert.deepEqual(await statusNow(made!.id), ['ACTIVE', 'running', null])
  const { spec } = world.host.machine(made!.id)
  assert.deepEqual([spec.name, spec.cpus, spec.memoryBytes], ['Web Server_1', 1, 512 * 2 ** 20])
  assert.equal(spec.disks[0]?.bytes, 2 ** 30)
  const lease = [...world.images.lent.values()].find(({ holder }) => holder === `instance ${made!.id}`)
  assert.deepEqual(spec.disks[0]?.base, lease?.address)
  assert.match(spec.networks[0]!.mac, /^fa:16:3e:/)
  assert.equal(made!.hostname, 'web-server-1')
})

test('the guest is told its name, its key and what its user sent, byte for byte', async () => {
  await createKeypair(world.ports, member, {
    name: 'laptop',
    publicKey: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7ZkzP6ZkqNUQCWxX0Mr3vFA8v5hVYDyKEHc9nNFwmp ann@"laptop',
  })
  const bytes = Buffer.from([0x1f, 0x8b, 0, 255, 10])
  const metadata = { note: 'a"\n: é\u2028 😀' }
  const { id } = await world.createOne(member, { keyName: 'laptop', userData: bytes.toString('base64'), metadata })
  await deleteKeypair(world.ports, member, 'laptop')
  const { seed, networks } = world.host.machine(id).spec
  const told = JSON.parse(seed!.metaData)
  assert.deepEqual([told['instance-id'], told['local-hostname'], told.meta], [id, 'web', metadata])
  assert.match(told['public-keys'][0], /^ssh-ed25519 \S+ ann@"laptop$/)
  assert.doesNotMatch(seed!.metaData, /\u2028/)
  assert.deepEqual(Buffer.from(seed!.userData), bytes)
  const net = JSON.parse(seed!.networkConfig!)
  assert.deepEqual(net, { version: 2, ethernets: { net0: { match: { macaddress: networks[0]!.mac }, dhcp4: true } } })
  assert.equal((await world.get(id))?.key?.name, 'laptop')
})

test('a password is told to the guest, and forgotten when the machine has started', async () => {
  const password = 'pass"word\n: #x'
  const { id } = await world.createOne(member, { adminPassword: password })
  const { vendorData } = world.host.machine(id).spec.seed!
  const [heading, ...rest] = vendorData!.split('\n')
  assert.equal(heading, '#cloud-config')
  const { password: told, chpasswd } = JSON.parse(rest.join('\n'))
  assert.deepEqual(chpasswd, { expire: false })
  assert.equal(told, await sha512Crypt(password, told.split('$')[2]), 'as a hash')
  assert.equal(await world.catalog.documents.get('instance-seed', id), undefined)
})

test('stop, start, reboot, pause and unpause go through their states', async () => {
  const { id } = await world.createOne(member)
  const { ports } = world
  const before = world.host.machine(id).spec.disks[0]?.base
  assert.equal((await stopInstance(ports, member, id)).taskState, 'powering-off')
  assert.deepEqual(await statusNow(id), ['SHUTOFF', 'shutdown', null])
  await startInstance(ports, member, id)
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.notDeepEqual(world.host.machine(id).spec.disks[0]?.base, before, 'a new run reads its disk by a new name')
  assert.equal(statusOf(await softReboot(ports, member, id)), 'REBOOT')
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.equal(statusOf(await hardReboot(ports, member, id)), 'HARD_REBOOT')
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.equal(world.host.machine(id).boots, 4)
  await pauseInstance(ports, member, id)
  assert.deepEqual(await statusNow(id), ['PAUSED', 'paused', null])
  await unpauseInstance(ports, member, id)
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  await pauseInstance(ports, member, id)
  await world.idle()
  await hardReboot(ports, member, id)
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
})

test('what an instance is in the middle of keeps other actions away, and not its deletion', async () => {
  const { id } = await world.createOne(member)
  const { ports } = world
  await stopInstance(ports, member, id)
  await assert.rejects(startInstance(ports, member, id), { code: 'conflict', message: /vm_state active/ })
  await assert.rejects(pauseInstance(ports, member, id), { code: 'conflict', message: /task_state powering-off/ })
  await deleteInstance(ports, member, id)
  assert.equal(await statusNow(id), undefined)
})

test('a guest that turns itself off is SHUTOFF; one that crashes is in ERROR and says why, until it is started again', async () => {
  const { id } = await world.createOne(member)
  world.host.machine(id).powerOff()
  assert.deepEqual(await statusNow(id), ['SHUTOFF', 'shutdown', null])
  await startInstance(world.ports, member, id)
  await world.idle()
  world.host.machine(id).crash('qemu: out of luck')
  assert.deepEqual(await statusNow(id), ['ERROR', 'crashed', null])
  const { fault } = (await world.get(id))!
  assert.match(fault!.message, /ended unexpectedly/)
  assert.equal(fault!.details, 'qemu: out of luck')
  await assert.rejects(startInstance(world.ports, member, id), { code: 'conflict' })
  await hardReboot(world.ports, member, id)
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.equal((await world.get(id))?.fault, null)
})

test('a launch that fails leaves a record that says why, and nothing else', async () => {
  world.host.beforeStart = () => {
    throw new Error('bug')
  }
  const [made] = await world.create(member)
  assert.deepEqual(await statusNow(made!.id), ['ERROR', null, null])
  world.host.beforeStart = () => {}
  const instance = (await world.get(made!.id))!
  assert.deepEqual([instance.leaseId, instance.launchedAt], [null, null])
  assert.match(instance.fault!.message, /did not start/)
  assert.doesNotMatch(instance.fault!.details, /bug/)
  assert.ok(![...world.images.lent.values()].some(({ holder }) => holder.endsWith(made!.id)))
  assert.equal((world.problems.pop() as Error).message, 'bug')
  await assert.rejects(hardReboot(world.ports, member, made!.id), { code: 'conflict', message: /never run/ })
  await deleteInstance(world.ports, member, made!.id)
  assert.equal(await statusNow(made!.id), undefined)
})

test('deleting while it is being launched ends the launch, and leaves nothing', async () => {
  const reached = Promise.withResolvers<void>()
  const never = new Promise<void>(() => {})
  world.host.beforeStart = () => {
    reached.resolve()
    return never
  }
  const [made] = await world.create(member)
  await reached.promise
  await deleteInstance(world.ports, member, made!.id)
  world.host.beforeStart = () => {}
  assert.equal(await statusNow(made!.id), undefined)
  assert.ok(!world.host.machines.has(made!.id))
  assert.ok(![...world.images.lent.values()].some(({ holder }) => holder.endsWith(made!.id)))
})

test('an image may be deleted while an instance runs: stop and start need it no more', async () => {
  const imageId = world.images.add()
  const { id } = await world.createOne(member, { imageId })
  world.images.images.delete(imageId)
  await stopInstance(world.ports, member, id)
  await world.idle()
  await startInstance(world.ports, member, id)
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
})

test('a lock keeps all but administrators from acting; what an administrator locked, only one unlocks', async () => {
  const { id } = await world.createOne(member)
  const { ports } = world
  await lockInstance(ports, member, id, 'in production')
  await assert.rejects(stopInstance(ports, member, id), { code: 'conflict', message: /is locked/ })
  await assert.rejects(deleteInstance(ports, member, id), { code: 'conflict' })
  await assert.rejects(mergeMetadata(ports, member, id, { a: 'b' }), { code: 'conflict' })
  await unlockInstance(ports, member, id)
  await lockInstance(ports, admin, id, null)
  await lockInstance(ports, member, id, 'mine')
  assert.equal((await world.get(id))?.lock?.by, 'admin')
  await assert.rejects(unlockInstance(ports, member, id), { code: 'denied' })
  await stopInstance(ports, admin, id)
  assert.deepEqual(await statusNow(id), ['SHUTOFF', 'shutdown', null])
  await unlockInstance(ports, admin, id)
  await startInstance(ports, member, id)
  await world.idle()
})

test('names, descriptions and metadata change; ports that were forwarded stay', async () => {
  const { id } = await world.createOne(member, { metadata: { [FORWARDS_KEY]: 'tcp:8080:80, udp:0:53' } })
  const { ports } = world
  const { forwards } = world.host.machine(id).spec.networks[0]!
  assert.deepEqual(forwards[0], { protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: 8080, guestPort: 80 })
  assert.equal(forwards[1]?.guestPort, 53)
  const text = `tcp:8080:80,udp:${forwards[1]!.hostPort}:53`
  assert.equal((await world.get(id))?.metadata[FORWARDS_KEY], text)
  await updateInstance(ports, member, id, { name: 'new', description: 'words' })
  await mergeMetadata(ports, member, id, { a: '1', b: '2' })
  await removeMetadata(ports, member, id, 'a')
  await assert.rejects(removeMetadata(ports, member, id, 'a'), { code: 'not-found' })
  assert.deepEqual((await showInstance(ports, member, id)).metadata, { [FORWARDS_KEY]: text, b: '2' })
  assert.deepEqual((await replaceMetadata(ports, member, id, { c: '3' })).metadata, { [FORWARDS_KEY]: text, c: '3' })
  await assert.rejects(removeMetadata(ports, member, id, FORWARDS_KEY), { code: 'conflict' })
  await assert.rejects(mergeMetadata(ports, member, id, { [FORWARDS_KEY]: 'tcp:1:1' }), { code: 'conflict' })
  const tooMany = Object.fromEntries(Array.from({ length: 128 }, (_, n) => [`k${n}`, '']))
  await assert.rejects(mergeMetadata(ports, member, id, tooMany), { code: 'over-quota' })
  assert.deepEqual([(await world.get(id))?.name, (await world.get(id))?.hostname], ['new', 'web'])
  await deleteInstance(ports, member, id)
  await world.idle()
  await world.createOne(member, { metadata: { [FORWARDS_KEY]: 'tcp:8080:8' } })
})

test('the console is told by its last lines', async () => {
  const { id } = await world.createOne(member)
  world.host.machine(id).print('one\ntwo\nlogin: ')
  assert.equal(await consoleLog(world.ports, member, id, null), 'ready\none\ntwo\nlogin: ')
  assert.equal(await consoleLog(world.ports, member, id, 2), 'two\nlogin: ')
  assert.equal(await consoleLog(world.ports, member, id, 0), '')
  world.host.machine(id).print('root\n')
  assert.equal(await consoleLog(world.ports, member, id, 1), 'login: root\n')
  await assert.rejects(consoleLog(world.ports, someone('mine', 'reader'), id, 1), { code: 'denied' })
  await assert.rejects(consoleLog(world.ports, someone('other'), id, 1), { code: 'not-found' })
})

test('where machines cannot be run any more, an action is refused and begins nothing', async () => {
  const bare = await instanceWorld()
  const [made] = await bare.create(member)
  await bare.idle()
  await bare.reopen({ hypervisor: () => absentHypervisor(new ServiceError('unavailable', 'QEMU is not installed')) })
  for (const act of [stopInstance, startInstance, pauseInstance, hardReboot])
    await assert.rejects(act(bare.ports, member, made!.id), { code: 'unavailable', message: 'QEMU is not installed' })
  const instance = await bare.get(made!.id)
  assert.deepEqual([instance?.vmState, instance?.taskState], ['active', null])
  await bare.close()
})
