import { isServiceError } from '../base/errors.ts'
import { HostAway } from './hypervisor/host-away.ts'
import { abilitiesOf } from './hypervisor/machine-host.ts'
import type { InstancePorts, NamedHost } from './ports.ts'
import type { InstanceRecord } from './records.ts'
import { instances } from './store.ts'

type Ports = Pick<InstancePorts, 'hosts'>

/** As records have it: null is the service's own. */
export const placeNamed = ({ hosts }: Ports, name: string): string | null => (name === hosts[0].name ? null : name)

export const placeOf = ({ host }: Pick<InstanceRecord, 'host'>): string | null => host ?? null

/** `OS-EXT-SRV-ATTR:host`, also where the service does not know that host any more. */
export const hostNameOf = ({ hosts }: Ports, instance: Pick<InstanceRecord, 'host'>): string => placeOf(instance) ?? hosts[0].name

export const findHost = ({ hosts }: Ports, name: string): NamedHost | undefined => hosts.find((host) => host.name === name)

/** @throws HostAway where the service does not know it any more */
export function hostAt(ports: Ports, place: string | null): NamedHost {
  const host = place === null ? ports.hosts[0] : findHost(ports, place)
  if (host) return host
  throw new HostAway(`this service does not know the host "${place}": name it among its hosts again`)
}

/** Those on which machines can be started now. */
export const hostsThatAreUp = ({ hosts }: Ports): readonly NamedHost[] => hosts.filter((host) => abilitiesOf(host) !== null)

/**
 * Whether what was done to an instance failed, though nobody cut it short, because its host is away or went away before it answered. The record
 * is to stay as it is then: what it says is taken up when the host is back (recover.ts).
 */
export async function isHostMissed(
  ports: Pick<InstancePorts, 'catalog' | 'hosts' | 'missedHosts'>,
  id: string,
  error: unknown,
): Promise<boolean> {
  const instance = await instances.get(ports.catalog.documents, id)
  if (!instance) return false
  const name = hostNameOf(ports, instance)
  const host = findHost(ports, name)
  const isOff = host !== undefined && isServiceError(error, 'unavailable') && abilitiesOf(host) === null
  if (!isOff && !(error instanceof HostAway) && !isServiceError(error, 'cancelled')) return false
  ports.missedHosts.add(name)
  return true
}
