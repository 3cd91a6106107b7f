/** Clients that mean harm, and beside them one that does not. */
import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { memoryDisk } from '../../../test/fixtures/nbd/memory-disk.ts'
import { goData, NbdClient, optionBytes, requestBytes } from '../../../test/fixtures/nbd/nbd-client.ts'
import { type NbdService, nbdService } from '../../../test/fixtures/nbd/nbd-service.ts'
import { KiB, MiB } from '../../base/units.ts'
import type { NbdLimits } from './limits.ts'
import { COMMAND, OPTION } from './protocol.ts'

const { READ, WRITE, BLOCK_STATUS } = COMMAND
const service = (t: TestContext, limits: Partial<NbdLimits> = {}) => nbdService(t, { disk: memoryDisk(64 * MiB) }, { limits })
const until = async (holds: () => boolean) => {
  while (!holds()) await new Promise((done) => setTimeout(done, 5))
}
/** What an honest client does, from connecting to leaving. */
async function honestSession({ path }: NbdService): Promise<void> {
  const client = await NbdClient.open(path, 'disk', { structured: true, status: true })
  const data = Buffer.alloc(100 * KiB, 3)
  for (let round = 0; round < 5; round += 1) {
    assert.equal((await client.request(WRITE, { offset: MiB, data })).errno, 0)
    assert.ok((await client.request(READ, { offset: MiB, length: data.length })).data!.equals(data))
    assert.equal((await client.request(BLOCK_STATUS, { offset: 0, length: 64 * MiB })).errno, 0)
  }
  client.socket.destroy()
}
/** A session that does not read what it is sent. */
async function deafClient({ path }: NbdService): Promise<Socket> {
  const client = await NbdClient.open(path, 'disk')
  client.socket.removeAllListeners('data')
  client.socket.pause()
  return client.socket
}

test('silent connections keep nobody out: the oldest make room, and all go at their deadline', async (t) => {
  const attacked = await service(t, { maxHandshaking: 100, handshakeMs: 1500 })
  const { server, path } = attacked
  const silent: Socket[] = []
  for (let index = 0; index < 1000; index += 1) {
    const socket = connect({ path }).on('error', () => {})
    socket.resume()
    silent.push(socket)
    if (index % 100 === 99) await honestSession(attacked)
  }
  assert.ok(server.counters.handshaking <= 100)
  await until(() => silent.every(({ destroyed, readableEnded }) => destroyed || readableEnded))
  assert.equal(server.counters.handshaking, 0)
})

test('a client that sends a byte now and then has no longer than others', async (t) => {
  const { path, server } = await service(t, { handshakeMs: 300 })
  const client = await NbdClient.connect(path)
  const dripping = setInterval(() => client.socket.write(Buffer.of(0)), 20)
  t.after(() => clearInterval(dripping))
  await until(() => server.counters.handshaking === 1)
  client.socket.resume()
  await client.closed()
  assert.equal(server.counters.connectionsDropped, 1)
})

test('who sends requests without end and takes no replies is read no further, and memory stays bounded', async (t) => {
  const attacked = await service(t, { connectionBytes: 4 * MiB, sharedBytes: 8 * MiB })
  const { server } = attacked
  const flood = Buffer.concat(Array(2000).fill(requestBytes(READ, { length: MiB })))
  const deaf = await Promise.all(Array.from({ length: 5 }, () => deafClient(attacked)))
  for (const socket of deaf) for (let round = 0; round < 20; round += 1) socket.write(flood)
  await until(() => server.sharedBytesUsed >= 7 * MiB)
  const seen = server.counters.requests.READ
  assert.ok(seen < 100, `${seen} requests were started`)
  assert.ok(server.sharedBytesUsed <= 8 * MiB)
  await honestSession(attacked) // in its own share
  assert.ok(
    deaf.every((socket) => socket.writableLength > 0),
    'the rest waits on the side of those who sent it',
  )
  for (const socket of deaf) socket.destroy()
  await until(() => server.sharedBytesUsed === 0)
})

test('writes to a disk that takes its time are let in as their memory allows, and half of one changes nothing', async (t) => {
  const disk = memoryDisk(64 * MiB)
  const begun: { bytes: number; go(): void }[] = []
  const write = (_offset: number, bytes: Uint8Array) => new Promise<void>((go) => begun.push({ bytes: bytes.length, go }))
  const slow = { source: disk.source, writer: { ...disk.writer, write } }
  const { path, server } = await nbdService(t, { slow }, { limits: { connectionBytes: 4 * MiB } })
  const client = await NbdClient.open(path, 'slow')
  const data = Buffer.alloc(MiB - KiB)
  const replies = Promise.all(Array.from({ length: 40 }, () => client.request(WRITE, { data })))
  client.socket.write(Buffer.concat([requestBytes(WRITE, { length: MiB }), Buffer.alloc(1000)]))
  for (let answered = 0; answered < 40; answered += 1) {
    await until(() => begun.length > answered)
    assert.ok(server.sharedBytesUsed <= 4 * MiB && begun.length - answered <= 4)
    begun[answered]!.go()
  }
  assert.ok((await replies).every(({ errno }) => errno === 0))
  client.socket.destroy()
  await until(() => server.counters.connections === 0)
  assert.deepEqual(new Set(begun.map(({ bytes }) => bytes)), new Set([data.length]))
})

test('who holds shared memory that others wait for, and does not move, is dropped', async (t) => {
  const attacked = await service(t, {
    connectionBytes: 4 * MiB,
    sharedBytes: 4 * MiB,
    shareBytes: 64 * KiB,
    stallWhenWaitedForMs: 0,
  })
  const { server, path } = attacked
  const deaf = await deafClient(attacked)
  for (let round = 0; round < 10; round += 1) deaf.write(requestBytes(READ, { length: MiB }))
  await until(() => server.sharedBytesUsed > 3 * MiB)
  const honest = await NbdClient.open(path, 'disk')
  assert.equal((await honest.request(READ, { length: 3 * MiB })).data!.length, 3 * MiB)
  assert.equal(server.counters.connectionsDropped, 1)
})

test('a WRITE that is announced and never sent is dropped, and so is half a request', async (t) => {
  const { path, server, open } = await service(t, { stallMs: 0 })
  for (const [bytes] of [
    [requestBytes(WRITE, { length: 8 * KiB })],
    [requestBytes(READ, { length: 1 }).subarray(0, 20)],
  ] as const) {
    const client = await NbdClient.open(path, 'disk')
    client.socket.write(bytes)
    await client.closed()
  }
  assert.equal(server.counters.connectionsDropped, 2)
  await until(() => open() === 0)
})

test('idle connections stay where nothing else is said, and go where a limit is set', async (t) => {
  const { path, server } = await service(t, { idleMs: 100 })
  const client = await NbdClient.open(path, 'disk')
  await client.closed()
  assert.equal(server.counters.connectionsDropped, 1)
})

test('more connections than are allowed are refused, to one export and altogether', async (t) => {
  const { path } = await nbdService(
    t,
    { one: memoryDisk(MiB), two: memoryDisk(MiB) },
    { limits: { maxConnections: 3, maxConnectionsPerExport: 2 } },
  )
  const [first] = [await NbdClient.open(path, 'one'), await NbdClient.open(path, 'one')]
  await assert.rejects(NbdClient.open(path, 'one'), /ended/)
  await NbdClient.open(path, 'two')
  await assert.rejects(NbdClient.open(path, 'two'), /ended/)
  first.socket.end()
  await first.closed()
  const again = await NbdClient.open(path, 'one')
  assert.equal((await again.request(READ, { length: 1 })).errno, 0)
})

test('a WRITE far beyond the maximum ends the connection before its data is read', async (t) => {
  const { path, open } = await service(t)
  const client = await NbdClient.open(path, 'disk')
  client.socket.write(requestBytes(WRITE, { length: 2 ** 32 - 1 }))
  await client.closed()
  await until(() => open() === 0)
})

test('one cookie for a thousand requests is the business of the client', async (t) => {
  const { path } = await service(t)
  const client = await NbdClient.open(path, 'disk')
  client.socket.removeAllListeners('data')
  let bytes = 0
  client.socket.on('data', (chunk) => {
    bytes += chunk.length
  })
  client.socket.write(Buffer.concat(Array(1000).fill(requestBytes(READ, { length: 512, cookie: 7n }))))
  await until(() => bytes === 1000 * (16 + 512))
})

test('a thousand connections that are reset at once leave nothing behind', async (t) => {
  const attacked = await service(t)
  const { server, open } = attacked
  const address = await server.listen({ host: '127.0.0.1', port: 0 }) // a unix socket cannot be reset
  for (let round = 0; round < 20; round += 1) {
    const sockets = Array.from({ length: 50 }, () => connect(address as { host: string; port: number }).on('error', () => {}))
    await until(() => sockets.every(({ connecting }) => !connecting))
    for (const [index, socket] of sockets.entries()) {
      if (index % 2)
        socket.write(
          Buffer.concat([Buffer.of(0, 0, 0, 3), optionBytes(OPTION.GO, goData('disk', [])), requestBytes(READ, { length: MiB })]),
        )
      socket.resetAndDestroy()
    }
  }
  await honestSession(attacked)
  await until(() => server.counters.handshaking === 0 && open() === 0)
  assert.deepEqual([server.counters.connections, server.sharedBytesUsed], [0, 0])
})

test('walks over a disk of a million extents leave others their turn', async (t) => {
  const fragmented = memoryDisk(2 ** 32, 4096)
  let runs = 0
  const source = {
    ...fragmented.source,
    async *extents(offset: number, length: number) {
      for (let at = offset; at < offset + length; at += 512) {
        runs += 1
        yield { offset: at, length: 512, kind: 'hole' as const }
      }
    },
  }
  const { path } = await nbdService(t, { disk: { source }, other: memoryDisk(MiB) })
  const client = await NbdClient.open(path, 'disk', { structured: true, status: true })
  const honest = await NbdClient.open(path, 'other')
  const walks = Promise.all(Array.from({ length: 50 }, () => client.request(BLOCK_STATUS, { length: 2 ** 31 })))
  await until(() => runs > 0)
  const before = runs
  for (let round = 0; round < 10; round += 1) assert.equal((await honest.request(READ, { length: 512 })).errno, 0)
  assert.ok(runs - before < 100_000, `${runs - before} extents were walked over meanwhile`)
  assert.equal((await walks).length, 50)
})
