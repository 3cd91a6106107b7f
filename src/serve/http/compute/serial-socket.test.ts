/** The serial console over real sockets; the client that looks from outside is Node's own WebSocket, or bytes. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { after, test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { lacking, scratch } from '../../../../test/fixtures/disk/tools.ts'
import { certificates } from '../../../../test/fixtures/nbd/tls-keys.ts'
import { encodeFrame, opcode } from '../../websocket/frames.ts'
import { computeServer } from './compute-server.suite.ts'

const { ask, boot, listen, world, close } = await computeServer({ quota: { instances: 60, cores: -1, ram: -1 } })
after(close)
const address = await listen()
const port = Number(new URL(address).port)

const remote = (type = 'serial', protocol = 'serial') => ({ json: { remote_console: { protocol, type } }, version: '2.6' })
async function urlFor(id: string): Promise<string> {
  const { status, json, text } = await ask(`POST /servers/${id}/remote-consoles`, {
    ...remote(),
    headers: { host: `127.0.0.1:${port}` },
  })
  assert.equal(status, 200, text)
  return json.remote_console.url
}

/** Node's WebSocket, which shares no code with ours. */
async function browser(url: string, protocols: string | string[] = 'binary') {
  const socket = new WebSocket(url, protocols)
  socket.binaryType = 'arraybuffer'
  let heard = ''
  const waiting = new Set<() => void>()
  socket.addEventListener('message', ({ data }) => {
    heard += Buffer.from(data as ArrayBuffer).toString('latin1')
    for (const look of waiting) look()
  })
  const closed = new Promise<{ code: number; reason: string }>((done) =>
    socket.addEventListener('close', ({ code, reason }) => done({ code, reason })),
  )
  await new Promise<void>((opened, refused) => {
    socket.addEventListener('open', () => opened())
    socket.addEventListener('error', () => refused(new Error('refused')))
  })
  return {
    socket,
    closed,
    heard: () => heard,
    hears: (words: string) =>
      new Promise<void>((done) => {
        const look = () => {
          if (heard.includes(words)) done()
        }
        waiting.add(look)
        look()
      }),
  }
}

/** A client that says what it likes. */
async function bytesTo(target: string, headers: Readonly<Record<string, string>> = {}): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  const all = {
    host: `127.0.0.1:${port}`,
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    ...headers,
  }
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`)
  socket.write(`GET ${target} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`)
  return socket
}
async function answerOf(socket: Socket): Promise<string> {
  let text = ''
  for await (const bytes of socket) {
    text += (bytes as Buffer).toString('latin1')
    if (text.includes('\r\n\r\n101') || text.startsWith('HTTP/1.1 101')) break
  }
  return text
}
const pathOf = (url: string): string => url.slice(url.indexOf('/compute'))

test('the serial port goes both ways, in binary frames, beside the log', async () => {
  const id = await boot()
  const url = await urlFor(id)
  assert.match(url, new RegExp(`^ws://127\\.0\\.0\\.1:${port}/compute/serial/\\?token=[\\w-]{43}$`))
  const client = await browser(url)
  assert.equal(client.socket.protocol, 'binary')
  client.socket.send(Buffer.from('typed\n'))
  client.socket.send('as text\n')
  await client.hears('typed\nas text\n')
  world.host.machine(id).print('and from the guest\n')
  await client.hears('and from the guest')
  const { json } = await ask(`POST /servers/${id}/action`, { json: { 'os-getConsoleOutput': {} } })
  assert.match(json.output, /ready\ntyped\nas text\nand from the guest\n/)
  client.socket.close()
  assert.equal((await client.closed).code, 1000)
})

test('the older action answers the same, until version 2.5; other consoles are refused by name', async () => {
  const id = await boot()
  const action = { json: { 'os-getSerialConsole': { type: 'serial' } } }
  const { status, json } = await ask(`POST /servers/${id}/action`, { ...action, version: '2.5' })
  assert.equal(status, 200)
  assert.equal(json.console.type, 'serial')
  assert.match(json.console.url, /^ws:\/\/.*\/compute\/serial\/\?token=/)
  assert.equal((await ask(`POST /servers/${id}/action`, { ...action, version: '2.6' })).status, 400)
  assert.equal((await ask(`POST /servers/${id}/remote-consoles`, { ...remote(), version: '2.5' })).status, 404)
  for (const [type, protocol, says] of [
    ['novnc', 'vnc', /Unavailable console type novnc/],
    ['novnc', 'serial', /no console of protocol/],
    ['x', 'serial', /type/],
  ] as const) {
    const refused = await ask(`POST /servers/${id}/remote-consoles`, remote(type, protocol))
    assert.equal(refused.status, 400)
    assert.match(refused.json.badRequest.message, says)
  }
})

test('who may: members of the project, also where it is locked; not while the machine is off', async () => {
  const id = await boot()
  const as = (who: string) => ask(`POST /servers/${id}/remote-consoles`, { ...remote(), as: who })
  assert.equal((await as('mine:reader')).status, 403)
  assert.equal((await as('theirs:member')).status, 404)
  assert.equal((await as('theirs:admin')).status, 200)
  await ask(`POST /servers/${id}/action`, { json: { lock: null }, as: 'theirs:admin' })
  assert.equal((await as('mine:member')).status, 200)
  const url = await urlFor(id)
  world.host.machine(id).powerOff()
  await world.idle()
  assert.equal((await as('mine:member')).status, 409)
  assert.match(await answerOf(await bytesTo(pathOf(url))), /^HTTP\/1\.1 409 [\s\S]*is not on/)
})

test('an address is good once, for ten minutes at most, and only while its instance is there', async () => {
  const id = await boot()
  const url = await urlFor(id)
  const first = await browser(url)
  await assert.rejects(browser(url), /refused/)
  assert.match(await answerOf(await bytesTo(pathOf(url))), /^HTTP\/1\.1 401 [\s\S]*ask for another/)
  assert.match(await answerOf(await bytesTo('/compute/serial/')), /^HTTP\/1\.1 401/)
  const early = await urlFor(id)
  await ask(`DELETE /servers/${id}`)
  assert.deepEqual(await first.closed, { code: 1000, reason: 'the machine went off' })
  await world.idle()
  await assert.rejects(browser(early), /refused/)
})

test('the newest console wins, and the older is told so', async () => {
  const id = await boot()
  const older = await browser(await urlFor(id))
  const newer = await browser(await urlFor(id))
  assert.deepEqual(await older.closed, { code: 4001, reason: 'another console of this instance was opened' })
  newer.socket.send('still here\n')
  await newer.hears('still here')
  const many = await Promise.all(Array.from({ length: 8 }, async () => browser(await urlFor(id))))
  assert.equal(world.ports.consoles.size, 1)
  const left = new Set([newer, ...many])
  for (const client of [...left]) void client.closed.then(() => left.delete(client))
  while (left.size > 1) await Promise.race([...left].map(({ closed }) => closed))
  const [last] = left
  last!.socket.send('the last one\n')
  await last!.hears('the last one')
})

test('it ends with the machine, after the last words of the guest', async () => {
  const id = await boot()
  const client = await browser(await urlFor(id))
  const machine = world.host.machine(id)
  machine.print('Power down\n')
  machine.powerOff()
  assert.deepEqual(await client.closed, { code: 1000, reason: 'the machine went off' })
  assert.equal(client.heard(), 'Power down\n')
})

const handshakes: readonly [string, Readonly<Record<string, string>>, RegExp][] = [
  ['another version', { 'sec-websocket-version': '8' }, /^HTTP\/1\.1 400 [\s\S]*version 13/],
  ['no key', { 'sec-websocket-key': 'x' }, /^HTTP\/1\.1 400 [\s\S]*16 bytes/],
  ['another subprotocol', { 'sec-websocket-protocol': 'base64' }, /^HTTP\/1\.1 400 [\s\S]*\\"binary/],
  ['a page of another host', { origin: 'https://evil.example' }, /^HTTP\/1\.1 403/],
  ['a page of this host', { origin: `http://127.0.0.1:${port}` }, /^HTTP\/1\.1 101/],
  ['no subprotocol at all', {}, /^HTTP\/1\.1 101 [\s\S]*s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=/],
]
for (const [name, headers, says] of handshakes) {
  test(`a handshake with ${name}`, async () => {
    const socket = await bytesTo(pathOf(await urlFor(await boot())), headers)
    assert.match(await answerOf(socket), says)
    socket.destroy()
  })
}

test('what asks for another protocol, or elsewhere, is answered in HTTP', async () => {
  for (const [path, headers] of [
    ['/healthz', {}],
    ['/healthz', { upgrade: 'h2c' }],
  ] as const) {
    const socket = await bytesTo(path, { connection: 'Upgrade, close', ...headers })
    let text = ''
    for await (const bytes of socket) text += String(bytes)
    assert.match(text, /^HTTP\/1\.1 200/)
  }
})

test('what breaks the protocol is told so, and ends', async () => {
  const socket = await bytesTo(pathOf(await urlFor(await boot())))
  socket.write(Buffer.from('8205aaaaaaaaaa', 'hex')) // not masked
  let all = Buffer.alloc(0)
  for await (const bytes of socket) all = Buffer.concat([all, bytes as Buffer])
  const close = all.subarray(all.indexOf('\r\n\r\n') + 4)
  assert.equal(close.readUInt16BE(close.indexOf(0x88) + 2), 1002)
})

test('thousands who ask with no good token are turned away, and leave nothing', async () => {
  const id = await boot()
  for (let batch = 0; batch < 10; batch += 1) {
    const sockets = await Promise.all(Array.from({ length: 200 }, () => bytesTo('/compute/serial/?token=guess')))
    for (const text of await Promise.all(sockets.map(answerOf))) assert.match(text, /^HTTP\/1\.1 401/)
  }
  const urls: string[] = []
  for (let n = 0; n < 40; n += 1) urls.push(await urlFor(id))
  await assert.rejects(browser(urls[0]!), /refused/, 'of many addresses that nobody used the oldest are forgotten')
  const client = await browser(urls.at(-1)!)
  client.socket.close()
  await client.closed
})

test('under TLS the address is wss:, and what bounds a request holds too', { skip: lacking('openssl') }, async (context) => {
  const { ca, cert, key } = await certificates((await scratch(context))('keys'))
  const other = await computeServer({}, { cert, key })
  context.after(other.close)
  const at = new URL(await other.listen())
  const id = await other.boot()
  const { json } = await other.ask(`POST /servers/${id}/remote-consoles`, { ...remote(), headers: { host: at.host } })
  const { url } = json.remote_console
  assert.match(url, new RegExp(`^wss://${at.host}/compute/serial/`))
  const open = async (head: string) => {
    const socket = connectTls({ port: Number(at.port), host: '127.0.0.1', ca })
    socket.on('error', () => {})
    await once(socket, 'secureConnect')
    socket.write(head)
    return socket
  }
  const key16 = 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
  const asks = `GET ${pathOf(url)} HTTP/1.1\r\nHost: ${at.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${key16}\r\n`
  const socket = await open(`${asks}\r\n`)
  socket.write(encodeFrame(opcode.binary, Buffer.from('typed in TLS'), Buffer.alloc(4, 7)))
  let heard = ''
  for await (const bytes of socket) {
    heard += String(bytes)
    if (heard.includes('typed in TLS')) break
  }
  assert.match(heard, /^HTTP\/1\.1 101/)
  const long = await open(`GET /healthz HTTP/1.1\r\nX-Long: ${'x'.repeat(40_000)}\r\n\r\n`)
  assert.match(await answerOf(long), /^HTTP\/1\.1 431/)
})

test('it ends when the service stops', async () => {
  const other = await computeServer()
  const at = await other.listen()
  const id = await other.boot()
  const { json } = await other.ask(`POST /servers/${id}/remote-consoles`, { ...remote(), headers: { host: new URL(at).host } })
  const client = await browser(json.remote_console.url)
  const [end] = await Promise.all([client.closed, other.close()])
  assert.deepEqual(end, { code: 1001, reason: 'the service is stopping: ask for another console' })
})
