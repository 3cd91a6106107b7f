/**
 * A token that expires while bytes are on their way, as in Glance 25: keystonemiddleware looks at it once, when the request comes,
 * and `upload` of glance/api/v2/image_data.py sees to it that the record can be saved at the end however old the token is by then.
 */
import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { after, before, test } from 'node:test'
import { HttpClient } from '../../cli/client/http-client.ts'
import { IdentityClient } from '../../cli/client/identity-client.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../../cli/real-service.suite.ts'

const HOUR_MS = 3_600_000
const MiB = 2 ** 20
let clock = Date.UTC(2026, 0, 1)
let service: RealService

before(async () => {
  service = await startService({ now: () => clock, tokenLifetimeMs: HOUR_MS })
})
after(() => service.close())

async function logIn(): Promise<string> {
  const http = new HttpClient(service.url)
  try {
    const account = { kind: 'password', user: 'admin', password: ADMIN_PASSWORD } as const
    return (await new IdentityClient(http).authenticate(account, 'admin')).token
  } finally {
    http.close()
  }
}
const ask = (token: string, path: string, init: RequestInit & { readonly duplex?: 'half' } = {}): Promise<Response> =>
  fetch(`${service.url}/image/v2${path}`, {
    ...init,
    headers: { 'x-auth-token': token, 'content-type': 'application/octet-stream', ...init.headers },
  })

async function create(token: string): Promise<string> {
  const id = randomUUID()
  const body = JSON.stringify({ id, disk_format: 'raw', container_format: 'bare' })
  const { status } = await ask(token, '/images', { method: 'POST', body, headers: { 'content-type': 'application/json' } })
  assert.equal(status, 201)
  return id
}

async function assertExpired(token: string): Promise<void> {
  const answer = await ask(token, '/images')
  assert.equal(answer.status, 401)
  assert.equal(answer.headers.get('x-imprint-error'), 'unauthenticated')
}

for (const { place, underWay, becomes } of [
  { place: 'file', underWay: 'saving', becomes: 'active' },
  { place: 'stage', underWay: 'uploading', becomes: 'uploading' },
] as const) {
  test(`bytes sent to /${place} are taken to their end although the token expires before, and the next request is refused`, async () => {
    const token = await logIn()
    const id = await create(token)
    const bytes = randomBytes(3 * MiB)
    const rest = Promise.withResolvers<void>()
    const body = ReadableStream.from(
      (async function* () {
        yield bytes.subarray(0, MiB)
        await rest.promise
        yield bytes.subarray(MiB)
      })(),
    )
    const answer = ask(token, `/images/${id}/${place}`, { method: 'PUT', body, duplex: 'half' })
    const image = async () => (await service.images.catalog.images.get(id))!
    while ((await image()).status !== underWay) await new Promise(setImmediate)
    clock += HOUR_MS + 1
    await assertExpired(token)
    rest.resolve()
    assert.equal((await answer).status, 204)
    const { status, manifest, stagedManifest } = await image()
    assert.equal(status, becomes)
    const stored = await Array.fromAsync(service.images.chunks.stream((manifest ?? stagedManifest)!, 0, bytes.length))
    assert.equal(Buffer.compare(Buffer.concat(stored), bytes), 0)
    await assertExpired(token)
  })
}

test('a download goes on to its end although the token expires before', async () => {
  const token = await logIn()
  const id = await create(token)
  const bytes = randomBytes(24 * MiB) // more than sockets hold on the way
  assert.equal((await ask(token, `/images/${id}/file`, { method: 'PUT', body: bytes })).status, 204)
  const answer = await ask(token, `/images/${id}/file`)
  assert.equal(answer.status, 200)
  const reader = answer.body!.getReader()
  const parts = [(await reader.read()).value!]
  clock += HOUR_MS + 1
  await assertExpired(token)
  for (let part = await reader.read(); !part.done; part = await reader.read()) parts.push(part.value)
  assert.equal(Buffer.compare(Buffer.concat(parts), bytes), 0)
})

test('an upload whose token has expired before it begins is refused, and the image stays as it was', async () => {
  const token = await logIn()
  const id = await create(token)
  clock += HOUR_MS
  assert.equal((await ask(token, `/images/${id}/file`, { method: 'PUT', body: randomBytes(1000) })).status, 401)
  assert.equal((await service.images.catalog.images.get(id))?.status, 'queued')
})
