import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { ServiceError } from '../../base/errors.ts'
import { listActions } from '../actions/actions.ts'
import { changeInstance } from '../change-instance.ts'
import { deleteInstance } from '../delete-instance.ts'
import { absentHypervisor } from '../hypervisor/absent/absent-hypervisor.ts'
import { but, instanceWorld, someone } from '../instance-world.suite.ts'
import { cancelJob } from '../job-control.ts'
import type { MachineHost } from '../ports.ts'
import { statusOf } from '../states.ts'
import { jobs } from '../store.ts'
import { migrateInstance } from './begin-migrate.ts'
import { showMigration } from './show-migration.ts'

const [member, admin] = [someone('mine'), someone('admins', 'admin')]
const away = () => absentHypervisor(new ServiceError('unavailable', 'The agent of the host does not answer.'))
async function twoHosts(context: TestContext) {
  const world = await instanceWorld({ otherHosts: ['left'] })
  context.after(() => world.close())
  const left = world.otherHosts.get('left')!
  const created = await world.createOne(member, {})
  const instance = created.host === null ? created : await moved(world, created.id, 'host')
  return { world, left, id: instance.id }
}
type World = Awaited<ReturnType<typeof instanceWorld>>

async function moved(world: World, id: string, to: string | null) {
  await migrateInstance(world.ports, admin, id, { to })
  await world.idle()
  return (await world.get(id))!
}

test('an instance is moved to the other host and back, and the record, its actions and its migration say so', async (context) => {
  const { world, left, id } = await twoHosts(context)
  world.host.machine(id).memory = 7
  const there = await moved(world, id, null)
  assert.deepEqual([there.host, there.vmState, there.taskState, there.power], ['left', 'active', null, 'running'])
  assert.equal(left.machine(id).memory, 7, 'it goes on')
  assert.equal(world.host.machines.has(id), false)
  const { at, ...migration } = await showMigration(world.ports, admin, id)
  assert.ok(at > 0)
  assert.deepEqual(migration, { from: 'host', to: 'left', downtimeMs: 0, bytes: 1 })
  const [action] = await listActions(world.ports, member, id)
  assert.deepEqual([action?.action, action?.failure], ['live-migration', null])
  assert.match(action?.outcome ?? '', /stood still for 0 ms/)
  await world.ports.hypervisor.pause(id)
  await world.idle()
  const back = await moved(world, id, 'host')
  assert.deepEqual([back.host, back.vmState], [null, 'paused'])
  assert.equal(left.machines.size, 0)
  await assert.rejects(showMigration(world.ports, member, id), { code: 'denied' })
})

test('what cannot be is refused before anything is begun', async (context) => {
  const { world, id } = await twoHosts(context)
  const asked = (to: string | null, caller = admin) => migrateInstance(world.ports, caller, id, { to })
  await assert.rejects(asked(null, member), { code: 'denied' })
  await assert.rejects(asked('left', someone('theirs')), { code: 'not-found' })
  await assert.rejects(asked('nowhere'), { code: 'invalid-request', message: /"host", "left"/ })
  await assert.rejects(asked('host'), { code: 'invalid-request', message: /current host/ })
  await world.reopen({ others: away })
  await assert.rejects(asked('left'), { code: 'unavailable', message: /left is away/ })
  await assert.rejects(asked(null), { code: 'unavailable' })
  await world.reopen()
  await world.ports.hypervisor.stop(id, 0)
  await world.idle()
  await assert.rejects(asked('left'), { code: 'conflict' })
  assert.equal(await jobs.get(world.catalog.documents, id), undefined)
})

test('where there is one host, there is nowhere to go', async (context) => {
  const world = await instanceWorld()
  context.after(() => world.close())
  const { id } = await world.createOne(member)
  await assert.rejects(migrateInstance(world.ports, admin, id, { to: null }), {
    code: 'invalid-request',
    message: /none but "host"/,
  })
})

test('it stays where it was when the other host does not take it, and may be asked to go again', async (context) => {
  const { world, left, id } = await twoHosts(context)
  const full = new ServiceError('no-space', 'the disk of the host is full')
  await world.reopen({ others: (real) => but(real, { receive: () => Promise.reject(full) }) })
  const stayed = await moved(world, id, 'left')
  assert.deepEqual([stayed.host, stayed.vmState, stayed.taskState], [null, 'active', null])
  assert.match(stayed.fault?.message ?? '', /full/)
  assert.equal((await listActions(world.ports, member, id))[0]?.failure, 'the disk of the host is full')
  assert.equal(await jobs.get(world.catalog.documents, id), undefined)
  await world.reopen()
  assert.equal((await moved(world, id, 'left')).host, 'left')
  assert.equal(left.machine(id).power, 'running')
})

test('where nobody heard how it ended, the hosts are asked', async (context) => {
  const { world, left, id } = await twoHosts(context)
  const broken = new ServiceError('unavailable', 'the way broke')
  const loses = (before: boolean) => (real: MachineHost) =>
    but(real, {
      migrateTo: async (...asked) => {
        if (!before) await real.migrateTo(...asked)
        throw broken
      },
    })
  await world.reopen({ hypervisor: loses(true) })
  assert.equal((await moved(world, id, 'left')).host, null)
  await world.reopen({ hypervisor: loses(false) })
  const there = await moved(world, id, 'left')
  assert.deepEqual([there.host, there.fault, there.migration?.downtimeMs], ['left', null, null])
  assert.equal(left.machine(id).power, 'running')
})

for (const [step, whereCut] of [
  ['before it went', false],
  ['when it had gone', true],
] as const) {
  test(`cut short ${step}, it is moved by the next start`, async (context) => {
    const { world, left, id } = await twoHosts(context)
    const cut = Promise.withResolvers<void>()
    const never = new Promise<never>(() => {})
    await world.reopen({
      hypervisor: (real) =>
        but(real, {
          migrateTo: async (...asked) => {
            if (whereCut) await real.migrateTo(...asked)
            cut.resolve()
            return never
          },
        }),
    })
    await migrateInstance(world.ports, admin, id, { to: 'left' })
    await cut.promise
    assert.equal((await world.get(id))?.host, null)
    assert.equal(statusOf((await world.get(id))!), 'MIGRATING')
    await world.reopen()
    await world.idle()
    const there = (await world.get(id))!
    assert.deepEqual([there.host, there.taskState, there.vmState], ['left', null, 'active'])
    assert.equal(left.machine(id).power, 'running')
    assert.equal(world.host.machines.has(id), false)
  })
}

test('a copy that an earlier migration left at the other host is not taken for the machine', async (context) => {
  const { world, id } = await twoHosts(context)
  await world.ports.hosts[1]!.machines.launch(world.host.machine(id).spec)
  const stayed = await moved(world, id, 'left')
  assert.deepEqual([stayed.host, stayed.vmState, stayed.taskState], [null, 'active', null])
  assert.match(stayed.fault?.message ?? '', /is there already/)
  assert.equal(world.host.machine(id).power, 'running')
})

test('cut short when it had gone, it is found where it is, though the host where it was is away', async (context) => {
  const { world, left, id } = await twoHosts(context)
  const there = await moved(world, id, 'left')
  await world.catalog.write(async ({ documents }) => {
    await jobs.put(documents, id, { kind: 'migrate', from: 'left', to: null, hasBegun: true })
  })
  await changeInstance(world.ports, id, () => ({ taskState: 'migrating' }))
  await world.ports.hosts[1]!.machines.migrateTo(id, await world.ports.hosts[0].machines.receive(left.machine(id).spec))
  await world.reopen({ others: away })
  await world.idle()
  const now = (await world.get(id))!
  assert.deepEqual([there.host, now.host, now.taskState], ['left', null, null])
})

test('ended on request it stays, and nobody expects it any more', async (context) => {
  const { world, left, id } = await twoHosts(context)
  const begun = Promise.withResolvers<void>()
  await world.reopen({
    hypervisor: (real) =>
      but(real, {
        migrateTo: (_id, _target, { signal } = {}) =>
          new Promise((_, fail) => {
            signal?.addEventListener('abort', () => fail(new ServiceError('cancelled', 'it was cut short')), { once: true })
            begun.resolve()
          }),
      }),
  })
  await migrateInstance(world.ports, admin, id, { to: 'left' })
  await begun.promise
  await cancelJob(world.ports, member, id)
  await world.idle()
  const stayed = (await world.get(id))!
  assert.deepEqual([stayed.host, stayed.taskState, stayed.vmState], [null, null, 'active'])
  assert.equal(left.network.size, 0)
})

test('deleted while it is on its way, nothing is left of it at either host', async (context) => {
  const { world, left, id } = await twoHosts(context)
  const gone = Promise.withResolvers<void>()
  await world.reopen({
    hypervisor: (real) =>
      but(real, {
        migrateTo: async (machine, target, { signal } = {}) => {
          await real.migrateTo(machine, target)
          gone.resolve()
          return new Promise((_, fail) => {
            signal?.addEventListener('abort', () => fail(new ServiceError('cancelled', 'it was cut short')), { once: true })
          })
        },
      }),
  })
  await migrateInstance(world.ports, admin, id, { to: 'left' })
  await gone.promise
  await deleteInstance(world.ports, member, id)
  await world.idle()
  assert.equal(await world.get(id), undefined)
  assert.deepEqual([world.host.machines.size, left.machines.size], [0, 0])
})

test('deleted while its target is away, it is that host that is missed, and it goes when that is back', async (context) => {
  const { world, left, id } = await twoHosts(context)
  await world.reopen({ others: away })
  await world.catalog.write(async ({ documents }) => {
    await jobs.put(documents, id, { kind: 'migrate', from: null, to: 'left', hasBegun: true })
  })
  await deleteInstance(world.ports, member, id)
  await world.ports.tasks.idle()
  assert.deepEqual([...world.ports.missedHosts], ['left'])
  await world.reopen()
  await world.idle()
  assert.equal(await world.get(id), undefined)
  assert.deepEqual([world.host.machines.size, left.machines.size], [0, 0])
})

test('a paused machine whose target is away waits until somebody knows where it is', async (context) => {
  const { world, left, id } = await twoHosts(context)
  await world.ports.hypervisor.pause(id)
  await world.idle()
  await world.catalog.write(async ({ documents }) => {
    await jobs.put(documents, id, { kind: 'migrate', from: null, to: 'left', hasBegun: true })
  })

  await changeInstance(world.ports, id, () => ({ taskState: 'migrating' }))
  await world.reopen({ others: away })
  assert.equal((await world.get(id))?.taskState, 'migrating')
  await world.reopen()
  await world.idle()
  assert.equal((await world.get(id))?.host, 'left')
  assert.equal(left.machine(id).power, 'paused')
})
