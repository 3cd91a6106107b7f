import { ServiceError } from '../base/errors.ts'
import { abilitiesOf } from './hypervisor/machine-host.ts'
import type { InstancePorts, NamedHost } from './ports.ts'
import type { InstanceRecord } from './records.ts'

type Ports = Pick<InstancePorts, 'hosts'>

/** As records have it: null is the service's own. */
export const placeNamed = ({ hosts }: Ports, name: string): string | null => (name === hosts[0].name ? null : name)

export const placeOf = ({ host }: Pick<InstanceRecord, 'host'>): string | null => host ?? null

/** `OS-EXT-SRV-ATTR:host`, also where the service does not know that host any more. */
export const hostNameOf = ({ hosts }: Ports, instance: Pick<InstanceRecord, 'host'>): string => placeOf(instance) ?? hosts[0].name

export const findHost = ({ hosts }: Ports, name: string): NamedHost | undefined => hosts.find((host) => host.name === name)

/** @throws ServiceError `unavailable` where the service does not know it any more */
export function hostAt(ports: Ports, place: string | null): NamedHost {
  const host = place === null ? ports.hosts[0] : findHost(ports, place)
  if (host) return host
  throw new ServiceError('unavailable', `this service does not know the host "${place}": name it among its hosts again`)
}

/** Those on which machines can be started now. */
export const hostsThatAreUp = ({ hosts }: Ports): readonly NamedHost[] => hosts.filter((host) => abilitiesOf(host) !== null)
