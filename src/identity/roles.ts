import { ServiceError } from '../base/errors.ts'
import type { DocumentReader, DocumentWriter } from '../store/catalog/catalog.ts'
import type { AuthenticatedCaller } from './identity.ts'
import { authorize } from './policy.ts'
import type { Ports } from './ports.ts'
import { newId, type RoleRecord } from './records.ts'
import { assignments, builtInRoles, type Listed, roles, tokens } from './store.ts'

/** Roles beyond the three built-in ones mean nothing to this service, yet other services that trust its tokens may use them. */
export interface RoleFields {
  readonly name?: string
  readonly description?: string | null
}

export async function getRole({ catalog }: Ports, caller: AuthenticatedCaller, id: string): Promise<RoleRecord> {
  authorize(caller, 'role:get')
  return (await roles.get(catalog.documents, id)) ?? absent(id)
}

export async function listRoles({ catalog }: Ports, caller: AuthenticatedCaller, name?: string): Promise<Listed<RoleRecord>> {
  authorize(caller, 'role:list')
  if (name === undefined) return roles.list(catalog.documents)
  const found = await roles.byName(catalog.documents, name)
  return { items: found ? [found] : [], truncated: false }
}

/** @throws ServiceError `conflict` where the name is taken */
export async function createRole(
  { catalog }: Ports,
  caller: AuthenticatedCaller,
  { name, description = null }: RoleFields & { readonly name: string },
): Promise<RoleRecord> {
  authorize(caller, 'role:create')
  const role: RoleRecord = { id: newId(), name, description, immutable: false }
  await catalog.write(({ documents }) => putRole(documents, role))
  return role
}

/** @throws ServiceError `denied` for a built-in role */
export function updateRole({ catalog }: Ports, caller: AuthenticatedCaller, id: string, fields: RoleFields): Promise<RoleRecord> {
  authorize(caller, 'role:update')
  return catalog.write(async ({ documents }) => {
    const role = await changeable(documents, id)
    const changed = { ...role, ...fields }
    await putRole(documents, changed)
    return changed
  })
}

/** Takes the role from all who have it, and ends their tokens in those scopes. */
export async function deleteRole({ catalog }: Ports, caller: AuthenticatedCaller, id: string): Promise<void> {
  authorize(caller, 'role:delete')
  await catalog.write(async ({ documents }) => {
    await changeable(documents, id)
    for (;;) {
      const { items, truncated } = await assignments.ofRole(documents, id)
      for (const assignment of items) {
        await tokens.revokeOfGrant(documents, assignment.userId, assignment.scope)
        await assignments.delete(documents, assignment)
      }
      if (!truncated) break
    }
    await roles.delete(documents, id)
  })
}

/** Which built-in role implies which, both by id. */
export const impliedRoles = builtInRoles.map(({ id, name, implies }) => ({
  prior: { id, name },
  implies: builtInRoles
    .filter((role) => (implies as readonly string[]).includes(role.name))
    .map((role) => ({ id: role.id, name: role.name })),
}))

async function changeable(docs: DocumentReader, id: string): Promise<RoleRecord> {
  const role = (await roles.get(docs, id)) ?? absent(id)
  if (role.immutable) throw new ServiceError('denied', `role "${role.name}" is built in and cannot be changed or deleted`)
  return role
}

async function putRole(docs: DocumentReader & DocumentWriter, role: RoleRecord): Promise<void> {
  const holder = await roles.byName(docs, role.name)
  if (holder && holder.id !== role.id)
    throw new ServiceError('conflict', `there is a role named "${role.name}": choose another name`)
  await roles.put(docs, role)
}

function absent(id: string): never {
  throw new ServiceError('not-found', `could not find role "${id}"`)
}
