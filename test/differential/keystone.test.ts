/**
 * The same requests to Debian's Keystone and to the identity API: status, header names and the shape of the body are equal.
 */
import assert from 'node:assert/strict'
import type { AddressInfo } from 'node:net'
import { after, test } from 'node:test'
import { ADMIN_PASSWORD, openService, passwordLogin } from '../../src/serve/http/identity/identity-service.suite.ts'
import { noDebianCloud, startDebianKeystone } from '../peers/debian-cloud.ts'

const skip = noDebianCloud()

interface Side {
  readonly base: string
  readonly adminPassword: string
  readonly values: Map<string, string>
}
interface Step {
  readonly name: string
  readonly request: string
  /** `{…}` are replaced by what earlier steps kept. */
  readonly body?: unknown
  readonly as?: 'admin' | 'member' | 'system' | 'robot' | 'nobody'
  readonly headers?: Readonly<Record<string, string>>
  /** Name → path into the answer, or `header:name`. */
  readonly keep?: Readonly<Record<string, string>>
  /** Why the answer may differ here. */
  readonly differs?: string
  /** Why the body may; status and headers may not. */
  readonly bodyDiffers?: string
}

const suffix = `${process.pid}-${Date.now().toString(36)}`
const NAME = `imprint-diff-${suffix}`
const login = (name: string, password: string, scope?: unknown) => passwordLogin(name, password, undefined, scope)
const inProject = { project: { id: '{project}' } }
const admin = { project: { name: 'admin', domain: { id: 'default' } } }

const steps: readonly Step[] = [
  { name: 'versions', request: 'GET ^./', as: 'nobody' },
  { name: 'version', request: 'GET /', as: 'nobody' },
  {
    name: 'admin login',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: login('admin', '{adminPassword}', admin),
    keep: { admin: 'header:x-subject-token', adminId: 'token.user.id', adminProject: 'token.project.id' },
  },
  {
    name: 'login without catalog',
    request: 'POST /auth/tokens?nocatalog',
    as: 'nobody',
    body: login('admin', '{adminPassword}', admin),
  },
  { name: 'unscoped login', request: 'POST /auth/tokens', as: 'nobody', body: login('admin', '{adminPassword}', 'unscoped') },
  {
    name: 'system login',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: login('admin', '{adminPassword}', { system: { all: true } }),
    keep: { system: 'header:x-subject-token' },
  },
  {
    name: 'domain login without a role',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: login('admin', '{adminPassword}', { domain: { id: 'default' } }),
  },
  { name: 'wrong password', request: 'POST /auth/tokens', as: 'nobody', body: login('admin', 'wrong', admin) },
  { name: 'unknown user', request: 'POST /auth/tokens', as: 'nobody', body: login(`${NAME}-absent`, 'wrong') },
  {
    name: 'unknown project',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: login('admin', '{adminPassword}', { project: { id: 'absent' } }),
  },
  {
    name: 'unknown domain',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: {
      auth: {
        identity: { methods: ['password'], password: { user: { name: 'admin', domain: { id: 'absent' }, password: 'x' } } },
      },
    },
  },
  { name: 'login without identity', request: 'POST /auth/tokens', as: 'nobody', body: { auth: {} } },
  { name: 'login without auth', request: 'POST /auth/tokens', as: 'nobody', body: {} },
  {
    name: 'login with an unknown method',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: { auth: { identity: { methods: ['magic'], magic: {} } } },
    bodyDiffers: 'Keystone adds the methods to the error',
  },
  {
    name: 'login with numbers for names',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: {
      auth: { identity: { methods: ['password'], password: { user: { name: 7, domain: { id: 'default' }, password: 8 } } } },
    },
  },
  { name: 'login with half a body', request: 'POST /auth/tokens', as: 'nobody', body: '{"auth":' },
  {
    name: 'login with a token that is none',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: { auth: { identity: { methods: ['token'], token: { id: 'nonsense' } } } },
    differs: 'Keystone says 404 for a token that it cannot read and 401 for one that is unknown; here both are 401',
  },
  { name: 'list without a token', request: 'GET /users', as: 'nobody' },
  { name: 'list with a false token', request: 'GET /users', as: 'nobody', headers: { 'x-auth-token': 'false' } },
  {
    name: 'make a project',
    request: 'POST /projects',
    body: { project: { name: NAME, description: 'd', tags: ['blue'] } },
    keep: { project: 'project.id' },
  },
  { name: 'make it again', request: 'POST /projects', body: { project: { name: NAME } } },
  { name: 'a project without a name', request: 'POST /projects', body: { project: {} } },
  { name: 'a project with an empty name', request: 'POST /projects', body: { project: { name: ' ' } } },
  { name: 'a project whose name is a number', request: 'POST /projects', body: { project: { name: 1 } } },
  { name: 'a project whose name is too long', request: 'POST /projects', body: { project: { name: 'n'.repeat(65) } } },
  { name: 'show it', request: 'GET /projects/{project}' },
  { name: 'look for it', request: 'HEAD /projects/{project}' },
  { name: 'list by name', request: `GET /projects?name=${NAME}` },
  { name: 'list by an absent name', request: `GET /projects?name=${NAME}-absent` },
  {
    name: 'change it',
    request: 'PATCH /projects/{project}',
    body: { project: { description: 'e', colour: 'red' } },
    bodyDiffers: 'Keystone repeats further attributes under "extra" after a change',
  },
  { name: 'change nothing', request: 'PATCH /projects/{project}', body: { project: {} } },
  { name: 'change its id', request: 'PATCH /projects/{project}', body: { project: { id: 'other' } } },
  { name: 'change an absent one', request: 'PATCH /projects/absent', body: { project: { name: 'x' } } },
  { name: 'its tags', request: 'GET /projects/{project}/tags' },
  { name: 'add a tag', request: 'PUT /projects/{project}/tags/green' },
  { name: 'has it the tag', request: 'HEAD /projects/{project}/tags/green' },
  { name: 'remove the tag', request: 'DELETE /projects/{project}/tags/green' },
  { name: 'an absent tag', request: 'GET /projects/{project}/tags/green' },
  {
    name: 'make a user',
    request: 'POST /users',
    body: { user: { name: NAME, password: 'first', email: 'a@example.org', default_project_id: '{project}' } },
    keep: { user: 'user.id' },
  },
  { name: 'make it again', request: 'POST /users', body: { user: { name: NAME } } },
  { name: 'a user in an absent domain', request: 'POST /users', body: { user: { name: NAME, domain_id: 'absent' } } },
  { name: 'a user who is neither on nor off', request: 'POST /users', body: { user: { name: `${NAME}-x`, enabled: 'yes' } } },
  { name: 'show the user', request: 'GET /users/{user}' },
  { name: 'show an absent user', request: 'GET /users/absent' },
  { name: 'list users by name', request: `GET /users?name=${NAME}` },
  {
    name: 'change the user',
    request: 'PATCH /users/{user}',
    body: { user: { description: 'who' } },
    bodyDiffers: 'Keystone repeats further attributes under "extra" after a change',
  },
  { name: 'take a name that is taken', request: 'PATCH /users/{user}', body: { user: { name: 'admin' } } },
  { name: 'roles', request: 'GET /roles' },
  { name: 'role by name', request: 'GET /roles?name=member', keep: { member: 'roles.0.id' } },
  { name: 'reader', request: 'GET /roles?name=reader', keep: { reader: 'roles.0.id' } },
  { name: 'change a built-in role', request: 'PATCH /roles/{member}', body: { role: { description: 'x' } } },
  { name: 'delete a built-in role', request: 'DELETE /roles/{member}' },
  { name: 'give the role', request: 'PUT /projects/{project}/users/{user}/roles/{member}' },
  { name: 'give it again', request: 'PUT /projects/{project}/users/{user}/roles/{member}' },
  { name: 'give an absent role', request: 'PUT /projects/{project}/users/{user}/roles/absent' },
  { name: 'has the user the role', request: 'HEAD /projects/{project}/users/{user}/roles/{member}' },
  { name: 'has the user another role', request: 'HEAD /projects/{project}/users/{user}/roles/{reader}' },
  { name: 'roles of the user', request: 'GET /projects/{project}/users/{user}/roles' },
  { name: 'roles of nobody', request: 'GET /projects/{project}/users/absent/roles' },
  { name: 'roles on the system', request: 'GET /system/users/{user}/roles' },
  { name: 'assignments of the user', request: 'GET /role_assignments?user.id={user}' },
  { name: 'assignments with names', request: 'GET /role_assignments?user.id={user}&include_names=True' },
  { name: 'assignments in effect', request: 'GET /role_assignments?user.id={user}&effective' },
  { name: 'assignments on the system', request: 'GET /role_assignments?scope.system=all' },
  { name: 'projects of the user', request: 'GET /users/{user}/projects' },
  { name: 'groups of the user', request: 'GET /users/{user}/groups' },
  {
    name: 'member login',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: login(NAME, 'first', inProject),
    keep: { memberToken: 'header:x-subject-token' },
  },
  {
    name: 'login without scope goes to the default project',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: login(NAME, 'first'),
  },
  {
    name: 'login in a project without a role',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: login(NAME, 'first', { project: { id: '{adminProject}' } }),
  },
  {
    name: 'login on the system without a role',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: login(NAME, 'first', { system: { all: true } }),
  },
  ...[
    '/users',
    '/projects',
    '/domains',
    '/roles',
    '/role_assignments',
    '/services',
    '/endpoints',
    '/regions',
    '/registered_limits',
    '/limits',
    '/limits/model',
    '/auth/projects',
    '/auth/domains',
    '/auth/system',
    '/auth/catalog',
  ].flatMap((path): Step[] => [
    { name: `${path} to an administrator`, request: `GET ${path}` },
    { name: `${path} to a member`, request: `GET ${path}`, as: 'member' },
    { name: `${path} from the system`, request: `GET ${path}`, as: 'system' },
  ]),
  { name: 'a member sees themselves', request: 'GET /users/{user}', as: 'member' },
  { name: 'a member does not see others', request: 'GET /users/{adminId}', as: 'member' },
  { name: 'a member does not learn who is absent', request: 'GET /users/absent', as: 'member' },
  { name: 'a member sees the project', request: 'GET /projects/{project}', as: 'member' },
  { name: 'a member does not see other projects', request: 'GET /projects/{adminProject}', as: 'member' },
  { name: 'a member sees the domain', request: 'GET /domains/default', as: 'member' },
  { name: 'a member does not see a role', request: 'GET /roles/{member}', as: 'member' },
  { name: 'a member makes no user', request: 'POST /users', as: 'member', body: { user: { name: `${NAME}-y` } } },
  {
    name: 'a member makes no user, however wrong the request',
    request: 'POST /users',
    as: 'member',
    body: { user: { name: 7 } },
  },
  {
    name: 'a member does not change themselves',
    request: 'PATCH /users/{user}',
    as: 'member',
    body: { user: { enabled: true } },
  },
  { name: 'a member deletes no project', request: 'DELETE /projects/{adminProject}', as: 'member' },
  { name: 'a member gives no role', request: 'PUT /projects/{project}/users/{user}/roles/{reader}', as: 'member' },
  {
    name: 'validate one’s own token',
    request: 'GET /auth/tokens',
    as: 'member',
    headers: { 'x-subject-token': '{memberToken}' },
  },
  { name: 'check one’s own token', request: 'HEAD /auth/tokens', as: 'member', headers: { 'x-subject-token': '{memberToken}' } },
  { name: 'validate another’s token', request: 'GET /auth/tokens', as: 'member', headers: { 'x-subject-token': '{admin}' } },
  { name: 'an administrator validates any token', request: 'GET /auth/tokens', headers: { 'x-subject-token': '{memberToken}' } },
  { name: 'without a catalog', request: 'GET /auth/tokens?nocatalog', headers: { 'x-subject-token': '{memberToken}' } },
  { name: 'an unknown token', request: 'GET /auth/tokens', headers: { 'x-subject-token': 'unknown' } },
  {
    name: 'an unknown token, asked by a member',
    request: 'GET /auth/tokens',
    as: 'member',
    headers: { 'x-subject-token': 'unknown' },
  },
  {
    name: 'exchange a token',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: { auth: { identity: { methods: ['token'], token: { id: '{memberToken}' } }, scope: inProject } },
    keep: { second: 'header:x-subject-token' },
  },
  {
    name: 'exchange one of the system for a project',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: { auth: { identity: { methods: ['token'], token: { id: '{system}' } }, scope: admin } },
  },
  {
    name: 'make an application credential',
    request: 'POST /users/{user}/application_credentials',
    as: 'member',
    body: { application_credential: { name: 'robot', roles: [{ name: 'member' }] } },
    keep: { credential: 'application_credential.id', secret: 'application_credential.secret' },
  },
  {
    name: 'make it again',
    request: 'POST /users/{user}/application_credentials',
    as: 'member',
    body: { application_credential: { name: 'robot' } },
  },
  {
    name: 'one with a role that the maker lacks',
    request: 'POST /users/{user}/application_credentials',
    as: 'member',
    body: { application_credential: { name: 'r2', roles: [{ name: 'admin' }] } },
  },
  {
    name: 'one without a name',
    request: 'POST /users/{user}/application_credentials',
    as: 'member',
    body: { application_credential: {} },
  },
  {
    name: 'one that ended',
    request: 'POST /users/{user}/application_credentials',
    as: 'member',
    body: { application_credential: { name: 'r3', expires_at: '2001-01-01T00:00:00' } },
  },
  {
    name: 'one that ends at no time',
    request: 'POST /users/{user}/application_credentials',
    as: 'member',
    body: { application_credential: { name: 'r3', expires_at: 'soon' } },
  },
  {
    name: 'one for somebody else',
    request: 'POST /users/{user}/application_credentials',
    body: { application_credential: { name: 'r4' } },
  },
  { name: 'list them', request: 'GET /users/{user}/application_credentials', as: 'member' },
  { name: 'show it', request: 'GET /users/{user}/application_credentials/{credential}', as: 'member' },
  { name: 'show an absent one', request: 'GET /users/{user}/application_credentials/absent', as: 'member' },
  {
    name: 'log in with it',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: {
      auth: {
        identity: { methods: ['application_credential'], application_credential: { id: '{credential}', secret: '{secret}' } },
      },
    },
    keep: { robot: 'header:x-subject-token' },
  },
  {
    name: 'log in with a wrong secret',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: {
      auth: { identity: { methods: ['application_credential'], application_credential: { id: '{credential}', secret: 'x' } } },
    },
  },
  {
    name: 'log in with it and a scope',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: {
      auth: {
        identity: { methods: ['application_credential'], application_credential: { id: '{credential}', secret: '{secret}' } },
        scope: inProject,
      },
    },
    bodyDiffers: 'Keystone adds an empty "identity" to the error',
  },
  {
    name: 'exchange its token',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: { auth: { identity: { methods: ['token'], token: { id: '{robot}' } }, scope: inProject } },
  },
  {
    name: 'make another with its token',
    request: 'POST /users/{user}/application_credentials',
    as: 'robot',
    body: { application_credential: { name: 'r5' } },
  },
  { name: 'delete it', request: 'DELETE /users/{user}/application_credentials/{credential}', as: 'member' },
  { name: 'delete it again', request: 'DELETE /users/{user}/application_credentials/{credential}', as: 'member' },
  {
    name: 'its token is gone',
    request: 'GET /auth/projects',
    as: 'robot',
    differs: 'Keystone says 404 for the token of a deleted credential: clients log in again at 401 only',
  },
  { name: 'services', request: 'GET /services?type=image', keep: { service: 'services.0.id' } },
  { name: 'a service', request: 'GET /services/{service}' },
  { name: 'an absent service', request: 'GET /services/absent' },
  { name: 'a region', request: 'GET /regions/RegionOne' },
  {
    name: 'register a limit',
    request: 'POST /registered_limits',
    body: { registered_limits: [{ service_id: '{service}', region_id: 'RegionOne', resource_name: NAME, default_limit: 5 }] },
    keep: { registered: 'registered_limits.0.id' },
  },
  {
    name: 'register it again',
    request: 'POST /registered_limits',
    body: { registered_limits: [{ service_id: '{service}', region_id: 'RegionOne', resource_name: NAME, default_limit: 5 }] },
  },
  { name: 'register a limit of nothing', request: 'POST /registered_limits', body: { registered_limits: [] } },
  {
    name: 'register a limit that is no number',
    request: 'POST /registered_limits',
    body: { registered_limits: [{ service_id: '{service}', resource_name: 'r', default_limit: 'many' }] },
  },
  {
    name: 'register a limit for an absent service',
    request: 'POST /registered_limits',
    body: { registered_limits: [{ service_id: 'absent', resource_name: 'r', default_limit: 1 }] },
  },
  { name: 'show the registered limit', request: 'GET /registered_limits/{registered}' },
  { name: 'change it', request: 'PATCH /registered_limits/{registered}', body: { registered_limit: { default_limit: 6 } } },
  {
    name: 'limit the project',
    request: 'POST /limits',
    body: {
      limits: [
        { project_id: '{project}', service_id: '{service}', region_id: 'RegionOne', resource_name: NAME, resource_limit: 3 },
      ],
    },
    keep: { limit: 'limits.0.id' },
  },
  {
    name: 'limit it again',
    request: 'POST /limits',
    body: {
      limits: [
        { project_id: '{project}', service_id: '{service}', region_id: 'RegionOne', resource_name: NAME, resource_limit: 3 },
      ],
    },
  },
  {
    name: 'limit what is not registered',
    request: 'POST /limits',
    body: {
      limits: [
        { project_id: '{project}', service_id: '{service}', region_id: 'RegionOne', resource_name: 'absent', resource_limit: 3 },
      ],
    },
  },
  { name: 'show the limit', request: 'GET /limits/{limit}' },
  { name: 'a member sees the limit', request: 'GET /limits', as: 'member' },
  { name: 'a member changes no limit', request: 'PATCH /limits/{limit}', as: 'member', body: { limit: { resource_limit: 9 } } },
  { name: 'change the limit', request: 'PATCH /limits/{limit}', body: { limit: { resource_limit: 4 } } },
  { name: 'change the limit to nonsense', request: 'PATCH /limits/{limit}', body: { limit: { resource_limit: -2 } } },
  { name: 'unregister what is used', request: 'DELETE /registered_limits/{registered}' },
  { name: 'delete the limit', request: 'DELETE /limits/{limit}' },
  { name: 'delete it again', request: 'DELETE /limits/{limit}' },
  { name: 'unregister', request: 'DELETE /registered_limits/{registered}' },
  { name: 'revoke a token', request: 'DELETE /auth/tokens', as: 'member', headers: { 'x-subject-token': '{second}' } },
  { name: 'revoke it again', request: 'DELETE /auth/tokens', as: 'member', headers: { 'x-subject-token': '{second}' } },
  {
    name: 'change the password with a wrong one',
    request: 'POST /users/{user}/password',
    as: 'member',
    body: { user: { original_password: 'no', password: 'second' } },
  },
  {
    name: 'change the password to nothing',
    request: 'POST /users/{user}/password',
    as: 'member',
    body: { user: { original_password: 'first' } },
  },
  {
    name: 'change the password',
    request: 'POST /users/{user}/password',
    as: 'member',
    body: { user: { original_password: 'first', password: 'second' } },
  },
  { name: 'the old token is gone', request: 'GET /auth/projects', as: 'member' },
  { name: 'the old password is gone', request: 'POST /auth/tokens', as: 'nobody', body: login(NAME, 'first', inProject) },
  {
    name: 'the new one is good',
    request: 'POST /auth/tokens',
    as: 'nobody',
    body: login(NAME, 'second', inProject),
    keep: { memberToken: 'header:x-subject-token' },
  },
  {
    name: 'disable the project',
    request: 'PATCH /projects/{project}',
    body: { project: { enabled: false } },
    bodyDiffers: 'Keystone repeats further attributes under "extra" after a change',
  },
  {
    name: 'its tokens are gone',
    request: 'GET /auth/projects',
    as: 'member',
    differs: 'Keystone says 404 for the token of a disabled project: clients log in again at 401 only',
  },
  { name: 'login in a disabled project', request: 'POST /auth/tokens', as: 'nobody', body: login(NAME, 'second', inProject) },
  {
    name: 'enable the project',
    request: 'PATCH /projects/{project}',
    body: { project: { enabled: true } },
    bodyDiffers: 'Keystone repeats further attributes under "extra" after a change',
  },
  { name: 'take the role', request: 'DELETE /projects/{project}/users/{user}/roles/{member}' },
  { name: 'take it again', request: 'DELETE /projects/{project}/users/{user}/roles/{member}' },
  {
    name: 'disable the user',
    request: 'PATCH /users/{user}',
    body: { user: { enabled: false } },
    bodyDiffers: 'Keystone repeats further attributes under "extra" after a change',
  },
  { name: 'login of a disabled user', request: 'POST /auth/tokens', as: 'nobody', body: login(NAME, 'second') },
  { name: 'delete the user', request: 'DELETE /users/{user}' },
  { name: 'delete it again', request: 'DELETE /users/{user}' },
  { name: 'delete the project', request: 'DELETE /projects/{project}' },
  { name: 'delete it again', request: 'DELETE /projects/{project}' },
  { name: 'a method that is not served', request: 'PUT /users', differs: 'Keystone writes this one body in another form' },
  { name: 'a path that is not there', request: 'GET /nothing', differs: 'Keystone answers in HTML' },
]

const tokenOf = { admin: 'admin', member: 'memberToken', system: 'system', robot: 'robot', nobody: '' } as const

function fill(text: string, values: Map<string, string>): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => values.get(name) ?? whole)
}

async function run(side: Side, step: Step) {
  const [method = 'GET', path = '/'] = fill(step.request, side.values).split(' ')
  const token = side.values.get(tokenOf[step.as ?? 'admin'])
  const url = path.startsWith('^') ? new URL(path.slice(1), side.base) : side.base + path
  const headers: Record<string, string> = { ...(token ? { 'x-auth-token': token } : {}) }
  for (const [name, value] of Object.entries(step.headers ?? {})) headers[name] = fill(value, side.values)
  const init: RequestInit = { method, headers, redirect: 'manual' }
  if (step.body !== undefined) {
    headers['content-type'] = 'application/json'
    init.body = fill(typeof step.body === 'string' ? step.body : JSON.stringify(step.body), side.values)
  }
  const reply = await fetch(url, init)
  const text = await reply.text()
  const json: unknown = text.startsWith('{') ? JSON.parse(text) : text === '' ? undefined : 'text'
  for (const [name, from] of Object.entries(step.keep ?? {})) {
    const kept = from.startsWith('header:') ? reply.headers.get(from.slice(7)) : at(json, from)
    if (typeof kept === 'string') side.values.set(name, kept)
  }
  return { status: reply.status, headers: headerNames(reply.headers), body: shape(json) }
}

const at = (json: unknown, path: string): unknown =>
  path.split('.').reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], json)

/** Of the transport, not of the API; and our own extra one. */
const transport = new Set(['connection', 'content-length', 'date', 'keep-alive', 'server', 'x-imprint-error', 'content-type'])
const headerNames = (headers: Headers): string[] => [...headers.keys()].filter((name) => !transport.has(name)).sort()

/** Keys and types; of a list, what its items have in common. */
function shape(json: unknown): unknown {
  if (Array.isArray(json)) return json.length === 0 ? [] : [json.map(shape).reduce(common)]
  if (typeof json === 'object' && json !== null) {
    return Object.fromEntries(
      Object.entries(json)
        .sort()
        .map(([key, value]) => [key, shape(value)]),
    )
  }
  return json === null ? 'null' : typeof json
}

function common(one: unknown, other: unknown): unknown {
  if (typeof one !== 'object' || typeof other !== 'object' || one === null || other === null)
    return one === other ? one : 'several'
  if (Array.isArray(one) || Array.isArray(other)) return one
  const both = Object.keys(one).filter((key) => key in other)
  return Object.fromEntries(both.map((key) => [key, common(one[key as never], other[key as never])]))
}

/** Differences of content that no client can mind, taken out of both. */
function comparable({ status, headers, body }: Awaited<ReturnType<typeof run>>, step: Step) {
  const text = JSON.stringify(body ?? null)
    .replaceAll('"region_id":"null"', '"region_id":"string"')
    .replaceAll('"unrestricted":"null"', '"unrestricted":"boolean"') // what Keystone says when nobody said anything
    .replaceAll('"description":"null"', '"description":"string"')
  const lists = /GET \/(users|projects|role_assignments|services|endpoints|roles|registered_limits|limits)$/.test(step.request)
  return {
    status,
    headers,
    body: step.bodyDiffers ? null : lists && status === 200 ? Object.keys((body as object) ?? {}) : JSON.parse(text),
  }
}

test('the identity API answers as Keystone does', { skip }, async (t) => {
  const peer = await startDebianKeystone()
  after(peer.stop)
  const service = await openService()
  after(() => service.close())
  await service.app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = service.app.server.address() as AddressInfo
  const side = (base: string, adminPassword: string): Side => ({
    base,
    adminPassword,
    values: new Map([['adminPassword', adminPassword]]),
  })
  const theirs = side(peer.keystone.url, 'admin')
  const ours = side(`http://127.0.0.1:${port}/identity/v3`, ADMIN_PASSWORD)
  for (const step of steps) {
    await t.test(`${step.name}: ${step.request}`, async () => {
      const [expected, actual] = [await run(theirs, step), await run(ours, step)]
      if (step.differs) return
      assert.deepEqual(comparable(actual, step), comparable(expected, step))
    })
  }
})
