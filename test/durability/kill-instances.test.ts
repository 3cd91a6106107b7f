/**
 * kill -9 at every step of an instance's life in the whole service, with QEMU under it. After each death the service is started
 * on what it left: what was begun is brought to its end, and at the end of all nothing is left over.
 */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type Failpoint, failpoints } from '../../src/base/failpoint.ts'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { missingTool } from '../peers/command.ts'
import { ImageRequests, Refused, smallDisk } from './image-requests.ts'
import { adminToken, type Death, folderInMemory, type MortalService, removeFolder, startMortal } from './mortal-service.ts'

const skip = missingTool('qemu-system-x86_64')
const settings = { IMPRINT_INSTANCE_ACCELERATOR: 'tcg', IMPRINT_INSTANCE_STOP_SECONDS: '1', IMPRINT_QUOTA_INSTANCES: '100' }
let folder = ''
let service: MortalService | undefined
let token = ''
let requests: ImageRequests
let imageId = ''

before(async () => {
  if (skip) return
  folder = await folderInMemory('kill-instances')
  await start()
  imageId = randomUUID()
  await requests.create(imageId, 'a disk that no BIOS boots from', 'raw')
  await requests.send(imageId, smallDisk(1))
  await compute('POST', '/flavors', { flavor: { id: 'small', name: 'small', ram: 64, vcpus: 1, disk: 0 } })
})
after(async () => {
  if (skip) return
  await endMachines(join(folder, 'data'))
  await service?.stop()
  await removeFolder(folder)
})

async function start(): Promise<void> {
  await service?.stop()
  service = await startMortal(folder, settings)
  token ||= await adminToken(service) // a token outlives the service
  requests = new ImageRequests(service.address, token)
}
const running = (): MortalService => {
  assert.ok(service, 'the service was started')
  return service
}

interface Server {
  readonly id: string
  readonly status: string
  readonly 'OS-EXT-STS:task_state': string | null
}
const compute = <T>(method: string, path: string, body?: unknown): Promise<T> =>
  requests.json<T>(method, `/compute/v2.1${path}`, body)
const servers = async () => (await compute<{ readonly servers: readonly Server[] }>('GET', '/servers/detail')).servers
/** @param name by which it is found again: the answer may be cut off */
const boot = async (name: string): Promise<void> => {
  const server = { name, imageRef: imageId, flavorRef: 'small', metadata: { 'imprint:forwards': 'tcp:0:22' } }
  await compute('POST', '/servers', { server })
}
const find = async (name: string): Promise<Server | undefined> =>
  (await compute<{ readonly servers: readonly Server[] }>('GET', `/servers/detail?name=^${name}$`)).servers[0]

/** Waits for a condition, asking again and again; the time limit is the test runner's. */
async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 3000; tries += 1) {
    if (await holds()) return
    await pause(20)
  }
  assert.fail(`it never came to pass: ${what}`)
}
const becomes = (name: string, status: string) =>
  until(`${name} is ${status}`, async () => {
    const server = await find(name)
    return server?.status === status && server['OS-EXT-STS:task_state'] === null
  })
const isGone = (name: string) => until(`${name} is gone`, async () => (await find(name)) === undefined)

/** What brings the service to the step, and what must be true after the next start. */
interface Case {
  readonly prepare?: (name: string) => Promise<void>
  readonly act: (name: string) => Promise<unknown>
  readonly end: (name: string) => Promise<void>
}
const bootFirst = async (name: string) => {
  await boot(name)
  await becomes(name, 'ACTIVE')
}
const idOf = async (name: string) => (await find(name))!.id
const making: Case = { act: boot, end: (name) => becomes(name, 'ACTIVE') }
const stopping: Case = {
  prepare: bootFirst,
  act: async (name) => compute('POST', `/servers/${await idOf(name)}/action`, { 'os-stop': null }),
  end: (name) => becomes(name, 'SHUTOFF'),
}
const deleting: Case = {
  prepare: bootFirst,
  act: async (name) => compute('DELETE', `/servers/${await idOf(name)}`),
  end: isGone,
}
const act = async (name: string, action: object) => compute('POST', `/servers/${await idOf(name)}/action`, action)
/** The image may be asked for again by its name: the answer was cut off. */
const imagesNamed = (name: string) =>
  requests.json<{ readonly images: readonly { readonly status: string }[] }>('GET', `/image/v2/images?name=${name}`)
const snapshotting: Case = {
  prepare: bootFirst,
  act: (name) => act(name, { createImage: { name } }),
  async end(name) {
    await becomes(name, 'ACTIVE')
    const { images } = await imagesNamed(name)
    assert.deepEqual(
      images.map(({ status }) => status),
      ['active'],
    )
    await act(name, { createImage: { name: `${name}-again` } }) // it lies on something that a snapshot can be made of
    await becomes(name, 'ACTIVE')
    assert.equal((await imagesNamed(`${name}-again`)).images[0]?.status, 'active')
  },
}
/** Nobody was told of an image, so there need not be one. */
const refused: Case = {
  ...snapshotting,
  async end(name) {
    await becomes(name, 'ACTIVE')
    assert.deepEqual((await imagesNamed(name)).images, [])
  },
}
const cloning: Case = {
  prepare: bootFirst,
  act: async (name) => requests.json('POST', `/v1/instances/${await idOf(name)}/clone`, { name: `${name}-twin` }),
  async end(name) {
    await becomes(name, 'ACTIVE')
    await becomes(`${name}-twin`, 'ACTIVE')
    assert.deepEqual((await imagesNamed(`for%20${name}-twin`)).images, [])
  },
}
const orphaned: Case = { ...cloning, end: (name) => becomes(`${name}-twin`, 'ERROR') }
const rebuilding: Case = {
  prepare: bootFirst,
  act: (name) => act(name, { rebuild: { imageRef: imageId } }),
  end: (name) => becomes(name, 'ACTIVE'),
}
const hydrating: Case = {
  prepare: bootFirst,
  act: async (name) => requests.json('POST', `/v1/instances/${await idOf(name)}/hydrate`, {}),
  end: (name) => becomes(name, 'ACTIVE'),
}
interface Volume {
  readonly id: string
  readonly status: string
}
const volumesNamed = async (name: string) =>
  (await requests.json<{ readonly volumes: readonly Volume[] }>('GET', `/volume/v3/volumes/detail?name=${name}`)).volumes
const volumeBecomes = (name: string, status: string) =>
  until(`volume ${name} is ${status}`, async () => (await volumesNamed(name))[0]?.status === status)
const attach = async (name: string) => {
  const [volume] = await volumesNamed(name)
  return compute('POST', `/servers/${await idOf(name)}/os-volume_attachments`, { volumeAttachment: { volumeId: volume!.id } })
}
const attaching: Case = {
  async prepare(name) {
    await bootFirst(name)
    await requests.json('POST', '/volume/v3/volumes', { volume: { name, size: 1 } })
    await volumeBecomes(name, 'available')
  },
  act: attach,
  end: (name) => volumeBecomes(name, 'in-use'),
}
/** Of a machine that is off, as there is no guest that could let go of it. */
const detaching: Case = {
  async prepare(name) {
    await attaching.prepare!(name)
    await act(name, { 'os-stop': null })
    await becomes(name, 'SHUTOFF')
    await attach(name)
    await volumeBecomes(name, 'in-use')
  },
  async act(name) {
    const [volume] = await volumesNamed(name)
    await compute('DELETE', `/servers/${await idOf(name)}/os-volume_attachments/${volume!.id}`)
  },
  async end(name) {
    await volumeBecomes(name, 'available')
    await act(name, { 'os-start': null })
    await becomes(name, 'ACTIVE')
  },
}
/** A server on a volume, which goes with it. */
const bootFromVolume = async (name: string) => {
  const root = { source_type: 'image', uuid: imageId, destination_type: 'volume', volume_size: 1, boot_index: 0 }
  const server = { name, flavorRef: 'small', block_device_mapping_v2: [{ ...root, delete_on_termination: true }] }
  await compute('POST', '/servers', { server })
  await becomes(name, 'ACTIVE')
}
const volumeSnapshots = async () =>
  (await requests.json<{ readonly snapshots: readonly Volume[] }>('GET', '/volume/v3/snapshots/detail')).snapshots
const snapshottingVolumes: Case = {
  prepare: bootFromVolume,
  act: snapshotting.act,
  async end(name) {
    await becomes(name, 'ACTIVE')
    assert.equal((await imagesNamed(name)).images[0]?.status, 'active')
    assert.deepEqual(
      (await volumeSnapshots()).map(({ status }) => status),
      ['available'],
    )
    await act(name, { createImage: { name: `${name}-again` } })
    await becomes(name, 'ACTIVE')
  },
}
const cloningVolumes: Case = {
  ...cloning,
  prepare: bootFromVolume,
  async end(name) {
    await cloning.end(name)
    await until('no snapshot is left', async () => (await volumeSnapshots()).length === 0)
  },
}
/** An image of the machine, made before. */
const keep = async (name: string, what: object): Promise<void> => {
  await requests.json('POST', `/v1/instances/${await idOf(name)}/snapshots`, { name, ...what })
  await becomes(name, 'ACTIVE')
}
const keptImage = async (name: string) => ((await imagesNamed(name)).images[0] as unknown as Volume).id
const resuming: Case = {
  async prepare(name) {
    await bootFirst(name)
    await keep(name, { memory: true })
  },
  act: async (name) =>
    requests.json('POST', '/v1/instances', { image: await keptImage(name), name: `${name}-again`, memory: true }),
  end: (name) => becomes(`${name}-again`, 'ACTIVE'),
}
const restoring: Case = {
  async prepare(name) {
    await bootFromVolume(name)
    await keep(name, { machine: true })
  },
  act: async (name) => requests.json('POST', `/v1/instances/${await idOf(name)}/restore`, { image: await keptImage(name) }),
  end: (name) => becomes(name, 'ACTIVE'),
}
/** So that few machines run at a time, and what each case leaves can go. */
async function deleteAll(): Promise<void> {
  for (const { id } of await servers()) await compute('DELETE', `/servers/${id}`)
  await until('no server is left', async () => (await servers()).length === 0)
  for (const { id } of await volumeSnapshots()) await requests.json('DELETE', `/volume/v3/snapshots/${id}`)
  await until('no snapshot is left', async () => (await volumeSnapshots()).length === 0)
}
/** Those of migrations need a second host: kill-migration.test.ts. */
type Step = Exclude<Extract<Failpoint, `instance:${string}`>, `instance:migrate-${string}`>
const cases: Readonly<Record<Step, Case>> = {
  'instance:recorded': making,
  'instance:lent': making,
  'instance:leased': making,
  'instance:memory-lent': resuming,
  'instance:launched': making,
  'instance:active': making,
  'instance:asked': stopping,
  'instance:acted': stopping,
  'instance:deleting': deleting,
  'instance:removed': deleting,
  'instance:released': deleting,
  'instance:deleted': deleting,
  'instance:snapshot-asked': refused,
  'instance:snapshot-begun': snapshotting,
  'instance:volume-snapshots-noted': snapshottingVolumes,
  'instance:sealed': snapshotting,
  'instance:sealing-noted': snapshotting,
  'instance:saved': snapshotting,
  'instance:move-lent': snapshotting,
  'instance:rebased': snapshotting,
  'instance:clone-recorded': orphaned,
  'instance:clone-lent': cloning,
  'instance:clone-volumes-noted': cloningVolumes,
  'instance:clone-volumes-made': cloningVolumes,
  'instance:rebuild-asked': rebuilding,
  'instance:rebuild-lent': rebuilding,
  'instance:parts-lent': restoring,
  'instance:rebuild-removed': rebuilding,
  'instance:rebuild-cleared': rebuilding,
  'instance:volumes-reverted': restoring,
  'instance:rebuild-launched': rebuilding,
  'instance:hydrate-asked': hydrating,
  'instance:hydrated': hydrating,
  'instance:volume-reserved': { ...attaching, end: (name) => volumeBecomes(name, 'available') }, // nobody was told that it has it
  'instance:volume-noted': attaching,
  'instance:volume-plugged': attaching,
  'instance:volume-detaching': detaching,
  'instance:volume-unplugged': detaching,
}

for (const [step, { prepare, act, end }] of Object.entries(cases)) {
  test(`killed at ${step}, the service brings to its end what was begun`, { skip }, async () => {
    const name = step.replace(':', '-')
    await prepare?.(name)
    await running().arm(`${step}:1` as Death)
    await act(name).catch((error: unknown) => {
      if (error instanceof Refused) throw error // a connection that broke is the death
    })
    assert.equal(await running().ended, 'SIGKILL')
    await start()
    await end(name)
    await deleteAll()
  })
}

test('every step of instances is tried', () => {
  assert.deepEqual(
    Object.keys(cases).sort(),
    failpoints.filter((name) => name.startsWith('instance:') && !name.startsWith('instance:migrate-')).sort(),
  )
})

test('killed while several run, the service finds them running, and a machine that died meanwhile in error', {
  skip,
}, async () => {
  await compute('POST', '/servers', {
    server: { name: 'many', imageRef: imageId, flavorRef: 'small', min_count: 4, max_count: 4 },
  })
  for (const n of [1, 2, 3, 4]) await becomes(`many-${n}`, 'ACTIVE')
  const before = await servers()
  const victim = before.find(({ status }) => status === 'ACTIVE')!
  await running().kill()
  await endMachines(join(folder, 'data'), [victim.id])
  await start()
  const found = (await servers()).map(({ id, status }) => [id, status])
  const expected = before.map(({ id, status }) => [id, id === victim.id ? 'ERROR' : status])
  assert.deepEqual(found, expected)
})
const machineIds = async () => (await readdir(join(folder, 'data/machines'))).filter((name) => /^[0-9a-f-]{36}$/.test(name))

test('when every instance and the image are deleted, nothing is left: no machine, no lease that holds chunks', {
  skip,
}, async () => {
  await deleteAll()
  assert.deepEqual(await machineIds(), [])
  for (const { id } of (await requests.json<{ readonly images: readonly Server[] }>('GET', '/image/v2/images?limit=1000'))
    .images) {
    await requests.delete(id)
  }
  // whoever works out the digests of what was deleted reads it to its end
  await until('nothing is left', async () => {
    await requests.job('collect')
    const { chunks, manifests } = await requests.stats()
    return chunks === 0 && manifests === 0
  })
})
