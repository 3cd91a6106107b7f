/** Serial consoles and who abuses them, at the service itself, with a real guest: its memory is what is watched. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { ComputeClient } from '../../src/cli/client/compute-client.ts'
import { HttpClient } from '../../src/cli/client/http-client.ts'
import { ImageClient } from '../../src/cli/client/image-client.ts'
import { connectWebSocket } from '../../src/serve/websocket/connect.ts'
import type { WebSocketStream } from '../../src/serve/websocket/web-socket-stream.ts'
import { type ImprintService, startImprint } from '../e2e/image-service.ts'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { noTinyGuest, tinyGuest } from '../fixtures/guest/tiny-guest.ts'

const MiB = 2 ** 20
const SAY_AGAIN_MS = 2000
const never = new AbortController().signal
const skip = noTinyGuest()
let service: ImprintService
let compute: ComputeClient
let id = ''

before(async () => {
  if (skip) return
  service = await startImprint()
  const http = new HttpClient(service.address)
  http.token = service.cast.admin.token
  compute = new ComputeClient(http)
  const images = new ImageClient(http)
  const image = await images.create({ name: 'tiny', disk_format: 'raw', container_format: 'bare' })
  const headers = { 'content-type': 'application/octet-stream' }
  await http.ask({ method: 'PUT', path: `/image/v2/images/${image.id}/file`, headers, body: await readFile(await tinyGuest()) })
  const made = await compute.create({ name: 'web', imageId: image.id, flavorId: '1', network: 'none', metadata: {}, count: 1 })
  id = made[0]!
  await until(async () => (await compute.show(id)).status === 'ACTIVE' && /^ready/m.test(await compute.consoleLog(id)))
})
after(async () => {
  if (skip) return
  await endMachines(service.dataFolder)
  await service.stop()
})

async function until(holds: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 120_000; !(await holds()); await pause(100)) {
    assert.ok(Date.now() < deadline, 'it did not come to that within 2 min')
  }
}
/** Resident bytes of the service, at the most that they have been. */
const peakBytes = async () => Number(/VmHWM:\s+(\d+) kB/.exec(await readFile(`/proc/${service.pid}/status`, 'utf8'))?.[1]) * 1024
const sit = async (): Promise<WebSocketStream> => connectWebSocket(await compute.consoleUrl(id), 'binary', never)
/** Says something to the guest and hears the answer, so that the console works. */
async function answers(): Promise<void> {
  const stream = await sit()
  const say = () => void stream.write('\x03\necho still-$((40 + 2))\n')
  say()
  const again = setInterval(say, SAY_AGAIN_MS) // a shell that starts throws away what came before
  let heard = ''
  for await (const bytes of stream) {
    heard = (heard + String(bytes)).slice(-1000)
    if (heard.includes('still-42')) break
  }
  clearInterval(again)
  stream.destroy()
}

test('a client that reads nothing of a flood costs its buffers, and the log goes on', { skip }, async () => {
  await answers()
  const before = await peakBytes()
  const stream = await sit()
  stream.pause()
  stream.write('while :; do echo a-line-that-goes-on-and-on-and-fills-the-port; done\n')
  const known = await compute.consoleLog(id)
  await until(async () => (await compute.consoleLog(id)).length >= 100_000)
  const first = await compute.consoleLog(id)
  await until(async () => (await compute.consoleLog(id)) !== first || first === known)
  stream.destroy()
  await answers()
  const grown = (await peakBytes()) - before
  assert.ok(grown < 64 * MiB, `${grown} bytes more`)
})

test('a client that types without end at a machine that stands still waits', { skip }, async () => {
  const before = await peakBytes()
  await compute.act(id, { pause: null })
  await until(async () => (await compute.show(id)).status === 'PAUSED')
  const stream = await sit()
  let taken = 0
  for (let isTaken = true; isTaken && taken < 256 * MiB; ) {
    isTaken = await Promise.race([
      new Promise<boolean>((done) => stream.write(Buffer.alloc(64 * 1024, '#'), () => done(true))),
      pause(2_000, false),
    ])
    if (isTaken) taken += 64 * 1024
  }
  assert.ok(taken < 32 * MiB, `${taken} bytes were taken`)
  const grown = (await peakBytes()) - before
  assert.ok(grown < 48 * MiB, `${grown} bytes more`)
  stream.destroy()
  await compute.act(id, { unpause: null })
  await until(async () => (await compute.show(id)).status === 'ACTIVE')
})

test('thousands of connections that ask for consoles and have no token go away again', { skip }, async () => {
  const before = await peakBytes()
  const { port, hostname, host } = new URL(service.address)
  const sockets: Socket[] = []
  for (let batch = 0; batch < 15; batch += 1) {
    const opened = Array.from({ length: 200 }, async () => {
      const socket = connect({ port: Number(port), host: hostname, allowHalfOpen: true }) // it does not close its side
      socket.on('error', () => {})
      await once(socket, 'connect')
      const key = Buffer.alloc(16).toString('base64')
      socket.write(
        `GET /compute/serial/?token=${'x'.repeat(43)} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`,
      )
      sockets.push(socket.resume())
    })
    await Promise.all(opened)
  }
  await Promise.all(sockets.map((socket) => (socket.closed || socket.readableEnded ? null : once(socket, 'end').catch(() => {}))))
  const grown = (await peakBytes()) - before
  assert.ok(grown < 96 * MiB, `${grown} bytes more`)
  for (const socket of sockets) socket.destroy()
  await answers()
})
