import { ServiceError } from '../base/errors.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import type { AuthenticatedCaller } from './identity.ts'
import { authorize } from './policy.ts'
import type { Ports } from './ports.ts'
import { type AssignmentRecord, DOMAIN, type RoleRecord, type Scope, scopeKey } from './records.ts'
import {
  applicationCredentials,
  assignments,
  effectiveRoles,
  impliedBy,
  type Listed,
  projects,
  roles,
  tokens,
  users,
} from './store.ts'

/** A role that a user is given in a scope. Everything here asks for the three parts to exist: `not-found` names the one that does not. */
export type Grant = AssignmentRecord

/** The user's tokens for this scope carry the role from now on: nobody has to log in again. */
export async function grantRole({ catalog }: Ports, caller: AuthenticatedCaller, grant: Grant): Promise<void> {
  authorize(caller, 'grant:create')
  await catalog.write(async ({ documents }) => {
    await requireParts(documents, grant)
    await assignments.put(documents, grant)
    const { userId, scope } = grant
    await tokens.setRolesOfGrant(documents, userId, scope, await effectiveRoles(documents, userId, scope))
  })
}

/** Ends the user's tokens in this scope, and the application credentials that carry the role in it. */
export async function revokeRole({ catalog }: Ports, caller: AuthenticatedCaller, grant: Grant): Promise<void> {
  authorize(caller, 'grant:delete')
  const { userId, scope } = grant
  await catalog.write(async ({ documents }) => {
    await requireParts(documents, grant)
    if (!(await assignments.delete(documents, grant))) throw noGrant(grant)
    await tokens.revokeOfGrant(documents, userId, scope)
    if (scope.kind !== 'project') return
    const held = new Set((await effectiveRoles(documents, userId, scope)).map(({ id }) => id))
    const { items } = await applicationCredentials.ofUser(documents, userId)
    for (const { id, projectId, roleIds } of items) {
      if (projectId === scope.projectId && !roleIds.every((role) => held.has(role)))
        await applicationCredentials.delete(documents, id)
    }
  })
}

/** @throws ServiceError `not-found` where the user does not have the role there */
export async function checkGrant({ catalog }: Ports, caller: AuthenticatedCaller, grant: Grant): Promise<void> {
  authorize(caller, 'grant:read')
  await requireParts(catalog.documents, grant)
  if (!(await assignments.has(catalog.documents, grant))) throw noGrant(grant)
}

/** The roles given to a user in a scope, without those they imply. */
export async function listGrants(
  { catalog }: Ports,
  caller: AuthenticatedCaller,
  userId: string,
  scope: Scope,
): Promise<readonly RoleRecord[]> {
  authorize(caller, 'grant:read')
  await requireParts(catalog.documents, { userId, scope })
  const { items } = await assignments.ofGrant(catalog.documents, userId, scope)
  const found = await Promise.all(items.map(({ roleId }) => roles.get(catalog.documents, roleId)))
  return found.filter((role) => role !== undefined)
}

export interface AssignmentQuery {
  readonly userId?: string
  readonly roleId?: string
  readonly scope?: Scope
  /** With the roles that others imply, each as an assignment of its own. */
  readonly effective?: boolean
}

export async function listAssignments(
  { catalog }: Ports,
  caller: AuthenticatedCaller,
  query: AssignmentQuery,
): Promise<Listed<AssignmentRecord>> {
  authorize(caller, 'assignment:list')
  const { userId, roleId, scope, effective = false } = query
  const docs = catalog.documents
  const { items, truncated } =
    userId !== undefined
      ? await assignments.ofUser(docs, userId)
      : scope
        ? await assignments.ofScope(docs, scope)
        : roleId !== undefined && !effective
          ? await assignments.ofRole(docs, roleId)
          : await assignments.list(docs)
  const expanded = effective ? distinct(items.flatMap(withImplied)) : items
  const wanted = expanded.filter(
    (item) => (roleId === undefined || item.roleId === roleId) && (!scope || scopeKey(item.scope) === scopeKey(scope)),
  )
  return { items: wanted, truncated }
}

const withImplied = (item: AssignmentRecord): AssignmentRecord[] => [
  item,
  ...impliedBy(item.roleId).map(({ id }) => ({ ...item, roleId: id })),
]

const distinct = (items: readonly AssignmentRecord[]): AssignmentRecord[] => [
  ...new Map(items.map((item) => [`${item.userId}|${scopeKey(item.scope)}|${item.roleId}`, item])).values(),
]

async function requireParts(
  docs: DocumentReader,
  { userId, scope, roleId }: Omit<Grant, 'roleId'> & { roleId?: string },
): Promise<void> {
  if (!(await users.get(docs, userId))) throw new ServiceError('not-found', `could not find user "${userId}"`)
  if (scope.kind === 'project' && !(await projects.get(docs, scope.projectId))) {
    throw new ServiceError('not-found', `could not find project "${scope.projectId}"`)
  }
  if (roleId !== undefined && !(await roles.get(docs, roleId))) {
    throw new ServiceError('not-found', `could not find role "${roleId}"`)
  }
}

const noGrant = ({ userId, scope, roleId }: Grant): ServiceError => {
  const where =
    scope.kind === 'project' ? `project "${scope.projectId}"` : scope.kind === 'domain' ? `domain "${DOMAIN.id}"` : 'the system'
  return new ServiceError('not-found', `user "${userId}" does not have role "${roleId}" on ${where}`)
}
