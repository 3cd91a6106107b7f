/** Clients that lie about their bytes, leave in the middle, or get in each other's way. Over sockets, for HTTP libraries are honest. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { ImageRequests, noise, Refused, smallDisk } from '../durability/image-requests.ts'
import { adminToken, folderInMemory, type MortalService, removeFolder, startMortal } from '../durability/mortal-service.ts'

let folder = ''
let service: MortalService
let images: ImageRequests
const MiB = 2 ** 20

before(async () => {
  folder = await folderInMemory('hostile')
  service = await startMortal(folder)
  images = new ImageRequests(service.address, await adminToken(service))
})
after(async () => {
  await service.stop()
  await removeFolder(folder)
})

async function newRecord(): Promise<string> {
  const id = randomUUID()
  await images.create(id, 'hostile')
  return id
}

/** A connection with the head of an upload on it. */
async function uploading(id: string, lines: readonly string[], token = images.token): Promise<Socket> {
  const socket = connect({ port: Number(new URL(service.address).port), host: '127.0.0.1' })
  socket.on('error', () => {}) // what it was sent decides each test
  await once(socket, 'connect')
  const head = [`PUT /image/v2/images/${id}/file HTTP/1.1`, 'Host: here', `X-Auth-Token: ${token}`]
  socket.write([...head, 'Content-Type: application/octet-stream', ...lines, '', ''].join('\r\n'))
  return socket
}

/** All that the service sends until it closes. */
async function answersOn(socket: Socket): Promise<string> {
  let text = ''
  socket.on('data', (bytes) => {
    text += bytes.toString('latin1')
  })
  await once(socket, 'close')
  return text
}
const statusesIn = (text: string): readonly number[] => [...text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, code]) => Number(code))

async function until<T>(ask: () => Promise<T | undefined | false>): Promise<T> {
  for (const deadline = Date.now() + 30_000; ; await pause(20)) {
    const answer = await ask()
    if (answer !== undefined && answer !== false) return answer
    if (Date.now() > deadline) throw new Error('it did not come to that within 30 s')
  }
}
const status = (id: string, wanted: string) => until(async () => (await images.show(id))?.status === wanted)

async function assertGivenBack(id: string, reason: RegExp): Promise<void> {
  await status(id, 'queued')
  assert.match((await images.show(id))?.failure ?? '', reason)
  const bytes = smallDisk(1)
  await images.send(id, bytes)
  assert.equal(Buffer.compare(await images.fetch(id), bytes), 0, 'the next upload succeeds')
}

test('a body that is cut off gives the image back, with the reason', async () => {
  const id = await newRecord()
  const socket = await uploading(id, ['Content-Length: 1000000'])
  socket.write(noise(1, 300_000))
  await status(id, 'saving')
  socket.destroy()
  await assertGivenBack(id, /went away|broke/)
})

test('a body that ends before its announced length is refused, and nothing of it is kept', async () => {
  const id = await newRecord()
  const socket = await uploading(id, ['Content-Length: 1000000'])
  socket.end(noise(2, 300_000))
  assert.ok(!statusesIn(await answersOn(socket)).includes(204))
  await assertGivenBack(id, /went away|broke|ended after/)
})

test('a chunked body without its last chunk is refused', async () => {
  const id = await newRecord()
  const socket = await uploading(id, ['Transfer-Encoding: chunked'])
  socket.end(Buffer.concat([Buffer.from('10000\r\n'), noise(3, 65536), Buffer.from('\r\n')]))
  assert.ok(!statusesIn(await answersOn(socket)).includes(204))
  await assertGivenBack(id, /went away|broke/)
})

test('bytes beyond the announced length are no part of the image, and no request either', async () => {
  const id = await newRecord()
  const socket = await uploading(id, ['Content-Length: 100000'])
  const sent = noise(4, 150_000)
  socket.write(sent)
  const [first, ...others] = statusesIn(await answersOn(socket))
  assert.equal(first, 204)
  assert.ok(others.every((code) => code === 400))
  assert.equal(Buffer.compare(await images.fetch(id), sent.subarray(0, 100_000)), 0)
})

test('two lengths, or a length and chunks, are refused before anything is taken', async () => {
  for (const lines of [
    ['Content-Length: 5', 'Content-Length: 6'],
    ['Content-Length: 5', 'Transfer-Encoding: chunked'],
  ]) {
    const id = await newRecord()
    const socket = await uploading(id, lines)
    socket.write('5\r\nhello\r\n0\r\n\r\n')
    assert.deepEqual(statusesIn(await answersOn(socket)), [400])
    assert.equal((await images.show(id))?.status, 'queued')
  }
})

test('of two uploads at once one is refused, and the image has the bytes of the other', async () => {
  const id = await newRecord()
  const [ours, theirs] = [noise(5, MiB), noise(6, MiB)]
  const socket = await uploading(id, [`Content-Length: ${ours.length}`, 'Connection: close'])
  socket.write(ours.subarray(0, 1000))
  await status(id, 'saving')
  await assert.rejects(images.send(id, theirs), { status: 409 })
  socket.write(ours.subarray(1000))
  assert.deepEqual(statusesIn(await answersOn(socket)), [204])
  assert.equal(Buffer.compare(await images.fetch(id), ours), 0)
})

test('an image that is deleted while it is uploaded stays deleted, and leaves no chunk', async () => {
  const id = await newRecord()
  const bytes = noise(7, MiB)
  const socket = await uploading(id, [`Content-Length: ${bytes.length}`, 'Connection: close'])
  socket.write(bytes.subarray(0, 500_000))
  await status(id, 'saving')
  await images.delete(id)
  socket.write(bytes.subarray(500_000))
  const [code] = statusesIn(await answersOn(socket))
  assert.ok(code === 410 || code === 404, `answered ${code}`)
  assert.equal(await images.show(id), undefined)
})

test('a download goes on to its end although the image is deleted and collected meanwhile', async () => {
  const id = await newRecord()
  const bytes = noise(8, 24 * MiB) // more than sockets and read-ahead hold
  await images.send(id, bytes)
  const response = await images.ask('GET', `/image/v2/images/${id}/file`)
  const reader = response.body!.getReader()
  const got: Uint8Array[] = [(await reader.read()).value!]
  await images.delete(id)
  await images.job('collect')
  for (let part = await reader.read(); !part.done; part = await reader.read()) got.push(part.value)
  assert.equal(Buffer.compare(Buffer.concat(got), bytes), 0)
})

test('a reader that pauses gets its bytes, and holds nobody up', async () => {
  const id = await newRecord()
  const bytes = noise(9, 24 * MiB)
  await images.send(id, bytes)
  const readers = await Promise.all(
    Array.from({ length: 20 }, async () => (await images.ask('GET', `/image/v2/images/${id}/file`)).body!.getReader()),
  )
  const other = await newRecord()
  await images.send(other, smallDisk(2))
  assert.equal(Buffer.compare(await images.fetch(other), smallDisk(2)), 0)
  const [first, ...others] = readers
  await Promise.all(others.map((reader) => reader.cancel()))
  const got: Uint8Array[] = []
  for (let part = await first!.read(); !part.done; part = await first!.read()) got.push(part.value)
  assert.equal(Buffer.compare(Buffer.concat(got), bytes), 0)
})

test('an upload whose token ends on the way goes on; the next request with it is refused', async () => {
  const token = await adminToken(service)
  const id = await newRecord()
  const bytes = noise(10, MiB)
  const socket = await uploading(id, [`Content-Length: ${bytes.length}`, 'Connection: close'], token)
  socket.write(bytes.subarray(0, 1000))
  await status(id, 'saving')
  await images.ask('DELETE', '/identity/v3/auth/tokens', undefined, { 'x-subject-token': token })
  await assert.rejects(new ImageRequests(service.address, token).list(), { status: 401 })
  socket.write(bytes.subarray(1000))
  assert.deepEqual(statusesIn(await answersOn(socket)), [204])
  assert.equal(Buffer.compare(await images.fetch(id), bytes), 0)
})

test('after all this nothing is under way, and the store holds no chunk too many', async () => {
  const before = await images.list()
  assert.deepEqual(
    before.filter(({ status }) => status !== 'active' && status !== 'queued'),
    [],
  )
  for (const { id } of before) await images.delete(id)
  await images.job('collect')
  const { chunks, manifests, packs } = await images.stats()
  assert.deepEqual({ chunks, manifests, packs }, { chunks: 0, manifests: 0, packs: 0 })
  assert.ok(!(await fetch(`${service.address}/readyz`).then(async (answer) => !answer.ok)))
})

test('what is no HTTP, or far too much of it, is refused in words', async () => {
  const cases = [
    { name: 'noise', bytes: noise(11, 1000), codes: [400] },
    { name: 'headers without end', bytes: Buffer.from(`GET / HTTP/1.1\r\nX: ${'x'.repeat(100_000)}`), codes: [431] },
    { name: 'a bad length', bytes: Buffer.from('PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n'), codes: [400] },
  ]
  for (const { name, bytes, codes } of cases) {
    const socket = connect({ port: Number(new URL(service.address).port), host: '127.0.0.1' })
    socket.on('error', () => {})
    await once(socket, 'connect')
    socket.write(bytes)
    assert.deepEqual(statusesIn(await answersOn(socket)), codes, name)
  }
  const tooMuch = new Uint8Array(4 * MiB).fill(0x20)
  await assert.rejects(images.ask('POST', '/image/v2/images', tooMuch, { 'content-type': 'application/json' }), (error) =>
    error instanceof Refused ? error.status === 413 : error instanceof TypeError,
  )
})
