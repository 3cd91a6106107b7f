/** What cannot be brought to an end: it leaves nothing that nobody knows of, and stands in nobody's way. */
import assert from 'node:assert/strict'
import { after, beforeEach, test } from 'node:test'
import { deleteInstance } from './delete-instance.ts'
import { instanceWorld, someone } from './instance-world.suite.ts'
import type { MachineHost, SnapshotImages } from './ports.ts'
import { createSnapshot } from './snapshots/create-snapshot.ts'
import { statusOf } from './states.ts'

const world = await instanceWorld()
after(() => world.close())
beforeEach(async () => {
  await world.reopen()
  world.problems.length = 0
})
const member = someone('mine')
const plain = { name: 'snap', properties: {}, withMemory: false, withMachine: false }
const jobOf = (id: string) => world.catalog.documents.get('instance-job', id)
const statusNow = async (id: string) => {
  await world.idle()
  const instance = await world.get(id)
  return instance && [statusOf(instance), instance.power, instance.taskState]
}
/** As it is, but for these. */
const but = <T extends object>(real: T, methods: Partial<T>): T =>
  new Proxy(real, {
    get(target, name) {
      const value = (Reflect.get(methods, name) ?? Reflect.get(target, name)) as unknown
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
const broken = () => Promise.reject(new Error('broken'))
const hypervisorBut = (methods: Partial<MachineHost>) => ({ hypervisor: (real: MachineHost) => but(real, methods) })

test('a deletion that fails while a snapshot is taken leaves no job; the next one succeeds', async () => {
  const { id } = await world.createOne(member)
  const reached = Promise.withResolvers<void>()
  const end = Promise.withResolvers<never>()
  const seal = () => {
    reached.resolve()
    return end.promise
  }
  await world.reopen(hypervisorBut({ seal, remove: broken }))
  await createSnapshot(world.ports, member, id, plain)
  await reached.promise
  await deleteInstance(world.ports, member, id)
  end.reject(new Error('cut off'))
  assert.deepEqual(await statusNow(id), ['ERROR', 'running', null])
  assert.deepEqual([await jobOf(id), world.images.begun.size], [undefined, 0])
  await world.reopen()
  await deleteInstance(world.ports, member, id)
  assert.equal(await statusNow(id), undefined)
})

test('a job that fails and cannot be undone lets go of its instance, and is undone before the next', async () => {
  const { id } = await world.createOne(member)
  const snapshots: SnapshotImages = but(world.images, { save: broken, giveUp: broken })
  await world.reopen({ snapshots })
  const imageId = await createSnapshot(world.ports, member, id, plain)
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.match((await world.get(id))!.fault!.message, /snapshot failed/)
  assert.equal(world.problems.length, 2)
  assert.ok(world.images.begun.has(imageId))
  await assert.rejects(createSnapshot(world.ports, member, id, plain), { message: 'broken' })
  await world.reopen()
  assert.deepEqual([await jobOf(id), world.images.begun.size], [undefined, 0], 'a start undoes it as well')
  const next = await createSnapshot(world.ports, member, id, plain)
  await world.idle()
  assert.ok(world.images.images.has(next))
})

test('a change of power that waits while a deletion interrupts it does not silence those after it', async () => {
  const { id } = await world.createOne(member)
  await world.reopen(hypervisorBut({ remove: broken }))
  const busy = Promise.withResolvers<void>()
  world.ports.tasks.start(id, () => busy.promise)
  world.host.machine(id).become('paused') // waits in line, and is dropped
  await deleteInstance(world.ports, member, id)
  busy.resolve()
  await world.idle()
  world.host.machine(id).become('running')
  await world.idle()
  world.host.machine(id).powerOff()
  assert.deepEqual(await statusNow(id), ['SHUTOFF', 'shutdown', null])
})
