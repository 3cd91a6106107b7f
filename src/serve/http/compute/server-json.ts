import { createHash } from 'node:crypto'
import type { Caller } from '../../../base/caller.ts'
import { hostNameOf } from '../../../instances/hosts.ts'
import { type FlavorOfInstance, type InstanceRecord, startsFromVolume } from '../../../instances/records.ts'
import { statusOf } from '../../../instances/states.ts'
import { isoSeconds } from '../times.ts'
import type { Call } from './route.ts'

/** There is one, as in most clouds. */
export const ZONE = 'nova'

/** `nova/compute/power_state.py`. */
const powerNumbers: Readonly<Record<NonNullable<InstanceRecord['power']>, number>> = {
  running: 1,
  paused: 3,
  shutdown: 4,
  crashed: 6,
}
/** What QEMU's user-mode network gives its one guest by DHCP: QEMU, "Network emulation", "Using the user mode network stack". */
const GUEST_ADDRESS = '10.0.2.15'
const NETWORK_NAME = 'user'

/** What the hypervisor calls it, as far as anybody asks. */
export const instanceName = (id: string): string => `instance-${id}`

/** The same for all servers of a project on one host, and tells neither. */
export const hostIdOf = (projectId: string, hostName: string): string =>
  createHash('sha224')
    .update(projectId + hostName)
    .digest('hex')

export type Look = Pick<Call, 'base' | 'bookmarks' | 'minor' | 'ports'> & {
  readonly caller: Caller
  /** By server: what volumes it has. */
  readonly volumes: ReadonlyMap<string, readonly object[]>
}

export const serverLinks = ({ base, bookmarks }: Pick<Look, 'base' | 'bookmarks'>, id: string) => [
  { rel: 'self', href: `${base}/servers/${id}` },
  { rel: 'bookmark', href: `${bookmarks}/servers/${id}` },
]

export const serverSummary = (look: Look, { id, name }: InstanceRecord) => ({ id, name, links: serverLinks(look, id) })

/** A server in the words of the version that the client speaks; what concerns the host is for administrators. */
export function serverJson(look: Look, instance: InstanceRecord): object {
  const { minor, caller } = look
  const { id, name, projectId, userId, metadata, createdAt, updatedAt, launchedAt, vmState, taskState, power, key } = instance
  const status = statusOf(instance)
  return {
    id,
    name,
    status,
    tenant_id: projectId,
    user_id: userId,
    metadata,
    hostId: hostIdOf(projectId, hostNameOf(look.ports, instance)),
    image: startsFromVolume(instance)
      ? ''
      : { id: instance.imageId, links: [{ rel: 'bookmark', href: `${look.bookmarks}/images/${instance.imageId}` }] },
    flavor: flavorOf(look, instance.flavor),
    created: isoSeconds(createdAt),
    updated: isoSeconds(updatedAt),
    addresses: addressesOf(instance),
    accessIPv4: instance.accessIPv4,
    accessIPv6: instance.accessIPv6,
    links: serverLinks(look, id),
    'OS-DCF:diskConfig': instance.diskConfig,
    ...(['ACTIVE', 'BUILD'].includes(status) ? { progress: status === 'ACTIVE' ? 100 : 0 } : {}),
    'OS-EXT-AZ:availability_zone': ZONE,
    config_drive: '', // there is none: the seed is NoCloud's
    key_name: key?.name ?? null,
    'OS-SRV-USG:launched_at': launchedAt === null ? null : isoSeconds(launchedAt).replace('Z', '.000000'),
    'OS-SRV-USG:terminated_at': null,
    'OS-EXT-STS:task_state': taskState,
    'OS-EXT-STS:vm_state': vmState,
    'OS-EXT-STS:power_state': power === null ? 0 : powerNumbers[power],
    'os-extended-volumes:volumes_attached': look.volumes.get(id) ?? [],
    ...(instance.network ? { security_groups: [{ name: 'default' }] } : {}),
    ...(instance.fault && status === 'ERROR' ? { fault: faultOf(caller, instance.fault) } : {}),
    ...(caller.isAdmin ? hostAttributes(look, instance) : {}),
    ...sinceVersion(minor, instance),
  }
}

/** What the answer to an update left out until version 2.75: Nova shows there what its database has of the server itself. */
const extended = [
  ...['OS-EXT-AZ:availability_zone', 'config_drive', 'key_name', 'OS-SRV-USG:launched_at', 'OS-SRV-USG:terminated_at'],
  ...['OS-EXT-STS:task_state', 'OS-EXT-STS:vm_state', 'OS-EXT-STS:power_state', 'os-extended-volumes:volumes_attached'],
  ...['security_groups', 'host_status', 'addresses'],
]

/** A server after an update. */
export function updatedJson(look: Look, instance: InstanceRecord): object {
  const shown = serverJson(look, instance)
  if (look.minor >= 75) return shown
  const isOwn = (name: string) => !extended.includes(name) && !name.startsWith('OS-EXT-SRV-ATTR:')
  const addresses = Object.entries(addressesOf(instance)).map(([network, list]) => [
    network,
    list.map(({ addr, version }) => ({ addr, version })),
  ])
  return {
    ...Object.fromEntries(Object.entries(shown).filter(([name]) => isOwn(name))),
    addresses: Object.fromEntries(addresses),
  }
}

/** What later versions added. */
const sinceVersion = (minor: number, { lock, description, tags }: InstanceRecord) => ({
  ...(minor >= 9 ? { locked: lock !== null } : {}),
  ...(minor >= 19 ? { description } : {}),
  ...(minor >= 26 ? { tags } : {}),
  ...(minor >= 63 ? { trusted_image_certificates: null } : {}),
  ...(minor >= 73 ? { locked_reason: lock?.reason ?? null } : {}),
})

function hostAttributes({ minor, ports }: Look, instance: InstanceRecord) {
  const { id, reservationId, launchIndex, hostname } = instance
  const hostName = hostNameOf(ports, instance)
  return {
    'OS-EXT-SRV-ATTR:host': hostName,
    'OS-EXT-SRV-ATTR:instance_name': instanceName(id),
    'OS-EXT-SRV-ATTR:hypervisor_hostname': hostName,
    ...(minor >= 3
      ? {
          'OS-EXT-SRV-ATTR:reservation_id': reservationId,
          'OS-EXT-SRV-ATTR:launch_index': launchIndex,
          'OS-EXT-SRV-ATTR:hostname': hostname,
          'OS-EXT-SRV-ATTR:kernel_id': '',
          'OS-EXT-SRV-ATTR:ramdisk_id': '',
          'OS-EXT-SRV-ATTR:root_device_name': null,
          'OS-EXT-SRV-ATTR:user_data': null,
        }
      : {}),
    ...(minor >= 16 ? { host_status: 'UP' } : {}),
  }
}

function flavorOf({ minor, bookmarks }: Look, flavor: FlavorOfInstance): object {
  const { id, name, vcpus, ramMiB, diskGiB, ephemeralGiB, swapMiB, extraSpecs } = flavor
  if (minor < 47) return { id, links: [{ rel: 'bookmark', href: `${bookmarks}/flavors/${id}` }] }
  const sizes = { vcpus, ram: ramMiB, disk: diskGiB, ephemeral: ephemeralGiB, swap: swapMiB }
  return { ...sizes, original_name: name, extra_specs: extraSpecs }
}

const faultOf = ({ isAdmin }: Caller, { code, message, details, at }: NonNullable<InstanceRecord['fault']>) => ({
  code,
  message,
  created: isoSeconds(at),
  ...(isAdmin && details !== '' ? { details } : {}),
})

interface Address {
  readonly addr: string
  readonly version: number
  readonly [extension: string]: unknown
}

/**
 * In a bridge the guest has what a DHCP server there gives it, which nobody tells us. The guest's own address is its own business in a user-mode network: nobody else reaches it. Where ports are forwarded, the
 * host's address stands beside it, as a floating one would, with what leads where.
 */
export function addressesOf({ network }: InstanceRecord): Readonly<Record<string, readonly Address[]>> {
  if (!network || network.bridge !== undefined) return {}
  const { mac, forwards } = network
  const common = { version: 4, 'OS-EXT-IPS-MAC:mac_addr': mac }
  const hosts = new Set(forwards.map(({ hostAddress }) => hostAddress))
  return {
    [NETWORK_NAME]: [
      { addr: GUEST_ADDRESS, ...common, 'OS-EXT-IPS:type': 'fixed' },
      ...[...hosts].map((addr) => ({
        addr,
        ...common,
        'OS-EXT-IPS:type': 'floating',
        'imprint:forwards': forwards.map(({ protocol, hostPort, guestPort }) => ({
          protocol,
          host_port: hostPort,
          guest_port: guestPort,
        })),
      })),
    ],
  }
}
