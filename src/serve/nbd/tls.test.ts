import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import { connect } from 'node:tls'
import { memoryDisk } from '../../../test/fixtures/nbd/memory-disk.ts'
import { contextData, goData, NbdClient, optionBytes } from '../../../test/fixtures/nbd/nbd-client.ts'
import { nbdService } from '../../../test/fixtures/nbd/nbd-service.ts'
import { COMMAND, ERRNO, OPTION, OPTION_REPLY } from './protocol.ts'
import type { NbdTls } from './tls.ts'

const KEY = Buffer.alloc(32, 0x5a)
const { ACK, ERR_INVALID, ERR_TLS_REQD, ERR_UNKNOWN } = OPTION_REPLY
const nothing: Buffer = Buffer.alloc(0)

const service = (t: TestContext, mode: NbdTls['mode'], limits = {}) =>
  nbdService(
    t,
    { disk: memoryDisk(1_000_000), hers: { ...memoryDisk(1000), onlyFor: 'alice' } },
    { limits, tls: { mode, pskOf: (user) => (user === 'alice' ? KEY : undefined) } },
  )

/** Goes on in TLS where STARTTLS was acknowledged. */
async function secured(client: NbdClient, user = 'alice', psk: Buffer = KEY): Promise<NbdClient> {
  client.socket.removeAllListeners('data')
  const socket = connect({
    socket: client.socket,
    ciphers: 'TLS_AES_128_GCM_SHA256:DHE-PSK-AES128-GCM-SHA256',
    pskCallback: () => ({ psk, identity: user }),
    checkServerIdentity: () => undefined,
  })
  const inTls = new NbdClient(socket)
  await once(socket, 'secureConnect')
  return inTls
}
async function greeted(path: string): Promise<NbdClient> {
  const client = await NbdClient.connect(path)
  await client.greet()
  return client
}
const typeOf = async (client: NbdClient, code: number, data = nothing) => (await client.option(code, data)).at(-1)!.type

test('where TLS is required nothing else is answered before it, and everything after it', async (t) => {
  const { path } = await service(t, 'required')
  const client = await greeted(path)
  for (const code of [OPTION.GO, OPTION.INFO, OPTION.LIST, OPTION.STRUCTURED_REPLY, OPTION.SET_META_CONTEXT, 4711]) {
    assert.equal(await typeOf(client, code, goData('disk', [])), ERR_TLS_REQD)
  }
  assert.equal(await typeOf(client, OPTION.STARTTLS), ACK)
  const inTls = await secured(client)
  await inTls.go('hers')
  assert.equal((await inTls.request(COMMAND.READ, { length: 1000 })).errno, 0)
  inTls.socket.destroy()
})

test('where TLS is required, ABORT is acknowledged without it and EXPORT_NAME ends the connection', async (t) => {
  const { path } = await service(t, 'required')
  assert.equal(await typeOf(await greeted(path), OPTION.ABORT), ACK)
  const client = await greeted(path)
  client.socket.write(optionBytes(OPTION.EXPORT_NAME, Buffer.from('disk')))
  await client.closed()
})

test('what was agreed on before TLS is forgotten, TLS starts once, and has no data', async (t) => {
  const { path } = await service(t, 'offered')
  const client = await greeted(path)
  await client.structured()
  await client.option(OPTION.SET_META_CONTEXT, contextData('disk', ['base:allocation']))
  assert.equal(await typeOf(client, OPTION.STARTTLS, Buffer.of(1)), ERR_INVALID)
  assert.equal(await typeOf(client, OPTION.STARTTLS), ACK)
  const inTls = await secured(client)
  assert.equal(await typeOf(inTls, OPTION.STARTTLS), ERR_INVALID)
  assert.equal(await typeOf(inTls, OPTION.SET_META_CONTEXT, contextData('disk', ['base:allocation'])), ERR_INVALID)
  await inTls.go('disk')
  const { data, chunks } = await inTls.request(COMMAND.READ, { length: 10 })
  assert.deepEqual([data!.length, chunks.length], [10, 0], 'a simple reply')
  assert.equal((await inTls.request(COMMAND.BLOCK_STATUS, { length: 10 })).errno, ERRNO.EINVAL)
  inTls.socket.destroy()
})

test('clear text right behind STARTTLS ends the connection: it must not be taken for what comes with TLS', async (t) => {
  const { path, logged } = await service(t, 'offered')
  const client = await greeted(path)
  client.socket.write(Buffer.concat([optionBytes(OPTION.STARTTLS, nothing), optionBytes(OPTION.GO, goData('disk', []))]))
  await client.closed()
  assert.match(JSON.stringify(logged), /clear text behind STARTTLS/)
})

test('an export for one user is unknown to others, in TLS or not', async (t) => {
  const { path } = await service(t, 'offered')
  const client = await greeted(path)
  assert.equal(await typeOf(client, OPTION.GO, goData('hers', [])), ERR_UNKNOWN)
  assert.equal(await typeOf(client, OPTION.STARTTLS), ACK)
  const inTls = await secured(client)
  await inTls.go('hers')
  inTls.socket.destroy()
})

for (const [what, user, key] of [
  ['a wrong key', 'alice', Buffer.alloc(32, 1)],
  ['an unknown user', 'mallory', KEY],
] as const) {
  test(`the connection ends at ${what}`, async (t) => {
    const { path, server } = await service(t, 'required')
    const client = await greeted(path)
    assert.equal(await typeOf(client, OPTION.STARTTLS), ACK)
    await assert.rejects(secured(client, user, key))
    await client.closed()
    while (server.counters.handshaking > 0) await new Promise(setImmediate)
  })
}

test('garbage in place of a TLS handshake, and silence before and behind it, end the connection', async (t) => {
  const { path, server } = await service(t, 'required', { handshakeMs: 200 })
  for (const garbage of [Buffer.alloc(5000, 0x16), optionBytes(OPTION.GO, goData('disk', [])), null]) {
    const client = await greeted(path)
    assert.equal(await typeOf(client, OPTION.STARTTLS), ACK)
    if (garbage) client.socket.write(garbage)
    client.socket.resume()
    await client.closed()
  }
  const client = await greeted(path)
  assert.equal(await typeOf(client, OPTION.STARTTLS), ACK)
  const silent = await secured(client)
  silent.socket.resume()
  await silent.closed()
  while (server.counters.handshaking > 0) await new Promise(setImmediate)
})
