import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { findInstance } from '../find-instance.ts'
import { authorizeService } from '../policy.ts'
import type { InstancePorts } from '../ports.ts'
import type { InstanceMigration } from '../records.ts'

/** How the instance came to its host, for administrators. @throws ServiceError `denied`; `not-found`, also where it was never moved */
export async function showMigration(
  { catalog }: Pick<InstancePorts, 'catalog'>,
  caller: Caller,
  id: string,
): Promise<InstanceMigration> {
  authorizeService(caller, 'read-hosts')
  const { migration } = await findInstance(catalog.documents, caller, id, 'show')
  if (migration) return migration
  throw new ServiceError('not-found', `instance ${id} was never moved from one host to another`)
}
