import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { agentThat, good, type Heard } from '../../../../test/fixtures/guest/fake-agent.ts'
import { quiesced } from './quiesce.ts'

const FROZE = "the guest's agent froze 2 file systems"
const LONG_MS = 60_000
const hook = (name: string, argument = 'freeze', status: number | null = 0): string => {
  const path = `/etc/qemu/fsfreeze-hook.d/${name}`
  const ended = status === null ? '' : `Sun Nov 22 02:26:03 UTC 2026: ${path} finished with status=${status}\n`
  return `Sun Nov 22 02:26:03 UTC 2026: execute ${path} ${argument}\nwhat it says itself\n${ended}`
}

interface Guest {
  /** Of the hook's log, before it is frozen first; absent: there is none yet. */
  readonly before?: string | undefined
  /** Added by the hook when the guest is frozen. */
  readonly adds: string
}

/** An agent with files, of which there is one; and what else it says. */
async function snapshotOf(
  context: TestContext,
  { before, adds }: Guest,
  says: (heard: Heard, socket: Socket) => unknown = () => undefined,
) {
  let log = before === undefined ? null : Buffer.from(before)
  let position: number | null = null
  const { path, heard } = await agentThat(context, (object, socket) => {
    const own = says(object, socket)
    if (own !== undefined) return own
    const given = object.arguments
    if (object.execute === 'guest-fsfreeze-freeze') log = Buffer.concat([log ?? Buffer.of(), Buffer.from(adds)])
    if (object.execute === 'guest-file-open') {
      if (log === null) return { error: { desc: `failed to open file '${given!.path}' (mode: 'r'): No such file or directory` } }
      position = 0
      return { return: 7 }
    }
    if (given?.handle !== undefined && (given.handle !== 7 || position === null)) return { error: { desc: 'no such handle' } }
    if (object.execute === 'guest-file-seek') {
      position = (given!.whence === 'end' ? log!.length : 0) + (given!.offset as number)
      return { return: { position, eof: false } }
    }
    if (object.execute === 'guest-file-read') {
      const read = log!.subarray(position!, position! + (given!.count as number))
      return { return: { count: read.length, 'buf-b64': read.toString('base64'), eof: true } }
    }
    if (object.execute === 'guest-file-close') position = null
    return good(object, socket)
  })
  const freezing = { note: join(dirname(path), 'frozen'), onProblem: (error: unknown) => assert.fail(`${error}`) }
  const { consistency, evidence } = await quiesced(path, LONG_MS, async () => {}, freezing)
  assert.equal(position, null, 'what it opened is closed')
  return { sealed: [consistency, evidence], heard }
}

test('what the hook has told makes it a snapshot of applications', async (context) => {
  for (const before of [undefined, '', hook('old'), hook('old', 'freeze', 1)]) {
    const { sealed } = await snapshotOf(context, { before, adds: hook('10-postgresql') + hook('mysql-flush.sh') })
    assert.deepEqual(sealed, ['application', `${FROZE}, after it had told 10-postgresql, mysql-flush.sh`], before)
  }
})

test('one that could not makes it one of file systems, by name', async (context) => {
  for (const status of [1, 127, null]) {
    const { sealed } = await snapshotOf(context, { adds: hook('good') + hook('bad', 'freeze', status) })
    assert.deepEqual(sealed, ['file-system', `${FROZE}; its hook failed for bad`], String(status))
  }
})

test('what was told before, or is told of the thaw only, does not count', async (context) => {
  for (const adds of ['', hook('web', 'thaw')]) {
    const { sealed } = await snapshotOf(context, { before: hook('web'), adds })
    assert.deepEqual(sealed, ['file-system', FROZE])
  }
})

test('an agent that may not open files, or answers nonsense, has told nobody', async (context) => {
  const refused = { error: { desc: 'Command guest-file-open has been disabled' } }
  const nonsense: readonly (readonly [string, unknown])[] = [
    ['guest-file-open', refused],
    ['guest-file-seek', { return: {} }],
    ['guest-file-seek', { return: { position: -1 } }],
    ['guest-file-seek', { return: 'x' }],
    ['guest-file-read', { return: null }],
    ['guest-file-read', { return: { 'buf-b64': 9 } }],
    ['guest-file-read', { return: { 'buf-b64': '////' } }],
  ]
  for (const [command, answer] of nonsense) {
    const { sealed } = await snapshotOf(context, { before: '', adds: hook('web') }, ({ execute }) =>
      execute === command ? answer : undefined,
    )
    assert.deepEqual(sealed, ['file-system', FROZE], `${command} ${JSON.stringify(answer)}`)
  }
})

test('what a guest calls its applications is shown inert, and at no length', async (context) => {
  const adds = [hook('\u001b[31mred\u202e'), hook('x'.repeat(3000)), ...[1, 2, 3, 4, 5, 6].map((n) => hook(`${n}`))].join('')
  const { sealed } = await snapshotOf(context, { adds })
  assert.deepEqual(sealed, ['application', `${FROZE}, after it had told  [31mred , ${'x'.repeat(40)}, 1, 2, 3, 3 more`])
})

test('on Windows a freeze is a shadow copy, whose writers are told', async (context) => {
  const { sealed, heard } = await snapshotOf(context, { adds: '' }, ({ execute }) =>
    execute === 'guest-get-osinfo' ? { return: { id: 'mswindows', name: 'Microsoft Windows' } } : undefined,
  )
  assert.deepEqual(sealed, ['application', `${FROZE}, after it had told the writers of Windows' volume shadow copies`])
  assert.ok(!heard.includes('guest-file-open'))
})
