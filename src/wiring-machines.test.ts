import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { MemoryHypervisor } from './instances/hypervisor/memory/memory-hypervisor.ts'
import { joinHosts } from './wiring-machines.ts'

const nowhere = async () => null

test('another host of the own name is refused, and nothing stays open', async () => {
  const problems: unknown[] = []
  const others = ['left=/nonexistent/agent.sock', `${hostname()}=/nonexistent/other.sock`]
  const joined = joinHosts(new MemoryHypervisor(), others, nowhere, (error) => problems.push(error))
  await assert.rejects(joined, { code: 'invalid-request', message: /own host/ })
  assert.deepEqual(problems, [], 'no agent was asked')
})

test('of a host that is away it is told which, and why', async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-hosts-'))
  const told = Promise.withResolvers<unknown>()
  const { hosts, hypervisor } = await joinHosts(new MemoryHypervisor(), [`left=${folder}/a=b.sock`], nowhere, told.resolve)
  context.after(async () => {
    await hypervisor.close()
    await rm(folder, { recursive: true, force: true })
  })
  assert.deepEqual(
    hosts.map(({ name }) => name),
    [hostname(), 'left'],
  )
  assert.match(String(await told.promise), /host "left": The agent of the host does not answer/)
})
