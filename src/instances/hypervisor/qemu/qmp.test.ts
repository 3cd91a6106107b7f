import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { scratch } from '../../../../test/fixtures/disk/tools.ts'
import { MiB } from '../../../base/units.ts'
import { QmpClient } from './qmp.ts'

const GREETING = '{"QMP": {"version": {}, "capabilities": []}}\r\n'

/** What listens where QEMU should, and says what a test wants. */
async function monitor(
  context: TestContext,
  talk: (socket: Socket, object: { execute: string; id: number }) => void,
  greeting = GREETING,
) {
  const path = (await scratch(context))('qmp.sock')
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.write(greeting)
    let text = ''
    socket.on('data', (bytes) => {
      text += bytes
      const lines = text.split('\n')
      text = lines.pop()!
      for (const line of lines) talk(socket, JSON.parse(line))
    })
  }).listen(path)
  await once(server, 'listening')
  context.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return path
}
const answer = (socket: Socket, id: number, value: unknown = {}) => socket.write(`${JSON.stringify({ return: value, id })}\r\n`)
const capable =
  (more: (socket: Socket, object: { execute: string; id: number }) => void) =>
  (socket: Socket, object: { execute: string; id: number }) =>
    object.execute === 'qmp_capabilities' ? answer(socket, object.id) : more(socket, object)

test('answers reach those who asked, in any order, with events between them', async (context) => {
  const asked: { execute: string; id: number }[] = []
  const path = await monitor(
    context,
    capable((socket, object) => {
      asked.push(object)
      if (asked.length < 2) return
      socket.write('{"event": "STOP", "timestamp": {}}\n{"ev')
      socket.write('ent": "SHUTDOWN", "data": {"guest": true}}\n')
      for (const { id, execute } of asked.toReversed()) answer(socket, id, { status: execute })
    }),
  )
  const client = await QmpClient.connect(path)
  const events: unknown[] = []
  client.onEvent((event) => events.push(event))
  const answers = await Promise.all([client.execute('query-status'), client.execute('stop')])
  assert.deepEqual(answers, [{ status: 'query-status' }, { status: 'stop' }])
  assert.deepEqual(events, [
    { name: 'STOP', data: {} },
    { name: 'SHUTDOWN', data: { guest: true } },
  ])
  client.close()
  await client.closed
  await assert.rejects(client.execute('cont'), { code: 'unavailable' })
})

test('a refusal says why, and the next command is heard', async (context) => {
  const path = await monitor(
    context,
    capable((socket, { execute, id }) => {
      if (execute === 'cont') socket.write(`${JSON.stringify({ error: { class: 'GenericError', desc: 'not now' }, id })}\n`)
      else answer(socket, id)
    }),
  )
  const client = await QmpClient.connect(path)
  await assert.rejects(client.execute('cont'), { code: 'unavailable', message: /refused "cont": not now/ })
  await client.execute('stop')
  client.close()
})

test('who does not answer in time is not waited for, and is not believed later', async (context) => {
  const late: number[] = []
  const path = await monitor(
    context,
    capable((socket, { execute, id }) => {
      if (execute === 'stop') late.push(id)
      else for (const each of [...late, id]) answer(socket, each, { status: execute })
    }),
  )
  const client = await QmpClient.connect(path)
  await assert.rejects(client.execute('stop', undefined, 1), { code: 'unavailable', message: /did not answer "stop"/ })
  assert.deepEqual(await client.execute('query-status'), { status: 'query-status' })
  client.close()
})

const hostile: readonly (readonly [string, string | Buffer])[] = [
  ['a line without end', Buffer.alloc(5 * MiB, 0x61)],
  ['no JSON', 'hello\n'],
  ['JSON that is no object', '[1]\n'],
  ['bytes', Buffer.from([0xff, 0xfe, 0, 0x0a])],
]
for (const [what, bytes] of hostile) {
  test(`${what} ends the connection, and all who wait on it`, async (context) => {
    const path = await monitor(
      context,
      capable((socket) => void socket.write(bytes)),
    )
    const client = await QmpClient.connect(path)
    await assert.rejects(client.execute('query-status'), { code: 'unavailable' })
    await client.closed
  })
}

test('what is no QMP, or not there, is unavailable', async (context) => {
  const path = await monitor(context, () => {}, 'SSH-2.0-OpenSSH\r\n')
  await assert.rejects(QmpClient.connect(path), { code: 'unavailable' })
  await assert.rejects(QmpClient.connect(`${path}.not`), { code: 'unavailable' })
})

test('a connection that is given up is cancelled', async (context) => {
  const path = await monitor(context, () => {}, '')
  const cut = new AbortController()
  const connected = QmpClient.connect(path, cut.signal)
  cut.abort()
  await assert.rejects(connected, { code: 'cancelled' })
  await assert.rejects(QmpClient.connect(path, AbortSignal.abort()), { code: 'cancelled' })
})
