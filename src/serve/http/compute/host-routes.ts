import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import { describeHost, type HostDescription } from '../../../instances/describe-host.ts'
import { authorizeService } from '../../../instances/policy.ts'
import { refuseUnknown } from './paging.ts'
import { type Call, ok, part, type Route } from './route.ts'
import { ZONE } from './server-json.ts'
import { isoMicroseconds } from './times.ts'

/** The one host, in the places where clients of Nova look for hosts. */
export const hostRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/os-availability-zone',
    handle({ caller }) {
      authorizeService(caller, 'read-zones')
      return ok({ availabilityZoneInfo: [{ zoneName: ZONE, zoneState: { available: true }, hosts: null }] })
    },
  },
  {
    method: 'GET',
    path: '/os-availability-zone/detail',
    async handle(call) {
      const { hostName, isUp } = await hostOf(call)
      const service = { available: isUp, active: true, updated_at: isoMicroseconds(call.ports.now()) }
      const hosts = { [hostName]: { 'nova-compute': service } }
      return ok({ availabilityZoneInfo: [{ zoneName: ZONE, zoneState: { available: true }, hosts }] })
    },
  },
  { method: 'GET', path: '/os-services', handle: services },
  {
    method: 'GET',
    path: '/os-hypervisors',
    handle: async (call) => ok({ hypervisors: (await hypervisors(call)).map((host) => hypervisorSummary(call, host)) }),
  },
  {
    method: 'GET',
    path: '/os-hypervisors/detail',
    handle: async (call) => ok({ hypervisors: (await hypervisors(call)).map((host) => hypervisorDetail(call, host)) }),
  },
  { method: 'GET', path: '/os-hypervisors/statistics', handle: statistics },
  {
    method: 'GET',
    path: '/os-hypervisors/:id',
    async handle(call) {
      const host = await hostOf(call)
      if (part(call, 'id') !== String(hypervisorId(call, host))) {
        throw new ServiceError('not-found', `Hypervisor with ID '${part(call, 'id').slice(0, 80)}' could not be found.`)
      }
      return ok({ hypervisor: hypervisorDetail(call, host) })
    },
  },
]

const hostOf = ({ ports, caller }: Call): Promise<HostDescription> => describeHost(ports, caller)

/** A number until version 2.53, then a UUID. */
const hypervisorId = ({ minor }: Call, { id }: HostDescription): string | number => (minor < 53 ? 1 : id)

async function services(call: Call) {
  const { query, minor } = call
  refuseUnknown(query, minor, ['host', 'binary'])
  const { id, hostName, isUp } = await hostOf(call)
  const service = {
    id: minor < 53 ? 1 : id,
    binary: 'nova-compute',
    host: hostName,
    zone: ZONE,
    status: 'enabled',
    state: isUp ? 'up' : 'down',
    updated_at: isoMicroseconds(call.ports.now()),
    disabled_reason: null,
    ...(minor >= 11 ? { forced_down: false } : {}),
  }
  const wanted = [
    ['host', hostName],
    ['binary', service.binary],
  ] as const
  const isWanted = wanted.every(([name, value]) => (query.get(name) ?? value) === value)
  return ok({ services: isWanted ? [service] : [] })
}

async function hypervisors(call: Call): Promise<readonly HostDescription[]> {
  const { query, minor } = call
  refuseUnknown(query, minor, ['hypervisor_hostname_pattern', 'with_servers', 'limit', 'marker'])
  const host = await hostOf(call)
  const pattern = minor >= 53 ? query.get('hypervisor_hostname_pattern') : null
  if (pattern !== null && !host.hostName.includes(pattern)) {
    throw new ServiceError('not-found', `No hypervisor matching '${pattern.slice(0, 80)}' could be found.`)
  }
  if (minor >= 33 && query.get('limit') === '0') return []
  if (minor >= 33 && query.get('marker') !== null) return [] // there is one
  return [host]
}

const hypervisorSummary = (call: Call, host: HostDescription) => ({
  id: hypervisorId(call, host),
  hypervisor_hostname: host.hostName,
  state: host.isUp ? 'up' : 'down',
  status: 'enabled',
})

function hypervisorDetail(call: Call, host: HostDescription) {
  const { abilities } = host
  const cpu = {
    arch: abilities?.architectures[0] ?? '',
    features: [],
    topology: { cores: abilities?.cpus ?? 0, sockets: 1, threads: 1 },
  }
  return {
    ...hypervisorSummary(call, host),
    hypervisor_type: host.type,
    hypervisor_version: versionNumber(abilities?.version ?? ''),
    host_ip: '127.0.0.1',
    service: { id: call.minor < 53 ? 1 : host.id, host: host.hostName, disabled_reason: null },
    cpu_info: call.minor < 28 ? JSON.stringify(cpu) : cpu,
    ...sizesOf(host),
  }
}

/** Memory in MiB, disk in GiB, as Nova shows them. */
function sizesOf({ abilities, use, diskGiB, freeDiskGiB }: HostDescription) {
  const memoryMiB = Math.floor((abilities?.memoryBytes ?? 0) / MiB)
  return {
    vcpus: abilities?.cpus ?? 0,
    vcpus_used: use.cores,
    memory_mb: memoryMiB,
    memory_mb_used: use.ramMiB,
    free_ram_mb: memoryMiB - use.ramMiB,
    local_gb: diskGiB,
    local_gb_used: diskGiB - freeDiskGiB,
    free_disk_gb: freeDiskGiB,
    disk_available_least: freeDiskGiB,
    running_vms: use.running,
    current_workload: use.busy,
  }
}

/** 7.2.19 → 7002019, as libvirt counts. */
function versionNumber(version: string): number {
  const [major = 0, minor = 0, patch = 0] = (/\d+(\.\d+)*/.exec(version)?.[0] ?? '').split('.').map(Number)
  return major * 1_000_000 + minor * 1000 + patch
}

async function statistics(call: Call) {
  return ok({ hypervisor_statistics: { count: 1, ...sizesOf(await hostOf(call)) } })
}
