import { type Credentials, login, type UserReference } from '../../../identity/login.ts'
import { DOMAIN } from '../../../identity/records.ts'
import { inspectToken, revokeToken, type ScopeRequest, unauthenticated } from '../../../identity/tokens.ts'
import { projectsOfUser, scopesOfUser } from '../../../identity/users.ts'
import { type Fields, rules } from './fields.ts'
import { collection, filtered, showDomain, showProject, showToken } from './presentation.ts'
import { invalid } from './refusals.ts'
import { noContent, ok, type Route } from './route.ts'
import { serviceCatalog } from './service-catalog.ts'

export const authRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/auth/tokens',
    auth: 'none',
    async handle({ ports, body, request, query, origin }) {
      const auth = body.object('auth')
      const credentials = readCredentials(auth.object('identity'))
      const { token, record } = await login(ports, { credentials, scope: readScope(auth), address: request.ip })
      const catalog = query.flag('nocatalog') ? undefined : serviceCatalog(ports, origin)
      return { status: 201, body: { token: showToken(record, catalog) }, headers: { 'x-subject-token': token } }
    },
  },
  {
    method: 'GET',
    path: '/auth/tokens',
    async handle({ ports, caller, request, query, origin }) {
      const token = subjectToken(request.headers['x-subject-token'])
      const record = await inspectToken(ports, caller, token)
      const catalog = query.flag('nocatalog') ? undefined : serviceCatalog(ports, origin)
      return { status: 200, body: { token: showToken(record, catalog) }, headers: { 'x-subject-token': token } }
    },
  },
  {
    method: 'DELETE',
    path: '/auth/tokens',
    async handle({ ports, caller, request }) {
      await revokeToken(ports, caller, subjectToken(request.headers['x-subject-token']))
      return noContent
    },
  },
  {
    method: 'GET',
    path: '/auth/projects',
    async handle({ ports, caller, base, query }) {
      const found = await projectsOfUser(ports, caller, caller.userId)
      const shown = found.filter(({ enabled }) => enabled).map((project) => showProject(project, base))
      return ok(collection('projects', filtered(shown, query, ['name', 'domain_id']), `${base}/auth/projects`))
    },
  },
  {
    method: 'GET',
    path: '/auth/domains',
    async handle({ ports, caller, base }) {
      const { domain } = await scopesOfUser(ports, caller.userId)
      return ok(collection('domains', domain ? [showDomain(base)] : [], `${base}/auth/domains`))
    },
  },
  {
    method: 'GET',
    path: '/auth/system',
    async handle({ ports, caller, base }) {
      const { system } = await scopesOfUser(ports, caller.userId)
      return ok({ system: system ? [{ all: true }] : [], links: { self: `${base}/auth/system` } })
    },
  },
]

const subjectToken = (header: string | string[] | undefined): string => {
  if (typeof header !== 'string' || header === '') throw invalid('name the token you ask about in the header X-Subject-Token')
  return header
}

const METHODS = new Set(['password', 'token', 'application_credential'])

function readCredentials(identity: Fields): Credentials {
  const methods = identity.texts('methods', 8, rules.reference) ?? []
  const [method] = methods
  if (method === undefined) throw invalid('auth.identity.methods must name a method, such as "password"')
  if (methods.length > 1 || !METHODS.has(method)) {
    throw unauthenticated('auth.identity.methods must be one of "password", "token" and "application_credential"')
  }
  if (method === 'password') {
    const user = identity.object('password').object('user')
    return { method, user: readUser(user), password: user.text('password', rules.free) }
  }
  if (method === 'token') return { method, token: identity.object('token').text('id', rules.reference) }
  const credential = identity.object('application_credential')
  const id = credential.optionalText('id', rules.reference)
  const reference =
    id === undefined ? { name: credential.text('name', rules.reference), user: readUser(credential.object('user')) } : { id }
  return { method: 'application_credential', credential: reference, secret: credential.text('secret', rules.free) }
}

function readUser(user: Fields): UserReference {
  const id = user.optionalText('id', rules.reference)
  if (id !== undefined) return { id }
  const name = user.optionalText('name', rules.reference)
  if (name === undefined) throw invalid('auth.identity: a user is named by id, or by name and domain')
  requireDomain(user.object('domain'))
  return { name }
}

/** There is one domain; no user and no project is in any other. */
function requireDomain(domain: Fields): void {
  const id = domain.optionalText('id', rules.reference)
  const name = domain.optionalText('name', rules.reference)
  if (id === undefined && name === undefined) throw invalid('auth: a domain is named by id or name')
  if (name === undefined ? id !== DOMAIN.id : name !== DOMAIN.name) {
    throw unauthenticated(`there is one domain here, "${DOMAIN.name}" with the id "${DOMAIN.id}": take that`)
  }
}

function readScope(auth: Fields): ScopeRequest | undefined {
  if (!auth.has('scope')) return undefined
  const text = textScope(auth)
  if (text) return text
  const scope = auth.object('scope')
  const project = scope.optionalObject('project')
  const domain = scope.optionalObject('domain')
  const system = scope.optionalObject('system')
  if ([project, domain, system].filter((part) => part !== undefined).length > 1) {
    throw invalid('auth.scope must be one of project, domain and system')
  }
  if (project) return readProject(project)
  if (domain) {
    requireDomain(domain)
    return { kind: 'domain' }
  }
  if (system) {
    if (system.flag('all') !== true) throw invalid('auth.scope.system.all must be true')
    return { kind: 'system' }
  }
  if (scope.has('unscoped') || scope.isEmpty) return scope.isEmpty ? undefined : { kind: 'none' }
  throw invalid('auth.scope must be "unscoped" or have one of project, domain and system')
}

/** Newer clients send the word, older ones an object. */
function textScope(auth: Fields): ScopeRequest | undefined {
  if (!auth.isText('scope')) return undefined
  if (auth.text('scope', rules.reference) !== 'unscoped') throw invalid('auth.scope as a string can only be "unscoped"')
  return { kind: 'none' }
}

function readProject(project: Fields): ScopeRequest {
  const name = project.optionalText('name', rules.reference)
  const id = project.optionalText('id', rules.reference)
  if (name === undefined && id === undefined) throw invalid('auth.scope.project: a project is named by id, or by name and domain')
  if (name === undefined) return { kind: 'project', id: id as string }
  requireDomain(project.object('domain'))
  return { kind: 'project', name }
}
