import { isServiceError, ServiceError } from '../base/errors.ts'
import type { IdentityClient, Named } from './client/identity-client.ts'

const ID = /^[0-9a-f]{32}$/

/** The id of a project given by name or id. Only administrators may look names up. @throws ServiceError `not-found` */
export async function projectIdOf(identity: IdentityClient, nameOrId: string): Promise<string> {
  if (ID.test(nameOrId)) return nameOrId
  try {
    return (await find(identity, 'projects', nameOrId)).id
  } catch (error) {
    if (!isServiceError(error, 'denied')) throw error
    throw new ServiceError(
      'denied',
      `only an administrator may look up the project "${nameOrId}" by its name; give its id`,
      {},
      { cause: error },
    )
  }
}

/** One user, project or role by name or id. @throws ServiceError `not-found` */
export async function find(identity: IdentityClient, kind: 'users' | 'projects' | 'roles', nameOrId: string): Promise<Named> {
  const found = ID.test(nameOrId)
    ? (await identity.list(kind)).filter(({ id }) => id === nameOrId)
    : await identity.list(kind, nameOrId)
  const one = found.find(({ name, id }) => name === nameOrId || id === nameOrId) ?? found[0]
  if (one) return one
  const what = kind.slice(0, -1)
  throw new ServiceError(
    'not-found',
    `there is no ${what} "${nameOrId}"; ${kind === 'roles' ? 'roles are admin, member and reader' : `imprint ${what} list shows them`}`,
  )
}
