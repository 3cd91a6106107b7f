import type { AssignmentQuery } from '../../../identity/grants.ts'
import { checkGrant, grantRole, listAssignments, listGrants, revokeRole } from '../../../identity/grants.ts'
import { type AssignmentRecord, DOMAIN, type Scope } from '../../../identity/records.ts'
import { createRole, deleteRole, getRole, impliedRoles, listRoles, type RoleFields, updateRole } from '../../../identity/roles.ts'
import { projects, roles, users } from '../../../identity/store.ts'
import { type Fields, rules } from './fields.ts'
import { collection, shownList, showRole } from './presentation.ts'
import { invalid, notFound } from './refusals.ts'
import { type Call, created, noContent, ok, type Query, type Route } from './route.ts'
import { changesOf } from './user-routes.ts'

export const roleRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/roles',
    async handle({ ports, caller, query, base }) {
      const found = await listRoles(ports, caller, query.text('name'))
      // Roles of a domain are another list in Keystone, and empty here.
      const items = query.text('domain_id') ? [] : found.items
      return ok(
        shownList('roles', { ...found, items }, (role) => showRole(role, base), { query, fields: ['name'] }, `${base}/roles`),
      )
    },
  },
  {
    method: 'POST',
    path: '/roles',
    verb: 'role:create',
    async handle({ ports, caller, body, base }) {
      const role = body.object('role')
      if (role.nullableText('domain_id', rules.id) != null)
        throw invalid('domain_id: roles of a domain are not served, leave it out')
      const made = await createRole(ports, caller, { ...readRole(role), name: role.text('name', rules.name) })
      return created({ role: showRole(made, base) })
    },
  },
  {
    method: 'GET',
    path: '/roles/:roleId',
    verb: 'role:get',
    async handle({ ports, caller, params, base }) {
      return ok({ role: showRole(await getRole(ports, caller, params.roleId ?? ''), base) })
    },
  },
  {
    method: 'PATCH',
    path: '/roles/:roleId',
    verb: 'role:update',
    async handle({ ports, caller, params, body, base }) {
      const role = readRole(changesOf(body.object('role'), params.roleId))
      return ok({ role: showRole(await updateRole(ports, caller, params.roleId ?? '', role), base) })
    },
  },
  {
    method: 'DELETE',
    path: '/roles/:roleId',
    async handle({ ports, caller, params }) {
      await deleteRole(ports, caller, params.roleId ?? '')
      return noContent
    },
  },
  {
    method: 'GET',
    path: '/roles/:roleId/implies',
    verb: 'role:get',
    async handle({ ports, caller, params, base }) {
      const role = await getRole(ports, caller, params.roleId ?? '')
      return ok({ role_inference: inference(role, base), links: { self: `${base}/roles/${role.id}/implies` } })
    },
  },
  {
    method: 'GET',
    path: '/role_inferences',
    verb: 'role:list',
    handle: ({ base }) =>
      ok({
        role_inferences: impliedRoles.filter(({ implies }) => implies.length > 0).map(({ prior }) => inference(prior, base)),
        links: { self: `${base}/role_inferences` },
      }),
  },
  {
    method: 'GET',
    path: '/role_assignments',
    async handle(call) {
      const { ports, caller, query, base } = call
      const wanted = readAssignmentQuery(query)
      const found = wanted ? await listAssignments(ports, caller, wanted) : { items: [], truncated: false }
      const show = query.flag('include_names')
        ? (item: AssignmentRecord) => withNames(call, item)
        : (item: AssignmentRecord) => plain(item)
      const shown = await Promise.all(
        found.items.map(async (item) => ({ links: { assignment: base + grantPath(item) }, ...(await show(item)) })),
      )
      return ok(collection('role_assignments', shown, `${base}/role_assignments`, found.truncated))
    },
  },
  ...grantRoutes('/projects/:projectId/users/:userId/roles', ({ projectId = '' }) => ({ kind: 'project', projectId })),
  ...grantRoutes('/domains/:domainId/users/:userId/roles', ({ domainId }) => {
    if (domainId !== DOMAIN.id) throw notFound('domain', domainId)
    return { kind: 'domain' }
  }),
  ...grantRoutes('/system/users/:userId/roles', () => ({ kind: 'system' })),
]

/** What can be done with the roles of a user in a scope is the same for each kind of scope. */
function grantRoutes(path: string, scopeOf: (params: Readonly<Record<string, string>>) => Scope): Route[] {
  const grantOf = ({ params }: Call): AssignmentRecord => ({
    userId: params.userId ?? '',
    scope: scopeOf(params),
    roleId: params.roleId ?? '',
  })
  return [
    {
      method: 'GET',
      path,
      verb: 'grant:read',
      async handle(call) {
        const { userId, scope } = grantOf(call)
        const found = await listGrants(call.ports, call.caller, userId, scope)
        const self = call.origin + call.request.url.split('?', 1)[0]
        return ok(
          collection(
            'roles',
            found.map((role) => showRole(role, call.base)),
            self,
          ),
        )
      },
    },
    {
      method: 'GET',
      path: `${path}/:roleId`,
      verb: 'grant:read',
      async handle(call) {
        await checkGrant(call.ports, call.caller, grantOf(call))
        return noContent
      },
    },
    {
      method: 'PUT',
      path: `${path}/:roleId`,
      verb: 'grant:create',
      async handle(call) {
        await grantRole(call.ports, call.caller, grantOf(call))
        return noContent
      },
    },
    {
      method: 'DELETE',
      path: `${path}/:roleId`,
      verb: 'grant:delete',
      async handle(call) {
        await revokeRole(call.ports, call.caller, grantOf(call))
        return noContent
      },
    },
  ]
}

const readRole = (role: Fields): RoleFields => {
  const name = role.optionalText('name', rules.name)
  const description = role.nullableText('description', rules.free)
  role.optionalObject('options')
  return { ...(name === undefined ? {} : { name }), ...(description === undefined ? {} : { description }) }
}

const inference = (role: { readonly id: string; readonly name: string }, base: string) => ({
  prior_role: linked(role, base),
  implies: (impliedRoles.find(({ prior }) => prior.id === role.id)?.implies ?? []).map((implied) => linked(implied, base)),
})
const linked = ({ id, name }: { readonly id: string; readonly name: string }, base: string) => ({
  id,
  name,
  links: { self: `${base}/roles/${id}` },
})

/** @returns undefined where the query asks for what does not exist here: groups, and domains other than the one */
function readAssignmentQuery(query: Query): AssignmentQuery | undefined {
  const userId = query.text('user.id')
  const roleId = query.text('role.id')
  const projectId = query.text('scope.project.id')
  const domainId = query.text('scope.domain.id')
  const system = query.text('scope.system')
  if (query.text('group.id') !== undefined || (domainId !== undefined && domainId !== DOMAIN.id)) return undefined
  if ([projectId, domainId, system].filter((scope) => scope !== undefined).length > 1) {
    throw invalid('ask for one scope: scope.project.id, scope.domain.id or scope.system')
  }
  return {
    ...(userId === undefined ? {} : { userId }),
    ...(roleId === undefined ? {} : { roleId }),
    ...(projectId === undefined ? {} : { scope: { kind: 'project', projectId } }),
    ...(domainId === undefined ? {} : { scope: { kind: 'domain' } }),
    ...(system === undefined ? {} : { scope: { kind: 'system' } }),
    effective: query.flag('effective'),
  }
}

const grantPath = ({ userId, scope, roleId }: AssignmentRecord): string => {
  const within =
    scope.kind === 'project' ? `/projects/${scope.projectId}` : scope.kind === 'domain' ? `/domains/${DOMAIN.id}` : '/system'
  return `${within}/users/${userId}/roles/${roleId}`
}

const plain = ({ userId, scope, roleId }: AssignmentRecord): object => ({
  scope: shownScope(scope, { id: DOMAIN.id }, (id) => ({ id })),
  user: { id: userId },
  role: { id: roleId },
})

async function withNames({ ports }: Call, { userId, scope, roleId }: AssignmentRecord): Promise<object> {
  const docs = ports.catalog.documents
  const domain = { id: DOMAIN.id, name: DOMAIN.name }
  const [user, role] = await Promise.all([users.get(docs, userId), roles.get(docs, roleId)])
  const project = scope.kind === 'project' ? await projects.get(docs, scope.projectId) : undefined
  return {
    scope: shownScope(scope, domain, (id) => ({ id, name: project?.name ?? '', domain })),
    user: { id: userId, name: user?.name ?? '', domain },
    role: { id: roleId, name: role?.name ?? '' },
  }
}

function shownScope(scope: Scope, domain: object, project: (id: string) => object): object {
  if (scope.kind === 'project') return { project: project(scope.projectId) }
  return scope.kind === 'domain' ? { domain } : { system: { all: true } }
}
