/**
 * kill -9 of the service, and of a host's agent, while an instance goes from one host to another: exactly one guest goes on, the record says
 * where, and the migration is brought to its end.
 */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type Failpoint, failpoints } from '../../src/base/failpoint.ts'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { missingTool } from '../peers/command.ts'
import type { Daemon } from '../peers/daemon.ts'
import { ImageRequests, Refused, smallDisk } from './image-requests.ts'
import { startAgent } from './machine-agent.ts'
import { adminToken, type Death, folderInMemory, type MortalService, removeFolder, startMortal } from './mortal-service.ts'

const skip = missingTool('qemu-system-x86_64')
let folder = ''
let service: MortalService | undefined
let agent: Daemon | undefined
let requests: ImageRequests
let token = ''

before(async () => {
  if (skip) return
  folder = await folderInMemory('kill-migration')
  agent = await startAgent(join(folder, 'left'))
  await start()
  const imageId = randomUUID()
  await requests.create(imageId, 'a disk that no BIOS boots from', 'raw')
  await requests.send(imageId, smallDisk(1))
  await compute('POST', '/flavors', { flavor: { id: 'small', name: 'small', ram: 64, vcpus: 1, disk: 0 } })
  const metadata = { 'imprint:forwards': 'tcp:0:22' }
  await compute('POST', '/servers', { server: { name: 'goes', imageRef: imageId, flavorRef: 'small', metadata } })
  await settles()
})
after(async () => {
  if (skip) return
  for (const host of ['data', 'left']) await endMachines(join(folder, host))
  await service?.stop()
  await agent?.stop()
  await removeFolder(folder)
})

async function start(): Promise<void> {
  await service?.stop()
  const socket = join(folder, 'left', 'agent.sock')
  service = await startMortal(folder, { IMPRINT_INSTANCE_HOSTS: `left=${socket}`, IMPRINT_INSTANCE_STOP_SECONDS: '1' })
  token ||= await adminToken(service)
  requests = new ImageRequests(service.address, token)
}
const compute = <T>(method: string, path: string, body?: unknown): Promise<T> =>
  requests.json<T>(method, `/compute/v2.1${path}`, body)

interface Server {
  readonly id: string
  readonly status: string
  readonly 'OS-EXT-STS:task_state': string | null
  readonly 'OS-EXT-SRV-ATTR:host': string
}
const find = async () => (await compute<{ readonly servers: readonly Server[] }>('GET', '/servers/detail')).servers[0]!

/** Waits until nothing is done to it; the time limit is the test runner's. */
async function settles(): Promise<Server> {
  for (;;) {
    const server = await find()
    if (server.status !== 'BUILD' && server['OS-EXT-STS:task_state'] === null) return server
    await pause(20)
  }
}
const machinesAt = async (host: string) =>
  (await readdir(join(folder, host, 'machines'))).filter((name) => /^[0-9a-f-]{36}$/.test(name))

/** The record names the one host that has it, when what is left of it elsewhere has been swept. */
async function assertThere(expected: string | null): Promise<void> {
  const server = await settles()
  assert.equal(server.status, 'ACTIVE')
  const host = server['OS-EXT-SRV-ATTR:host']
  if (expected !== null) assert.equal(host, expected)
  const [has, hasNot] = host === 'left' ? ['left', 'data'] : ['data', 'left']
  while ((await machinesAt(hasNot)).length > 0) await pause(20) // a source that was killed hears of it when it asks
  assert.deepEqual(await machinesAt(has), [server.id])
}
const otherThan = (host: string) => (host === 'left' ? hostname() : 'left')
const migrate = (id: string) => requests.json('POST', `/v1/instances/${id}/migrate`, {})

type Step = Extract<Failpoint, `instance:migrate-${string}`>
const steps = failpoints.filter((name): name is Step => name.startsWith('instance:migrate-'))

for (const step of [...steps, ...steps]) {
  test(`killed at ${step}, the service moves the instance when it starts again`, { skip }, async () => {
    const { id, 'OS-EXT-SRV-ATTR:host': from } = await find()
    await service!.arm(`${step}:1` as Death)
    await migrate(id).catch((error: unknown) => {
      if (error instanceof Refused) throw error // a connection that broke is the death
    })
    assert.equal(await service!.ended, 'SIGKILL')
    await start()
    await assertThere(otherThan(from))
  })
}

test('an agent that is killed leaves its machine running, and is found again', { skip }, async () => {
  const { id, 'OS-EXT-SRV-ATTR:host': host } = await find()
  if (host !== 'left') {
    await migrate(id)
    await assertThere('left')
  }
  process.kill(agent!.pid, 'SIGKILL')
  await agent!.stop()
  await assert.rejects(compute('POST', `/servers/${id}/action`, { 'os-getConsoleOutput': {} }), { message: /503|agent|away/ })
  assert.equal((await find()).status, 'ACTIVE', 'it is shown as it was')
  agent = await startAgent(join(folder, 'left'))
  for (;;) {
    const answered = await compute('POST', `/servers/${id}/action`, { 'os-getConsoleOutput': {} }).then(
      () => true,
      () => false,
    )
    if (answered) break
    await pause(20)
  }
  await migrate(id)
  await assertThere(hostname())
})

const comes = [
  'migration:receiving',
  'migration:waiting',
  'migration:filled',
  'migration:committed',
  'migration:running',
] as const
const leaves = ['migration:prepared', 'migration:still', 'migration:given', 'migration:answered'] as const

for (const at of [...comes, ...leaves] satisfies Failpoint[]) {
  const from = (leaves as readonly string[]).includes(at) ? 'left' : hostname()
  test(`an agent that is killed at ${at} has the machine or not, and the record knows`, { skip }, async () => {
    const { id, 'OS-EXT-SRV-ATTR:host': host } = await find()
    if (host !== from) {
      await migrate(id)
      await assertThere(from)
    }
    await agent!.stop()
    agent = await startAgent(join(folder, 'left'), { IMPRINT_FAILPOINT: at })
    await untilUp()
    await migrate(id)
    assert.equal(await agent.ended, 'SIGKILL')
    agent = await startAgent(join(folder, 'left'))
    await assertThere(null)
  })
}

async function untilUp(): Promise<void> {
  for (;;) {
    const { hypervisors } = await compute<{ readonly hypervisors: readonly { readonly state: string }[] }>(
      'GET',
      '/os-hypervisors',
    )
    if (hypervisors.every(({ state }) => state === 'up')) return
    await pause(20)
  }
}
