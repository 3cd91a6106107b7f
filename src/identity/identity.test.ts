/** The use cases on the SQLite catalog: what ends a right, and that it ends it at once. */
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { SqliteCatalog } from '../store/catalog/sqlite/sqlite-catalog.ts'
import { createApplicationCredential, deleteApplicationCredential } from './application-credentials.ts'
import { grantRole, revokeRole } from './grants.ts'
import type { AuthenticatedCaller } from './identity.ts'
import { type Credentials, login } from './login.ts'
import { createProject, deleteProject, updateProject } from './projects.ts'
import { createRole, deleteRole } from './roles.ts'
import { createIdentity, type IdentitySettings } from './service.ts'
import { builtInRoles, tokens } from './store.ts'
import { inspectToken, revokeToken, type ScopeRequest, sweepTokens, tokenKeyOf } from './tokens.ts'
import { changePassword, createUser, deleteUser, updateUser } from './users.ts'

const [adminRole, memberRole, readerRole] = builtInRoles
const HOUR_MS = 3_600_000

const opened: SqliteCatalog[] = []
async function openCatalog(): Promise<SqliteCatalog> {
  const catalog = await SqliteCatalog.open({ path: ':memory:' })
  opened.push(catalog)
  return catalog
}
afterEach(async () => {
  for (const catalog of opened.splice(0)) await catalog.close()
})

async function house(settings: IdentitySettings = {}) {
  const clock = { ms: Date.UTC(2030, 0, 1) }
  const catalog = await openCatalog()
  const passwords = { cost: { cost: 16, blockSize: 8, parallel: 1 } }
  const identity = createIdentity(catalog, { passwords, now: () => clock.ms, ...settings })
  await identity.bootstrap({ password: 'root password' })
  const { ports } = identity
  const enter = async (credentials: Credentials, scope?: ScopeRequest) =>
    (await login(ports, { credentials, scope, address: '127.0.0.1' })).token
  const byPassword = (name: string, password: string, scope?: ScopeRequest) =>
    enter({ method: 'password', user: { name }, password }, scope)
  const callerOf = (token: string): Promise<AuthenticatedCaller> => identity.authenticator.authenticate(token, 'req-1')
  const root = await callerOf(await byPassword('admin', 'root password', { kind: 'project', name: 'admin' }))
  const project = await createProject(ports, root, { name: 'web' })
  const ann = await createUser(ports, root, { name: 'ann', password: 'ann password' })
  const scope = { kind: 'project', projectId: project.id } as const
  await grantRole(ports, root, { userId: ann.id, scope, roleId: memberRole.id })
  const annToken = () => byPassword('ann', 'ann password', { kind: 'project', id: project.id })
  return { catalog, identity, ports, clock, enter, byPassword, callerOf, root, project, ann, scope, annToken }
}
type House = Awaited<ReturnType<typeof house>>
const refused = { code: 'unauthenticated' }

test('a token tells who its user is, where, and with which roles, implied ones included', async () => {
  const { annToken, callerOf, ann, project, clock } = await house()
  const caller = await callerOf(await annToken())
  assert.equal(caller.userId, ann.id)
  assert.equal(caller.projectId, project.id)
  assert.equal(caller.projectName, 'web')
  assert.deepEqual([...caller.roles].sort(), ['member', 'reader'])
  assert.equal(caller.isAdmin, false)
  assert.equal(caller.systemScope, false)
  assert.equal(caller.requestId, 'req-1')
  assert.equal(caller.expiresAt, clock.ms + 24 * HOUR_MS)
})

test('the catalog holds no token, no password and no secret', async () => {
  const { catalog, annToken, callerOf, ports } = await house()
  const token = await annToken()
  const { secret } = await createApplicationCredential(ports, await callerOf(token), (await callerOf(token)).userId, {
    name: 'robot',
  })
  const kinds = ['user', 'project', 'role', 'assignment', 'token', 'application-credential', 'identity-state']
  const kept = await Promise.all(kinds.map((kind) => catalog.documents.list(kind)))
  const text = JSON.stringify(kept)
  for (const hidden of [token, token.slice(4), 'ann password', 'root password', secret]) assert.ok(!text.includes(hidden))
})

const endings: readonly { name: string; end(all: House): Promise<unknown> }[] = [
  { name: 'its user is disabled', end: ({ ports, root, ann }) => updateUser(ports, root, ann.id, { enabled: false }) },
  { name: 'its user gets another password', end: ({ ports, root, ann }) => updateUser(ports, root, ann.id, { password: 'new' }) },
  { name: 'its user changes the password', end: ({ ports, ann }) => changePassword(ports, ann.id, 'ann password', 'new', '::1') },
  { name: 'its user is deleted', end: ({ ports, root, ann }) => deleteUser(ports, root, ann.id) },
  {
    name: 'its project is disabled',
    end: ({ ports, root, project }) => updateProject(ports, root, project.id, { enabled: false }),
  },
  { name: 'its project is deleted', end: ({ ports, root, project }) => deleteProject(ports, root, project.id) },
  {
    name: 'a role in its scope is taken away',
    end: ({ ports, root, ann, scope }) => revokeRole(ports, root, { userId: ann.id, scope, roleId: memberRole.id }),
  },
  {
    name: 'its time is over',
    end: async ({ clock }) => {
      clock.ms += 24 * HOUR_MS
    },
  },
]
for (const { name, end } of endings) {
  test(`a token is refused with the next request once ${name}`, async () => {
    const all = await house()
    const token = await all.annToken()
    const other = await all.byPassword('admin', 'root password', { kind: 'project', name: 'admin' })
    await all.callerOf(token)
    await end(all)
    await assert.rejects(all.callerOf(token), refused)
    await assert.rejects(all.enter({ method: 'token', token }, { kind: 'none' }), refused)
    if (!name.includes('time')) await all.callerOf(other)
  })
}

test('a revoked token is refused, and the others of the user are not', async () => {
  const { annToken, callerOf, ports } = await house()
  const [one, two] = [await annToken(), await annToken()]
  const caller = await callerOf(two)
  await revokeToken(ports, caller, one)
  await assert.rejects(callerOf(one), refused)
  await callerOf(two)
  await assert.rejects(inspectToken(ports, caller, one), { code: 'not-found' })
})

test('what is not in the form of a token is refused without a look at the catalog', async () => {
  const { callerOf, catalog } = await house()
  await catalog.close()
  opened.length = 0
  for (const token of ['', 'imp_', 'x', `imp_${'a'.repeat(44)}`, `imp_${'a'.repeat(42)}\n`, 'a'.repeat(100_000)]) {
    await assert.rejects(callerOf(token), refused)
  }
})

test('a token got by exchange is good for no longer than the first, and names it', async () => {
  const { annToken, enter, ports, clock, callerOf } = await house()
  const first = await annToken()
  clock.ms += HOUR_MS
  const second = await enter({ method: 'token', token: first }, { kind: 'none' })
  const [one, two] = await Promise.all([first, second].map(async (token) => inspectToken(ports, await callerOf(token), token)))
  assert.equal(two?.expiresAt, one?.expiresAt)
  assert.deepEqual(two?.methods, ['token', 'password'])
  assert.deepEqual(two?.auditIds.slice(1), one?.auditIds)
})

test('a token for the system opens no project', async () => {
  const { byPassword, enter } = await house()
  const token = await byPassword('admin', 'root password', { kind: 'system' })
  await assert.rejects(enter({ method: 'token', token }, { kind: 'project', name: 'admin' }), { code: 'denied' })
})

test('a scope in which the user has no role is refused in the same words whether it is there or not', async () => {
  const { byPassword, ports, root } = await house()
  await createProject(ports, root, { name: 'secret' })
  const messages = await Promise.all(
    ['secret', 'absent'].map((name) =>
      byPassword('ann', 'ann password', { kind: 'project', name }).catch((error) => error.message),
    ),
  )
  assert.equal(messages[0], messages[1])
  await assert.rejects(byPassword('ann', 'ann password', { kind: 'system' }), refused)
  await assert.rejects(byPassword('ann', 'ann password', { kind: 'domain' }), refused)
})

test('a login without a scope goes to the default project where there is a role in it, else nowhere', async () => {
  const { byPassword, callerOf, ports, root, ann, project } = await house()
  assert.equal((await callerOf(await byPassword('ann', 'ann password'))).projectId, null)
  await updateUser(ports, root, ann.id, { defaultProjectId: project.id })
  assert.equal((await callerOf(await byPassword('ann', 'ann password'))).projectId, project.id)
  assert.equal((await callerOf(await byPassword('ann', 'ann password', { kind: 'none' }))).projectId, null)
  await updateUser(ports, root, ann.id, { defaultProjectId: root.projectId })
  assert.equal((await callerOf(await byPassword('ann', 'ann password'))).projectId, null)
})

test('wrong user, wrong password and disabled account are refused in the same words', async () => {
  const { byPassword, ports, root } = await house()
  await createUser(ports, root, { name: 'off', password: 'right', enabled: false })
  const tries: [string, string][] = [
    ['nobody', 'x'],
    ['ann', 'x'],
    ['off', 'right'],
    ['off', 'x'],
  ]
  const messages = await Promise.all(tries.map(([name, password]) => byPassword(name, password).catch((error) => error.message)))
  assert.equal(new Set(messages).size, 1)
})

test('an account that is disabled while its password is being checked gets no token', async () => {
  const { byPassword, ports, root, ann } = await house()
  const entering = byPassword('ann', 'ann password', { kind: 'none' })
  await updateUser(ports, root, ann.id, { enabled: false })
  await assert.rejects(entering, refused)
})

test('a guesser waits, and the right password does not help him while he does', async () => {
  const { byPassword, enter, clock } = await house()
  for (let n = 0; n < 10; n += 1) await assert.rejects(byPassword('ann', `guess ${n}`), refused)
  await assert.rejects(byPassword('ann', 'ann password'), { code: 'too-many-requests' })
  await assert.rejects(enter({ method: 'password', user: { name: 'ann' }, password: 'x' }), { code: 'too-many-requests' })
  await byPassword('admin', 'root password')
  clock.ms += 60_000
  await byPassword('ann', 'ann password')
})

test('of ten thousand guesses at once few are hashed, and others can log in afterwards', async () => {
  const { byPassword } = await house()
  const guesses = Array.from({ length: 10_000 }, (_, n) => byPassword('ann', `guess ${n}`).catch((error) => error.code))
  const codes = await Promise.all(guesses)
  const hashed = codes.filter((code) => code === 'unauthenticated').length
  assert.equal(codes.filter((code) => code === 'too-many-requests').length, 10_000 - hashed)
  assert.ok(hashed < 100, `${hashed} were hashed`)
  await byPassword('admin', 'root password')
})

test('the same login from another address goes on while a guesser waits', async () => {
  const { byPassword, ports } = await house()
  for (let n = 0; n < 12; n += 1) await assert.rejects(byPassword('ann', `guess ${n}`))
  const credentials: Credentials = { method: 'password', user: { name: 'ann' }, password: 'ann password' }
  await login(ports, { credentials, scope: undefined, address: '192.0.2.7' })
})

// ---------------------------------------------------------------- application credentials

async function robot(all: House, wanted: Partial<Parameters<typeof createApplicationCredential>[3]> = {}) {
  const caller = await all.callerOf(await all.annToken())
  const { credential, secret } = await createApplicationCredential(all.ports, caller, caller.userId, { name: 'robot', ...wanted })
  const enter = () => all.enter({ method: 'application_credential', credential: { id: credential.id }, secret })
  return { credential, secret, enter, caller }
}

test('an application credential logs in to its project with its roles only', async () => {
  const all = await house()
  const { enter, credential, secret } = await robot(all, { roles: [{ name: 'reader' }] })
  const caller = await all.callerOf(await enter())
  assert.deepEqual([...caller.roles], ['reader'])
  assert.equal(caller.projectId, all.project.id)
  const named = { method: 'application_credential', credential: { name: 'robot', user: { name: 'ann' } }, secret } as const
  await all.callerOf(await all.enter(named))
  await assert.rejects(all.enter({ ...named, secret: `${secret}x` }), refused)
  await assert.rejects(
    all.enter({ method: 'application_credential', credential: { id: credential.id }, secret }, { kind: 'none' }),
    refused,
  )
})

test('an application credential cannot give a role that its maker lacks', async () => {
  const all = await house()
  await assert.rejects(robot(all, { roles: [{ name: 'admin' }] }), { code: 'invalid-request' })
  await assert.rejects(robot(all, { roles: [{ id: adminRole.id }] }), { code: 'invalid-request' })
})

test('an application credential ends with its time, its role, its user or its deletion, and its tokens with it', async () => {
  const expiring = await house()
  const soon = await robot(expiring, { expiresAt: expiring.clock.ms + HOUR_MS })
  const token = await soon.enter()
  assert.equal((await expiring.callerOf(token)).expiresAt, expiring.clock.ms + HOUR_MS)
  expiring.clock.ms += HOUR_MS
  await assert.rejects(expiring.callerOf(token), refused)
  await assert.rejects(soon.enter(), refused)

  const losing = await house()
  const lost = await robot(losing)
  await revokeRole(losing.ports, losing.root, { userId: losing.ann.id, scope: losing.scope, roleId: memberRole.id })
  await assert.rejects(lost.enter(), refused)

  const deleting = await house()
  const deleted = await robot(deleting)
  const dead = await deleted.enter()
  await deleteApplicationCredential(deleting.ports, deleted.caller, deleting.ann.id, deleted.credential.id)
  await assert.rejects(deleting.callerOf(dead), refused)
  await assert.rejects(deleted.enter(), refused)

  const disabling = await house()
  const idle = await robot(disabling)
  await updateUser(disabling.ports, disabling.root, disabling.ann.id, { enabled: false })
  await assert.rejects(idle.enter(), refused)
})

test('a restricted application credential makes no others and exchanges no tokens; an unrestricted one makes them', async () => {
  const all = await house()
  const restricted = await robot(all)
  const token = await restricted.enter()
  const caller = await all.callerOf(token)
  await assert.rejects(createApplicationCredential(all.ports, caller, caller.userId, { name: 'next' }), { code: 'denied' })
  await assert.rejects(all.enter({ method: 'token', token }, { kind: 'none' }), { code: 'denied' })
  const free = await robot(all, { name: 'free', unrestricted: true })
  await assert.rejects(deleteApplicationCredential(all.ports, caller, caller.userId, free.credential.id), { code: 'denied' })
  await deleteApplicationCredential(all.ports, caller, caller.userId, restricted.credential.id) // only itself: a log-out
  await assert.rejects(all.callerOf(token), refused)
  const other = await all.callerOf(await free.enter())
  await createApplicationCredential(all.ports, other, other.userId, { name: 'next' })
})

test('nobody makes an application credential for somebody else, an administrator included', async () => {
  const { ports, root, ann } = await house()
  await assert.rejects(createApplicationCredential(ports, root, ann.id, { name: 'robot' }), { code: 'denied' })
})

// ---------------------------------------------------------------- the rest

test('a role given later is in the tokens that there are, but not in those of application credentials', async () => {
  const all = await house()
  const [token, machine] = [await all.annToken(), await (await robot(all)).enter()]
  await grantRole(all.ports, all.root, { userId: all.ann.id, scope: all.scope, roleId: adminRole.id })
  assert.equal((await all.callerOf(token)).isAdmin, true)
  assert.equal((await all.callerOf(machine)).isAdmin, false)
})

test('deleting a role takes it from everybody, with their tokens', async () => {
  const { ports, root, ann, scope, annToken, callerOf } = await house()
  const role = await createRole(ports, root, { name: 'auditor' })
  await grantRole(ports, root, { userId: ann.id, scope, roleId: role.id })
  const token = await annToken()
  assert.ok((await callerOf(token)).roles.has('auditor'))
  await deleteRole(ports, root, role.id)
  await assert.rejects(callerOf(token), refused)
  assert.ok(!(await callerOf(await annToken())).roles.has('auditor'))
  await assert.rejects(deleteRole(ports, root, readerRole.id), { code: 'denied' })
})

test('bootstrap makes the administrator once, and leaves later changes alone', async () => {
  const catalog = await openCatalog()
  const identity = createIdentity(catalog, { passwords: { cost: { cost: 16, blockSize: 8, parallel: 1 } } })
  const first = await identity.bootstrap()
  assert.equal(first.created, true)
  assert.match(first.password ?? '', /^(\w{5}-){4}\w{5}$/)
  const enter = (name: string, password: string, scope: ScopeRequest) =>
    login(identity.ports, { credentials: { method: 'password', user: { name }, password }, scope, address: '::1' })
  const { token, record } = await enter('admin', first.password ?? '', { kind: 'project', name: 'admin' })
  await enter('admin', first.password ?? '', { kind: 'system' })
  const root = await identity.authenticator.authenticate(token, 'req-1')
  assert.equal(root.isAdmin, true)
  await updateUser(identity.ports, root, record.userId, { name: 'root', password: 'my own' })
  const second = await identity.bootstrap({ password: 'other' })
  assert.deepEqual(second, { created: false, userName: 'root', projectName: 'admin', password: null })
  await enter('root', 'my own', { kind: 'system' })
  await assert.rejects(enter('admin', 'other', { kind: 'system' }), refused)
})

test('bootstrap can give an administrator who lost the password a new one', async () => {
  const { identity, ports, root, byPassword } = await house()
  await updateUser(ports, root, root.userId, { name: 'root', enabled: false })
  const reset = await identity.bootstrap({ reset: true })
  assert.equal(reset.userName, 'root')
  await byPassword('root', reset.password ?? '', { kind: 'system' })
})

test('a sweep forgets expired tokens and no others', async () => {
  const { annToken, ports, clock, catalog, callerOf } = await house()
  const old = await annToken()
  clock.ms += 23 * HOUR_MS
  const fresh = await annToken()
  clock.ms += 2 * HOUR_MS
  assert.equal(await sweepTokens(ports), 2)
  assert.equal(await tokens.get(catalog.documents, tokenKeyOf(old) ?? ''), undefined)
  await callerOf(fresh)
})
