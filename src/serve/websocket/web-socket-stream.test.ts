import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { KiB, MiB } from '../../base/units.ts'
import { connectWebSocket } from './connect.ts'
import { closeCode, encodeFrame, opcode } from './frames.ts'
import { answerHandshake } from './handshake.ts'
import { WebSocketStream } from './web-socket-stream.ts'

/** Both ends of one connection over TCP. */
async function socketPair(t: TestContext): Promise<readonly [Socket, Socket]> {
  const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const near = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [far] = (await once(server, 'connection')) as [Socket]
  near.on('error', () => {}) // it closes
  t.after(() => {
    server.close()
    near.destroy()
    far.destroy()
  })
  return [near, far]
}

/** Writes pieces until one of them does not leave. */
async function fill(stream: WebSocketStream): Promise<number> {
  let written = 0
  for (;;) {
    written += 64 * KiB
    if (stream.write(Buffer.alloc(64 * KiB, written / KiB))) continue
    const left = Promise.race([once(stream, 'drain').then(() => true), blocked(stream)])
    if (!(await left)) return written
  }
}
/** Settles when turns of the event loop bring nothing more out of it. */
async function blocked(stream: WebSocketStream): Promise<false> {
  for (let turns = 0, last = -1; turns < 200; turns += 1) {
    await new Promise(setImmediate)
    if (stream.writableLength !== last) turns = 0
    last = stream.writableLength
  }
  return false
}

for (const role of ['server', 'client'] as const) {
  test(`what the other end does not read, a ${role} waits with, and nothing is lost`, async (t) => {
    const [near, far] = await socketPair(t)
    const writer = new WebSocketStream(near, { role })
    const reader = new WebSocketStream(far, { role: role === 'server' ? 'client' : 'server' })
    const written = await fill(writer)
    assert.ok(written < 32 * MiB, `${written} bytes went in`)
    assert.ok(reader.readableLength <= 128 * KiB && near.writableLength <= 256 * KiB)
    writer.end()
    let read = 0
    for await (const bytes of reader) {
      for (const byte of bytes as Buffer) {
        if (byte !== (Math.floor(read / (64 * KiB) + 1) * 64) % 256) assert.fail(`byte ${read} is ${byte}`)
        read += 1
      }
    }
    assert.equal(read, written)
    assert.equal(reader.saidClose?.code, closeCode.normal)
  })
}

test('a frame of many megabytes goes through in pieces', async (t) => {
  const [near, far] = await socketPair(t)
  const reader = new WebSocketStream(far, { role: 'server' })
  near.write(encodeFrame(opcode.binary, Buffer.alloc(40 * MiB, 'x'), randomBytes(4)))
  let largest = 0
  let read = 0
  for await (const bytes of reader) {
    largest = Math.max(largest, (bytes as Buffer).length + reader.readableLength)
    read += (bytes as Buffer).length
    if (read === 40 * MiB) break
  }
  assert.ok(largest <= 256 * KiB, `${largest} bytes were held`)
})

test('who sends pings without end and reads no answers gets no more of them than fit', async (t) => {
  const [near, far] = await socketPair(t)
  near.pause()
  const stream = new WebSocketStream(far, { role: 'server' })
  stream.resume()
  const pings = Buffer.concat(Array.from({ length: 1000 }, () => encodeFrame(opcode.ping, Buffer.alloc(125), randomBytes(4))))
  for (let n = 0; n < 200; n += 1) await new Promise((gone) => near.write(pings, gone))
  assert.ok(far.writableLength <= 256 * KiB, `${far.writableLength} bytes wait`)
})

test('an end that gives no sign of life is let go; one that answers pings, or reads slowly, is not', async (t) => {
  const [mute, far] = await socketPair(t)
  const gone = new WebSocketStream(far, { role: 'server', silenceMs: 60 }).resume()
  mute.resume() // and answers nothing
  await once(gone, 'close')

  const [near, other] = await socketPair(t)
  const stays = new WebSocketStream(other, { role: 'server', silenceMs: 60 }).resume()
  const client = new WebSocketStream(near, { role: 'client' })
  client.resume()
  for (let pings = 0; pings < 10; pings += 1) await once(near, 'data')
  assert.ok(!stays.destroyed)
})

test('an end that does not answer a farewell is not waited for', async (t) => {
  const [near, far] = await socketPair(t)
  const stream = new WebSocketStream(far, { role: 'server' })
  stream.resume()
  near.resume()
  stream.closeWith(4001, 'enough')
  stream.write('nobody hears this')
  await once(stream, 'close')
})

test('a client says what it wants, and hears why it is refused, or that nobody is there', async (t) => {
  const server = createHttpServer((_, response) => response.writeHead(409).end('{"x":{"code":409,"message":"it is \\"off\\""}}'))
  server.on('upgrade', (request, socket: Socket, head: Buffer) => {
    socket.write(answerHandshake(request, 'binary'))
    const stream = new WebSocketStream(socket, { role: 'server', head })
    stream.pipe(stream)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}/`
  const never = new AbortController().signal
  const client = await connectWebSocket(url, 'binary', never)
  client.write('echo')
  const [heard] = await once(client, 'data')
  assert.equal(String(heard), 'echo')
  client.end()
  await once(client, 'close')
  server.removeAllListeners('upgrade')
  await assert.rejects(connectWebSocket(url, 'binary', never), { code: 'conflict', message: 'it is "off"' })
  await assert.rejects(connectWebSocket(url, 'binary', AbortSignal.abort()), { code: 'cancelled' })
  server.close()
  await once(server, 'close')
  await assert.rejects(connectWebSocket(url, 'binary', never), { code: 'unavailable', message: /ECONNREFUSED/ })
})
