import { isDeepStrictEqual } from 'node:util'
import { isServiceError } from '../base/errors.ts'
import { HostAway } from './hypervisor/host-away.ts'
import type { HypervisorAbilities } from './hypervisor/hypervisor.ts'
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

/** Of the host where the instance is. @throws ServiceError `unavailable` where that is away, or can run no machines: nothing is to be begun then */
export const abilitiesAt = (ports: Ports, instance: Pick<InstanceRecord, 'host'>): HypervisorAbilities =>
  hostAt(ports, placeOf(instance)).machines.abilities

/**
 * Those of the hosts on which something can be planned, and the plan, which is the same on all of them; where none is up, as it would be elsewhere.
 * @param plan throws `invalid-request` for what cannot be on such a host
 * @throws what `plan` throws of the first host, where it is possible on none; ServiceError `unavailable` where no host at all is up
 */
export function hostsFit<T>(
  { hypervisor }: Pick<InstancePorts, 'hypervisor'>,
  hosts: readonly NamedHost[],
  plan: (abilities: HypervisorAbilities) => T,
): { readonly hosts: readonly NamedHost[]; readonly planned: T } {
  const fitting: { readonly host: NamedHost; readonly planned: T }[] = []
  const refusals: unknown[] = []
  for (const host of hosts) {
    const abilities = abilitiesOf(host)
    if (abilities === null) continue
    try {
      fitting.push({ host, planned: plan(abilities) })
    } catch (error) {
      if (!isServiceError(error, 'invalid-request')) throw error
      refusals.push(error)
    }
  }
  const [first] = fitting
  if (first) {
    const same = fitting.filter(({ planned }) => isDeepStrictEqual(planned, first.planned))
    return { hosts: same.map(({ host }) => host), planned: first.planned }
  }
  if (refusals.length > 0) throw refusals[0]
  return { hosts: [], planned: plan(hypervisor.abilities) }
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
  const told = error instanceof HostAway ? error.details.host : undefined // it may be another one than the instance's
  const name = typeof told === 'string' ? told : hostNameOf(ports, instance)
  const host = findHost(ports, name)
  const isOff = host !== undefined && isServiceError(error, 'unavailable') && abilitiesOf(host) === null
  if (!isOff && !(error instanceof HostAway) && !isServiceError(error, 'cancelled')) return false
  ports.missedHosts.add(name)
  return true
}
