import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import { after, before, test } from 'node:test'
import { HttpClient } from '../../../cli/client/http-client.ts'
import { IdentityClient } from '../../../cli/client/identity-client.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../../../cli/real-service.suite.ts'
import { encodeChunks, encodeLayout } from '../../../store/content/encode-chunks.ts'

const CHUNK = 65_536
const PASSWORD = 'a long enough password'
let service: RealService
/** Tokens by user: admin of everything; ada and bob are members of different projects, eve reads in ada's. */
const token: Record<string, string> = {}
let web: string

before(async () => {
  service = await startService()
  const http = new HttpClient(service.url)
  const identity = new IdentityClient(http)
  const login = async (user: string, password: string, project: string) =>
    (await identity.authenticate({ kind: 'password', user, password }, project)).token
  token.admin = await login('admin', ADMIN_PASSWORD, 'admin')
  http.token = token.admin
  const roles = await identity.list('roles')
  for (const [user, project, role] of [
    ['ada', 'web', 'member'],
    ['bob', 'ops', 'member'],
    ['eve', 'web', 'reader'],
  ] as const) {
    const home = (await identity.list('projects', project))[0] ?? (await identity.createProject(project, ''))
    if (project === 'web') web = home.id
    const made = await identity.createUser(user, PASSWORD, home.id)
    await identity.grant('PUT', home.id, made.id, roles.find(({ name }) => name === role)!.id)
    token[user] = await login(user, PASSWORD, project)
  }
  http.close()
})
after(async () => {
  await service.images.jobs.idle()
  await service.close()
})

interface Asked {
  readonly method?: string
  readonly as?: string
  readonly json?: unknown
  readonly bytes?: Uint8Array<ArrayBuffer>
}
async function ask(path: string, { method = 'GET', as, json, bytes }: Asked = {}) {
  const headers: Record<string, string> = as ? { 'x-auth-token': token[as]! } : {}
  if (json !== undefined) headers['content-type'] = 'application/json'
  if (bytes) headers['content-type'] = 'application/octet-stream'
  const body = json === undefined ? bytes : JSON.stringify(json)
  const answer = await fetch(`${service.url}/v1${path}`, { method, headers, ...(body === undefined ? {} : { body }) })
  const content = Buffer.from(await answer.arrayBuffer())
  const isJson = answer.headers.get('content-type')?.startsWith('application/json')
  // biome-ignore lint/suspicious/noExplicitAny: a test looks into what a client would read
  return { status: answer.status, content, json: (isJson ? JSON.parse(content.toString()) : undefined) as any }
}

const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()
const framesOf = (...chunks: Uint8Array[]) =>
  encodeChunks(chunks.map((bytes) => ({ digest: sha256(bytes), codec: 'plain' as const, bytes })))
const layoutOf = async (...chunks: (Uint8Array | null)[]) =>
  Buffer.from(Buffer.concat(await Array.fromAsync(encodeLayout(each(chunks.map((bytes) => bytes && sha256(bytes)))))))
async function* each<T>(items: readonly T[]): AsyncIterable<T> {
  yield* items
}
const begin = async (as: string, fileBytes: number, more: object = {}): Promise<string> => {
  const { status, json } = await ask('/uploads', {
    method: 'POST',
    as,
    json: { fileBytes, diskFormat: 'raw', image: { name: 'x' }, ...more },
  })
  assert.equal(status, 201, JSON.stringify(json))
  return json.id
}

test('the OpenAPI document is open to all and lists every route that docs/api-v1.md lists, and no other', async () => {
  const { status, json } = await ask('/openapi.json')
  assert.equal(status, 200)
  assert.equal(json.openapi, '3.1.0')
  const described = Object.entries(json.paths).flatMap(([path, methods]) =>
    Object.keys(methods as object).map((method) => `${method.toUpperCase()} ${path}`),
  )
  const written = [
    ...readFileSync(new URL('../../../../docs/api-v1.md', import.meta.url), 'utf8').matchAll(/^\| `([A-Z]+ \/v1[^`]*)`/gm),
  ].map((match) => match[1]!)
  assert.deepEqual(written.sort(), described.sort())
})

test('every route but the description needs a token', async () => {
  const { json } = await ask('/openapi.json')
  for (const [path, methods] of Object.entries(json.paths as Record<string, object>)) {
    if (path.endsWith('openapi.json')) continue
    for (const method of Object.keys(methods)) {
      const at = path.slice(3).replace('{id}', '00000000-0000-4000-8000-000000000000')
      const { status, json: body } = await ask(at, { method: method.toUpperCase() })
      assert.deepEqual([status, body?.code], [401, 'unauthenticated'], `${method} ${path}`)
    }
  }
})

test('an upload is lacks, chunks, commit; said twice the commit answers the same image', async () => {
  const [a, b] = [randomBytes(CHUNK), randomBytes(1234)]
  const id = await begin('ada', 2 * CHUNK + b.length)
  const digests = Buffer.concat([sha256(a), sha256(b)])
  assert.deepEqual([...(await ask(`/uploads/${id}/lacks`, { method: 'POST', as: 'ada', bytes: digests })).content], [1, 1])
  assert.equal((await ask(`/uploads/${id}/chunks`, { method: 'PUT', as: 'ada', bytes: framesOf(a, b) })).status, 204)
  const bytes = await layoutOf(a, null, b)
  const [first, second] = await Promise.all([1, 2].map(() => ask(`/uploads/${id}/commit`, { method: 'POST', as: 'ada', bytes })))
  assert.equal(first!.status, 200, JSON.stringify(first!.json))
  assert.equal(second!.json.image.id, first!.json.image.id)
  const third = await ask(`/uploads/${id}/commit`, { method: 'POST', as: 'ada', bytes })
  assert.equal(third.json.image.id, first!.json.image.id)
  const sizes = await ask(`/images/${first!.json.image.id}/sizes`, { as: 'ada' })
  assert.equal(sizes.json.allocatedBytes, CHUNK + b.length)
  assert.deepEqual((await ask(`/images/${first!.json.image.id}/parts`, { as: 'ada' })).json, { parts: [] })

  // the same project holds them now
  const again = await begin('ada', CHUNK)
  assert.deepEqual([...(await ask(`/uploads/${again}/lacks`, { method: 'POST', as: 'ada', bytes: digests })).content], [0, 0])
})

test('another project learns nothing of an upload, and nothing of the chunks that are there', async () => {
  const chunk = randomBytes(CHUNK)
  const id = await begin('ada', CHUNK)
  await ask(`/uploads/${id}/chunks`, { method: 'PUT', as: 'ada', bytes: framesOf(chunk) })
  const done = await ask(`/uploads/${id}/commit`, { method: 'POST', as: 'ada', bytes: await layoutOf(chunk) })
  const image = done.json.image.id

  for (const [method, path, bytes] of [
    ['POST', `/uploads/${id}/lacks`, Buffer.from(sha256(chunk))],
    ['PUT', `/uploads/${id}/chunks`, framesOf(chunk)],
    ['POST', `/uploads/${id}/commit`, await layoutOf(chunk)],
    ['DELETE', `/uploads/${id}`, undefined],
  ] as const) {
    const theirs = await ask(path, { method, as: 'bob', ...(bytes ? { bytes } : {}) })
    const absent = await ask(path.replace(id, 'absent'), { method, as: 'bob', ...(bytes ? { bytes } : {}) })
    assert.equal(theirs.status, 404, `${method} ${path}`)
    assert.deepEqual(theirs.json, absent.json)
  }
  const reader = await ask(`/uploads/${id}`, { method: 'DELETE', as: 'eve' })
  assert.deepEqual([reader.status, reader.json.code], [403, 'denied'], 'a reader of the project ends no upload')
  const own = await begin('bob', CHUNK)
  assert.deepEqual(
    [...(await ask(`/uploads/${own}/lacks`, { method: 'POST', as: 'bob', bytes: Buffer.from(sha256(chunk)) })).content],
    [1],
  )
  const byHash = await ask(`/uploads/${own}/commit`, { method: 'POST', as: 'bob', bytes: await layoutOf(chunk) })
  assert.deepEqual([byHash.status, byHash.json.code], [409, 'conflict'], 'a digest alone is no bytes')
  assert.equal((await ask(`/images/${image}/sizes`, { as: 'bob' })).status, 404)
  assert.equal((await ask(`/images/${image}/audit`, { as: 'bob' })).status, 404)
  assert.equal((await ask(`/projects/${web}/quota`, { as: 'bob' })).status, 404)
})

test('a commit that is refused leaves no image, and the upload can go on', async () => {
  const chunk = randomBytes(CHUNK)
  const id = await begin('ada', CHUNK, { image: { name: 'unfinished' } })
  const early = await ask(`/uploads/${id}/commit`, { method: 'POST', as: 'ada', bytes: await layoutOf(chunk) })
  assert.equal(early.json.code, 'conflict')
  const list = () => service.images.catalog.images.list({ viewer: { all: true }, names: ['unfinished'], limit: 10 })
  assert.deepEqual(await list(), [])
  await ask(`/uploads/${id}/chunks`, { method: 'PUT', as: 'ada', bytes: framesOf(chunk) })
  assert.equal((await ask(`/uploads/${id}/commit`, { method: 'POST', as: 'ada', bytes: await layoutOf(chunk) })).status, 200)
  assert.equal((await list()).length, 1)
})

test('a disk that is another format than it was said to be is refused, and leaves nothing', async () => {
  const chunk = Buffer.alloc(CHUNK)
  chunk.set(Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'))
  const id = await begin('ada', CHUNK, { image: { name: 'hostile' } })
  await ask(`/uploads/${id}/chunks`, { method: 'PUT', as: 'ada', bytes: framesOf(chunk) })
  const done = await ask(`/uploads/${id}/commit`, { method: 'POST', as: 'ada', bytes: await layoutOf(chunk) })
  assert.deepEqual([done.status, done.json.code], [400, 'invalid-image'])
  assert.deepEqual(await service.images.catalog.images.list({ viewer: { all: true }, names: ['hostile'], limit: 10 }), [])
})

const upload = { fileBytes: CHUNK, diskFormat: 'raw', image: {} }
const refused: readonly [name: string, path: string, asked: Asked, status: number, code: string][] = [
  ['a reader who begins an upload', '/uploads', { method: 'POST', as: 'eve', json: upload }, 403, 'denied'],
  [
    'a member who begins a public one',
    '/uploads',
    { method: 'POST', as: 'ada', json: { ...upload, image: { visibility: 'public' } } },
    403,
    'denied',
  ],
  ['a file of no bytes', '/uploads', { method: 'POST', as: 'ada', json: { ...upload, fileBytes: 0 } }, 400, 'invalid-request'],
  [
    'a file beyond the limit',
    '/uploads',
    { method: 'POST', as: 'ada', json: { ...upload, fileBytes: 2 ** 52 } },
    413,
    'too-large',
  ],
  [
    'a size that is no number',
    '/uploads',
    { method: 'POST', as: 'ada', json: { ...upload, fileBytes: 'many' } },
    400,
    'invalid-request',
  ],
  [
    'an unknown format',
    '/uploads',
    { method: 'POST', as: 'ada', json: { ...upload, diskFormat: 'floppy' } },
    400,
    'invalid-request',
  ],
  [
    'a read-only field among the properties',
    '/uploads',
    { method: 'POST', as: 'ada', json: { ...upload, image: { properties: { status: 'active' } } } },
    403,
    'denied',
  ],
  [
    'another owner among the properties',
    '/uploads',
    { method: 'POST', as: 'ada', json: { ...upload, image: { properties: { owner: 'x' } } } },
    400,
    'invalid-request',
  ],
  ['an unknown member', '/uploads', { method: 'POST', as: 'ada', json: { ...upload, extra: 1 } }, 400, 'invalid-request'],
  [
    'an upload to resume that is not there',
    '/uploads',
    { method: 'POST', as: 'ada', json: { ...upload, resume: 'absent' } },
    404,
    'not-found',
  ],
  ['no JSON', '/uploads', { method: 'POST', as: 'ada', bytes: Buffer.from('{') }, 400, 'invalid-request'],
  [
    'a member who sets a quota',
    '/projects/x/quota',
    { method: 'PUT', as: 'ada', json: { limits: { images: 5 } } },
    403,
    'denied',
  ],
  ['no limit to set', '/projects/x/quota', { method: 'PUT', as: 'admin', json: { limits: {} } }, 400, 'invalid-request'],
  ['a member who looks into the store', '/store', { as: 'ada' }, 403, 'denied'],
  ['a member who collects', '/store/collect', { method: 'POST', as: 'ada', json: {} }, 403, 'denied'],
  ['a member who checks', '/store/check', { method: 'POST', as: 'ada', json: {} }, 403, 'denied'],
  ['a member who rebuilds', '/store/rebuild', { method: 'POST', as: 'ada', json: {} }, 403, 'denied'],
  ['an id that is none', '/images/..%2f..%2fetc/sizes', { as: 'admin' }, 400, 'invalid-request'],
  ['a path that is none', '/nothing', { as: 'admin' }, 404, 'not-found'],
]
for (const [name, path, asked, status, code] of refused) {
  test(`${name} is refused with ${status} ${code}`, async () => {
    const answer = await ask(path, asked)
    assert.deepEqual([answer.status, answer.json?.code], [status, code], answer.content.toString())
  })
}

test('binary bodies that are not well formed are refused, and what came before stays', async () => {
  const chunk = randomBytes(CHUNK)
  const id = await begin('ada', 2 * CHUNK)
  const put = (bytes: Uint8Array<ArrayBuffer>) => ask(`/uploads/${id}/chunks`, { method: 'PUT', as: 'ada', bytes })
  const wrongDigest = Buffer.from(framesOf(chunk))
  wrongDigest[0]! ^= 1
  const bomb = encodeChunks([{ digest: sha256(chunk), codec: 'zstd', bytes: Buffer.from('28b52ffda4ffffffff00000000ff', 'hex') }])
  assert.ok([400, 413].includes((await put(bomb)).status))
  for (const bytes of [wrongDigest, framesOf(chunk).subarray(0, 1000), Buffer.alloc(37), randomBytes(5000)]) {
    const answer = await put(bytes)
    assert.deepEqual([answer.status, answer.json.code], [400, 'invalid-request'])
  }
  assert.equal((await put(Buffer.concat(Array.from({ length: 257 }, () => framesOf(chunk))))).json.code, 'too-large')
  assert.equal((await ask(`/uploads/${id}/lacks`, { method: 'POST', as: 'ada', bytes: Buffer.alloc(33) })).status, 400)
  assert.equal((await ask(`/uploads/${id}/lacks`, { method: 'POST', as: 'ada', bytes: Buffer.alloc(300_000) })).status, 413)
  assert.equal((await put(framesOf(chunk))).status, 204)
  for (const layout of [await layoutOf(chunk), Buffer.from([0, 0, 0, 0, 3]), Buffer.from([7]), Buffer.alloc(0)]) {
    const answer = await ask(`/uploads/${id}/commit`, { method: 'POST', as: 'ada', bytes: layout })
    assert.deepEqual([answer.status, answer.json.code], [400, 'invalid-request'])
  }
  const longer = await layoutOf(chunk, chunk, chunk)
  assert.equal((await ask(`/uploads/${id}/commit`, { method: 'POST', as: 'ada', bytes: longer })).json.code, 'too-large')
  assert.equal(
    (await ask(`/uploads/${id}/commit`, { method: 'POST', as: 'ada', bytes: await layoutOf(chunk, chunk) })).status,
    200,
  )
})

test('a client whose body is refused in the middle can send the rest, and gets its answer', async () => {
  const id = await begin('ada', CHUNK)
  for (const [path, method] of [
    [`/uploads/${id}/chunks`, 'PUT'],
    [`/uploads/${id}/lacks`, 'POST'],
    [`/uploads/${id}/commit`, 'POST'],
  ] as const) {
    const body = Buffer.alloc(64 * 2 ** 20, 0x07)
    const headers = { 'x-auth-token': token.ada!, 'content-type': 'application/octet-stream', 'content-length': body.length }
    const asking = request(`${service.url}/v1${path}`, { method, headers })
    const [[answer]] = await Promise.all([once(asking, 'response'), once(asking.end(body), 'finish')])
    assert.ok([400, 413].includes(answer.statusCode), `${path}: ${answer.statusCode}`)
    answer.resume()
    await once(answer, 'end')
  }
})

test('a client that hangs in its layout keeps nobody from giving the upload up; it is told, and can send the rest', async () => {
  const id = await begin('ada', 100_000 * CHUNK)
  const { json } = await ask('/uploads', {
    method: 'POST',
    as: 'ada',
    json: { ...upload, fileBytes: 100_000 * CHUNK, resume: id },
  })
  const layout = Buffer.alloc(5 + 100_000 * 32, 0x07)
  layout.set([1, 0, 1, 0x86, 0xa0]) // a run of 100,000 digests
  const headers = { 'x-auth-token': token.ada!, 'content-type': 'application/octet-stream', 'content-length': layout.length }
  const committing = request(`${service.url}/v1/uploads/${id}/commit`, { method: 'POST', headers })
  const answered = once(committing, 'response')
  committing.write(layout.subarray(0, 1000))
  const { images } = service.images.catalog
  while ((await images.get(json.imageId))?.status !== 'saving') await new Promise(setImmediate)
  assert.equal((await ask(`/uploads/${id}`, { method: 'DELETE', as: 'ada' })).status, 204)
  assert.equal((await images.get(json.imageId))?.status, 'deleted')
  const [[answer]] = await Promise.all([answered, once(committing.end(layout.subarray(1000)), 'finish')])
  assert.equal(answer.statusCode, 404)
  assert.match(JSON.stringify(await Array.fromAsync(answer, String)), /given up/)
})

test('an upload that does not fit is refused at the beginning, what is under way included', async () => {
  const set = (bytes: number) => ask(`/projects/${web}/quota`, { method: 'PUT', as: 'admin', json: { limits: { bytes } } })
  const { quotas } = (await ask(`/projects/${web}/quota`, { as: 'ada' })).json
  const used = quotas.find(({ name }: { name: string }) => name === 'bytes').usage
  assert.equal((await set(used + 40 * 2 ** 20)).status, 200)
  const id = await begin('ada', 30 * 2 ** 20)
  const second = await ask('/uploads', { method: 'POST', as: 'ada', json: { ...upload, fileBytes: 30 * 2 ** 20 } })
  assert.deepEqual([second.status, second.json.code], [413, 'over-quota'])
  assert.equal((await ask(`/uploads/${id}`, { method: 'DELETE', as: 'ada' })).status, 204)
  assert.equal((await ask(`/uploads/${id}`, { method: 'DELETE', as: 'ada' })).status, 404)
  await begin('ada', 30 * 2 ** 20)
  await set(-1)
})

test('a job streams its progress and ends with its result; whoever leaves ends it', async () => {
  const collected = await ask('/store/collect', { method: 'POST', as: 'admin', json: {} })
  const lines = collected.content
    .toString()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.ok(lines.slice(0, -1).every((line) => line.progress))
  assert.equal(typeof lines.at(-1).result.bytesFreed, 'number')

  const { hostname, port } = new URL(service.url)
  const socket = connect(Number(port), hostname)
  await once(socket, 'connect')
  socket.write(
    `POST /v1/store/check HTTP/1.1\r\nhost: x\r\nx-auth-token: ${token.admin}\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{"readData":true}`,
  )
  await once(socket, 'data')
  socket.destroy()
  let after = await ask('/store/collect', { method: 'POST', as: 'admin', json: {} })
  while (after.status === 409) after = await ask('/store/collect', { method: 'POST', as: 'admin', json: {} })
  assert.equal(after.status, 200)
})
