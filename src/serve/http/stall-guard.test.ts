import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { stallGuard } from './stall-guard.ts'

async function exchange(handle: (request: IncomingMessage, response: ServerResponse) => void, firstBytes: string) {
  const guard = stallGuard(60_000, 1000)
  const server = createServer(handle)
  guard.watch(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket: Socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  socket.on('error', () => {})
  socket.write(firstBytes)
  const [request] = (await once(server, 'request')) as [IncomingMessage]
  const close = () => {
    socket.destroy()
    server.closeAllConnections()
    server.close()
  }
  return { guard, socket, request, close }
}
const UPLOAD = 'PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n'

test('an upload that stands still is ended after the window, not before', async () => {
  const { guard, socket, close } = await exchange((request) => request.resume(), UPLOAD)
  assert.equal(guard.sweep(1000), 0)
  assert.equal(guard.sweep(60_999), 0)
  assert.equal(guard.sweep(61_000), 1)
  await once(socket, 'close')
  close()
})

test('an upload that goes on is never ended, however long it takes', async () => {
  const { guard, socket, request, close } = await exchange((incoming) => incoming.on('data', () => {}), UPLOAD)
  for (let minute = 1; minute <= 60; minute += 1) {
    const arrived = once(request, 'data')
    socket.write('x'.repeat(1500))
    await arrived
    assert.equal(guard.sweep(minute * 61_000), 0)
  }
  close()
})

test('an upload that drips is ended', async () => {
  const { guard, socket, request, close } = await exchange((incoming) => incoming.on('data', () => {}), UPLOAD)
  let ended = 0
  for (let second = 10; second <= 80; second += 10) {
    const arrived = once(request, 'data')
    socket.write('x')
    await arrived
    ended += guard.sweep(second * 1000)
    if (ended > 0) break
  }
  assert.equal(ended, 1)
  close()
})

test('a client that does not read its answer is ended', async () => {
  const { guard, socket, close } = await exchange((_, response) => {
    response.writeHead(200)
    response.write(Buffer.alloc(64 * 1024 * 1024))
  }, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  socket.pause()
  assert.equal(guard.sweep(1000), 0)
  assert.equal(guard.sweep(200_000), 1)
  close()
})

test('a request that the service thinks about is left alone', async () => {
  const { guard, close } = await exchange(() => {}, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  for (let minute = 0; minute < 100; minute += 1) assert.equal(guard.sweep(minute * 61_000 + 1), 0)
  close()
})
