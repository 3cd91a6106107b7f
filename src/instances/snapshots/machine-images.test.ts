import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { createFromMachine } from '../create-from-machine.ts'
import { deleteInstance } from '../delete-instance.ts'
import { instanceWorld, someone } from '../instance-world.suite.ts'
import { createKeypair } from '../keypairs/keypairs.ts'
import { stopInstance } from '../power/actions.ts'
import { restoreInstance } from '../rebuild/begin-rebuild.ts'
import { statusOf } from '../states.ts'
import { createSnapshot } from './create-snapshot.ts'

const world = await instanceWorld()
after(() => world.close())
const member = someone('mine')
const snapshot = async (id: string, what: { readonly withMemory?: boolean; readonly withMachine?: boolean }) => {
  const wanted = { name: 'snap', properties: {}, withMemory: false, withMachine: false, ...what }
  const imageId = await createSnapshot(world.ports, member, id, wanted)
  await world.idle()
  return imageId
}
const statusNow = async (id: string) => {
  await world.idle()
  const instance = await world.get(id)
  return instance && [statusOf(instance), instance.power, instance.taskState]
}

test('the machine of an image is made again: told the same, with an id, a card and ports of its own', async () => {
  const publicKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7ZkzP6ZkqNUQCWxX0Mr3vFA8v5hVYDyKEHc9nNFwmp ann@laptop'
  await createKeypair(world.ports, member, { name: 'laptop', publicKey })
  const metadata = { 'imprint:forwards': 'tcp:0:22', role: 'web' }
  const wanted = { keyName: 'laptop', userData: 'I2E=', metadata, tags: ['blue'], description: 'words', flavorId: '2' }
  const source = await world.createOne(member, wanted)
  const imageId = await snapshot(source.id, { withMachine: true })
  const { id } = await createFromMachine(world.ports, member, { name: 'again', imageId, withMemory: false })
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  const made = (await world.get(id))!
  for (const same of ['flavor', 'key', 'tags', 'description', 'hardware', 'rootBytes'] as const)
    assert.deepEqual(made[same], source[same], same)
  assert.deepEqual([made.name, made.imageId, made.metadata.role], ['again', imageId, 'web'])
  assert.notEqual(made.network!.mac, source.network!.mac)
  assert.notEqual(made.network!.forwards[0]!.hostPort, source.network!.forwards[0]!.hostPort)
  const { seed } = world.host.machine(id).spec
  assert.equal(Buffer.from(seed!.userData).toString(), '#a')
  assert.equal(JSON.parse(seed!.metaData)['instance-id'], id)
})

test('an image of a disk alone makes no machine, and one without memory starts anew', async () => {
  const source = await world.createOne(member)
  const disk = await snapshot(source.id, {})
  const wish = { name: 'again', withMemory: false }
  await assert.rejects(createFromMachine(world.ports, member, { ...wish, imageId: disk }), {
    code: 'invalid-request',
    message: /disk alone/,
  })
  const machine = await snapshot(source.id, { withMachine: true })
  await assert.rejects(createFromMachine(world.ports, member, { ...wish, imageId: machine, withMemory: true }), {
    code: 'invalid-request',
    message: /no memory to go on from/,
  })
  await assert.rejects(restoreInstance(world.ports, member, source.id, { imageId: disk, withMemory: true }), {
    code: 'invalid-request',
  })
  await assert.rejects(createFromMachine(world.ports, someone('theirs'), { ...wish, imageId: machine }), {
    code: 'invalid-request',
  })
  await assert.rejects(createFromMachine(world.ports, member, { ...wish, imageId: machine, flavorId: 'none' }), {
    code: 'invalid-request',
  })
})

test('from its memory an instance goes on where it was: restored, and as another one', async () => {
  const { id } = await world.createOne(member)
  const machine = () => world.host.machine(id)
  machine().memory = 7
  const imageId = await snapshot(id, { withMemory: true })
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.equal(machine().boots, 1)
  machine().memory = 9

  await restoreInstance(world.ports, member, id, { imageId, withMemory: true })
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.deepEqual([machine().memory, machine().boots], [7, 0])

  const twin = await createFromMachine(world.ports, member, { name: 'twin', imageId, withMemory: true })
  assert.deepEqual(await statusNow(twin.id), ['ACTIVE', 'running', null], JSON.stringify((await world.get(twin.id))?.fault))
  assert.deepEqual([world.host.machine(twin.id).memory, world.host.machine(twin.id).boots], [7, 0])
  assert.equal(await world.catalog.documents.get('instance-seed', twin.id), undefined)

  await stopInstance(world.ports, member, id)
  await world.idle()
  await restoreInstance(world.ports, member, id, { imageId, withMemory: false })
  assert.deepEqual(await statusNow(id), ['SHUTOFF', 'shutdown', null])
})

test('in a bridge no second machine goes on with a memory that knows the card of the first', async () => {
  const bridged = await instanceWorld({ settings: { bridge: 'br0' } })
  const source = await bridged.createOne(member)
  const imageId = await createSnapshot(bridged.ports, member, source.id, {
    name: 's',
    properties: {},
    withMemory: true,
    withMachine: true,
  })
  await bridged.idle()
  const again = () => createFromMachine(bridged.ports, member, { name: 'again', imageId, withMemory: true })
  await assert.rejects(again(), { code: 'conflict', message: /which another one in the bridge br0 has/ })
  await deleteInstance(bridged.ports, member, source.id)
  await bridged.idle()
  const { id } = await again()
  assert.deepEqual((await bridged.get(id))!.network, source.network)
  await bridged.close()
})
