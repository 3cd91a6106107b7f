import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fastify, { type FastifyInstance } from 'fastify'
import { isServiceError } from '../../../base/errors.ts'
import type { AuthenticatedCaller } from '../../../identity/identity.ts'
import { SqliteCatalog } from '../../../store/catalog/sqlite/sqlite-catalog.ts'
import { statusOf } from '../api.ts'
import { registerMetadefs } from './metadefs.ts'
import { registerSchemas, schemas } from './schemas.ts'

type Who = 'admin' | 'demo' | 'alt'
const callers = Object.fromEntries(
  (['admin', 'demo', 'alt'] as const).map((name): [Who, AuthenticatedCaller] => [
    name,
    {
      userId: `${name}-user`,
      userName: name,
      projectId: `${name}-project`,
      projectName: name,
      roles: new Set(name === 'admin' ? ['admin', 'member', 'reader'] : ['member', 'reader']),
      isAdmin: name === 'admin',
      systemScope: false,
      requestId: 'req-test',
      expiresAt: Number.MAX_SAFE_INTEGER,
      tokenKey: name,
    },
  ]),
) as Record<Who, AuthenticatedCaller>

let app: FastifyInstance
let catalog: SqliteCatalog
before(async () => {
  catalog = await SqliteCatalog.open({ path: ':memory:' })
  app = fastify({ routerOptions: { maxParamLength: 1024 } })
  app.decorateRequest('caller', null)
  app.register(
    async (scope) => {
      scope.addHook('onRequest', async (request) => {
        request.caller = callers[request.headers['x-who'] as Who]
      })
      scope.setErrorHandler((error: Error & { statusCode?: number }, _, reply) =>
        reply.code(isServiceError(error) ? statusOf[error.code] : (error.statusCode ?? 500)).send({ message: error.message }),
      )
      registerMetadefs(scope, { catalog })
      registerSchemas(scope)
    },
    { prefix: '/image/v2' },
  )
})
after(async () => {
  await app.close()
  await catalog.close()
})

async function ask(
  who: Who,
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
  path: string,
  body?: unknown,
  headers = {},
) {
  const payload = body === undefined ? {} : { payload: typeof body === 'string' ? body : JSON.stringify(body) }
  const answer = await app.inject({
    method,
    url: `/image/v2${path}`,
    headers: { 'x-who': who, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...payload,
  })
  const isJson = String(answer.headers['content-type']).startsWith('application/json')
  return { status: answer.statusCode, headers: answer.headers, body: isJson ? answer.json() : answer.body }
}

const root = '/metadefs/namespaces'
const full = (name: string) => ({
  namespace: name,
  visibility: 'public',
  protected: true,
  display_name: 'N',
  owner: 'someone',
  resource_type_associations: [{ name: 'OS::T::One', prefix: 'hw_', properties_target: 'image' }, { name: 'OS::T::Two' }],
  properties: {
    p1: { title: 'P1', type: 'string', enum: ['a'], default: 'a' },
    p2: { title: 'P2', type: 'integer', default: 3 },
  },
  objects: [
    { name: 'o1', description: 'd', required: ['q1'], properties: { q1: { title: 'Q1', type: 'string' } } },
    { name: 'o2' },
  ],
  tags: [{ name: 'tag1' }, { name: 'tag2' }],
})

test('a namespace is made with all that is given in it, and shown whole', async () => {
  const made = await ask('admin', 'POST', root, full('whole'))
  assert.equal(made.status, 201)
  assert.match(String(made.headers.location), /\/image\/v2\/metadefs\/namespaces\/whole$/)
  assert.deepEqual(made.body.tags, [{ name: 'tag1' }, { name: 'tag2' }])
  assert.deepEqual(made.body.objects[1], { name: 'o2' })
  const { body } = await ask('demo', 'GET', `${root}/whole`)
  assert.equal(body.properties.p2.default, '3')
  assert.deepEqual(body.tags, [{ name: 'tag2' }, { name: 'tag1' }])
  assert.equal(body.objects[0].self, '/v2/metadefs/namespaces/whole/objects/o1')
  assert.match(body.created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  assert.equal(body.resource_type_associations[0].prefix, 'hw_')
})

test('properties stand under the prefix of the resource type that is asked for', async () => {
  await ask('admin', 'POST', root, full('prefixed'))
  const { body } = await ask('demo', 'GET', `${root}/prefixed?resource_type=OS::T::One`)
  assert.deepEqual(Object.keys(body.properties), ['hw_p1', 'hw_p2'])
  assert.deepEqual(body.objects[0].required, ['hw_q1'])
  const one = `${root}/prefixed/properties`
  assert.equal((await ask('demo', 'GET', `${one}/hw_p1?resource_type=OS::T::One`)).body.name, 'p1')
  assert.equal((await ask('demo', 'GET', `${one}/p1?resource_type=OS::T::One`)).status, 404)
  assert.equal((await ask('demo', 'GET', `${one}/p1?resource_type=OS::T::Two`)).status, 404)
  assert.equal((await ask('demo', 'GET', `${one}/p1?resource_type=OS::T::No`)).status, 404)
})

test('nothing in a protected namespace can be deleted, and after an update everything can', async () => {
  await ask('admin', 'POST', root, full('guarded'))
  const paths = [
    '',
    '/objects',
    '/objects/o2',
    '/properties',
    '/properties/p2',
    '/tags',
    '/tags/tag2',
    '/resource_types/OS::T::Two',
  ]
  for (const path of paths) assert.equal((await ask('admin', 'DELETE', `${root}/guarded${path}`)).status, 403, path)
  const update = await ask('admin', 'PUT', `${root}/guarded`, { namespace: 'open', visibility: 'public' })
  assert.deepEqual(
    [update.status, update.body.namespace, update.body.owner, update.body.protected],
    [200, 'open', 'admin-project', false],
  )
  assert.equal((await ask('admin', 'GET', `${root}/guarded`)).status, 404)
  for (const path of paths.toReversed()) assert.equal((await ask('admin', 'DELETE', `${root}/open${path}`)).status, 204, path)
  assert.equal((await ask('admin', 'GET', `${root}/open`)).status, 404)
})

test('a private namespace is hidden from other projects, and looks like one that is not there', async () => {
  await ask('admin', 'POST', root, { namespace: 'hidden', owner: 'demo-project', tags: [{ name: 't' }] })
  assert.equal((await ask('demo', 'GET', `${root}/hidden`)).status, 200)
  for (const path of ['', '/tags', '/tags/t', '/objects', '/objects/x', '/properties', '/properties/x', '/resource_types']) {
    const [there, absent] = await Promise.all([
      ask('alt', 'GET', `${root}/hidden${path}`),
      ask('alt', 'GET', `${root}/absent${path}`),
    ])
    assert.equal(there.status, 404)
    assert.equal(there.body.message.replace('hidden', 'absent'), absent.body.message)
  }
  assert.equal((await ask('alt', 'GET', `${root}?marker=hidden`)).status, 404)
  assert.equal((await ask('alt', 'PUT', `${root}/hidden`, { namespace: 'hidden' })).status, 404)
  assert.equal((await ask('alt', 'DELETE', `${root}/hidden`)).status, 404)
})

test('only administrators write, the owner of the namespace included', async () => {
  await ask('admin', 'POST', root, { namespace: 'theirs', owner: 'demo-project', tags: [{ name: 't' }] })
  const writes: [Parameters<typeof ask>[1], string, unknown?][] = [
    ['PUT', '', { namespace: 'theirs' }],
    ['DELETE', ''],
    ['POST', '/tags/u'],
    ['POST', '/tags', { tags: [] }],
    ['PUT', '/tags/t', { name: 'u' }],
    ['DELETE', '/tags/t'],
    ['DELETE', '/tags'],
    ['POST', '/objects', { name: 'o' }],
    ['POST', '/properties', { name: 'p', title: 'P', type: 'string' }],
    ['POST', '/resource_types', { name: 'OS::T::Two' }],
    ['DELETE', '/resource_types/OS::T::Two'],
  ]
  for (const [method, path, body] of writes) {
    assert.equal((await ask('demo', method, `${root}/theirs${path}`, body)).status, 403, `${method} ${path}`)
  }
  assert.equal((await ask('demo', 'POST', root, { namespace: 'mine' })).status, 403)
})

test('names are compared without regard to case', async () => {
  await ask('admin', 'POST', root, { namespace: 'Cased', tags: [{ name: 'Tag' }] })
  assert.equal((await ask('admin', 'POST', root, { namespace: 'cASED' })).status, 409)
  assert.equal((await ask('admin', 'GET', `${root}/CASED/tags/tAG`)).body.name, 'Tag')
  assert.equal((await ask('admin', 'POST', `${root}/cased/tags/TAG`)).status, 409)
})

test('a list of tags replaces, or is added when the request says so, whole or not at all', async () => {
  await ask('admin', 'POST', root, { namespace: 'tagged', visibility: 'public' })
  const path = `${root}/tagged/tags`
  const names = async (query = '') => (await ask('demo', 'GET', path + query)).body.tags.map(({ name }: { name: string }) => name)
  const tags = (...list: string[]) => ({ tags: list.map((name) => ({ name })) })
  assert.equal((await ask('admin', 'POST', path, tags('a', 'b'))).status, 201)
  assert.equal((await ask('admin', 'POST', path, tags('c', 'd'), { 'x-openstack-append': 'True' })).status, 201)
  assert.deepEqual(await names(), ['d', 'c', 'b', 'a'])
  assert.equal((await ask('admin', 'POST', path, tags('e', 'a'), { 'x-openstack-append': 'true' })).status, 409)
  assert.equal((await ask('admin', 'POST', path, tags('f', 'f'))).status, 409)
  assert.deepEqual(await names('?limit=2&sort_key=name&sort_dir=asc'), ['a', 'b'])
  assert.deepEqual(await names('?limit=2&sort_key=name&sort_dir=asc&marker=b'), ['c', 'd'])
  assert.deepEqual(await names('?limit=0'), [])
  assert.equal((await ask('admin', 'PUT', `${path}/a`, { name: 'b' })).status, 409)
  assert.equal((await ask('admin', 'PUT', `${path}/a`, { name: 'z' })).body.name, 'z')
  assert.equal((await ask('admin', 'POST', path, tags('only'))).status, 201)
  assert.deepEqual(await names(), ['only'])
})

test('the list of namespaces is filtered, sorted and cut into pages whose links lead on', async () => {
  for (const name of ['page-c', 'page-a', 'page-b']) {
    await ask('admin', 'POST', root, {
      namespace: name,
      visibility: 'public',
      resource_type_associations: [{ name: 'OS::T::Page' }],
    })
  }
  const seen: string[] = []
  let next = `/v2${root}?resource_types=OS::T::Page,OS::T::No&sort_key=namespace&sort_dir=asc&limit=2`
  for (let pages = 0; next; pages += 1) {
    assert.ok(pages < 5)
    const { body } = await ask('demo', 'GET', next.replace('/v2', ''))
    seen.push(...body.namespaces.map(({ namespace }: { namespace: string }) => namespace))
    next = body.next
  }
  assert.deepEqual(seen, ['page-a', 'page-b', 'page-c'])
  const newest = await ask('demo', 'GET', `${root}?resource_types=OS::T::Page&limit=1`)
  assert.equal(newest.body.namespaces[0].namespace, 'page-b')
  assert.equal(newest.body.next, '/v2/metadefs/namespaces?resource_types=OS%3A%3AT%3A%3APage&limit=1&marker=page-b')
  assert.deepEqual((await ask('demo', 'GET', `${root}?resource_types=OS::T::Page&visibility=private`)).body.namespaces, [])
})

const refused: [Parameters<typeof ask>[1], string, unknown, number][] = [
  ['POST', root, {}, 400],
  ['POST', root, { namespace: 5 }, 400],
  ['POST', root, { namespace: '' }, 400],
  ['POST', root, { namespace: 'a/b' }, 400],
  ['POST', root, { namespace: 'x'.repeat(81) }, 400],
  ['POST', root, { namespace: 'n', colour: 'red' }, 400],
  ['POST', root, { namespace: 'n', created_at: 'now' }, 403],
  ['POST', root, { namespace: 'n', self: 'me' }, 403],
  ['POST', root, '{bad', 400],
  ['POST', root, '[]', 400],
  ['POST', root, 'null', 400],
  ['POST', root, undefined, 400],
  ['POST', root, { namespace: 'n', tags: [{ name: 'a' }, { name: 'A' }] }, 409],
  ['POST', root, { namespace: 'n', objects: [{ name: 'a' }, { name: 'A' }] }, 409],
  ['POST', root, { namespace: 'n', objects: [{ name: 'a', colour: 'red' }] }, 400],
  ['POST', root, { namespace: 'n', objects: [{}] }, 400],
  ['POST', root, { namespace: 'n', properties: { p: { title: 'P', type: 'string', colour: 'red' } } }, 400],
  ['POST', root, { namespace: 'n', tags: Array.from({ length: 2001 }, (_, i) => ({ name: `t${i}` })) }, 413],
  ['POST', root, { namespace: 'n', padding: 'x'.repeat(2 ** 20) }, 413],
  ['GET', `${root}?limit=-1`, undefined, 400],
  ['GET', `${root}?limit=abc`, undefined, 400],
  ['GET', `${root}?limit=1e9`, undefined, 400],
  ['GET', `${root}?sort_key=constructor`, undefined, 400],
  ['GET', `${root}?sort_dir=up`, undefined, 400],
  ['GET', `${root}?visibility=shared`, undefined, 400],
  ['GET', `${root}?marker=none`, undefined, 404],
  ['PUT', `${root}/none`, { namespace: 'none' }, 404],
]
for (const [method, path, body, status] of refused) {
  test(`${method} ${path} ${JSON.stringify(body)?.slice(0, 60) ?? ''} answers ${status}`, async () => {
    assert.equal((await ask('admin', method, path, body)).status, status)
  })
}

test('text is kept as it came, whatever a reader might make of it', async () => {
  for (const [index, text] of ['<img onerror=x>', '=cmd()', 'a\r\nINFO forged', '\u001b[2J', '\u202etxt', '🙂'].entries()) {
    await ask('admin', 'POST', root, { namespace: `text-${index}`, visibility: 'public', description: text })
    const { body } = await ask('demo', 'GET', `${root}/text-${index}`)
    assert.equal(body.description, text)
  }
})

test('a method that a path does not have is refused, and Allow names those that it has', async () => {
  const paths: [Parameters<typeof ask>[1], string, string][] = [
    ['PATCH', `${root}/x`, 'GET, PUT, DELETE'],
    ['HEAD', root, 'GET, POST'],
    ['PUT', `${root}/x/tags`, 'GET, POST, DELETE'],
    ['GET', `${root}/x/resource_types/y`, 'DELETE'],
    ['POST', '/metadefs/resource_types', 'GET'],
    ['POST', '/schemas/image', 'GET'],
  ]
  for (const [method, path, allow] of paths) {
    const { status, headers } = await ask('admin', method, path)
    assert.deepEqual([status, headers.allow], [405, allow], `${method} ${path}`)
  }
})

test('sixteen writers at once add to one namespace, and none is lost', async () => {
  await ask('admin', 'POST', root, { namespace: 'busy' })
  const added = await Promise.all(
    Array.from({ length: 16 }, (_, i) => ask('admin', 'POST', `${root}/busy/objects`, { name: `o${i}` })),
  )
  assert.ok(added.every(({ status }) => status === 201))
  assert.equal((await ask('admin', 'GET', `${root}/busy/objects`)).body.objects.length, 16)
})

for (const [path, schema] of Object.entries(schemas)) {
  test(`the schema ${path} is served as it is enforced`, async () => {
    const { status, body } = await ask('demo', 'GET', `/schemas/${path}`)
    assert.equal(status, 200)
    assert.deepEqual(body, JSON.parse(JSON.stringify(schema)))
  })
}
