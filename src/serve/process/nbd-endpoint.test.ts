import assert from 'node:assert/strict'
import { once } from 'node:events'
import { lstatSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { ExportSource } from '../nbd/export.ts'
import { type NbdSettings, nbdSocketPath, openNbd } from './nbd-endpoint.ts'
import { nbdTlsOf } from './nbd-tls.ts'

const nothing: ExportSource = { open: async () => undefined, list: async () => [] }
const log = { info: () => {}, warn: () => {}, error: () => {} }
const unset: Omit<NbdSettings, 'data'> = {
  nbdSocket: '',
  nbdListen: '',
  nbdTlsCertificate: '',
  nbdTlsKey: '',
  nbdTlsClientCa: '',
  nbdPskFile: '',
  nbdAllowClearText: 'no',
}
function settingsIn(t: TestContext, changes: Partial<NbdSettings> = {}): NbdSettings {
  const data = mkdtempSync(join(tmpdir(), 'nbd-'))
  t.after(() => rmSync(data, { recursive: true }))
  return { data, ...unset, ...changes }
}
const greets = async (address: { path: string } | { host: string; port: number }): Promise<boolean> => {
  const socket = 'path' in address ? connect(address.path) : connect(address.port, address.host)
  const [bytes] = (await once(socket, 'data')) as [Buffer]
  socket.destroy()
  return bytes.subarray(0, 8).toString() === 'NBDMAGIC'
}

test('the socket is for the user of the service alone, and gone after a clean stop', async (t) => {
  const settings = settingsIn(t)
  const nbd = await openNbd(settings, nothing, log)
  const { socketPath, tcp } = nbd.addresses
  assert.deepEqual([socketPath, tcp], [join(settings.data, 'nbd.sock'), null])
  assert.equal(statSync(socketPath).mode & 0o777, 0o600)
  assert.ok(await greets({ path: socketPath }))
  assert.deepEqual(Object.keys(nbd.counters()), ['unix'])
  assert.equal(nbd.counters().unix?.connectionsTotal, 1)
  await nbd.close()
  assert.equal(lstatSync(socketPath, { throwIfNoEntry: false }), undefined)
})

test('a socket that a dead service left is replaced, one that answers is not, nor is a file', async (t) => {
  const settings = settingsIn(t)
  const path = nbdSocketPath(settings)
  const dead = createServer().listen(`${path}.moved`)
  await once(dead, 'listening')
  renameSync(`${path}.moved`, path) // closing removes the name that was bound: this one stays
  await new Promise((closed) => dead.close(closed))
  assert.ok(lstatSync(path).isSocket())
  const nbd = await openNbd(settings, nothing, log)
  assert.ok(await greets({ path }))
  await assert.rejects(openNbd(settings, nothing, log), { code: 'conflict', message: /another program listens/ })
  assert.ok(await greets({ path }), 'the one that lives is unharmed')
  await nbd.close()
  writeFileSync(path, 'a file')
  await assert.rejects(openNbd(settings, nothing, log), { code: 'conflict', message: /no socket/ })
})

test('a path that the system cannot bind is refused with both lengths', () => {
  const at = (bytes: number) => ({ data: '/', nbdSocket: `/${'ü'.repeat(20)}${'x'.repeat(bytes - 41)}` })
  assert.equal(Buffer.byteLength(nbdSocketPath(at(107))), 107)
  assert.throws(() => nbdSocketPath(at(108)), { code: 'invalid-request', message: /108 bytes.*107.*--nbd-socket/ })
})

test('over TCP the service listens where it is told to, beyond loopback only in TLS or when clear text is allowed', async (t) => {
  const settings = settingsIn(t, { nbdListen: '127.0.0.1:0' })
  const nbd = await openNbd(settings, nothing, log)
  const { tcp } = nbd.addresses
  assert.ok(tcp && tcp.port > 0 && !tcp.isSecure)
  assert.ok(await greets(tcp))
  assert.equal(nbd.counters().tcp?.connectionsTotal, 1)
  await nbd.close()
  for (const nbdListen of ['0.0.0.0:0', '[::]:0', '192.0.2.1:10809', 'images.example:10809']) {
    const refused = openNbd({ ...settings, nbdListen }, nothing, log)
    await assert.rejects(refused, { code: 'invalid-request', message: /nbdListen.*nbdAllowClearText/ })
  }
  const open = await openNbd({ ...settings, nbdListen: '0.0.0.0:0', nbdAllowClearText: 'yes' }, nothing, log)
  assert.ok(await greets({ host: '127.0.0.1', port: open.addresses.tcp!.port }))
  await open.close()
  const pskFile = join(settings.data, 'keys.psk')
  writeFileSync(pskFile, 'alice:00ff\n')
  const secure = await openNbd({ ...settings, nbdListen: '0.0.0.0:0', nbdPskFile: pskFile }, nothing, log)
  assert.equal(secure.addresses.tcp?.isSecure, true)
  await secure.close()
})

test('where TCP cannot be had, the unix socket is let go as well', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.after(() => taken.close())
  const { port } = taken.address() as { port: number }
  const settings = settingsIn(t, { nbdListen: `127.0.0.1:${port}` })
  await assert.rejects(openNbd(settings, nothing, log), { code: 'conflict', message: /something else listens/ })
  assert.equal(lstatSync(nbdSocketPath(settings), { throwIfNoEntry: false }), undefined)
})

test('settings of TLS that do not fit are refused by name', async (t) => {
  const { data } = settingsIn(t)
  const file = (name: string, text: string) => {
    writeFileSync(join(data, name), text)
    return join(data, name)
  }
  const wrong: readonly [Partial<NbdSettings>, RegExp][] = [
    [{ nbdTlsCertificate: 'a' }, /nbdTlsCertificate and nbdTlsKey belong together/],
    [{ nbdTlsKey: 'a' }, /belong together/],
    [{ nbdTlsClientCa: 'a' }, /nbdTlsClientCa needs/],
    [{ nbdTlsCertificate: join(data, 'none'), nbdTlsKey: 'a' }, /nbdTlsCertificate: cannot read/],
    [{ nbdPskFile: file('empty', '\n') }, /holds no key/],
    [{ nbdPskFile: file('odd', 'alice:00f\n') }, /line 1/],
    [{ nbdPskFile: file('words', 'alice:00ff\nbob\n') }, /line 2/],
  ]
  for (const [changes, says] of wrong) {
    assert.throws(() => nbdTlsOf({ ...unset, ...changes }), { code: 'invalid-request', message: says })
  }
  const notPem = { nbdTlsCertificate: file('cert', 'x'), nbdTlsKey: file('key', 'x'), nbdListen: '127.0.0.1:0' }
  await assert.rejects(openNbd({ data, ...unset, ...notPem }, nothing, log), { code: 'invalid-request', message: /nbdTlsKey/ })
  assert.equal(nbdTlsOf(unset), undefined)
  const tls = nbdTlsOf({ ...unset, nbdPskFile: file('keys', 'alice:00ff\r\nbob smith:0a\n') })
  assert.deepEqual([...(tls?.pskOf?.('bob smith') ?? [])], [10])
  assert.equal(tls?.pskOf?.('mallory'), undefined)
  assert.equal(tls?.mode, 'required')
})
