import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { agentThat, good, type Heard, inSync } from '../../../../test/fixtures/guest/fake-agent.ts'
import { KiB, MiB } from '../../../base/units.ts'
import { askAgent } from './guest-agent.ts'
import { type Freezing, quiesced, thawFound } from './quiesce.ts'

const LONG_MS = 60_000

const freezing: Freezing = {
  note: join(await mkdtemp(join(tmpdir(), 'imprint-freeze-')), 'frozen'),
  onProblem: (error) => assert.fail(`${error}`),
}
after(() => rm(dirname(freezing.note), { recursive: true }))
/** What changes something in the guest, and whether it is there. */
const commands = (heard: readonly string[]) => heard.filter((each) => /ping|fsfreeze/.test(each))

test('file systems stand still during the work, and no longer', async (context) => {
  const { path, heard } = await agentThat(context, good)
  const work = async () => {
    assert.deepEqual(commands(heard), ['guest-ping', 'guest-fsfreeze-freeze'])
    assert.ok(existsSync(freezing.note))
    return 7
  }
  const sealed = await quiesced(path, LONG_MS, work, freezing)
  assert.deepEqual(sealed, { result: 7, consistency: 'file-system', evidence: "the guest's agent froze 2 file systems" })
  assert.deepEqual(commands(heard), ['guest-ping', 'guest-fsfreeze-freeze', 'guest-fsfreeze-thaw'])
  assert.ok(!existsSync(freezing.note))
})

test('a guest that was found standing still is told to go on, once', async (context) => {
  const { path, heard } = await agentThat(context, good)
  await thawFound(path, freezing)
  assert.deepEqual(heard, [])
  await writeFile(freezing.note, '')
  await thawFound(path, freezing)
  await thawFound(path, freezing)
  assert.deepEqual(commands(heard), ['guest-fsfreeze-thaw'])
})

test('a guest goes on at its deadline although the work is not done, and then they did not hold', async (context) => {
  const thawed = Promise.withResolvers<void>()
  const { path } = await agentThat(context, (heard, socket) => {
    if (heard.execute === 'guest-fsfreeze-thaw') thawed.resolve()
    return good(heard, socket)
  })
  const { consistency, evidence } = await quiesced(path, 50, () => thawed.promise, freezing)
  assert.deepEqual([consistency, evidence], ['crash', 'the guest had to go on before its disks were sealed'])
})

test('a guest goes on where the work fails', async (context) => {
  const { path, heard } = await agentThat(context, good)
  const work = () => Promise.reject(new Error('no room'))
  await assert.rejects(quiesced(path, LONG_MS, work, freezing), /no room/)
  assert.equal(heard.at(-1), 'guest-fsfreeze-thaw')
})

test('who does not answer the freeze is thawed all the same: it may have frozen', async (context) => {
  const { path, heard } = await agentThat(context, (object, socket) =>
    object.execute === 'guest-fsfreeze-freeze' ? undefined : good(object, socket),
  )
  const { consistency } = await quiesced(path, 50, async () => {}, freezing)
  assert.equal(consistency, 'crash')
  assert.ok(commands(heard).includes('guest-fsfreeze-thaw'))
})

test('a thaw that fails is asked for again', async (context) => {
  let thaws = 0
  const again = Promise.withResolvers<void>()
  const { path } = await agentThat(context, (heard, socket) => {
    if (heard.execute !== 'guest-fsfreeze-thaw') return good(heard, socket)
    thaws += 1
    if (thaws < 2) return { error: { class: 'GenericError', desc: 'busy' } }
    again.resolve()
    return { return: 2 }
  })
  await quiesced(path, LONG_MS, async () => {}, freezing)
  await again.promise
})

test('who refuses, or freezes nothing, is told so', async (context) => {
  const refusing = await agentThat(context, (heard, socket) =>
    heard.execute === 'guest-fsfreeze-freeze'
      ? { error: { desc: `not\u001b[31m supported ${'x'.repeat(9000)}` } }
      : good(heard, socket),
  )
  const refused = await quiesced(refusing.path, LONG_MS, async () => {}, freezing)
  assert.match(refused.evidence, /^the guest's agent refused "guest-fsfreeze-freeze": not \[31m supported x+$/)
  assert.ok(refused.evidence.length < 300)
  for (const count of [0, -1, 'many', null]) {
    const nothing = await agentThat(context, (heard, socket) =>
      heard.execute === 'guest-fsfreeze-freeze' ? { return: count } : good(heard, socket),
    )
    const { consistency, evidence } = await quiesced(nothing.path, LONG_MS, async () => {}, freezing)
    assert.deepEqual([consistency, evidence], ['crash', "the guest's agent froze nothing"], String(count))
  }
})

const silent: readonly (readonly [string, (heard: Heard, socket: Socket) => unknown])[] = [
  ['says nothing', () => undefined],
  ['is never in sync', () => ({ return: 'x' })],
  ['floods', (_heard, socket) => void socket.write(Buffer.alloc(3 * MiB, 0x61))],
  ['floods with lines', (_heard, socket) => void socket.write('nonsense\n'.repeat(300_000))],
  ['floods with objects', (_heard, socket) => void socket.write('{}\n'.repeat(300_000))],
  ['closes', (_heard, socket) => void socket.destroy()],
]
for (const [what, says] of silent) {
  test(`an agent that ${what} is not asked to freeze, and the work is done without`, async (context) => {
    const { path, heard } = await agentThat(context, says)
    const { result, consistency } = await quiesced(path, LONG_MS, async () => 'done', freezing)
    assert.deepEqual([result, consistency], ['done', 'crash'])
    assert.ok(!heard.includes('guest-fsfreeze-freeze'))
  })
}

test('what an earlier client left in the channel is skipped', async (context) => {
  const { path } = await agentThat(context, (heard, socket) => {
    if (heard.execute === 'guest-sync-delimited')
      socket.write(`{"return": 1}\n{"half": ${'x'.repeat(50 * KiB)}\n{"return": {}}\nhalf a li`)
    return good(heard, socket)
  })
  assert.deepEqual(await askAgent(path, 'guest-ping', LONG_MS), {})
})

test('nonsense in place of an answer, or nobody there, is an error', async (context) => {
  const { path } = await agentThat(context, (heard, socket) => void (inSync(heard, socket) || socket.write('nonsense\n')))
  await assert.rejects(askAgent(path, 'guest-ping', LONG_MS), /nonsense/)
  await assert.rejects(askAgent(`${path}.not`, 'guest-ping', LONG_MS), /channel/)
})
