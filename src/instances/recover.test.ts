/** A stop at every step of what is done to an instance: the call after the step never ends, and a new service starts on what is there. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { ServiceError } from '../base/errors.ts'
import { type Cut, openCut } from './cut.suite.ts'
import { deleteInstance } from './delete-instance.ts'
import { MemoryHypervisor } from './hypervisor/memory/memory-hypervisor.ts'
import { but, instanceWorld, someone } from './instance-world.suite.ts'
import type { MachineHost } from './ports.ts'
import { hardReboot, pauseInstance, softReboot, startInstance, stopInstance } from './power/actions.ts'
import { statusOf } from './states.ts'

const world = await instanceWorld({ settings: { forwardPorts: { first: 2000, last: 2999 } } })
after(() => world.close())
const member = someone('mine')

const statusNow = async (id: string) => {
  await world.idle()
  const instance = await world.get(id)
  return instance && [statusOf(instance), instance.power, instance.taskState]
}
/** Leases and ports that nobody should have any more. */
const leftovers = async (id: string) => {
  const leases = [...world.images.lent.values()].filter(({ holder }) => holder === `instance ${id}`)
  const ports = await world.catalog.documents.list('forwarded-port', { index: { name: 'instance', value: id } })
  const seeds = await world.catalog.documents.get('instance-seed', id)
  return [leases.length, ports.length, seeds === undefined, world.host.machines.has(id)]
}

const launchCuts: readonly [string, 'images' | 'hypervisor', string, Cut][] = [
  ['instance:recorded', 'images', 'lend', 'before'],
  ['instance:lent', 'images', 'lend', 'after'],
  ['instance:leased', 'hypervisor', 'launch', 'before'],
  ['instance:launched', 'hypervisor', 'launch', 'after'],
]
for (const [failpoint, port, method, cut] of launchCuts) {
  test(`stopped at ${failpoint}, an instance becomes active at the next start, with one lease`, async () => {
    const { reached } = await openCut(world, port, method, cut)
    const [made] = await world.create(member, { userData: 'I2E=', metadata: { 'imprint:forwards': 'tcp:0:22' } })
    await reached
    await world.reopen()
    assert.deepEqual(await statusNow(made!.id), ['ACTIVE', 'running', null])
    assert.deepEqual(await leftovers(made!.id), [1, 1, false, true])
    assert.equal(Buffer.from(world.host.machine(made!.id).spec.seed!.userData).toString(), '#a')
    const { leaseId } = (await world.get(made!.id))!
    assert.deepEqual(world.host.machine(made!.id).spec.disks[0]?.base, world.images.lent.get(leaseId!)?.address)
  })
}

const deleteCuts: readonly [string, 'images' | 'hypervisor', string, Cut][] = [
  ['instance:deleting', 'hypervisor', 'remove', 'before'],
  ['instance:removed', 'images', 'release', 'before'],
  ['instance:released', 'images', 'release', 'after'],
]
for (const [failpoint, port, method, cut] of deleteCuts) {
  test(`stopped at ${failpoint}, a deletion goes on at the next start and leaves nothing`, async () => {
    await world.reopen()
    const { id } = await world.createOne(member, { userData: 'I2E=', metadata: { 'imprint:forwards': 'tcp:0:22' } })
    const { reached } = await openCut(world, port, method, cut)
    await deleteInstance(world.ports, member, id)
    await reached
    await world.reopen()
    assert.equal(await statusNow(id), undefined)
    assert.deepEqual(await leftovers(id), [0, 0, true, false])
  })
}

const actions = [
  ['stop', stopInstance, 'stop', ['SHUTOFF', 'shutdown', null]],
  ['pause', pauseInstance, 'pause', ['PAUSED', 'paused', null]],
  ['soft reboot', softReboot, 'reboot', ['ACTIVE', 'running', null]],
  ['hard reboot', hardReboot, 'reboot', ['ACTIVE', 'running', null]],
] as const
for (const [name, act, method, end] of actions) {
  for (const cut of ['before', 'after'] as const) {
    test(`stopped ${cut} the machine did it (instance:${cut === 'before' ? 'asked' : 'acted'}), a ${name} is brought to its end`, async () => {
      await world.reopen()
      const { id } = await world.createOne(member)
      const { reached } = await openCut(world, 'hypervisor', method, cut)
      await act(world.ports, member, id)
      await reached
      await world.reopen()
      assert.deepEqual(await statusNow(id), end)
    })
  }
}
for (const cut of ['before', 'after'] as const) {
  test(`stopped ${cut} the machine started, a start is brought to its end`, async () => {
    await world.reopen()
    const { id } = await world.createOne(member)
    await stopInstance(world.ports, member, id)
    await world.idle()
    const { reached } = await openCut(world, 'hypervisor', 'start', cut)
    await startInstance(world.ports, member, id)
    await reached
    await world.reopen()
    assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  })
}

test('an orderly stop leaves a launch to the next start', async () => {
  await world.reopen()
  const reached = Promise.withResolvers<void>()
  world.host.beforeStart = () => {
    reached.resolve()
    return new Promise(() => {})
  }
  const [made] = await world.create(member)
  await reached.promise
  await world.ports.tasks.stop()
  assert.equal((await world.get(made!.id))?.taskState, 'spawning')
  world.host.beforeStart = () => {}
  await world.reopen()
  assert.deepEqual(await statusNow(made!.id), ['ACTIVE', 'running', null])
})

test('what became of machines while nobody watched is found at the next start', async () => {
  const [off, dead, gone, same] = await Promise.all([1, 2, 3, 4].map(() => world.createOne(member)))
  await world.ports.tasks.stop()
  world.host.machine(off!.id).powerOff()
  world.host.machine(dead!.id).crash('killed')
  world.host.machines.delete(gone!.id)
  await world.reopen()
  assert.deepEqual(await statusNow(off!.id), ['SHUTOFF', 'shutdown', null])
  assert.deepEqual(await statusNow(dead!.id), ['ERROR', 'crashed', null])
  assert.deepEqual(await statusNow(gone!.id), ['ERROR', null, null])
  assert.match((await world.get(gone!.id))!.fault!.message, /gone from this host/)
  assert.deepEqual(await statusNow(same!.id), ['ACTIVE', 'running', null])
})

test('a lease that nobody has any more ends; a machine without a record, and its lease, are left alone and told of', async () => {
  const strange = '00000000-0000-4000-8000-00000000000a'
  const hypervisor = new MemoryHypervisor(world.host)
  const { spec } = [...world.host.machines.values()][0]!
  await hypervisor.launch({ ...spec, id: strange, networks: [] })
  const lost = await world.images.lend(member, world.image, 'instance 00000000-0000-4000-8000-00000000000b')
  const held = await world.images.lend(member, world.image, `instance ${strange}`)
  world.problems.length = 0
  await world.reopen()
  assert.ok(!world.images.lent.has(lost.leaseId))
  assert.ok(world.images.lent.has(held.leaseId))
  assert.match((world.problems[0] as Error).message, /no record; it is left alone/)
  await hypervisor.remove(strange)
})

test('a host that cannot be asked changes no record', async () => {
  const { id } = await world.createOne(member)
  const absent = new ServiceError('unavailable', 'QEMU is not installed')
  const failing = (real: MachineHost) => but(real, { list: () => Promise.reject(absent) })
  await world.reopen({ hypervisor: failing })
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.equal(world.problems.at(-1), absent)
})
