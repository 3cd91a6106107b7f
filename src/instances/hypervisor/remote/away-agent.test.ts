/** Agents that are there and no good: that stand still, say nothing any more, or are of another version. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { HostAway } from '../host-away.ts'
import { MemoryHypervisor } from '../memory/memory-hypervisor.ts'
import { FrameLink } from './frames.ts'
import { MachineAgent } from './machine-agent.ts'
import { RemoteHypervisor } from './remote-hypervisor.ts'
import { PROTOCOL } from './words.ts'

const SILENCE_MS = 50
const isAway = (error: unknown) => error instanceof HostAway

/** @param answer what the agent does with each connection, given its first word */
async function agentThat(context: TestContext, answer: (link: FrameLink, say: unknown) => Promise<void>) {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-agent-'))
  const socketPath = join(folder, 'agent.sock')
  const links = new Set<FrameLink>()
  const server = createServer(async (socket) => {
    const link = new FrameLink(socket)
    links.add(link)
    const opening = await link.next()
    if (opening) await answer(link, opening.head.say)
  }).listen(socketPath)
  await once(server, 'listening')
  context.after(async () => {
    for (const link of links) link.destroy()
    server.close()
    await rm(folder, { recursive: true, force: true })
  })
  return socketPath
}

async function opened(context: TestContext, socketPath: string) {
  const problems: string[] = []
  const told = Promise.withResolvers<void>()
  const onProblem = (error: unknown) => {
    problems.push(String(error))
    told.resolve()
  }
  const remote = await RemoteHypervisor.open({ socketPath, silenceMs: SILENCE_MS, onProblem })
  context.after(() => remote.close())
  return { remote, problems, told: told.promise }
}

const about = (protocol: number) => ({
  protocol,
  type: 'memory',
  abilities: new MemoryHypervisor().abilities,
  problem: null,
  told: 0,
})

test('an agent that takes connections and says nothing is away, and nobody waits for it', async (context) => {
  const { remote } = await opened(context, await agentThat(context, async () => {}))
  assert.throws(() => remote.abilities, { code: 'unavailable', message: /says nothing/ })
  await assert.rejects(remote.list(), isAway)
})

test('an agent that falls silent is away, and whoever waits for it hears so', async (context) => {
  const socketPath = await agentThat(context, async (link, say) => {
    if (say === 'watch') await link.send(about(PROTOCOL))
  })
  const { remote, told, problems } = await opened(context, socketPath)
  assert.equal(remote.abilities.version, '1')
  await assert.rejects(remote.stop('00000000-0000-4000-8000-000000000000', 1000), isAway)
  await told
  assert.match(problems[0]!, /says nothing/)
})

test('an agent that has nothing to tell says so now and then', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-agent-'))
  const socketPath = join(folder, 'agent.sock')
  const hypervisor = new MemoryHypervisor()
  const agent = await MachineAgent.listen({ hypervisor, socketPath, onProblem: () => {}, saysEveryMs: 5 })
  const watcher = new FrameLink(connect({ path: socketPath }))
  context.after(async () => {
    watcher.destroy()
    await agent.close()
    await rm(folder, { recursive: true, force: true })
  })
  await watcher.send({ say: 'watch' })
  assert.equal((await watcher.next())?.head.protocol, PROTOCOL)
  assert.deepEqual((await watcher.next())?.head, {})
  assert.deepEqual((await watcher.next())?.head, {})
})

test('an agent of another version is asked for nothing, and that is told once', async (context) => {
  const asked: unknown[] = []
  const again = Promise.withResolvers<void>()
  const socketPath = await agentThat(context, async (link, say) => {
    asked.push(say)
    if (asked.length === 3) again.resolve()
    await link.send(about(PROTOCOL + 1))
  })
  const { remote, problems } = await opened(context, socketPath)
  for (const call of [remote.list(), remote.remove('00000000-0000-4000-8000-000000000000')]) {
    await assert.rejects(call, { code: 'unavailable', message: /install one version of both/ })
  }
  await again.promise
  assert.deepEqual(new Set(asked), new Set(['watch']))
  assert.equal(problems.length, 1)
})
