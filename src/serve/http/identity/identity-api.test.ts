/** The identity API over HTTP: what every answer has, who may do what, and what hostile requests get. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import fc from 'fast-check'
import {
  ADMIN_PASSWORD,
  type Method,
  openService,
  passwordLogin,
  type Reply,
  type SendOptions,
} from './identity-service.suite.ts'

const service = await openService()
after(() => service.close())
const { send } = service

const member = await service.makeUser('ann')
const reader = await service.makeUser('bob', 'reader')
const [auditor, prefect] = [await service.makeUser('eve'), await service.makeUser('dan')]
const roleId = async (name: string) => (await send('GET', `/roles?name=${name}`)).json.roles[0].id as string
const readerRole = await roleId('reader')
await send('PUT', `/system/users/${auditor.id}/roles/${readerRole}`)
await send('PUT', `/domains/default/users/${prefect.id}/roles/${readerRole}`)
const tokenFor = async (name: string, password: string, scope: unknown) =>
  String(
    (await send('POST', '/auth/tokens', { token: null, body: passwordLogin(name, password, undefined, scope) })).headers[
      'x-subject-token'
    ],
  )
const tokens = {
  admin: service.adminToken,
  'system admin': await tokenFor('admin', ADMIN_PASSWORD, { system: { all: true } }),
  'system reader': await tokenFor(auditor.name, auditor.password, { system: { all: true } }),
  'domain reader': await tokenFor(prefect.name, prefect.password, { domain: { id: 'default' } }),
  member: member.token,
  reader: reader.token,
  unscoped: await tokenFor(member.name, member.password, 'unscoped'),
  nobody: null,
} as const
type Who = keyof typeof tokens

const isError = ({ json, status, headers }: Reply, expected: number) => {
  assert.equal(status, expected)
  assert.equal(json.error.code, expected)
  assert.equal(typeof json.error.message, 'string')
  assert.equal(typeof json.error.title, 'string')
  if (expected === 401) assert.match(String(headers['www-authenticate']), /^Keystone uri="http:\/\/[^"]+\/identity\/v3"$/)
}

// ---------------------------------------------------------------- who may do what

const looks: readonly Who[] = ['admin', 'system admin', 'system reader', 'domain reader']
const inspects: readonly Who[] = ['admin', 'system admin', 'system reader']
const admins: readonly Who[] = ['admin', 'system admin']
const ours = `/projects/${member.projectId}`
const her = `/users/${member.id}`
const grant = `${ours}/users/${member.id}/roles/${readerRole}`

const matrix: readonly { request: string; body?: unknown; may: readonly Who[] }[] = [
  { request: 'GET /users', may: looks },
  { request: `GET ${her}`, may: [...looks, 'member', 'unscoped'] },
  { request: `GET ${her}/projects`, may: [...looks, 'member', 'unscoped'] },
  { request: `GET ${her}/groups`, may: [...looks, 'member', 'unscoped'] },
  { request: 'GET /users/absent', may: looks },
  { request: 'POST /users', body: { user: { name: 'admin' } }, may: admins },
  { request: 'PATCH /users/absent', body: { user: { name: 'x' } }, may: admins },
  { request: 'DELETE /users/absent', may: admins },
  { request: 'GET /groups', may: looks },
  { request: 'GET /projects', may: looks },
  { request: `GET ${ours}`, may: [...looks, 'member'] },
  { request: `GET ${ours}/tags`, may: [...looks, 'member'] },
  { request: 'POST /projects', body: { project: { name: 'admin' } }, may: admins },
  { request: 'PATCH /projects/absent', body: { project: { name: 'x' } }, may: admins },
  { request: 'DELETE /projects/absent', may: admins },
  { request: `PUT ${ours}/tags`, body: { tags: ['a'] }, may: admins },
  { request: `DELETE ${ours}/tags`, may: admins },
  { request: 'GET /domains', may: inspects },
  { request: 'GET /domains/default', may: [...looks, 'member', 'reader', 'unscoped'] },
  { request: 'GET /roles', may: inspects },
  { request: `GET /roles/${readerRole}`, may: inspects },
  { request: 'POST /roles', body: { role: { name: 'admin' } }, may: admins },
  { request: 'PATCH /roles/absent', body: { role: { name: 'x' } }, may: admins },
  { request: 'DELETE /roles/absent', may: admins },
  { request: 'GET /role_assignments', may: looks },
  { request: `GET ${ours}${her}/roles`, may: looks },
  { request: `GET ${grant}`, may: looks },
  { request: `DELETE ${ours}${her}/roles/absent`, may: admins },
  { request: `PUT ${ours}${her}/roles/absent`, may: admins },
  { request: `PUT /system${her}/roles/absent`, may: admins },
  { request: 'GET /services', may: inspects },
  { request: 'GET /endpoints', may: inspects },
  { request: 'GET /regions', may: [...looks, 'member', 'reader', 'unscoped'] },
  { request: 'GET /registered_limits', may: [...looks, 'member', 'reader', 'unscoped'] },
  { request: 'POST /registered_limits', body: { registered_limits: [] }, may: admins },
  { request: 'DELETE /registered_limits/absent', may: admins },
  { request: 'GET /limits', may: [...looks, 'member', 'reader', 'unscoped'] },
  { request: 'GET /limits/absent', may: looks },
  { request: 'POST /limits', body: { limits: [] }, may: admins },
  { request: 'DELETE /limits/absent', may: admins },
  { request: `GET ${her}/application_credentials`, may: [...inspects, 'member', 'unscoped'] },
  { request: `DELETE ${her}/application_credentials/absent`, may: [...admins, 'member', 'unscoped'] },
  { request: 'GET /auth/projects', may: [...looks, 'member', 'reader', 'unscoped'] },
  { request: 'GET /auth/system', may: [...looks, 'member', 'reader', 'unscoped'] },
  { request: 'GET /auth/catalog', may: ['admin', 'member', 'reader'] },
]
for (const { request, body, may } of matrix) {
  const [method, path] = request.split(' ') as [Method, string]
  test(`${request.replaceAll(/[0-9a-f]{32}/g, '…')} is for ${may.join(', ')}`, async () => {
    for (const who of Object.keys(tokens) as Who[]) {
      const reply = await send(method, path, { token: tokens[who], ...(body === undefined ? {} : { body }) })
      if (who === 'nobody') isError(reply, 401)
      else if (may.includes(who)) assert.ok(![401, 403].includes(reply.status), `${who} got ${reply.status} ${reply.text}`)
      else isError(reply, 403)
    }
  })
}

test('a member sees the limits of the own project only, whatever the query asks', async () => {
  const [{ id: serviceId }] = (await send('GET', '/services?type=image')).json.services
  const limit = { service_id: serviceId, region_id: 'RegionOne', resource_name: 'image_count_total', resource_limit: 3 }
  const made = await send('POST', '/limits', { body: { limits: [{ ...limit, project_id: reader.projectId }] } })
  assert.equal(made.status, 201)
  assert.equal((await send('GET', '/limits', { token: member.token })).json.limits.length, 0)
  assert.equal((await send('GET', `/limits?project_id=${reader.projectId}`, { token: member.token })).json.limits.length, 0)
  assert.equal((await send('GET', '/limits', { token: reader.token })).json.limits.length, 1)
  assert.equal((await send('GET', `/limits?project_id=${reader.projectId}`)).json.limits.length, 1)
  assert.equal((await send('GET', `/limits/${made.json.limits[0].id}`, { token: member.token })).status, 403)
})

test('an application credential of another user is out of reach by way of one’s own path', async () => {
  const body = { application_credential: { name: 'robot' } }
  const made = await send('POST', `${her}/application_credentials`, { token: member.token, body })
  const { id } = made.json.application_credential
  isError(await send('GET', `/users/${reader.id}/application_credentials/${id}`, { token: reader.token }), 403)
  isError(await send('DELETE', `/users/${reader.id}/application_credentials/${id}`, { token: reader.token }), 403)
  assert.equal((await send('GET', `${her}/application_credentials/${id}`, { token: member.token })).status, 200)
  assert.equal(
    (await send('GET', `${her}/application_credentials/${id}`, { token: member.token })).text.includes('secret'),
    false,
  )
})

// ---------------------------------------------------------------- the protocol

test('discovery needs no token and names the address by which it was asked', async () => {
  const headers = { host: 'images.example.org:8080' }
  const versions = await send('GET', '^/identity', { token: null, headers })
  assert.equal(versions.status, 300)
  assert.equal(versions.headers.location, 'http://images.example.org:8080/identity/v3/')
  const version = await send('GET', '/', { token: null, headers })
  assert.equal(version.json.version.links[0].href, 'http://images.example.org:8080/identity/v3/')
})

test('the catalog in a token names every API at that address, on every interface', async () => {
  const headers = { host: 'images.example.org:8080' }
  const reply = await send('POST', '/auth/tokens', {
    token: null,
    headers,
    body: passwordLogin('ann', member.password, { id: member.projectId }),
  })
  const image = reply.json.token.catalog.find(({ type }: { type: string }) => type === 'image')
  assert.deepEqual(
    image.endpoints.map(({ interface: face, url, region }: Record<string, string>) => [face, url, region]),
    ['public', 'internal', 'admin'].map((face) => [face, 'http://images.example.org:8080/image', 'RegionOne']),
  )
})

test('HEAD answers what GET does, without a body', async () => {
  for (const path of [
    '/users',
    '/projects',
    '/roles',
    '/auth/projects',
    `${her}`,
    grant.replace(readerRole, 'absent'),
    '/users/absent',
  ]) {
    const [get, head] = [await send('GET', path), await send('HEAD', path)]
    assert.equal(head.status, get.status, path)
    assert.equal(head.text, '')
  }
})

test('a method that is not served is refused with the list of those that are', async () => {
  for (const [method, path, allow] of [
    ['PUT', '/users', 'GET, POST, HEAD'],
    ['GET', `${her}/password`, 'POST'],
    ['HEAD', `${her}/password`, 'POST'],
    ['POST', '/auth/catalog', 'GET, HEAD'],
  ] as const) {
    const reply = await send(method, path, { token: null })
    assert.equal(reply.status, 405)
    assert.equal(reply.headers.allow, allow)
  }
})

test('lists can be narrowed by equal and partial values', async () => {
  const named = async (query: string) =>
    (await send('GET', `/users?${query}`)).json.users.map(({ name }: { name: string }) => name).sort()
  assert.deepEqual(await named('name=ann'), ['ann'])
  assert.deepEqual(await named('name__contains=n'), ['admin', 'ann', 'dan'])
  assert.deepEqual(await named('name__startswith=a'), ['admin', 'ann'])
  assert.deepEqual(await named('name__icontains=AN'), ['ann', 'dan'])
  assert.deepEqual(await named('enabled=false'), [])
  assert.deepEqual(await named('domain_id=other'), [])
  assert.equal((await named('enabled=True')).length, 5)
})

test('assignments are found by user, role and scope, and with the implied ones when asked', async () => {
  const find = async (query: string) => (await send('GET', `/role_assignments?${query}`)).json.role_assignments
  assert.equal((await find(`user.id=${member.id}`)).length, 1)
  assert.equal((await find(`user.id=${member.id}&effective`)).length, 2)
  assert.equal((await find('scope.system=all')).length, 2)
  assert.equal((await find(`scope.project.id=${member.projectId}`)).length, 1)
  assert.equal((await find(`scope.domain.id=default`)).length, 1)
  assert.equal((await find(`role.id=${readerRole}&scope.system=all`)).length, 1)
  assert.deepEqual(await find('group.id=x'), [])
  const [named] = await find(`user.id=${member.id}&include_names`)
  assert.deepEqual([named.user.name, named.role.name, named.scope.project.name], ['ann', 'member', 'ann'])
})

// ---------------------------------------------------------------- hostile requests

const names = [
  'Zoë 🚀 名前',
  'quote"\\',
  '<script>',
  "'; DROP TABLE documents; --",
  '%2e%2e%2f',
  'constructor',
  'toString',
  ' padded ',
]
for (const name of names) {
  test(`a user may be named ${JSON.stringify(name)}, be found and log in by it`, async () => {
    const made = await send('POST', '/users', { body: { user: { name, password: name } } })
    assert.equal(made.status, 201)
    assert.equal(made.json.user.name, name)
    assert.equal((await send('GET', `/users?name=${encodeURIComponent(name)}`)).json.users[0].id, made.json.user.id)
    assert.equal((await send('POST', '/auth/tokens', { token: null, body: passwordLogin(name, name) })).status, 201)
    assert.equal((await send('DELETE', `/users/${made.json.user.id}`)).status, 204)
  })
}

test('two spellings of one name are one name', async () => {
  const [composed, decomposed] = ['Zo\u00eb', 'Zoe\u0308']
  const made = await send('POST', '/users', { body: { user: { name: composed } } })
  assert.equal((await send('POST', '/users', { body: { user: { name: decomposed } } })).status, 409)
  assert.equal((await send('GET', `/users?name=${encodeURIComponent(decomposed)}`)).json.users[0].id, made.json.user.id)
  await send('DELETE', `/users/${made.json.user.id}`)
})

for (const name of ['', '   ', 'line\r\nbreak', 'nul\u0000', '\u007f', '\ud800', 'n'.repeat(256)]) {
  test(`a user cannot be named ${JSON.stringify(name.slice(0, 12))}`, async () => {
    isError(await send('POST', '/users', { body: { user: { name } } }), 400)
  })
}

const bodies: readonly (readonly [string, unknown])[] = [
  ['no JSON', '{"user":'],
  ['a list', []],
  ['a string', '"user"'],
  ['null', 'null'],
  ['a prototype', '{"user": {"name": "x", "__proto__": {"enabled": false}}}'],
  ['nesting', `{"user": {"name": "x", "deep": ${'['.repeat(50_000)}${']'.repeat(50_000)}}}`],
  ['nesting of objects', `${'{"user":'.repeat(5_000)}1${'}'.repeat(5_000)}`],
]
for (const [name, body] of bodies) {
  test(`a body that is ${name} is refused`, async () => isError(await send('POST', '/users', { body }), 400))
}

test('a body beyond the limit is refused before it is read', async () => {
  for (const path of ['/users', '/auth/tokens']) {
    isError(await send('POST', path, { body: { user: { name: 'x'.repeat(120 * 1024) } } }), 413)
  }
})

test('a body in another media type is refused, an empty one is not', async () => {
  isError(await send('POST', '/users', { body: '<user/>', headers: { 'content-type': 'application/xml' } }), 400)
  const put = await send('PUT', grant, { body: '', headers: { 'content-type': 'application/json' } })
  assert.equal(put.status, 204)
  await send('DELETE', grant)
})

test('further attributes are kept, up to a size, and cannot pass for our own', async () => {
  const extra = {
    email: 'x@example.org',
    nested: { a: [1, null] },
    passwordHash: 'forged',
    links: { self: 'forged' },
    id: 'forged',
  }
  const made = await send('POST', '/users', { body: { user: { name: 'extra', ...extra } } })
  assert.equal(made.status, 201)
  assert.equal(made.json.user.email, 'x@example.org')
  assert.notEqual(made.json.user.id, 'forged')
  assert.notEqual(made.json.user.links.self, 'forged')
  isError(await send('POST', '/auth/tokens', { token: null, body: passwordLogin('extra', 'forged') }), 401)
  isError(await send('PATCH', `/users/${made.json.user.id}`, { body: { user: { big: 'x'.repeat(20_000) } } }), 400)
  await send('DELETE', `/users/${made.json.user.id}`)
})

/** Requests with all their fields, each of which is then replaced by what it should not be. */
const whole: readonly { path: string; method: Method; body: Record<string, unknown>; token?: string | null }[] = [
  {
    method: 'POST',
    path: '/users',
    body: {
      user: {
        name: 'w',
        enabled: true,
        description: 'd',
        default_project_id: 'p',
        password: 'p',
        domain_id: 'default',
        options: {},
      },
    },
  },
  {
    method: 'POST',
    path: '/projects',
    body: {
      project: {
        name: 'w',
        enabled: true,
        description: 'd',
        domain_id: 'default',
        parent_id: 'default',
        is_domain: false,
        tags: ['a'],
        options: {},
      },
    },
  },
  { method: 'POST', path: '/roles', body: { role: { name: 'w', description: 'd', options: {} } } },
  { method: 'POST', path: '/auth/tokens', token: null, body: passwordLogin('w', 'p', { name: 'w' }) },
  {
    method: 'POST',
    path: '/auth/tokens',
    token: null,
    body: { auth: { identity: { methods: ['application_credential'], application_credential: { id: 'x', secret: 's' } } } },
  },
  {
    method: 'POST',
    path: '/auth/tokens',
    token: null,
    body: { auth: { identity: { methods: ['token'], token: { id: 'x' } }, scope: { system: { all: true } } } },
  },
  {
    method: 'POST',
    path: `${her}/application_credentials`,
    token: member.token,
    body: {
      application_credential: {
        name: 'w',
        description: 'd',
        secret: 's',
        expires_at: '2040-01-01T00:00:00',
        roles: [{ name: 'member' }],
        unrestricted: false,
        access_rules: [],
      },
    },
  },
  { method: 'POST', path: `${her}/password`, token: null, body: { user: { original_password: 'a', password: 'b' } } },
  {
    method: 'POST',
    path: '/limits',
    body: {
      limits: [
        { project_id: 'p', service_id: 's', region_id: 'RegionOne', resource_name: 'r', resource_limit: 1, description: 'd' },
      ],
    },
  },
  {
    method: 'POST',
    path: '/registered_limits',
    body: {
      registered_limits: [{ service_id: 's', region_id: 'RegionOne', resource_name: 'r', default_limit: 1, description: 'd' }],
    },
  },
]
const odd = [
  0,
  -1,
  1e308,
  true,
  null,
  '',
  'x'.repeat(5000),
  [],
  [[]],
  [{}],
  {},
  { a: 1 },
  '\u0000',
  '\ud800',
  '../../etc',
  { id: 7 },
]

function* withOneReplaced(value: unknown, by: unknown): Generator<unknown> {
  yield by
  if (typeof value !== 'object' || value === null) return
  for (const key of Object.keys(value)) {
    for (const inner of withOneReplaced((value as Record<string, unknown>)[key], by)) {
      yield Array.isArray(value) ? [inner] : { ...value, [key]: inner }
    }
  }
}

for (const { method, path, body, token } of whole) {
  test(`${method} ${path.replaceAll(/[0-9a-f]{32}/g, '…')} refuses or takes a wrong type in any field, and never fails`, async () => {
    const quick = await openService({
      guesses: { free: 1e9, longestWaitMs: 0, memoryMs: 1 },
      accountGuesses: { free: 1e9, longestWaitMs: 0, memoryMs: 1 },
      logins: { burst: 1e9, perSecond: 1e9 },
    })
    const owner = token === member.token ? await quick.makeUser('ann') : undefined
    const at = owner ? path.replace(member.id, owner.id) : path
    for (const wrong of odd) {
      for (const request of withOneReplaced(body, wrong)) {
        const options: SendOptions = {
          body: request,
          token: owner ? owner.token : token === undefined ? quick.adminToken : token,
        }
        const reply = await quick.send(method, at, options)
        assert.ok(reply.status < 500, `${JSON.stringify(request)} → ${reply.status} ${reply.text}`)
        if (reply.status >= 400) assert.equal(reply.json.error.code, reply.status)
      }
    }
    await quick.close()
  })
}

test('any text in the place of an id, a tag or a filter is answered without a failure', async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: 'binary', maxLength: 80 }), async (text) => {
      const id = encodeURIComponent(text.toWellFormed()) || '-'
      for (const path of [
        `/users/${id}`,
        `/projects/${id}/tags/${id}`,
        `/users?name=${id}`,
        `/role_assignments?user.id=${id}`,
        `/limits/${id}`,
      ]) {
        const { status } = await send('GET', path)
        assert.ok(status < 500, `${path} → ${status}`)
      }
    }),
    { numRuns: 60 },
  )
})

test('a token with anything in it but a token is a 401', async () => {
  for (const token of [
    '',
    ' ',
    'x',
    `imp_${'A'.repeat(43)}`,
    'é',
    'a'.repeat(8000),
    `${member.token}x`,
    member.token.toLowerCase(),
    '{"a":1}',
  ]) {
    isError(await send('GET', '/auth/projects', { token, headers: { 'x-auth-token': token } }), 401)
  }
})

test('a thousand guesses at once are refused, most of them with the time to wait, and others can log in afterwards', async () => {
  const guess = (n: number) => send('POST', '/auth/tokens', { token: null, body: passwordLogin('admin', `guess ${n}`) })
  const replies = await Promise.all(Array.from({ length: 1000 }, (_, n) => guess(n)))
  const count = (status: number) => replies.filter((reply) => reply.status === status).length
  assert.equal(count(401) + count(429), 1000)
  assert.ok(count(401) < 100, `${count(401)} were hashed`)
  assert.ok(replies.some(({ status, headers }) => status === 429 && Number(headers['retry-after']) > 0))
  const other = await send('POST', '/auth/tokens', { token: null, body: passwordLogin('ann', member.password) })
  assert.equal(other.status, 201)
})
