import { DOMAIN } from '../../../identity/records.ts'
import {
  changePassword,
  createUser,
  deleteUser,
  getUser,
  listUsers,
  projectsOfUser,
  type UserFields,
  updateUser,
} from '../../../identity/users.ts'
import { type Fields, rules } from './fields.ts'
import { collection, filtered, shownList, showProject, showUser } from './presentation.ts'
import { invalid, notFound } from './refusals.ts'
import { created, noContent, ok, type Route } from './route.ts'

export const userRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/users',
    async handle({ ports, caller, query, base }) {
      const found = await listUsers(ports, caller, query.text('name'))
      const fields = ['name', 'enabled', 'domain_id']
      return ok(shownList('users', found, (user) => showUser(user, base), { query, fields }, `${base}/users`))
    },
  },
  {
    method: 'POST',
    path: '/users',
    verb: 'user:create',
    async handle({ ports, caller, body, base }) {
      const user = body.object('user')
      requireOurDomain(user)
      const made = await createUser(ports, caller, { ...readUser(user), name: user.text('name', rules.name) })
      return created({ user: showUser(made, base) })
    },
  },
  {
    method: 'GET',
    path: '/users/:userId',
    async handle({ ports, caller, params, base }) {
      return ok({ user: showUser(await getUser(ports, caller, params.userId ?? ''), base) })
    },
  },
  {
    method: 'PATCH',
    path: '/users/:userId',
    verb: 'user:update',
    async handle({ ports, caller, params, body, base }) {
      const user = changesOf(body.object('user'), params.userId)
      return ok({ user: showUser(await updateUser(ports, caller, params.userId ?? '', readUser(user)), base) })
    },
  },
  {
    method: 'DELETE',
    path: '/users/:userId',
    async handle({ ports, caller, params }) {
      await deleteUser(ports, caller, params.userId ?? '')
      return noContent
    },
  },
  {
    method: 'POST',
    path: '/users/:userId/password',
    auth: 'none', // the old password is the proof: people whose tokens have all expired change it too
    async handle({ ports, params, body, request }) {
      const user = body.object('user')
      const original = user.text('original_password', rules.free)
      await changePassword(ports, params.userId ?? '', original, user.text('password', rules.free), request.ip)
      return noContent
    },
  },
  {
    method: 'GET',
    path: '/users/:userId/projects',
    async handle({ ports, caller, params, query, base }) {
      const found = await projectsOfUser(ports, caller, params.userId ?? '')
      const shown = found.map((project) => showProject(project, base))
      const self = `${base}/users/${params.userId}/projects`
      return ok(collection('projects', filtered(shown, query, ['name', 'enabled', 'domain_id']), self))
    },
  },
  {
    method: 'GET',
    path: '/users/:userId/groups',
    async handle({ ports, caller, params, base }) {
      await getUser(ports, caller, params.userId ?? '')
      return ok(collection('groups', [], `${base}/users/${params.userId}/groups`)) // there are no groups here
    },
  },
  { method: 'GET', path: '/groups', verb: 'user:list', handle: ({ base }) => ok(collection('groups', [], `${base}/groups`)) },
]

const known: ReadonlySet<string> = new Set([
  ...['id', 'name', 'domain_id', 'enabled', 'description', 'default_project_id', 'password', 'original_password'],
  ...['password_expires_at', 'options', 'links', 'federated'],
])

function readUser(user: Fields): UserFields {
  const name = user.optionalText('name', rules.name)
  const enabled = user.flag('enabled')
  const description = user.nullableText('description', rules.free)
  const defaultProjectId = user.nullableText('default_project_id', rules.id)
  const password = user.nullableText('password', { free: true, most: 1024 * 1024 })
  user.optionalObject('options')
  return {
    ...(name === undefined ? {} : { name }),
    ...(enabled === undefined ? {} : { enabled }),
    ...(description === undefined ? {} : { description }),
    ...(defaultProjectId === undefined ? {} : { defaultProjectId }),
    ...(password === undefined ? {} : { password }),
    extra: user.rest(known),
  }
}

/** @throws ServiceError `not-found` for a domain that is not the one */
export function requireOurDomain(fields: Fields): void {
  const id = fields.nullableText('domain_id', rules.id)
  if (id != null && id !== DOMAIN.id) throw notFound('domain', id)
}

/** What a PATCH brings: something, about the thing that its path names, which stays in its domain. */
export function changesOf(fields: Fields, id: string | undefined): Fields {
  if (fields.isEmpty) throw invalid('the request names nothing to change')
  const bodyId = fields.optionalText('id', rules.reference)
  if (bodyId !== undefined && bodyId !== id)
    throw invalid('the id in the body is not the one in the path: an id cannot be changed')
  const domainId = fields.nullableText('domain_id', rules.id)
  if (domainId != null && domainId !== DOMAIN.id) throw invalid('domain_id cannot be changed: there is one domain')
  return fields
}
