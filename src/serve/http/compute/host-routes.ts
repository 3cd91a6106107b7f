import { loadavg } from 'node:os'
import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import { describeHosts, type HostDescription } from '../../../instances/describe-host.ts'
import { authorizeService } from '../../../instances/policy.ts'
import { isYes, refuseUnknown } from '../paging.ts'
import { isoMicroseconds } from '../times.ts'
import { type Call, ok, part, type Route } from './route.ts'
import { instanceName, ZONE } from './server-json.ts'

/** The hosts, in the places where clients of Nova look for them. */
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
      const serviceOf = ({ isUp }: HostDescription) => ({
        'nova-compute': { available: isUp, active: true, updated_at: isoMicroseconds(call.ports.now()) },
      })
      const hosts = Object.fromEntries((await hostsOf(call)).map((host) => [host.hostName, serviceOf(host)]))
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
    handle: async (call) => ok({ hypervisors: (await namedHosts(call)).map((host) => hypervisorSummary(call, host)) }),
  },
  {
    method: 'GET',
    path: '/os-hypervisors/:id/servers',
    until: 52,
    async handle(call) {
      const named = await namedHosts(call)
      return ok({ hypervisors: named.map((host) => ({ ...hypervisorSummary(call, host), servers: serversOf(host) })) })
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

/** As clients number them until version 2.53: from 1, the service's own first. */
interface Numbered extends HostDescription {
  readonly number: number
}

const hostsOf = async ({ ports, caller }: Call): Promise<readonly Numbered[]> =>
  (await describeHosts(ports, caller)).map((host, index) => ({ ...host, number: index + 1 }))

/** @throws ServiceError `not-found` */
async function identifiedHost(call: Call): Promise<Numbered> {
  const host = (await hostsOf(call)).find((each) => part(call, 'id') === String(hypervisorId(call, each)))
  if (host) return host
  throw new ServiceError('not-found', `Hypervisor with ID '${part(call, 'id').slice(0, 80)}' could not be found.`)
}

/** Found by a part of their names. @throws ServiceError `not-found` */
async function namedHosts(call: Call, name = part(call, 'id')): Promise<readonly Numbered[]> {
  const hosts = (await hostsOf(call)).filter(({ hostName }) => hostName.includes(name))
  if (hosts.length > 0) return hosts
  throw new ServiceError('not-found', `No hypervisor matching '${name.slice(0, 80)}' could be found.`)
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
const hypervisorId = ({ minor }: Call, { id, number }: Numbered): string | number => (minor < 53 ? number : id)

async function services(call: Call) {
  const { query, minor } = call
  refuseUnknown(query, minor, ['host', 'binary'])
  const services = (await hostsOf(call)).map((host) => ({
    id: hypervisorId(call, host),
    binary: 'nova-compute',
    host: host.hostName,
    zone: ZONE,
    status: 'enabled',
    state: host.isUp ? 'up' : 'down',
    updated_at: isoMicroseconds(call.ports.now()),
    disabled_reason: null,
    ...(minor >= 11 ? { forced_down: false } : {}),
  }))
  const isWanted = (service: (typeof services)[number]) =>
    (['host', 'binary'] as const).every((name) => (query.get(name) ?? service[name]) === service[name])
  return ok({ services: services.filter(isWanted) })
}

async function hypervisors(call: Call): Promise<readonly Numbered[]> {
  const { query, minor } = call
  refuseUnknown(query, minor, ['hypervisor_hostname_pattern', 'with_servers', 'limit', 'marker'])
  const pattern = minor >= 53 ? query.get('hypervisor_hostname_pattern') : null
  const hosts = pattern === null ? await hostsOf(call) : await namedHosts(call, pattern)
  if (minor < 33) return hosts
  const marker = query.get('marker')
  const first = marker === null ? 0 : hosts.findIndex((host) => String(hypervisorId(call, host)) === marker) + 1
  if (marker !== null && first === 0) return []
  const limit = Number(query.get('limit') ?? hosts.length)
  return hosts.slice(first, Number.isSafeInteger(limit) && limit >= 0 ? first + limit : undefined)
}

const hypervisorSummary = (call: Call, host: Numbered) => ({
  ...(call.minor >= 53 && isYes(call.query.get('with_servers') ?? '') ? { servers: serversOf(host) } : {}),
  id: hypervisorId(call, host),
  hypervisor_hostname: host.hostName,
  state: host.isUp ? 'up' : 'down',
  status: 'enabled',
})

function hypervisorDetail(call: Call, host: Numbered) {
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
    service: { id: hypervisorId(call, host), host: host.hostName, disabled_reason: null },
    cpu_info: call.minor < 28 ? JSON.stringify(cpu) : cpu,
    ...sizesOf(host),
  }
}

/** Memory in MiB, disk in GiB, as Nova shows them. The disk is one, whichever host writes to it. */
function sizesOf({
  abilities,
  use,
  diskGiB,
  freeDiskGiB,
}: Pick<HostDescription, 'abilities' | 'use' | 'diskGiB' | 'freeDiskGiB'>) {
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

/** Of all hosts; what they have on one disk counts once. */
async function statistics(call: Call) {
  const hosts = await hostsOf(call)
  const [own, ...others] = hosts.map(sizesOf)
  const summed = [
    ...(['vcpus', 'vcpus_used', 'memory_mb', 'memory_mb_used'] as const),
    ...(['free_ram_mb', 'running_vms', 'current_workload'] as const),
  ]
  const sums = summed.map((name) => [name, others.reduce((total, each) => total + each[name], own?.[name] ?? 0)])
  return ok({ hypervisor_statistics: { count: hosts.length, ...own, ...Object.fromEntries(sums) } })
}
