import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { after, before, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { bytesSource } from '../../../disk/block/memory-source.ts'
import { openOva } from '../../../disk/containers/index.ts'
import { openImage } from '../../../disk/formats/index.ts'
import { type ImageServer, imageServer } from './image-server.suite.ts'

let server: ImageServer
before(async () => {
  server = await imageServer({ maxImageBytes: 32 * 1024 * 1024 })
})
after(() => server.close())

interface Listed {
  images: { id: string; name: string }[]
  first: string
  next?: string
}

// ---------------------------------------------------------------- discovery and errors

test('the versions are told to whoever asks', async () => {
  const root = await server.ask('GET', '/', { as: null })
  const versions = await server.ask('GET', '/versions', { as: null })
  assert.deepEqual([root.status, versions.status], [300, 200])
  const [newest] = (versions.json() as { versions: { id: string; status: string; links: { href: string }[] }[] }).versions
  assert.deepEqual([newest?.id, newest?.status, newest?.links[0]?.href], ['v2.15', 'CURRENT', `${server.base}/v2/`])
})

test('without a token nothing is told, and how to get one', async () => {
  const answer = await server.ask('GET', '/v2/images', { as: null })
  assert.equal(answer.status, 401)
  assert.match(answer.headers.get('www-authenticate') ?? '', /^Keystone uri="http:.*\/identity"$/)
})

for (const [accept, type, shape] of [
  ['application/json', 'application/json', /^\{"message":"there is no image.*"code":"404 Not Found","title":"Not Found"\}$/],
  ['*/*', 'text/html', /^<html>[\s\S]*<h1>404 Not Found<\/h1>[\s\S]*&lt;b&gt;/],
  ['text/html;q=0.5, application/json;q=0.9', 'application/json', /^\{/],
  ['text/plain', 'text/plain', /^404 Not Found\n\nthere is no image/],
  ['application/json;q=0', 'text/plain', /^404/],
] as const) {
  test(`an error is written as the client asks: ${accept}`, async () => {
    const { status, headers, text } = await server.ask('GET', '/v2/images/<b>', { headers: { accept } })
    assert.equal(status, 404)
    assert.match(headers.get('content-type') ?? '', new RegExp(`^${type}`))
    assert.match(text, shape)
    assert.equal(headers.get('x-imprint-error'), 'not-found')
    assert.match(headers.get('x-openstack-request-id') ?? '', /^req-/)
  })
}

for (const [path, method, allow] of [
  ['/v2/images', 'PUT', 'GET, POST'],
  ['/v2/images/x', 'POST', 'GET, PATCH, DELETE'],
  ['/v2/images/x/file', 'DELETE', 'GET, HEAD, PUT'],
  ['/v2/images/x/stage', 'GET', 'PUT'],
  ['/v2/images/x/members', 'PATCH', 'GET, POST'],
  ['/v2/images/x/members/y', 'POST', 'GET, PUT, DELETE'],
  ['/v2/images/x/tags/y', 'GET', 'PUT, DELETE'],
  ['/v2/images/x/actions/deactivate', 'GET', 'POST'],
  ['/v2/images/x/import', 'GET', 'POST'],
  ['/v2/tasks', 'PUT', 'GET, POST'],
  ['/v2/info/stores', 'POST', 'GET'],
] as const) {
  test(`${method} ${path} is 405 and names what is allowed`, async () => {
    const answer = await server.ask(method, path)
    assert.deepEqual([answer.status, answer.headers.get('allow')], [405, allow])
  })
}

// ---------------------------------------------------------------- records

test('create answers with the image and where it is', async () => {
  const answer = await server.ask('POST', '/v2/images', {
    json: { name: 'n', disk_format: 'qcow2', container_format: 'bare', my_key: 'v', tags: ['b', 'a'] },
  })
  assert.equal(answer.status, 201)
  const image = answer.json() as Record<string, unknown>
  assert.equal(answer.headers.get('location'), `${server.base}/v2/images/${image.id}`)
  assert.equal(answer.headers.get('openstack-image-import-methods'), 'glance-direct,web-download,copy-image')
  const { id, created_at, updated_at, ...rest } = image
  assert.match(String(created_at), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  assert.equal(updated_at, created_at)
  assert.deepEqual(rest, {
    my_key: 'v',
    name: 'n',
    disk_format: 'qcow2',
    container_format: 'bare',
    visibility: 'shared',
    size: null,
    virtual_size: null,
    status: 'queued',
    checksum: null,
    protected: false,
    min_ram: 0,
    min_disk: 0,
    owner: 'mine',
    os_hidden: false,
    os_hash_algo: null,
    os_hash_value: null,
    tags: ['a', 'b'],
    self: `/v2/images/${id}`,
    file: `/v2/images/${id}/file`,
    schema: '/v2/schemas/image',
  })
  const shown = await server.ask('GET', `/v2/images/${id}`)
  assert.deepEqual(shown.json(), image)
})

for (const body of ['', '{bad', '[]', '3', '"x"', 'null', '\xff\xfe']) {
  test(`create refuses the body ${JSON.stringify(body)}`, async () => {
    const answer = await server.ask('POST', '/v2/images', { body: Buffer.from(body, 'latin1') })
    assert.equal(answer.status, 400)
  })
}

test('a body beyond the limit is 413', async () => {
  const answer = await server.ask('POST', '/v2/images', { json: { a: 'x'.repeat(2 * 1024 * 1024) } })
  assert.equal(answer.status, 413)
})

const patches: readonly [string, unknown, number][] = [
  ['an object instead of a list', {}, 400],
  ['an operation that is no object', [3], 400],
  ['an unknown operation', [{ op: 'move', path: '/a', value: 'x' }], 400],
  ['no operation', [{ path: '/a', value: 'x' }], 400],
  ['no path', [{ op: 'add', value: 'x' }], 400],
  ['a path that is no text', [{ op: 'add', path: ['a'], value: 'x' }], 400],
  ['a path without slash', [{ op: 'add', path: 'a', value: 'x' }], 400],
  ['a path of two levels', [{ op: 'add', path: '/a/b', value: 'x' }], 400],
  ['one tag by its place', [{ op: 'add', path: '/tags/-', value: 'x' }], 400],
  ['a wrong escape', [{ op: 'add', path: '/a~2', value: 'x' }], 400],
  ['no value', [{ op: 'add', path: '/a' }], 400],
  ['a thousand and one operations', Array.from({ length: 1001 }, () => ({ op: 'add', path: '/a', value: 'x' })), 413],
  ['a location', [{ op: 'add', path: '/locations/-', value: { url: 'file:///etc/passwd', metadata: {} } }], 403],
  ['all locations', [{ op: 'replace', path: '/locations', value: [] }], 403],
  ['what is read-only', [{ op: 'replace', path: '/checksum', value: 'x' }], 403],
  ['what is not there', [{ op: 'remove', path: '/nothing' }], 409],
]
for (const [what, operations, status] of patches) {
  test(`a patch with ${what} is ${status}`, async () => {
    const answer = await server.patch(await server.create(), operations)
    assert.equal(answer.status, status, answer.text)
  })
}

test('a patch escapes slash and tilde, and takes tags as a list', async () => {
  const id = await server.create()
  const answer = await server.patch(id, [
    { op: 'add', path: '/a~1b~0c', value: 'x' },
    { op: 'replace', path: '/tags', value: ['z', 'y', 'z'] },
  ])
  const image = answer.json() as Record<string, unknown>
  assert.deepEqual([answer.status, image['a/b~c'], image.tags], [200, 'x', ['y', 'z']])
})

test('the older media type names the operation by its member', async () => {
  const id = await server.create()
  const older = 'application/openstack-images-v2.0-json-patch'
  assert.equal((await server.patch(id, [{ add: '/a', value: 'x' }], older)).status, 200)
  assert.equal((await server.patch(id, [{ add: '/a', value: 'x' }], older)).status, 409)
  assert.equal((await server.patch(id, [{ add: '/b', remove: '/a' }], older)).status, 400)
  const other = await server.patch(id, [], 'application/json-patch+json')
  assert.equal(other.status, 415)
  assert.match(other.headers.get('accept-patch') ?? '', /v2\.0-json-patch, .*v2\.1-json-patch/)
})

// ---------------------------------------------------------------- lists

test('pages follow each other by next, each image once, in order', async () => {
  const names = Array.from({ length: 7 }, (_, i) => `page-${i}`)
  for (const name of names) await server.create({ name, series: 'pages' }, 'pager:member')
  const seen: string[] = []
  let path: string | undefined = '/v2/images?limit=3&sort=name:asc&series=pages'
  let pages = 0
  while (path) {
    const { images, next, first } = (await server.ask('GET', path, { as: 'pager:member' })).json() as Listed
    assert.equal(first, '/v2/images?limit=3&sort=name%3Aasc&series=pages')
    seen.push(...images.map(({ name }) => name))
    path = next
    pages += 1
  }
  assert.deepEqual(seen, names)
  assert.equal(pages, 3)
})

const lists: readonly [string, number, string[]?][] = [
  ['name=in:one,"t,wo"', 200, ['one', 't,wo']],
  ['name=eq:one', 200, ['one']],
  ['name=bad:one', 400],
  ['name=in:"one', 400],
  ['name=in:one"', 400],
  ['tag=x&tag=y', 200, ['one']],
  ['tag=y', 200, ['one', 't,wo']],
  ['colour=red', 200, ['one']],
  ['colour=blue', 200, []],
  ['min_ram=64', 200, ['t,wo']],
  ['min_ram_min=1', 200, ['t,wo']],
  ['virtual_size=5', 200, []],
  ['size_min=1', 200, []],
  ['size_min=x', 400],
  ['status=queued&disk_format=in:raw,qcow2', 200, ['one', 't,wo']],
  ['status=nonsense', 200, []],
  ['created_at=gt:2020-01-01T00:00:00Z', 200, ['one', 't,wo']],
  ['created_at=lt:2020-01-01', 200, []],
  ['created_at=gte:2020-01-01T00:00:00%2B02:00&updated_at=neq:2020-01-01T00:00:00', 200, ['one', 't,wo']],
  ['created_at=gt:yesterday', 400],
  ['created_at=gt:2020-13-01', 400],
  ['created_at=since:2020-01-01', 400],
  ['os_hidden=TRUE', 200, ['hidden']],
  ['os_hidden=perhaps', 400],
  ['protected=false', 200, ['one', 't,wo']],
  ['protected=False', 400],
  ['visibility=all', 200, ['one', 't,wo']],
  ['visibility=secret', 400],
  ['member_status=maybe', 400],
  ['limit=0', 200, []],
  ['limit=-1', 400],
  ['limit=many', 400],
  ['limit=99999', 200, ['one', 't,wo']],
  ['marker=00000000-0000-4000-8000-000000000000', 400],
  ['sort_key=owner', 400],
  ['sort_key=name&sort_dir=up', 400],
  ['sort_key=name&sort_key=id&sort_dir=asc&sort_dir=asc&sort_dir=asc', 400],
  ['sort=name&sort_key=id', 400],
  ['changes-since=2020-01-01', 400],
  ['__proto__=x&constructor=y', 200, []],
  [`name=${'x'.repeat(3000)}`, 200, []],
  [Array.from({ length: 100 }, (_, i) => `tag=t${i}`).join('&'), 400],
]
for (const [query, status, names] of lists) {
  test(`list ${query.slice(0, 80)} is ${status}${names ? `: ${names.join(' ')}` : ''}`, async () => {
    await listFixture()
    const answer = await server.ask('GET', `/v2/images?${query}`, { as: 'lister:member' })
    assert.equal(answer.status, status, answer.text)
    if (names) assert.deepEqual((answer.json() as Listed).images.map(({ name }) => name).sort(), names)
  })
}
let listed: Promise<unknown> | undefined
const listFixture = () => {
  listed ??= (async () => {
    await server.create({ name: 'one', tags: ['x', 'y'], colour: 'red' }, 'lister:member')
    await server.create({ name: 't,wo', tags: ['y'], min_ram: 64 }, 'lister:member')
    await server.create({ name: 'hidden', os_hidden: true }, 'lister:member')
  })()
  return listed
}

// ---------------------------------------------------------------- bytes

const content = randomBytes(300_000)
const md5 = createHash('md5').update(content).digest('hex')
let active: Promise<string> | undefined
const activeImage = () => {
  active ??= (async () => {
    const id = await server.create()
    assert.equal((await server.put(id, content)).status, 204)
    return id
  })()
  return active
}

test('a download is whole, and says what it is', async () => {
  const id = await activeImage()
  const { status, headers, bytes } = await server.ask('GET', `/v2/images/${id}/file`)
  assert.equal(status, 200)
  assert.equal(Buffer.compare(bytes, content), 0)
  assert.deepEqual(
    ['content-type', 'content-length', 'content-md5', 'etag', 'accept-ranges'].map((name) => headers.get(name)),
    ['application/octet-stream', '300000', md5, `"${md5}"`, 'bytes'],
  )
  const head = await server.ask('HEAD', `/v2/images/${id}/file`)
  assert.deepEqual([head.status, head.headers.get('content-length'), head.bytes.length], [200, '300000', 0])
})

const ranges: readonly [Record<string, string>, number, [number, number]?][] = [
  [{ range: 'bytes=0-9' }, 206, [0, 10]],
  [{ range: 'bytes=299999-' }, 206, [299_999, 300_000]],
  [{ range: 'bytes=65530-131080' }, 206, [65_530, 131_081]],
  [{ range: 'bytes=-10' }, 206, [299_990, 300_000]],
  [{ range: 'bytes=-999999' }, 206, [0, 300_000]],
  [{ range: 'bytes=10-99999999999999' }, 206, [10, 300_000]],
  [{ range: 'bytes=300000-' }, 416],
  [{ range: 'bytes=9-3' }, 416],
  [{ range: 'bytes=-' }, 416],
  [{ range: 'bytes=-0' }, 416],
  [{ range: 'lines=1-2' }, 416],
  [{ range: 'bytes=99999999999999999999-' }, 416],
  [{ range: 'bytes=0-1,5-6' }, 400],
  [{ range: 'bytes=0-9', 'if-range': '"another"' }, 200, [0, 300_000]],
  [{ range: 'bytes=0-9', 'if-range': `"${md5}"` }, 206, [0, 10]],
  [{ 'content-range': 'bytes 5-9/300000' }, 206, [5, 10]],
  [{ 'content-range': 'bytes 5-9/*' }, 206, [5, 10]],
  [{ 'content-range': 'bytes 5-300000/*' }, 416],
  [{ 'content-range': 'anything' }, 416],
  [{ 'if-none-match': `"${md5}"` }, 304],
  [{ 'if-none-match': '"another"' }, 200, [0, 300_000]],
]
for (const [headers, status, part] of ranges) {
  test(`a download with ${JSON.stringify(headers).slice(0, 60)} is ${status}`, async () => {
    const answer = await server.ask('GET', `/v2/images/${await activeImage()}/file`, { headers })
    assert.equal(answer.status, status, answer.text.slice(0, 200))
    if (part) assert.equal(Buffer.compare(answer.bytes, content.subarray(...part)), 0)
    if (status === 206 && part) assert.equal(answer.headers.get('content-range'), `bytes ${part[0]}-${part[1] - 1}/300000`)
    if (status === 416) assert.equal(answer.headers.get('content-range'), 'bytes */300000')
  })
}

test('a converted download has a size, an ETag and ranges of its own', async () => {
  const path = `/v2/images/${await activeImage()}/file?format=qcow2`
  const whole = await server.ask('GET', path)
  assert.equal(whole.status, 200)
  assert.equal(whole.bytes.subarray(0, 3).toString(), 'QFI')
  const etag = whole.headers.get('etag') ?? ''
  assert.notEqual(etag, `"${md5}"`)
  const part = await server.ask('GET', path, { headers: { range: 'bytes=100000-199999', 'if-range': etag } })
  assert.deepEqual([part.status, Buffer.compare(part.bytes, whole.bytes.subarray(100_000, 200_000))], [206, 0])
  assert.equal((await server.ask('GET', path.replace('qcow2', 'floppy'))).status, 415)
})

test('a form that is made from front to back comes whole, without a length, and the same each time', async () => {
  const id = await activeImage()
  const path = `/v2/images/${id}/file?format=vmdk&subformat=streamOptimized`
  const whole = await server.ask('GET', path)
  assert.deepEqual([whole.status, whole.bytes.subarray(0, 4).toString()], [200, 'KDMV'])
  assert.deepEqual([whole.headers.get('content-length'), whole.headers.get('accept-ranges')], [null, 'none'])
  const etag = whole.headers.get('etag') ?? ''
  const again = await server.ask('GET', path, { headers: { range: 'bytes=5-9' } })
  assert.deepEqual([again.status, again.headers.get('etag')], [200, etag])
  assert.equal(Buffer.compare(again.bytes, whole.bytes), 0)
  assert.equal((await server.ask('GET', path, { headers: { 'if-none-match': etag } })).status, 304)
  const head = await server.ask('HEAD', path)
  assert.deepEqual([head.status, head.headers.get('etag'), head.bytes.length], [200, etag, 0])
  const disk = await openImage('vmdk', bytesSource(whole.bytes))
  assert.equal(Buffer.compare(await disk.read(0, content.length), content), 0)
  assert.deepEqual([...server.world.ports.readers.held()], [], 'nothing is held for a download that ended')
  assert.equal((await server.ask('GET', path.replace('streamOptimized', 'whatever'))).status, 415)
})

for (const subformat of ['zstd', 'zlib']) {
  test(`a compressed qcow2 (${subformat}) is made once, and then had by ranges`, async () => {
    const id = await activeImage()
    const path = `/v2/images/${id}/file?format=qcow2&subformat=${subformat}`
    const before = await server.ask('HEAD', path)
    const etag = before.headers.get('etag') ?? ''
    assert.deepEqual([before.status, before.headers.get('content-length')], [200, null])
    const asked = [{}, { range: 'bytes=1000-1999', 'if-range': etag }, { range: 'bytes=5-' }]
    const [whole, part, rest] = await Promise.all(asked.map((headers) => server.ask('GET', path, { headers })))
    assert.deepEqual([whole?.status, part?.status, rest?.status], [200, 206, 206])
    const bytes = whole?.bytes ?? Buffer.alloc(0)
    assert.equal(whole?.headers.get('content-length'), String(bytes.length))
    assert.equal(part?.headers.get('content-range'), `bytes 1000-1999/${bytes.length}`)
    assert.ok(part?.bytes.equals(bytes.subarray(1000, 2000)) && rest?.bytes.equals(bytes.subarray(5)))
    assert.deepEqual([whole?.headers.get('etag'), part?.headers.get('etag')], [etag, etag])
    const after = await server.ask('HEAD', path)
    assert.deepEqual([after.headers.get('content-length'), after.headers.get('etag')], [String(bytes.length), etag])
    assert.equal((await server.ask('GET', path, { headers: { 'if-none-match': etag } })).status, 304)
    const stale = await server.ask('GET', path, { headers: { range: 'bytes=5-9', 'if-range': '"another"' } })
    assert.deepEqual([stale.status, stale.bytes.length], [200, bytes.length])
    assert.equal((await server.ask('GET', path, { headers: { range: `bytes=${bytes.length}-` } })).status, 416)
    const disk = await openImage('qcow2', bytesSource(bytes))
    assert.equal(Buffer.compare(await disk.read(0, content.length), content), 0)
    assert.deepEqual([...server.world.ports.readers.held()], [], 'nothing is held for a download that ended')
  })
}

test('an image can be had as an OVA, with what it says of its hardware, and comes back by an import as it was', async () => {
  const members = { hw_disk_bus: 'sata', hw_vif_model: 'e1000e', hw_firmware_type: 'uefi', min_ram: 512, name: 'a <machine>' }
  const id = await server.create(members)
  await server.put(id, content)
  const path = (image: string) => `/v2/images/${image}/file?format=ova`
  const got = await server.ask('GET', path(id))
  assert.deepEqual([got.status, got.headers.get('content-length')], [200, String(got.bytes.length)])
  const etag = got.headers.get('etag') ?? ''
  const part = await server.ask('GET', path(id), { headers: { range: 'bytes=512-599', 'if-range': etag } })
  assert.ok(part.bytes.equals(got.bytes.subarray(512, 600)))
  const appliance = await openOva(bytesSource(got.bytes))
  await appliance.verify()
  assert.equal(appliance.name, 'a <machine>')

  const copy = await server.create({ disk_format: 'vmdk', container_format: 'ova' })
  const headers = { 'content-type': 'application/octet-stream' }
  assert.equal((await server.ask('PUT', `/v2/images/${copy}/stage`, { body: got.bytes, headers })).status, 204)
  await server.ask('POST', `/v2/images/${copy}/import`, { json: { method: { name: 'glance-direct' } } })
  await server.world.ports.jobs.idle()
  const image = (await server.ask('GET', `/v2/images/${copy}`)).json() as Record<string, unknown>
  assert.deepEqual([image.status, image.container_format, image.disk_format, image.min_ram], ['active', 'bare', 'raw', 512])
  for (const name of ['hw_disk_bus', 'hw_vif_model', 'hw_firmware_type'] as const) assert.equal(image[name], members[name])
  assert.equal(Buffer.compare((await server.ask('GET', `/v2/images/${copy}/file`)).bytes.subarray(0, content.length), content), 0)

  await server.patch(id, [{ op: 'replace', path: '/hw_vif_model', value: 'virtio' }])
  assert.notEqual((await server.ask('HEAD', path(id))).headers.get('etag'), etag, 'it is another file')
  assert.equal((await server.ask('GET', `${path(id)}&subformat=x`)).status, 415)
})

test('who would rather come again than wait is told how far it is', async () => {
  const id = await server.create()
  await server.put(id, randomBytes(300_000))
  const path = `/v2/images/${id}/file?format=qcow2&subformat=zlib`
  const headers = { prefer: 'respond-async, wait=0' }
  const first = await server.ask('GET', path, { headers })
  assert.equal(first.status, 202)
  assert.deepEqual([first.headers.get('retry-after'), first.headers.get('preference-applied')], ['1', 'respond-async'])
  assert.match(first.text, /^\{"status":"(waiting|converting)","done_bytes":\d+,"total_bytes":(null|\d+)\}$/)
  const whole = await server.ask('GET', path, { headers: { prefer: 'respond-async, wait=60' } })
  assert.deepEqual([whole.status, whole.bytes.subarray(0, 3).toString()], [200, 'QFI'])
  assert.equal((await server.ask('GET', path, { headers })).status, 200, 'it is there')
  await server.ask('DELETE', `/v2/images/${id}`)
  assert.equal((await server.ask('GET', path, { headers })).status, 404)
})

test('who goes while it is made is not waited for, and nothing is held for them', async () => {
  const id = await server.create()
  await server.put(id, randomBytes(8 * 1024 * 1024))
  const gone = new AbortController()
  const path = `${server.base}/v2/images/${id}/file?format=qcow2&subformat=zlib`
  const asked = fetch(path, { headers: { 'x-auth-token': 'mine:member' }, signal: gone.signal })
  while (server.world.ports.readers.held().next().done) await turn()
  gone.abort()
  await assert.rejects(asked)
  while (!server.world.ports.readers.held().next().done) await turn()
  assert.equal(server.world.problems.length, 0)
})

test('a format may be asked for by its media type', async () => {
  const headers = { accept: 'application/x-vhd-disk, */*;q=0.5' }
  const answer = await server.ask('GET', `/v2/images/${await activeImage()}/file`, { headers })
  assert.deepEqual(
    [answer.status, answer.headers.get('content-type'), answer.headers.get('vary')],
    [200, 'application/x-vhd-disk', 'accept'],
  )
  assert.equal(answer.bytes.subarray(-512, -504).toString(), 'conectix')
})

test('what cannot be had as a client would like it best is had as it is', async () => {
  const id = await server.create({ disk_format: 'ami', container_format: 'ami' })
  await server.put(id, content)
  const headers = { accept: 'application/x-qemu-disk, */*;q=0.1' }
  const answer = await server.ask('GET', `/v2/images/${id}/file`, { headers })
  assert.deepEqual([answer.status, answer.headers.get('content-type')], [200, 'application/octet-stream'])
  assert.equal(Buffer.compare(answer.bytes, content), 0)
  assert.equal((await server.ask('GET', `/v2/images/${id}/file?format=qcow2`, { headers })).status, 415)
})

test('bytes are sent as bytes, or not at all', async () => {
  const id = await server.create()
  for (const headers of [{}, { 'content-type': 'application/json' }, { 'content-type': 'text/plain' }]) {
    const answer = await server.ask('PUT', `/v2/images/${id}/file`, {
      body: Buffer.from('x'),
      headers: headers as Record<string, string>,
    })
    assert.equal(answer.status, 415)
  }
  const unknown = { 'content-type': 'application/octet-stream', 'x-image-meta-store': 'elsewhere' }
  assert.equal((await server.ask('PUT', `/v2/images/${id}/file`, { body: Buffer.from('x'), headers: unknown })).status, 400)
  assert.equal((await server.ask('GET', `/v2/images/${id}/file`)).status, 204)
})

test('a body without length comes in whole', async () => {
  const id = await server.create()
  const pieces = [content.subarray(0, 100_000), content.subarray(100_000)]
  const answer = await server.put(id, ReadableStream.from(pieces))
  assert.equal(answer.status, 204)
  assert.equal(Buffer.compare((await server.ask('GET', `/v2/images/${id}/file`)).bytes, content), 0)
})

test('of thirty uploads at once to one image one succeeds, the others are told 409', async () => {
  const id = await server.create()
  const bodies = Array.from({ length: 30 }, (_, i) => Buffer.alloc(200_000, `${i} `))
  const statuses = await Promise.all(bodies.map(async (body) => (await server.put(id, body)).status))
  assert.equal(statuses.filter((status) => status === 204).length, 1)
  assert.ok(statuses.every((status) => status === 204 || status === 409))
  const winner = bodies[statuses.indexOf(204)]!
  assert.equal(Buffer.compare((await server.ask('GET', `/v2/images/${id}/file`)).bytes, winner), 0)
})

test('who sends more than there may be gets an answer, and the image back', async () => {
  const id = await server.create()
  const body = ReadableStream.from(
    (function* () {
      for (let sent = 0; sent < 40; sent += 1) yield new Uint8Array(1024 * 1024)
    })(),
  )
  const answer = await server.put(id, body)
  assert.deepEqual([answer.status, answer.headers.get('x-imprint-error')], [413, 'too-large'])
  const image = (await server.ask('GET', `/v2/images/${id}`)).json() as Record<string, unknown>
  assert.equal(image.status, 'queued')
  assert.match(String(image.imprint_failure), /larger than the limit/)
})

/** An upload by hand: the head, then what the test sends. */
async function uploadByHand(id: string, length: number, as = 'mine:member') {
  const socket = connect(server.port, '127.0.0.1')
  await once(socket, 'connect')
  socket.write(
    `PUT /image/v2/images/${id}/file HTTP/1.1\r\nhost: x\r\nx-auth-token: ${as}\r\ncontent-type: application/octet-stream\r\ncontent-length: ${length}\r\n\r\n`,
  )
  return socket
}
async function untilStatus(id: string, wanted: string): Promise<Record<string, unknown>> {
  for (;;) {
    const image = (await server.ask('GET', `/v2/images/${id}`)).json() as Record<string, unknown>
    if (image.status === wanted) return image
    await turn()
  }
}

test('a body that is cut off gives the image back', async () => {
  const id = await server.create()
  const socket = await uploadByHand(id, 1_000_000)
  socket.write(randomBytes(300_000))
  await untilStatus(id, 'saving')
  socket.destroy()
  const image = await untilStatus(id, 'queued')
  assert.match(String(image.imprint_failure), /connection broke|went away/)
  assert.equal((await server.put(id, content)).status, 204)
})

test('a token that expires while the bytes come does not matter', async () => {
  const id = await server.create({}, 'mine:admin')
  const socket = await uploadByHand(id, 200_000, 'mine:admin')
  socket.write(content.subarray(0, 100_000))
  await untilStatus(id, 'saving')
  server.expired.add('mine:admin')
  socket.write(content.subarray(100_000, 200_000))
  const [answer] = (await once(socket, 'data')) as [Buffer]
  assert.match(answer.toString(), /^HTTP\/1\.1 204/)
  server.expired.delete('mine:admin')
  socket.destroy()
  await untilStatus(id, 'active')
})

test('an image deleted while its bytes come: 410, and nothing is left', async () => {
  const id = await server.create()
  const socket = await uploadByHand(id, 200_000)
  socket.write(content.subarray(0, 100_000))
  await untilStatus(id, 'saving')
  assert.equal((await server.ask('DELETE', `/v2/images/${id}`)).status, 204)
  socket.write(content.subarray(100_000, 200_000))
  const [answer] = (await once(socket, 'data')) as [Buffer]
  assert.match(answer.toString(), /^HTTP\/1\.1 410/)
  socket.destroy()
  assert.equal((await server.ask('GET', `/v2/images/${id}`)).status, 404)
})

test('a client that goes away in the middle of a download leaves the service as it was', async () => {
  const id = await server.create()
  assert.equal((await server.put(id, randomBytes(8 * 1024 * 1024))).status, 204)
  const socket = connect(server.port, '127.0.0.1')
  await once(socket, 'connect')
  socket.write(`GET /image/v2/images/${id}/file HTTP/1.1\r\nhost: x\r\nx-auth-token: mine:member\r\n\r\n`)
  await once(socket, 'data')
  socket.destroy()
  assert.equal((await server.ask('GET', `/v2/images/${id}/file`)).bytes.length, 8 * 1024 * 1024)
  assert.deepEqual([...server.world.ports.readers.held()], [])
})

// ---------------------------------------------------------------- the rest

test('staged and imported, a qcow2 becomes the disk in it, and says where it came from', async () => {
  const qcow2 = (await server.ask('GET', `/v2/images/${await activeImage()}/file?format=qcow2`)).bytes
  const id = await server.create({ disk_format: 'qcow2' })
  const headers = { 'content-type': 'application/octet-stream' }
  assert.equal((await server.ask('PUT', `/v2/images/${id}/stage`, { body: qcow2, headers })).status, 204)
  assert.equal((await server.ask('GET', `/v2/images/${id}`)).json().status, 'uploading')
  assert.equal((await server.ask('POST', `/v2/images/${id}/import`, { json: { method: { name: 'glance-direct' } } })).status, 202)
  const image = await untilStatus(id, 'active')
  assert.deepEqual([image.disk_format, image.imprint_origin_format, image.os_glance_failed_import], ['raw', 'qcow2', ''])
  assert.equal(image.imprint_origin_md5, createHash('md5').update(qcow2).digest('hex'))
  const disk = (await server.ask('GET', `/v2/images/${id}/file`)).bytes
  assert.equal(Buffer.compare(disk.subarray(0, content.length), content), 0)
  const { tasks } = (await server.ask('GET', `/v2/images/${id}/tasks`)).json() as { tasks: Record<string, unknown>[] }
  assert.deepEqual(
    tasks.map(({ type, status, image_id }) => [type, status, image_id]),
    [['api_image_import', 'success', id]],
  )
  const shown = { op: 'replace', path: '/visibility', value: 'community' }
  await server.ask('PATCH', `/v2/images/${id}`, {
    json: [shown],
    headers: { 'content-type': 'application/openstack-images-v2.1-json-patch' },
  })
  assert.equal((await server.ask('GET', `/v2/images/${id}`, { as: 'theirs:member' })).status, 200)
  assert.deepEqual((await server.ask('GET', `/v2/images/${id}/tasks`, { as: 'theirs:member' })).json().tasks, [])
  assert.equal((await server.ask('GET', '/v2/tasks')).status, 403)
  assert.equal((await server.ask('GET', '/v2/tasks?limit=1', { as: 'root:admin' })).json().tasks.length, 1)
  assert.equal((await server.ask('GET', `/v2/tasks/${tasks[0]?.id}`, { as: 'root:admin' })).status, 200)
  assert.equal((await server.ask('DELETE', `/v2/tasks/${tasks[0]?.id}`, { as: 'root:admin' })).status, 405)
})

const imports: readonly [string, unknown, number][] = [
  ['no method', {}, 400],
  ['an unknown method', { method: { name: 'teleport' } }, 400],
  ['nothing staged', { method: { name: 'glance-direct' } }, 409],
  ['a file', { method: { name: 'web-download', uri: 'file:///etc/passwd' } }, 400],
  ['an address of this machine', { method: { name: 'web-download', uri: 'https://127.0.0.1/x' } }, 400],
  ['the metadata address of clouds', { method: { name: 'web-download', uri: 'http://169.254.169.254/latest' } }, 400],
  ['an unknown store', { method: { name: 'web-download', uri: 'https://example.org/x' }, stores: ['elsewhere'] }, 409],
  ['a copy of what is not active', { method: { name: 'copy-image' } }, 409],
]
for (const [what, body, status] of imports) {
  test(`an import with ${what} is ${status}`, async () => {
    const answer = await server.ask('POST', `/v2/images/${await server.create()}/import`, { json: body })
    assert.equal(answer.status, status, answer.text)
  })
}

test('info tells the methods, the store and what is used of the quota', async () => {
  server.world.limits.set('counted', { image_count_total: 9 })
  await server.create({}, 'counted:member')
  const usage = (await server.ask('GET', '/v2/info/usage', { as: 'counted:member' })).json() as { usage: Record<string, unknown> }
  assert.deepEqual(usage.usage.image_count_total, { usage: 1, limit: 9 })
  assert.deepEqual(
    (await server.ask('GET', '/v2/info/stores')).json().stores.map((store: { id: string }) => store.id),
    ['imprint'],
  )
  assert.equal((await server.ask('GET', '/v2/info/stores/detail')).status, 403)
  assert.equal((await server.ask('GET', '/v2/info/stores/detail', { as: 'root:admin' })).status, 200)
  assert.deepEqual((await server.ask('GET', '/v2/info/import')).json()['import-methods'].value, [
    'glance-direct',
    'web-download',
    'copy-image',
  ])
  assert.deepEqual(
    [(await server.ask('GET', '/v2/cache')).status, (await server.ask('GET', '/v2/cache', { as: 'root:admin' })).status],
    [403, 404],
  )
})

test('the bytes of an image cannot be taken out of the only store', async () => {
  const id = await activeImage()
  assert.equal((await server.ask('DELETE', `/v2/stores/imprint/${id}`)).status, 403)
  assert.equal((await server.ask('DELETE', `/v2/stores/imprint/${id}`, { as: 'root:admin' })).status, 403)
  assert.equal((await server.ask('DELETE', `/v2/stores/elsewhere/${id}`)).status, 409)
})

test('members and tags over HTTP', async () => {
  const id = await server.create()
  const added = await server.ask('POST', `/v2/images/${id}/members`, { json: { member: 'theirs' } })
  assert.deepEqual([added.status, added.json().status, added.json().schema], [200, 'pending', '/v2/schemas/member'])
  for (const json of [{}, { member: '' }, { member: 3 }, []]) {
    assert.equal((await server.ask('POST', `/v2/images/${id}/members`, { json })).status, 400)
  }
  const answered = await server.ask('PUT', `/v2/images/${id}/members/theirs`, {
    as: 'theirs:member',
    json: { status: 'accepted' },
  })
  assert.deepEqual([answered.status, answered.json().status], [200, 'accepted'])
  assert.equal((await server.ask('PUT', `/v2/images/${id}/members/theirs`, { json: { status: 'accepted' } })).status, 403)
  assert.equal((await server.ask('DELETE', `/v2/images/${id}/members/theirs`)).status, 204)
  assert.equal((await server.ask('PUT', `/v2/images/${id}/tags/`)).status, 404)
  assert.equal((await server.ask('PUT', `/v2/images/${id}/tags/a%2Fb`)).status, 204)
  assert.deepEqual((await server.ask('GET', `/v2/images/${id}`)).json().tags, ['a/b'])
  assert.equal((await server.ask('DELETE', `/v2/images/${id}/tags/a%2Fb`)).status, 204)
  assert.equal((await server.ask('DELETE', `/v2/images/${id}/tags/a%2Fb`)).status, 404)
})
