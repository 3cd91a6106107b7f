/** Calls on the files of a scratch disk fail under the running service: the client is told which way, and reads nothing wrong. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { COMMAND, ERRNO } from '../../src/serve/nbd/protocol.ts'
import { NbdClient, type RequestFields } from '../fixtures/nbd/nbd-client.ts'
import { type CallFault, untraceable, whileCallsFail } from './file-faults.ts'
import { ImageRequests } from './image-requests.ts'
import { adminToken, folderInMemory, type MortalService, removeFolder, startMortal } from './mortal-service.ts'

const BLOCK = 65_536
const noStrace = untraceable()
let folder = ''
let service: MortalService
let requests: ImageRequests
before(async () => {
  if (noStrace) return
  folder = await folderInMemory('scratch')
  service = await startMortal(folder)
  requests = new ImageRequests(service.address, await adminToken(service))
})
after(async () => {
  if (noStrace) return
  await service.stop()
  await removeFolder(folder)
})

interface Blank {
  readonly id: string
  readonly open: () => Promise<NbdClient>
  readonly file: (name: 'disk' | 'map' | 'live') => string
}
async function blankDisk(): Promise<Blank> {
  const made = await requests.json<{ id: string; uris: { unix: string } }>('POST', '/v1/exports', { size: 4 * BLOCK })
  const name = new URL(made.uris.unix).pathname.slice(1)
  return {
    id: made.id,
    open: () => NbdClient.open(join(folder, 'data/nbd.sock'), name),
    file: (file) => join(folder, 'data/scratch', made.id, file),
  }
}
const errnoOf = async (client: NbdClient, command: number, fields: RequestFields = {}) =>
  (await client.request(command, fields)).errno
const firstBytes = async (client: NbdClient) => {
  const blocks = [0, 1, 2, 3].map((block) => client.request(COMMAND.READ, { offset: block * BLOCK, length: 1 }))
  return (await Promise.all(blocks)).map(({ data }) => data?.[0])
}
const write = (client: NbdClient, block: number, byte: number) =>
  errnoOf(client, COMMAND.WRITE, { offset: block * BLOCK, data: Buffer.alloc(100, byte) })
/** Settles when the service has noticed. */
async function leave(client: NbdClient): Promise<void> {
  client.socket.destroy()
  for (;;) {
    const metrics = await (await fetch(`${service.address}/metrics`)).text()
    if (/^imprint_nbd_connections\{transport="unix"\} 0$/m.test(metrics)) return
  }
}
const failing = (files: readonly string[], call: CallFault['call'], error: CallFault['error'], work: () => Promise<void>) =>
  whileCallsFail(service.pid, { files, call, error, nth: 1, andAllAfter: true }, work)

for (const [error, errno] of [
  ['ENOSPC', ERRNO.ENOSPC],
  ['EIO', ERRNO.EIO],
] as const) {
  test(`a write that fails with ${error} is told so, changes nothing, and can be tried again`, { skip: noStrace }, async () => {
    const { id, open, file } = await blankDisk()
    const client = await open()
    assert.equal(await write(client, 0, 1), 0)
    const { failed } = await failing([file('disk')], 'pwrite64', error, async () => {
      assert.equal(await write(client, 1, 2), errno)
      assert.deepEqual(await firstBytes(client), [1, 0, 0, 0])
      assert.equal(await errnoOf(client, COMMAND.TRIM, { offset: 0, length: BLOCK }), 0, 'what writes no bytes works')
    })
    assert.ok(failed > 0)
    assert.equal(await write(client, 1, 2), 0)
    assert.equal(await errnoOf(client, COMMAND.FLUSH), 0)
    assert.deepEqual(await firstBytes(client), [0, 2, 0, 0])
    client.socket.destroy()
    await requests.ask('DELETE', `/v1/exports/${id}`)
  })
}

for (const name of ['disk', 'map'] as const) {
  test(`when ${name} cannot be synced no flush succeeds any more, and what was flushed before is found again`, {
    skip: noStrace,
  }, async () => {
    const { id, open, file } = await blankDisk()
    const client = await open()
    await write(client, 0, 1)
    assert.equal(await errnoOf(client, COMMAND.FLUSH), 0)
    const mapBefore = readFileSync(file('map'))
    await write(client, 1, 2)
    const { failed } = await failing([file(name)], 'fdatasync', 'EIO', async () => {
      assert.equal(await errnoOf(client, COMMAND.FLUSH), ERRNO.EIO)
    })
    assert.ok(failed > 0)
    assert.equal(await errnoOf(client, COMMAND.FLUSH), ERRNO.EIO, 'a later one might lie')
    assert.deepEqual(await firstBytes(client), [1, 2, 0, 0])
    if (name === 'disk') assert.ok(readFileSync(file('map')).equals(mapBefore), 'the map names nothing that may not be there')
    await leave(client)
    const again = await open()
    const [first, second] = await firstBytes(again)
    assert.equal(first, 1)
    assert.ok(second === 0 || second === 2)
    assert.equal(await errnoOf(again, COMMAND.FLUSH), 0, 'a disk that was opened anew begins anew')
    again.socket.destroy()
    await requests.ask('DELETE', `/v1/exports/${id}`)
  })
}

test('without room for the live map a disk is read, and written where it was; what is new is refused, and can be tried again', {
  skip: noStrace,
}, async () => {
  const { open, file } = await blankDisk()
  const first = await open()
  await write(first, 0, 1)
  await leave(first) // it is closed, and its live map counts for nothing any more
  let client = await open()
  const { failed } = await failing([file('live')], 'pwrite64', 'ENOSPC', async () => {
    assert.deepEqual(await firstBytes(client), [1, 0, 0, 0])
    assert.equal(await write(client, 0, 3), 0)
    assert.equal(await write(client, 1, 2), ERRNO.ENOSPC)
    assert.equal(await errnoOf(client, COMMAND.FLUSH), ERRNO.ENOSPC, 'the map of it cannot be left behind')
  })
  assert.ok(failed > 0)
  client.socket.destroy()
  client = await open()
  assert.equal(await write(client, 1, 2), 0)
  assert.equal(await write(client, 2, 4), 0)
  await service.kill()
  service = await startMortal(folder)
  client = await open()
  assert.deepEqual(await firstBytes(client), [3, 2, 4, 0])
  client.socket.destroy()
})
