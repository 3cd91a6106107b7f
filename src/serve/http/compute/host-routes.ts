import { loadavg } from 'node:os'
import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import { describeHost, type HostDescription } from '../../../instances/describe-host.ts'
import { authorizeService } from '../../../instances/policy.ts'
import { isYes, refuseUnknown } from '../paging.ts'
import { isoMicroseconds } from '../times.ts'
import { type Call, ok, part, type Route } from './route.ts'
import { instanceName, ZONE } from './server-json.ts'

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
    path: '/os-hypervisors/:id/search',
    until: 52,
    handle: async (call) => ok({ hypervisors: [hypervisorSummary(call, await namedHost(call))] }),
  },
  {
    method: 'GET',
    path: '/os-hypervisors/:id/servers',
    until: 52,
    async handle(call) {
      const host = await namedHost(call)
      return ok({ hypervisors: [{ ...hypervisorSummary(call, host), servers: serversOf(host) }] })
    },
  },
  {
    method: 'GET',
    path: '/os-hypervisors/:id/uptime',
    async handle(call) {
      const host = await identifiedHost(call)
      return ok({ hypervisor: { ...hypervisorSummary(call, host), uptime: uptimeText(host.upSeconds) } })
    },
  },
  {
    method: 'GET',
    path: '/os-hypervisors/:id',
    handle: async (call) => ok({ hypervisor: hypervisorDetail(call, await identifiedHost(call)) }),
  },
]

const hostOf = ({ ports, caller }: Call): Promise<HostDescription> => describeHost(ports, caller)

/** @throws ServiceError `not-found` */
async function identifiedHost(call: Call): Promise<HostDescription> {
  const host = await hostOf(call)
  if (part(call, 'id') === String(hypervisorId(call, host))) return host
  throw new ServiceError('not-found', `Hypervisor with ID '${part(call, 'id').slice(0, 80)}' could not be found.`)
}

/** Found by a part of its name. @throws ServiceError `not-found` */
async function namedHost(call: Call): Promise<HostDescription> {
  const host = await hostOf(call)
  if (host.hostName.includes(part(call, 'id'))) return host
  throw new ServiceError('not-found', `No hypervisor matching '${part(call, 'id').slice(0, 80)}' could be found.`)
}

const serversOf = ({ instances }: HostDescription) => instances.map(({ id }) => ({ uuid: id, name: instanceName(id) }))

/** As uptime(1) begins its line, which clients take apart. */
function uptimeText(seconds: number): string {
  const [days, hours, minutes] = [seconds / 86_400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor)
  const loads = loadavg().map((load) => load.toFixed(2))
  const time = new Date().toTimeString().slice(0, 8)
  return ` ${time} up ${days} days, ${hours}:${String(minutes).padStart(2, '0')},  0 users,  load average: ${loads.join(', ')}`
}

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
  ...(call.minor >= 53 && isYes(call.query.get('with_servers') ?? '') ? { servers: serversOf(host) } : {}),
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
