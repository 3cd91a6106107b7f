/**
 * Tokens, limits and lists are answered from memory (docs/decisions/catalog-durability.md). What is taken away or changed must
 * show with the first request after the answer to the change, however many requests are under way meanwhile.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { ADMIN_PASSWORD, type RealService, startService } from '../../cli/real-service.suite.ts'

let service: RealService
let admin: string
let roleId: string
before(async () => {
  service = await startService()
  admin = (await login('admin', ADMIN_PASSWORD, { name: 'admin', domain: { id: 'default' } })).token
  roleId = (await ask('GET', '/identity/v3/roles?name=member')).json.roles[0].id
})
after(() => service.close())

// biome-ignore lint/suspicious/noExplicitAny: a test looks into what a client would read
type Answer = { readonly status: number; readonly headers: Headers; readonly json: any }
async function ask(method: string, path: string, { as = admin, json, type = 'application/json' }: Asked = {}): Promise<Answer> {
  const response = await fetch(service.url + path, {
    method,
    headers: { 'x-auth-token': as, ...(json === undefined ? {} : { 'content-type': type }) },
    ...(json === undefined ? {} : { body: JSON.stringify(json) }),
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, json: text.startsWith('{') ? JSON.parse(text) : undefined }
}
interface Asked {
  readonly as?: string
  readonly json?: unknown
  readonly type?: string
}

async function login(name: string, password: string, project: object) {
  const user = { name, password, domain: { id: 'default' } }
  const auth = { identity: { methods: ['password'], password: { user } }, scope: { project } }
  const { headers, json } = await ask('POST', '/identity/v3/auth/tokens', { as: '', json: { auth } })
  return { token: String(headers.get('x-subject-token')), user: json.token.user.id as string }
}

let people = 0
/** A member of a project of its own. */
async function someone() {
  people += 1
  const [name, password] = [`user-${people}`, 'a long password']
  const project: string = (await ask('POST', '/identity/v3/projects', { json: { project: { name } } })).json.project.id
  const made = await ask('POST', '/identity/v3/users', { json: { user: { name, password } } })
  await ask('PUT', `/identity/v3/projects/${project}/users/${made.json.user.id}/roles/${roleId}`)
  return { ...(await login(name, password, { id: project })), project, password }
}
type Someone = Awaited<ReturnType<typeof someone>>

/** Asks over and over, in four rows, while `change` is made; then `isNew` must hold of the first answer of each row to a question put after it. */
async function whileAsking<T>(probe: () => Promise<T>, change: () => Promise<Answer>, isNew: (answer: T) => boolean) {
  assert.equal(isNew(await probe()), false)
  let changed = false
  const row = async () => {
    for (;;) {
      const last = changed
      const answer = await probe()
      if (last) return answer
    }
  }
  const rows = [row(), row(), row(), row()]
  const { status } = await change()
  assert.ok(status >= 200 && status < 300, `the change was answered by ${status}`)
  changed = true
  for (const answer of await Promise.all(rows)) assert.ok(isNew(answer), JSON.stringify(answer))
}

const user = ({ user }: Someone): string => `/identity/v3/users/${user}`
const endings: Readonly<Record<string, (who: Someone) => Promise<Answer>>> = {
  'its user is disabled': (who) => ask('PATCH', user(who), { json: { user: { enabled: false } } }),
  'its user gets another password': (who) => ask('PATCH', user(who), { json: { user: { password: 'another one' } } }),
  'its user changes the password': (who) =>
    ask('POST', `${user(who)}/password`, {
      as: who.token,
      json: { user: { original_password: who.password, password: 'another one' } },
    }),
  'its user is deleted': (who) => ask('DELETE', user(who)),
  'its role is taken away': (who) => ask('DELETE', `/identity/v3/projects/${who.project}/users/${who.user}/roles/${roleId}`),
  'its project is disabled': (who) =>
    ask('PATCH', `/identity/v3/projects/${who.project}`, { json: { project: { enabled: false } } }),
  'its project is deleted': (who) => ask('DELETE', `/identity/v3/projects/${who.project}`),
}
for (const [what, end] of Object.entries(endings)) {
  test(`a token that is in use is refused from the moment that ${what}`, async () => {
    const who = await someone()
    const probe = () => ask('GET', '/image/v2/images?limit=1', { as: who.token })
    await whileAsking(
      probe,
      () => end(who),
      ({ status }) => status === 401,
    )
  })
}

test('a token that is in use is refused from the moment that it is revoked', async () => {
  const who = await someone()
  const revoke = async () => {
    const response = await fetch(`${service.url}/identity/v3/auth/tokens`, {
      method: 'DELETE',
      headers: { 'x-auth-token': who.token, 'x-subject-token': who.token },
    })
    return { status: response.status, headers: response.headers, json: undefined }
  }
  await whileAsking(
    () => ask('GET', '/image/v2/images?limit=1', { as: who.token }),
    revoke,
    ({ status }) => status === 401,
  )
})

test('a token that is in use has a role from the moment that it is given', async () => {
  const who = await someone()
  const adminRole = (await ask('GET', '/identity/v3/roles?name=admin')).json.roles[0].id
  await whileAsking(
    () => ask('GET', '/identity/v3/users', { as: who.token }),
    () => ask('PUT', `/identity/v3/projects/${who.project}/users/${who.user}/roles/${adminRole}`),
    ({ status }) => status === 200,
  )
})

test('a create meets the limit as it was last set: the one for all, the project’s own, and none', async () => {
  const who = await someone()
  const image = { disk_format: 'raw', container_format: 'bare' }
  const create = async () => (await ask('POST', '/image/v2/images', { as: who.token, json: image })).status
  const [{ id: serviceId }] = (await ask('GET', '/identity/v3/services?type=image')).json.services
  const subject = { service_id: serviceId, region_id: 'RegionOne', resource_name: 'image_count_total' }
  const limit = (value: number) => ({ ...subject, default_limit: value })
  const own = (value: number) => ({ ...subject, project_id: who.project, resource_limit: value })
  const [known] = (await ask('GET', '/identity/v3/registered_limits?resource_name=image_count_total')).json.registered_limits

  const registered =
    known ??
    (await ask('POST', '/identity/v3/registered_limits', { json: { registered_limits: [limit(2)] } })).json.registered_limits[0]
  await ask('PATCH', `/identity/v3/registered_limits/${registered.id}`, { json: { registered_limit: { default_limit: 1 } } })
  assert.deepEqual([await create(), await create()], [201, 413])
  await ask('PATCH', `/identity/v3/registered_limits/${registered.id}`, { json: { registered_limit: { default_limit: 2 } } })
  assert.deepEqual([await create(), await create()], [201, 413])
  const made = await ask('POST', '/identity/v3/limits', { json: { limits: [own(3)] } })
  assert.deepEqual([await create(), await create()], [201, 413])
  const { id } = made.json.limits[0]
  await ask('PATCH', `/identity/v3/limits/${id}`, { json: { limit: { resource_limit: 4 } } })
  assert.deepEqual([await create(), await create()], [201, 413])
  await ask('PATCH', `/identity/v3/limits/${id}`, { json: { limit: { resource_limit: -1 } } })
  assert.deepEqual([await create(), await create()], [201, 201])
  await ask('DELETE', `/identity/v3/limits/${id}`)
  assert.equal(await create(), 413)
  await whileAsking(
    create,
    () => ask('PATCH', `/identity/v3/registered_limits/${registered.id}`, { json: { registered_limit: { default_limit: -1 } } }),
    (status) => status === 201,
  )
})

test('a list shows an image as it is from the moment that it changes, to its project and to those it is shared with', async () => {
  const [mine, theirs] = [await someone(), await someone()]
  const image = { disk_format: 'raw', container_format: 'bare', name: 'first', visibility: 'shared' }
  const { id } = (await ask('POST', '/image/v2/images', { as: mine.token, json: image })).json
  const names = async ({ token }: Someone, query = '') =>
    (await ask('GET', `/image/v2/images${query}`, { as: token })).json.images
      .filter((one: { id: string }) => one.id === id)
      .map(({ name }: { name: string }) => name)
      .join()
  const rename = (value: string) =>
    ask('PATCH', `/image/v2/images/${id}`, {
      as: mine.token,
      json: [{ op: 'replace', path: '/name', value }],
      type: 'application/openstack-images-v2.1-json-patch',
    })
  const members = `/image/v2/images/${id}/members`
  await whileAsking(
    () => names(mine),
    () => rename('second'),
    (seen) => seen === 'second',
  )
  await ask('POST', members, { as: mine.token, json: { member: theirs.project } })
  await whileAsking(
    () => names(theirs),
    () => ask('PUT', `${members}/${theirs.project}`, { as: theirs.token, json: { status: 'accepted' } }),
    (seen) => seen === 'second',
  )
  await whileAsking(
    () => names(theirs, '?tag=new'),
    () => ask('PUT', `/image/v2/images/${id}/tags/new`, { as: mine.token }),
    (seen) => seen === 'second',
  )
  await whileAsking(
    () => names(theirs),
    () => ask('DELETE', `${members}/${theirs.project}`, { as: mine.token }),
    (seen) => seen === '',
  )
  await whileAsking(
    () => names(mine, '?name=second'),
    () => ask('DELETE', `/image/v2/images/${id}`, { as: mine.token }),
    (seen) => seen === '',
  )
})
