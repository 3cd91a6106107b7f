import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { HostAway } from '../host-away.ts'
import { plainSpec } from '../hypervisor.suite.ts'
import type { FoundMachine } from '../hypervisor.ts'
import type { MachineHost } from '../machine-host.ts'
import { MemoryHost, plainGuest } from '../memory/memory-host.ts'
import { MemoryHypervisor } from '../memory/memory-hypervisor.ts'
import { FrameLink } from './frames.ts'
import { MachineAgent } from './machine-agent.ts'
import { RemoteHypervisor } from './remote-hypervisor.ts'

/** An agent that can be ended and started anew on its host, and somebody who speaks to it. */
async function world(context: TestContext, host = new MemoryHost(), first?: MachineHost) {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-agent-'))
  const socketPath = join(folder, 'agent.sock')
  const problems: unknown[] = []
  const listen = (hypervisor: MachineHost = new MemoryHypervisor(host)) =>
    MachineAgent.listen({ hypervisor, socketPath, onProblem: (error) => problems.push(error) })
  let agent = await listen(first)
  const away: unknown[] = []
  const remote = await RemoteHypervisor.open({ socketPath, onProblem: (error) => away.push(error) })
  context.after(async () => {
    await remote.close()
    await agent.close()
    await rm(folder, { recursive: true, force: true })
  })
  return {
    host,
    remote,
    socketPath,
    problems,
    endAgent: () => agent.close(),
    async startAgent() {
      agent = await listen()
    },
  }
}

const told = (remote: RemoteHypervisor, holds: (machine: FoundMachine) => boolean): Promise<FoundMachine> =>
  new Promise((settle) => {
    const stop = remote.watch((machine) => {
      if (!holds(machine)) return
      stop()
      settle(machine)
    })
  })

test('nobody but its user reaches the agent', async (context) => {
  const { socketPath } = await world(context)
  assert.equal((await stat(socketPath)).mode & 0o777, 0o600)
})

test('machines outlive their agent; away, it is said so, and back, all of them are told of', async (context) => {
  const { host, remote, endAgent, startAgent } = await world(context)
  const [stays, falls] = [plainSpec(), plainSpec()]
  for (const spec of [stays, falls]) await remote.launch(spec)
  await endAgent()
  await assert.rejects(remote.list(), { code: 'unavailable', message: /agent/ })
  host.machine(falls.id).crash('the power went')
  const stood = told(remote, ({ id }) => id === stays.id)
  const fallen = told(remote, ({ id }) => id === falls.id)
  await startAgent()
  assert.equal((await stood).power, 'running')
  assert.equal((await fallen).power, 'crashed')
  assert.equal((await remote.show(falls.id)).reason, 'the power went')
  assert.equal(remote.abilities.version, '1')
  await remote.stop(stays.id, 0)
})

test('where there is no agent yet the host is away, and it is found when it comes', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-agent-'))
  const socketPath = join(folder, 'agent.sock')
  const remote = await RemoteHypervisor.open({ socketPath, onProblem: () => {} })
  assert.throws(() => remote.abilities, { code: 'unavailable', message: /away/ })
  const host = new MemoryHost()
  const before = new MemoryHypervisor(host)
  await before.launch(plainSpec())
  await before.close()
  const found = told(remote, () => true)
  const agent = await MachineAgent.listen({ hypervisor: new MemoryHypervisor(host), socketPath, onProblem: () => {} })
  context.after(async () => {
    await remote.close()
    await agent.close()
    await rm(folder, { recursive: true, force: true })
  })
  assert.equal((await found).power, 'running')
  assert.equal(remote.type, 'memory')
})

test('a launch whose caller is gone leaves nothing, and another waits for its end', async (context) => {
  const begun = Promise.withResolvers<void>()
  const held = Promise.withResolvers<void>()
  const host = new MemoryHost({
    beforeStart: () => {
      begun.resolve()
      return held.promise
    },
  })
  const { remote, socketPath } = await world(context, host)
  const spec = plainSpec()
  const caller = new FrameLink(connect({ path: socketPath }))
  await caller.send({ say: 'launch', values: [spec], key: 'a' })
  await begun.promise
  caller.destroy()
  await once(caller.socket, 'close')
  await remote.list() // by then the agent has seen it too
  const again = remote.launch(spec)
  held.resolve()
  await again
  assert.deepEqual(
    (await remote.list()).map(({ id, power }) => [id, power]),
    [[spec.id, 'running']],
  )
})

test('an agent outlives a caller that goes before it is asked to take memory', async (context) => {
  const host = new MemoryHost()
  const real = new MemoryHypervisor(host)
  const [begun, gone, ended] = [0, 1, 2].map(() => Promise.withResolvers<void>())
  const saveMemory: MemoryHypervisor['saveMemory'] = async (id, sink) => {
    begun!.resolve()
    await gone!.promise
    return real.saveMemory(id, sink).finally(ended!.resolve) // it was too far to be cut short
  }
  const held = new Proxy(real, {
    get(_, name) {
      if (name === 'saveMemory') return saveMemory
      const value = Reflect.get(real, name) as unknown
      return typeof value === 'function' ? value.bind(real) : value
    },
  })
  const { remote, socketPath } = await world(context, host, held)
  const spec = plainSpec()
  await remote.launch(spec)
  const caller = new FrameLink(connect({ path: socketPath }))
  await caller.send({ say: 'saveMemory', values: [spec.id], key: 'a' })
  await begun!.promise
  caller.destroy()
  await once(caller.socket, 'close')
  await remote.list() // by then the agent has seen it too
  gone!.resolve()
  await ended!.promise
  assert.equal((await remote.show(spec.id)).power, 'running')
})

test('a launch under way when its agent ends leaves nothing, and its caller hears that the host is away', async (context) => {
  const begun = Promise.withResolvers<void>()
  const held = Promise.withResolvers<void>()
  const host = new MemoryHost({
    beforeStart: () => {
      begun.resolve()
      return held.promise
    },
  })
  const { remote, endAgent } = await world(context, host)
  const launched = assert.rejects(remote.launch(plainSpec()), (error) => error instanceof HostAway)
  await begun.promise
  const ended = endAgent()
  held.resolve()
  await Promise.all([launched, ended])
  assert.equal(host.machines.size, 0)
})

test('memory is taken no faster than it is used', async (context) => {
  const { remote } = await world(context)
  const spec = plainSpec()
  await remote.launch(spec)
  const pieces: Uint8Array[] = []
  const saved = await remote.saveMemory(spec.id, async (body) => {
    for await (const bytes of body) pieces.push(bytes)
  })
  await remote.remove(spec.id)
  const stream = Buffer.concat(pieces)
  let given = 0
  const open = async function* () {
    for (const byte of stream) {
      given += 1
      yield Uint8Array.of(byte)
    }
  }
  await remote.launch({ ...spec, memory: { shape: saved.shape, seedDisc: saved.seedDisc, open } })
  assert.equal(given, stream.length)
})

test('a caller that asks for a memory and never takes it keeps nobody else from it', async (context) => {
  const { remote, socketPath, problems } = await world(context)
  const spec = plainSpec()
  await remote.launch(spec)
  const gone = new FrameLink(connect({ path: socketPath }))
  await gone.send({ say: 'saveMemory', values: [spec.id], key: 'never' })
  assert.equal((await gone.next())?.head.ask, 'sink')
  gone.destroy()
  const refusing = new FrameLink(connect({ path: socketPath }))
  await refusing.send({ say: 'saveMemory', values: [spec.id], key: 'refused' })
  assert.equal((await refusing.next())?.head.ask, 'sink')
  await refusing.send({ answer: 'sink', hasFailed: true })
  const failed = (await refusing.next())?.head.failed as { readonly isYours?: boolean } | undefined
  assert.equal(failed?.isYours, true)
  const pieces: Uint8Array[] = []
  await remote.saveMemory(spec.id, async (body) => {
    for await (const bytes of body) pieces.push(bytes)
  })
  assert.ok(pieces.length > 0)
  assert.deepEqual(problems, [])
})

const hostile: readonly (readonly [string, Buffer])[] = [
  ['a head of 4 GiB', Buffer.from('ffffffff00000000', 'hex')],
  ['a body of 4 GiB', Buffer.from('00000002ffffffff7b7d', 'hex')],
  ['a head that is no JSON', Buffer.concat([Buffer.from('0000000400000000', 'hex'), Buffer.from('{"a"')])],
  ['a head that is a list', Buffer.concat([Buffer.from('0000000200000000', 'hex'), Buffer.from('[]')])],
  ['half a frame', Buffer.from('000000', 'hex')],
]
for (const [what, bytes] of hostile) {
  test(`${what} ends its connection, and no other`, async (context) => {
    const { remote, socketPath } = await world(context)
    const socket = connect({ path: socketPath })
    socket.on('error', () => {})
    const over = once(socket, 'close')
    socket.end(bytes)
    socket.resume()
    await over
    assert.deepEqual(await remote.list(), [])
  })
}

const nonsense: readonly (readonly [string, object])[] = [
  ['a call that there is none of', { say: 'close', values: [] }],
  ['a method of every object', { say: 'constructor', values: [] }],
  ['a call without values', { say: 'show' }],
  ['a stream that nobody waits for', { say: 'stream', key: 'x' }],
  ['a launch of nothing', { say: 'launch', values: [null], key: 'x' }],
]
for (const [what, opening] of nonsense) {
  test(`${what} is refused`, async (context) => {
    const { remote, socketPath } = await world(context)
    const link = new FrameLink(connect({ path: socketPath }))
    await link.send(opening)
    const answer = await link.next()
    assert.ok((answer?.head.failed as { readonly code?: string } | undefined)?.code, JSON.stringify(answer?.head))
    link.destroy()
    assert.deepEqual(await remote.list(), [])
  })
}

test('who is told and does not listen costs no more than its machines', async (context) => {
  const { host, remote, socketPath } = await world(context, new MemoryHost({ guest: plainGuest }))
  const spec = plainSpec()
  await remote.launch(spec)
  const deaf = new FrameLink(connect({ path: socketPath }))
  await deaf.send({ say: 'watch' })
  await deaf.next()
  for (let times = 0; times < 20_000; times += 1) host.machine(spec.id).become(times % 2 === 0 ? 'paused' : 'running')
  await remote.pause(spec.id)
  let last: unknown
  for (let frame = await deaf.next(); frame; frame = await deaf.next()) {
    last = (frame.head as { readonly machine?: FoundMachine }).machine?.power
    if (last === 'paused' && frame.head.told === 20_002) break
  }
  assert.equal(last, 'paused')
  deaf.destroy()
})
