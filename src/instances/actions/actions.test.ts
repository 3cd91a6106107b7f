import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { ServiceError } from '../../base/errors.ts'
import { deleteInstance } from '../delete-instance.ts'
import { instanceWorld, someone } from '../instance-world.suite.ts'
import { lockInstance, unlockInstance } from '../lock.ts'
import type { MachineHost } from '../ports.ts'
import { pauseInstance, softReboot, startInstance, stopInstance } from '../power/actions.ts'
import { instanceActions } from '../store.ts'
import { listActions, showAction } from './actions.ts'

const world = await instanceWorld()
after(() => world.close())
const member = someone('mine')
let requests = 0
function asking(role: 'member' | 'admin' = 'member', project = 'mine') {
  requests += 1
  return { ...someone(project, role), requestId: `req-${String(requests).padStart(6, '0')}` }
}
const told = async (id: string) =>
  (await listActions(world.ports, member, id)).map(({ action, finishedAt, failure }) => [action, finishedAt !== null, failure])

test('what is done to an instance is told, the newest first, with who asked and how it ended', async () => {
  const caller = asking()
  const { id } = await world.createOne(caller)
  const created = await showAction(world.ports, member, id, caller.requestId)
  assert.deepEqual([created.action, created.userId, created.projectId, created.failure], ['create', 'user-of-mine', 'mine', null])
  assert.ok(created.finishedAt !== null && created.finishedAt >= created.startedAt)
  await stopInstance(world.ports, asking(), id)
  assert.deepEqual((await told(id))[0], ['stop', false, null])
  await world.idle()
  await startInstance(world.ports, asking('admin', 'operators'), id)
  await world.idle()
  await lockInstance(world.ports, asking(), id, null)
  await unlockInstance(world.ports, asking(), id)
  await softReboot(world.ports, asking(), id)
  await world.idle()
  assert.deepEqual(
    await told(id),
    ['reboot', 'unlock', 'lock', 'start', 'stop', 'create'].map((action) => [action, true, null]),
  )
  assert.equal((await listActions(world.ports, member, id))[3]?.projectId, 'operators')
  await assert.rejects(pauseInstance(world.ports, someone('mine', 'reader'), id), { code: 'denied' })
  assert.equal((await told(id)).length, 6, 'what was refused was not done')
})

test('a failure is told in the words that its owner may read', async () => {
  world.host.beforeStart = () => {
    throw new ServiceError('no-space', 'the disk of the host is full')
  }
  const { id } = await world.createOne(asking())
  world.host.beforeStart = () => {}
  assert.deepEqual(await told(id), [['create', true, 'the disk of the host is full']])
})

test('the newest hundred are kept, and none when the instance is gone', async () => {
  const { id } = await world.createOne(asking())
  for (let n = 0; n < 60; n += 1) {
    await lockInstance(world.ports, asking(), id, null)
    await unlockInstance(world.ports, asking(), id)
  }
  const kept = await told(id)
  assert.equal(kept.length, 100)
  assert.ok(!kept.some(([action]) => action === 'create'))
  await deleteInstance(world.ports, asking(), id)
  await world.idle()
  assert.deepEqual(await instanceActions.of(world.catalog.documents, id), [])
})

const neverStops = (real: MachineHost): MachineHost =>
  new Proxy(real, {
    get(of, name) {
      if (name === 'stop') return () => new Promise(() => {})
      const value: unknown = Reflect.get(of, name)
      return typeof value === 'function' ? value.bind(of) : value
    },
  })
test('what a stop of the service cut short is told as done when it has been taken up', async () => {
  const { id } = await world.createOne(asking())
  await world.reopen({ hypervisor: neverStops })
  await stopInstance(world.ports, asking(), id)
  await world.reopen()
  await world.idle()
  assert.deepEqual(await told(id), [
    ['stop', true, null],
    ['create', true, null],
  ])
})

test('strangers see nothing', async () => {
  const { id } = await world.createOne(asking())
  await assert.rejects(listActions(world.ports, someone('theirs'), id), { code: 'not-found' })
  await assert.rejects(showAction(world.ports, member, id, 'req-none'), { code: 'not-found' })
  assert.equal((await listActions(world.ports, someone('mine', 'reader'), id)).length, 1)
})
