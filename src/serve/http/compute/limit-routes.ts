import { ServiceError } from '../../../base/errors.ts'
import { MAX_KEYPAIRS } from '../../../instances/keypairs/keypairs.ts'
import { limitsOf } from '../../../instances/limits.ts'
import { MAX_METADATA } from '../../../instances/metadata.ts'
import { refuseUnknown } from '../paging.ts'
import { type Call, ok, part, type Route } from './route.ts'

export const limitRoutes: readonly Route[] = [
  { method: 'GET', path: '/limits', handle: limits },
  { method: 'GET', path: '/os-quota-sets/:project', handle: (call) => quotaSet(call, 'quota') },
  { method: 'GET', path: '/os-quota-sets/:project/detail', handle: (call) => quotaSet(call, 'detail') },
  { method: 'GET', path: '/os-quota-sets/:project/defaults', handle: (call) => quotaSet(call, 'defaults') },
]

async function limits({ ports, caller, query, minor }: Call) {
  refuseUnknown(query, minor, ['tenant_id', 'reserved'])
  const { quota, use } = await limitsOf(ports, caller, query.get('tenant_id') ?? undefined)
  return ok({
    limits: {
      rate: [],
      absolute: {
        maxTotalInstances: quota.instances,
        maxTotalCores: quota.cores,
        maxTotalRAMSize: quota.ram,
        maxTotalKeypairs: MAX_KEYPAIRS,
        maxServerMeta: MAX_METADATA,
        maxServerGroups: 0,
        maxServerGroupMembers: 0,
        totalInstancesUsed: use.instances,
        totalCoresUsed: use.cores,
        totalRAMUsed: use.ram,
        totalServerGroupsUsed: 0,
        ...(minor < 39 ? { maxImageMeta: MAX_METADATA } : {}),
        ...(minor < 57 ? { maxPersonality: 0, maxPersonalitySize: 0 } : {}),
        ...(minor < 36
          ? {
              maxSecurityGroups: 0,
              maxSecurityGroupRules: 0,
              maxTotalFloatingIps: 0,
              totalSecurityGroupsUsed: 0,
              totalFloatingIpsUsed: 0,
            }
          : {}),
      },
    },
  })
}

/** What there is none of here: quotas had it until these versions. */
const ofNetworks = ['fixed_ips', 'floating_ips', 'security_groups', 'security_group_rules']
const ofFiles = ['injected_files', 'injected_file_content_bytes', 'injected_file_path_bytes']

/** Limits are set by the identity API's unified limits: here they are shown, to clients that look for them here. */
async function quotaSet(call: Call, kind: 'quota' | 'detail' | 'defaults') {
  const projectId = part(call, 'project')
  if (!/^[A-Za-z0-9-]{1,64}$/.test(projectId))
    throw new ServiceError('not-found', 'a project has an id of letters, digits and "-"')
  const { quota, use, defaults } = await limitsOf(call.ports, call.caller, projectId)
  const shown = (limit: number, inUse: number) => (kind === 'detail' ? { limit, in_use: inUse, reserved: 0 } : limit)
  const limits = kind === 'defaults' ? defaults : quota
  return ok({
    quota_set: {
      id: projectId,
      instances: shown(limits.instances, use.instances),
      cores: shown(limits.cores, use.cores),
      ram: shown(limits.ram, use.ram),
      key_pairs: shown(MAX_KEYPAIRS, 0),
      metadata_items: shown(MAX_METADATA, 0),
      server_groups: shown(0, 0),
      server_group_members: shown(0, 0),
      ...Object.fromEntries(
        [...(call.minor < 36 ? ofNetworks : []), ...(call.minor < 57 ? ofFiles : [])].map((name) => [name, shown(0, 0)]),
      ),
    },
  })
}
