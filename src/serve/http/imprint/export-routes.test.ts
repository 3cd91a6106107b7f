import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import { HttpClient } from '../../../cli/client/http-client.ts'
import { IdentityClient } from '../../../cli/client/identity-client.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../../../cli/real-service.suite.ts'
import { exportUris } from './export-uris.ts'

let service: RealService
let token = ''
let clockMs = 0
before(async () => {
  service = await startService({ now: () => Date.now() + clockMs })
  const http = new HttpClient(service.url)
  const credential = { kind: 'password', user: 'admin', password: ADMIN_PASSWORD } as const
  token = (await new IdentityClient(http).authenticate(credential, 'admin')).token
  http.close()
})
after(() => service.close())

async function ask(method: string, path: string, body?: unknown) {
  const answer = await fetch(`${service.url}${path}`, {
    method,
    headers: { 'x-auth-token': token, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await answer.text()
  // biome-ignore lint/suspicious/noExplicitAny: a test looks into what a client would read
  return { status: answer.status, json: (text === '' ? undefined : JSON.parse(text)) as any }
}
async function newImage(bytes: Uint8Array<ArrayBuffer>, [container, disk] = ['bare', 'raw']): Promise<string> {
  const { json } = await ask('POST', '/image/v2/images', { name: 'disk', disk_format: disk, container_format: container })
  const headers = { 'x-auth-token': token, 'content-type': 'application/octet-stream' }
  const sent = await fetch(`${service.url}/image/v2/images/${json.id}/file`, { method: 'PUT', headers, body: bytes })
  assert.equal(sent.status, 204, await sent.text())
  return json.id
}
const nameIn = (uri: string): string => new URL(uri).pathname.slice(1)

test('an export is made, shown without its secret, renewed and ended', async () => {
  const bytes = randomBytes(100_000)
  const image = await newImage(bytes)
  const made = await ask('POST', '/v1/exports', { image, seconds: 60 })
  assert.equal(made.status, 201, JSON.stringify(made.json))
  const { uris, ...shown } = made.json
  assert.deepEqual(shown.image, { id: image, name: 'disk' })
  assert.equal(shown.diskBytes, bytes.length)
  assert.equal(Date.parse(shown.expiresAt) - Date.parse(shown.createdAt), 60_000)
  assert.match(uris.unix, /^nbd\+unix:\/\/\/[\w-]{43}\?socket=\/run\/imprint\/nbd\.sock$/)
  assert.equal(uris.tcp, `nbds://127.0.0.1:10809/${nameIn(uris.unix)}`)

  const open = await service.disks.open(nameIn(uris.unix))
  assert.ok(open && bytes.equals(await open.disk.read(0, bytes.length)))
  assert.deepEqual((await ask('GET', `/v1/exports/${shown.id}`)).json, shown)
  assert.deepEqual((await ask('GET', '/v1/exports')).json, { exports: [shown] })
  const renewed = await ask('POST', `/v1/exports/${shown.id}/renew`, { seconds: 7200 })
  assert.equal(renewed.status, 200)
  assert.ok(Date.parse(renewed.json.expiresAt) - Date.parse(shown.expiresAt) > 7_000_000)
  assert.equal((await ask('DELETE', `/image/v2/images/${image}`)).status, 204)
  assert.equal(open.revoked.aborted, false)
  assert.equal((await ask('DELETE', `/v1/exports/${shown.id}`)).status, 204)
  assert.equal(open.revoked.aborted, true)
  await open.release()
  for (const [method, path] of [
    ['GET', ''],
    ['DELETE', ''],
    ['POST', '/renew'],
  ] as const) {
    const answer = await ask(method, `/v1/exports/${shown.id}${path}`, method === 'POST' ? {} : undefined)
    assert.deepEqual([answer.status, answer.json.code], [404, 'not-found'], method)
  }
  const { json: audit } = await ask('GET', `/v1/images/${image}/audit`)
  assert.deepEqual(
    audit.entries.slice(0, 3).map(({ action }: { action: string }) => action),
    ['release', 'delete', 'lend'],
  )
})

test('an export without a word about its end has an hour', async () => {
  const image = await newImage(randomBytes(1000))
  const { json } = await ask('POST', '/v1/exports', { image })
  assert.equal(Date.parse(json.expiresAt) - Date.parse(json.createdAt), 3_600_000)
  clockMs = 3_600_001
  assert.equal((await ask('GET', `/v1/exports/${json.id}`)).status, 404)
  assert.equal(await service.disks.open(nameIn(json.uris.unix)), undefined)
  clockMs = 0
  assert.equal((await ask('DELETE', `/v1/exports/${json.id}`)).status, 204)
})

test('a writable export says so, and a blank one has no image', async () => {
  const image = await newImage(randomBytes(2048))
  const over = await ask('POST', '/v1/exports', { image, writable: true })
  assert.deepEqual([over.status, over.json.writable, over.json.image.id], [201, true, image])
  const blank = await ask('POST', '/v1/exports', { size: 2 ** 20 })
  assert.deepEqual([blank.status, blank.json.writable, blank.json.image, blank.json.diskBytes], [201, true, null, 2 ** 20])
  const { json: audit } = await ask('GET', `/v1/projects/${blank.json.projectId}/audit?limit=2`)
  assert.deepEqual(
    audit.entries.map(({ action, imageId }: { action: string; imageId: string }) => [action, imageId]),
    [
      ['lend', null],
      ['lend', image],
    ],
  )
  const { json: listed } = await ask('GET', '/v1/exports')
  assert.equal(listed.exports.length, 2)
  for (const { id: one } of listed.exports) assert.equal((await ask('DELETE', `/v1/exports/${one}`)).status, 204)
})

const id = '00000000-0000-4000-8000-000000000000'
const refused: readonly [string, unknown, number, string][] = [
  ['no image', {}, 400, 'invalid-request'],
  ['an image and a size', { image: id, size: 512 }, 400, 'invalid-request'],
  ['a part of a sector', { size: 513 }, 400, 'invalid-request'],
  ['more than a scratch disk may have', { size: 2 ** 40 + 512 }, 400, 'invalid-request'],
  ['more than the project may have', { size: 2 ** 31 }, 413, 'over-quota'],
  ['an image that is none', { image: '../etc' }, 400, 'invalid-request'],
  ['an image that is not there', { image: id }, 404, 'not-found'],
  ['no time', { image: id, seconds: 0 }, 400, 'invalid-request'],
  ['half a second', { image: id, seconds: 0.5 }, 400, 'invalid-request'],
  ['more than 30 days', { image: id, seconds: 2_592_001 }, 400, 'invalid-request'],
  ['a field that nobody knows', { image: id, name: 'x' }, 400, 'invalid-request'],
]
for (const [what, body, status, code] of refused) {
  test(`an export of ${what} is refused`, async () => {
    const answer = await ask('POST', '/v1/exports', body)
    assert.deepEqual([answer.status, answer.json.code], [status, code])
  })
}

test('an image that is not active, or of a format that we do not open, is refused with the reason', async () => {
  const { json: queued } = await ask('POST', '/image/v2/images', { disk_format: 'raw', container_format: 'bare' })
  const early = await ask('POST', '/v1/exports', { image: queued.id })
  assert.deepEqual([early.status, early.json.code], [409, 'conflict'])
  assert.match(early.json.message, /queued/)
  const kernel = await newImage(randomBytes(1000), ['aki', 'aki'])
  const odd = await ask('POST', '/v1/exports', { image: kernel })
  assert.deepEqual([odd.status, odd.json.code], [415, 'unsupported'])
  assert.match(odd.json.message, /aki\/aki.*qcow2, .*raw, iso/)
})

const secret = 'n'.repeat(43)
const addresses: readonly [string, Parameters<typeof exportUris>[0]['tcp'], string, string | null][] = [
  ['none', null, 'images.example', null],
  ['a host of its own', { host: '192.0.2.7', port: 10809, isSecure: false }, 'x', `nbd://192.0.2.7:10809/${secret}`],
  ['every address', { host: '0.0.0.0', port: 1, isSecure: true }, 'images.example', `nbds://images.example:1/${secret}`],
  ['every address of IPv6', { host: '::', port: 1, isSecure: true }, '[2001:db8::1]', `nbds://[2001:db8::1]:1/${secret}`],
  ['an address of IPv6', { host: '::1', port: 1, isSecure: false }, 'x', `nbd://[::1]:1/${secret}`],
  ['every address, asked by a host that is none', { host: '0.0.0.0', port: 1, isSecure: true }, 'a b/"', null],
]
for (const [what, tcp, asked, uri] of addresses) {
  test(`the address over TCP, listening on ${what}`, () => {
    assert.equal(exportUris({ socketPath: '/s', tcp }, secret, asked).tcp, uri)
  })
}

test('the path of the socket is escaped in the address', () => {
  const { unix } = exportUris({ socketPath: '/srv/my data/ä&b/nbd.sock', tcp: null }, secret, 'x')
  assert.equal(unix, `nbd+unix:///${secret}?socket=/srv/my%20data/%C3%A4%26b/nbd.sock`)
  assert.equal(new URL(unix).searchParams.get('socket'), '/srv/my data/ä&b/nbd.sock')
})
