import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { ServiceError } from '../base/errors.ts'
import { hydrateInstance } from './hydrate.ts'
import { instanceWorld, someone } from './instance-world.suite.ts'
import { cancelJob, showJob } from './job-control.ts'
import type { SaveOptions } from './ports.ts'
import { startInstance, stopInstance } from './power/actions.ts'
import { rebuildInstance, restoreInstance } from './rebuild/begin-rebuild.ts'
import { createSnapshot } from './snapshots/create-snapshot.ts'
import { statusOf } from './states.ts'
import { attachVolume } from './volumes/attach-volume.ts'

const world = await instanceWorld()
after(() => world.close())
const member = someone('mine')
const plain = { name: 'snap', properties: {}, withMemory: false, withMachine: false }
const statusNow = async (id: string) => {
  await world.idle()
  const instance = await world.get(id)
  return instance && [statusOf(instance), instance.power, instance.taskState]
}
const leasesOf = (id: string) => [...world.images.lent.values()].filter(({ holder }) => holder === `instance ${id}`)

/** The next save reports and then waits for its end. */
function heldSave() {
  const { save } = world.images
  const reached = Promise.withResolvers<void>()
  world.images.save = (_imageId, _contents, { signal, onProgress }: SaveOptions = {}) => {
    world.images.save = save
    onProgress?.(4096)
    reached.resolve()
    return new Promise((_, reject) => signal!.addEventListener('abort', () => reject(signal!.reason)))
  }
  return reached.promise
}

test('hydrated, an instance holds nothing of its image any more, and starts and is kept as before', async () => {
  const { id } = await world.createOne(member)
  await hydrateInstance(world.ports, member, id)
  assert.equal((await world.get(id))!.taskState, 'hydrating')
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.deepEqual(leasesOf(id), [])
  assert.equal(world.host.machine(id).spec.disks[0]!.base, undefined)
  await stopInstance(world.ports, member, id)
  await world.idle()
  await assert.rejects(hydrateInstance(world.ports, member, id), { code: 'conflict' })
  await startInstance(world.ports, member, id)
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  const imageId = await createSnapshot(world.ports, member, id, plain)
  await world.idle()
  assert.ok(world.images.images.has(imageId))
  assert.equal(leasesOf(id).length, 1)
})

test('what is done is shown with its progress, and ended on request; the instance is as it was', async () => {
  const { id } = await world.createOne(member)
  await assert.rejects(showJob(world.ports, member, id), { code: 'not-found' })
  const reached = heldSave()
  const imageId = await createSnapshot(world.ports, member, id, plain)
  await reached
  const { kind, taskState, progress } = await showJob(world.ports, someone('mine', 'reader'), id)
  assert.deepEqual([kind, taskState, progress], ['snapshot', 'image_uploading', { doneBytes: 4096, totalBytes: 2 ** 30 }])
  await assert.rejects(cancelJob(world.ports, someone('mine', 'reader'), id), { code: 'denied' })
  await cancelJob(world.ports, member, id)
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.deepEqual([world.images.begun.has(imageId), world.images.images.has(imageId)], [false, false])
  await assert.rejects(showJob(world.ports, member, id), { code: 'not-found' })
  const next = await createSnapshot(world.ports, member, id, plain)
  await world.idle()
  assert.ok(world.images.images.has(next))
})

test('a job that failed and could not be undone is undone on request, and the next one is not ended for it', async () => {
  const { id } = await world.createOne(member)
  const { save, giveUp } = world.images
  world.images.save = world.images.giveUp = () => Promise.reject(new Error('the store is away'))
  const lost = await createSnapshot(world.ports, member, id, plain)
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.deepEqual([(await showJob(world.ports, member, id)).taskState, world.images.begun.has(lost)], [null, true])
  await assert.rejects(cancelJob(world.ports, member, id), { message: 'the store is away' })
  Object.assign(world.images, { save, giveUp })
  await cancelJob(world.ports, member, id)
  await assert.rejects(showJob(world.ports, member, id), { code: 'not-found' })
  assert.ok(!world.images.begun.has(lost))
  const next = await createSnapshot(world.ports, member, id, plain)
  await world.idle()
  assert.ok(world.images.images.has(next), JSON.stringify((await world.get(id))!.fault))
})

test('a job is ended that is only being begun; where it is not begun at all, the next one is', async () => {
  const { id } = await world.createOne(member)
  const { begin } = world.images
  /** A snapshot that is ended while its image is begun. */
  const endedEarly = async (andThen: typeof begin) => {
    const [reached, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    world.images.begin = async (...asked) => {
      world.images.begin = begin
      reached.resolve()
      await held.promise
      return andThen.apply(world.images, asked)
    }
    const asked = createSnapshot(world.ports, member, id, plain)
    await reached.promise
    await cancelJob(world.ports, member, id)
    held.resolve()
    return asked
  }
  const ended = await endedEarly(begin)
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.deepEqual([world.images.begun.has(ended), world.images.images.has(ended)], [false, false])
  const refusal = new ServiceError('over-quota', 'no more images')
  await assert.rejects(
    endedEarly(() => Promise.reject(refusal)),
    { code: 'over-quota' },
  )
  const next = await createSnapshot(world.ports, member, id, plain)
  await world.idle()
  assert.ok(world.images.images.has(next))
})

test('a rebuild is not ended half-way', async () => {
  const { id } = await world.createOne(member)
  const held = Promise.withResolvers<void>()
  world.host.beforeStart = () => held.promise
  await rebuildInstance(world.ports, member, id, { imageId: world.image })
  await assert.rejects(cancelJob(world.ports, member, id), { code: 'conflict', message: /rebuild .* cannot be ended/ })
  held.resolve()
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  world.host.beforeStart = () => {}
})

test('a hydration that fails says so in what was done, and changes nothing', async () => {
  const { id, leaseId } = await world.createOne(member)
  const failing = new ServiceError('no-space', 'the disk of the host is full')
  await world.reopen({
    hypervisor: (real) =>
      new Proxy(real, {
        get(of, name) {
          if (name === 'hydrate') return () => Promise.reject(failing)
          const value: unknown = Reflect.get(of, name)
          return typeof value === 'function' ? value.bind(of) : value
        },
      }),
  })
  await hydrateInstance(world.ports, member, id)
  assert.deepEqual(await statusNow(id), ['ACTIVE', 'running', null])
  assert.equal((await world.get(id))!.fault!.message, 'the disk of the host is full')
  assert.deepEqual(
    leasesOf(id).map((lease) => lease.leaseId),
    [leaseId],
  )
  await world.reopen()
})

test('launches do not wait for a restore that waits for volumes, nor a rebuild without any for jobs', async () => {
  const one = { places: 1, share: 1 }
  const small = await instanceWorld({ pools: { launches: one, jobs: one } })
  const [restored, rebuilt] = [await small.createOne(member), await small.createOne(member)]
  const volumeId = small.volumes.add({ content: 'then' })
  await attachVolume(small.ports, member, restored.id, { volumeId, deleteOnTermination: false, tag: null })
  await small.idle()
  const imageId = await createSnapshot(small.ports, member, restored.id, { ...plain, withMachine: true })
  await small.idle()
  small.volumes.volumes.get(volumeId)!.content = 'now'
  const { revert } = small.volumes
  const [reached, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  small.volumes.revert = async (...asked) => {
    reached.resolve()
    await held.promise
    return revert.apply(small.volumes, asked)
  }
  await restoreInstance(small.ports, member, restored.id, { imageId, withMemory: false })
  await reached.promise
  const [launched] = await small.create(member)
  await rebuildInstance(small.ports, member, rebuilt.id, { imageId: small.image })
  for (const id of [launched!.id, rebuilt.id]) {
    await small.ports.tasks.idleAt(id)
    assert.deepEqual([statusOf((await small.get(id))!), (await small.get(id))!.taskState], ['ACTIVE', null])
  }
  held.resolve()
  await small.idle()
  assert.deepEqual([statusOf((await small.get(restored.id))!), small.volumes.volumes.get(volumeId)!.content], ['ACTIVE', 'then'])
  await small.close()
})

test('a job that waits for the jobs of others is ended at once on request, and launches do not wait for it', async () => {
  const one = { places: 1, share: 1 }
  const small = await instanceWorld({ pools: { launches: one, jobs: one } })
  const { save } = small.images
  const [reached, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  small.images.save = async (...asked) => {
    reached.resolve()
    await held.promise
    return save.apply(small.images, asked)
  }
  const [first, second] = [await small.createOne(someone('a')), await small.createOne(someone('b'))]
  await createSnapshot(small.ports, someone('a'), first.id, plain)
  await reached.promise
  const imageId = await createSnapshot(small.ports, someone('b'), second.id, plain)
  const [launched] = await small.create(someone('b'))
  await small.ports.tasks.idleAt(launched!.id)
  assert.equal((await small.get(launched!.id))!.vmState, 'active')
  await cancelJob(small.ports, someone('b'), second.id)
  await small.ports.tasks.idleAt(second.id)
  assert.equal((await small.get(second.id))!.taskState, null)
  assert.ok(!small.images.begun.has(imageId))
  held.resolve()
  await small.close()
})
