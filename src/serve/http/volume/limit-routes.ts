import { ServiceError } from '../../../base/errors.ts'
import { limitsOf } from '../../../volumes/limits.ts'
import type { QuotaName } from '../../../volumes/ports.ts'
import { isYes } from '../paging.ts'
import { type Call, ok, part, type Route } from './route.ts'
import { volumeType } from './type-routes.ts'

export const limitRoutes: readonly Route[] = [
  { method: 'GET', path: '/limits', handle: limits },
  { method: 'GET', path: '/os-quota-sets/:target', handle: (call) => quotaSet(call, 'quota') },
  { method: 'GET', path: '/os-quota-sets/:target/defaults', handle: (call) => quotaSet(call, 'defaults') },
]

async function limits({ ports, caller, query, minor }: Call) {
  const asked = caller.isAdmin && minor >= 39 ? query.get('project_id') : null
  const { quota, use } = await limitsOf(ports, caller, asked ?? undefined)
  return ok({
    limits: {
      rate: [],
      absolute: {
        maxTotalVolumes: quota.volumes,
        maxTotalVolumeGigabytes: quota.gigabytes,
        maxTotalSnapshots: quota.snapshots,
        maxTotalBackups: 0,
        maxTotalBackupGigabytes: 0,
        totalVolumesUsed: use.volumes,
        totalGigabytesUsed: use.gigabytes,
        totalSnapshotsUsed: use.snapshots,
        totalBackupsUsed: 0,
        totalBackupGigabytesUsed: 0,
      },
    },
  })
}

/** Limits are set by the identity API's unified limits: here they are shown, to clients that look for them here. */
async function quotaSet(call: Call, kind: 'quota' | 'defaults') {
  const projectId = part(call, 'target')
  if (!/^[A-Za-z0-9-]{1,64}$/.test(projectId))
    throw new ServiceError('not-found', 'a project has an id of letters, digits and "-"')
  const { quota, use, defaults } = await limitsOf(call.ports, call.caller, projectId)
  const withUse = isYes(call.query.get('usage') ?? '')
  const shown = (limit: number, inUse: number) => (withUse ? { limit, in_use: inUse, reserved: 0 } : limit)
  const limits: Readonly<Record<QuotaName, number>> = kind === 'defaults' ? defaults : quota
  return ok({
    quota_set: {
      id: projectId,
      volumes: shown(limits.volumes, use.volumes),
      snapshots: shown(limits.snapshots, use.snapshots),
      gigabytes: shown(limits.gigabytes, use.gigabytes),
      per_volume_gigabytes: shown(limits.per_volume_gigabytes, 0),
      backups: shown(0, 0),
      backup_gigabytes: shown(0, 0),
      groups: shown(0, 0),
      // of the one type there are no limits of its own
      ...Object.fromEntries(
        (['volumes', 'snapshots', 'gigabytes'] as const).map((name) => [`${name}_${volumeType.name}`, shown(-1, use[name])]),
      ),
    },
  })
}
