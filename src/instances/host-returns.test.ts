/** Hosts that go away at any moment and come back: nothing that they have is given away meanwhile, and what they were asked for comes to its end. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { ServiceError } from '../base/errors.ts'
import { changeInstance } from './change-instance.ts'
import { deleteInstance } from './delete-instance.ts'
import { absentHypervisor } from './hypervisor/absent/absent-hypervisor.ts'
import { HostAway } from './hypervisor/host-away.ts'
import { but, instanceWorld, someone } from './instance-world.suite.ts'
import type { MachineHost } from './ports.ts'
import { rebuildInstance } from './rebuild/begin-rebuild.ts'
import { attachments } from './store.ts'
import { attachVolume } from './volumes/attach-volume.ts'
import { detachVolume } from './volumes/detach-volume.ts'

const admin = someone('admins', 'admin')
const lost = () => new HostAway('The agent of the host has hung up.')
const away = () => absentHypervisor(lost())

/** A service with another host, `left`, whose agent a test cuts off: `before` it hears of a call, or `after` it did it. */
async function world(context: TestContext) {
  const made = await instanceWorld({ otherHosts: ['left'] })
  context.after(() => made.close())
  const left = made.otherHosts.get('left')!
  let cut: { readonly method: string; readonly when: 'before' | 'after' } | null = null
  const cutOff = (real: MachineHost): MachineHost => {
    const calls =
      (method: 'launch' | 'attach' | 'detach' | 'remove') =>
      async (...asked: never[]) => {
        if (cut?.method === method && cut.when === 'before') throw lost()
        await (real[method] as (...asked: never[]) => Promise<void>)(...asked)
        if (cut?.method === method) throw lost()
      }
    return but(real, { launch: calls('launch'), attach: calls('attach'), detach: calls('detach'), remove: calls('remove') })
  }
  await made.reopen({ others: cutOff })
  return Object.assign(made, {
    left,
    cutAt(method: string, when: 'before' | 'after') {
      cut = { method, when }
    },
    async back() {
      cut = null
      await made.lookForHosts()
      await made.idle()
    },
    stateOf: async (id: string) => {
      const instance = await made.get(id)
      return instance && [instance.vmState, instance.taskState, instance.power, instance.fault]
    },
    attachmentOf: async (id: string, volumeId: string) => (await attachments.get(made.catalog.documents, id, volumeId))?.state,
  })
}

const wantedVolume = (volumeId: string) => ({
  volumeId,
  source: { kind: 'volume', volumeId } as const,
  from: { kind: 'volume', volumeId } as const,
  sizeGiB: null,
  bootIndex: null,
  deleteOnTermination: true,
  tag: null,
})

for (const when of ['before', 'after'] as const) {
  test(`a launch whose host goes away ${when} it keeps its disks, and is active when the host is back`, async (context) => {
    const it = await world(context)
    const volumeId = it.volumes.add()
    it.cutAt('launch', when)
    const [made] = await it.create(admin, { host: 'left', volumes: [wantedVolume(volumeId)] })
    const { id } = made!
    await it.idle()
    assert.deepEqual(await it.stateOf(id), ['building', 'spawning', null, null])
    const { leaseId } = (await it.get(id))!
    assert.ok(it.images.lent.has(leaseId!))
    assert.equal(it.volumes.volumes.get(volumeId)?.instanceId, id)
    await it.back()
    assert.deepEqual(await it.stateOf(id), ['active', null, 'running', null])
    assert.equal((await it.get(id))?.leaseId, leaseId)
    assert.equal(it.left.machine(id).power, 'running')
    assert.equal(it.volumes.volumes.get(volumeId)?.status, 'in-use')
  })

  test(`a volume whose host goes away ${when} it was plugged, or unplugged, is the instance's until the host is back`, async (context) => {
    const it = await world(context)
    const { id } = await it.createOne(admin, { host: 'left' })
    const volumeId = it.volumes.add()
    it.cutAt('attach', when)
    await attachVolume(it.ports, admin, id, { volumeId, deleteOnTermination: false, tag: null })
    await it.idle()
    assert.equal(await it.attachmentOf(id, volumeId), 'attaching')
    assert.equal(it.volumes.volumes.get(volumeId)?.instanceId, id)
    await it.back()
    assert.equal(await it.attachmentOf(id, volumeId), 'attached')
    assert.deepEqual((await it.ports.hypervisor.show(id)).disks, ['root', volumeId])
    it.cutAt('detach', when)
    await detachVolume(it.ports, admin, id, volumeId)
    await it.idle()
    assert.equal(await it.attachmentOf(id, volumeId), 'detaching')
    assert.equal(it.volumes.volumes.get(volumeId)?.status, 'detaching')
    await it.back()
    assert.equal(await it.attachmentOf(id, volumeId), undefined)
    assert.equal(it.volumes.volumes.get(volumeId)?.status, 'available')
    assert.deepEqual((await it.ports.hypervisor.show(id)).disks, ['root'])
  })

  test(`a rebuild whose host goes away ${when} its new machine started has that machine when it is back`, async (context) => {
    const it = await world(context)
    const { id, leaseId: old } = await it.createOne(admin, { host: 'left' })
    it.cutAt('launch', when)
    await rebuildInstance(it.ports, admin, id, { imageId: it.image })
    await it.idle()
    assert.equal((await it.get(id))?.taskState, 'rebuilding')
    await it.back()
    assert.deepEqual(await it.stateOf(id), ['active', null, 'running', null])
    const { leaseId } = (await it.get(id))!
    assert.notEqual(leaseId, old)
    assert.deepEqual([...it.images.lent.keys()], [leaseId])
    assert.equal(it.left.machine(id).power, 'running')
  })

  test(`a deletion whose host goes away ${when} the machine was removed goes on when it is back`, async (context) => {
    const it = await world(context)
    const { id } = await it.createOne(admin, { host: 'left' })
    it.cutAt('remove', when)
    await deleteInstance(it.ports, admin, id)
    await it.idle()
    assert.equal((await it.get(id))?.taskState, 'deleting')
    await it.back()
    assert.equal(await it.get(id), undefined)
    assert.equal(it.left.machines.has(id), false)
    assert.equal(it.images.lent.size, 0)
  })
}

test('what a host itself refuses is no absence: the launch failed', async (context) => {
  const it = await world(context)
  it.left.beforeStart = () => {
    throw new ServiceError('unavailable', 'QEMU said: no')
  }
  const { id } = await it.createOne(admin, { host: 'left' })
  assert.equal((await it.get(id))?.vmState, 'error')
  assert.equal(it.images.lent.size, 0)
})

test('a host that is named no more keeps its instances as they were, with what is lent to them, and that is told', async (context) => {
  const it = await world(context)
  const { id } = await it.createOne(admin, { host: 'left' })
  const lease = await it.images.lend(admin, it.image, `instance ${id}`)
  const before = await it.get(id)
  it.otherHosts.delete('left')
  it.problems.length = 0
  await it.reopen()
  await it.idle()
  assert.deepEqual(await it.get(id), before)
  assert.ok(it.images.lent.has(lease.leaseId))
  assert.equal(it.problems.length, 1)
  assert.match(String(it.problems[0]), /1 instances are on the host "left", which this service does not know/)
})

test('a host that goes away again while it is looked at is looked at again', async (context) => {
  const it = await world(context)
  const { id } = await it.createOne(admin, { host: 'left' })
  await changeInstance(it.ports, id, () => ({ taskState: 'powering-off' }))
  let isAway = true
  let lists = 0
  await it.reopen({
    others: (real) =>
      new Proxy(real, {
        get: (_, name) => {
          if (name === 'abilities' && isAway) throw lost()
          if (name === 'list' && (isAway || ++lists === 1)) return () => Promise.reject(lost())
          const value = Reflect.get(real, name) as unknown
          return typeof value === 'function' ? value.bind(real) : value
        },
      }),
  })
  isAway = false
  await it.lookForHosts()
  await it.idle()
  assert.equal((await it.get(id))?.taskState, 'powering-off')
  await it.lookForHosts()
  await it.idle()
  assert.deepEqual((await it.stateOf(id))?.slice(0, 3), ['stopped', null, 'shutdown'])
})

test('what is done to an instance while its host is looked at is not undone by how it stood before', async (context) => {
  const it = await world(context)
  const [listed, goOn] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  let isHeld = false
  await it.reopen({
    others: (real) =>
      but(real, {
        async list() {
          const found = await real.list()
          if (isHeld) {
            listed.resolve()
            await goOn.promise
          }
          return found
        },
      }),
  })
  isHeld = true
  it.ports.missedHosts.add('left')
  const looked = it.lookForHosts()
  await listed.promise
  const { id } = await it.createOne(admin, { host: 'left' })
  goOn.resolve()
  await looked
  await it.idle()
  assert.deepEqual(await it.stateOf(id), ['active', null, 'running', null])
})

test('volumes of a host that is away at the start are given back to nobody', async (context) => {
  const it = await world(context)
  const { id } = await it.createOne(admin, { host: 'left' })
  const volumeId = it.volumes.add()
  it.cutAt('attach', 'after')
  await attachVolume(it.ports, admin, id, { volumeId, deleteOnTermination: false, tag: null })
  await it.idle()
  await it.reopen({ others: away })
  await it.idle()
  assert.equal(await it.attachmentOf(id, volumeId), 'attaching')
  assert.equal(it.volumes.volumes.get(volumeId)?.instanceId, id)
  await it.reopen()
  await it.idle()
  assert.equal(await it.attachmentOf(id, volumeId), 'attached')
})

test('leases of nobody are released when each host was asked, also where the own one can run no machines', async (context) => {
  const it = await world(context)
  const lease = await it.images.lend(admin, it.image, 'instance 6f1f2a9e-2f43-4a5e-9c19-8f7a7d7a0001')
  let isAway = true
  const others = (real: MachineHost): MachineHost =>
    new Proxy(real, { get: (_, name) => Reflect.get(isAway ? away() : real, name) }) as MachineHost
  await it.reopen({ hypervisor: away, others: (real) => others(bound(real)) })
  assert.ok(it.images.lent.has(lease.leaseId))
  isAway = false
  await it.lookForHosts()
  await it.lookForHosts()
  assert.equal(it.images.lent.has(lease.leaseId), false)
})

const bound = (real: MachineHost): MachineHost => but(real, {})
