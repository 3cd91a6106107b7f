import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { authorizeService } from './policy.ts'
import type { VolumePorts } from './ports.ts'
import { type ProjectQuota, type ProjectUse, quotaOf, useOf } from './quotas.ts'

/** @param projectId absent: the caller's own. @throws ServiceError `denied` */
export async function limitsOf(
  ports: Pick<VolumePorts, 'catalog' | 'limits' | 'settings'>,
  caller: Caller,
  projectId = caller.projectId,
): Promise<{ readonly quota: ProjectQuota; readonly use: ProjectUse; readonly defaults: ProjectQuota }> {
  authorizeService(caller, projectId === caller.projectId ? 'read-limits' : 'read-limits-of-others')
  if (projectId === null) throw new ServiceError('denied', 'limits are those of a project: log in with one as scope')
  const [quota, use] = [await quotaOf(ports, projectId), await useOf(ports.catalog.documents, projectId)]
  return { quota, use, defaults: ports.settings.defaultLimits }
}
