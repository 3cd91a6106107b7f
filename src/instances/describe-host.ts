import { createHash } from 'node:crypto'
import { uptime } from 'node:os'
import type { Caller } from '../base/caller.ts'
import { GiB } from '../base/units.ts'
import { hostNameOf } from './hosts.ts'
import type { HypervisorAbilities } from './hypervisor/hypervisor.ts'
import { abilitiesOf } from './hypervisor/machine-host.ts'
import { authorizeService } from './policy.ts'
import type { InstancePorts, NamedHost } from './ports.ts'
import type { InstanceRecord } from './records.ts'
import { instances } from './store.ts'

export interface HostDescription {
  /** The same at every start. */
  readonly id: string
  readonly hostName: string
  /** `QEMU`. */
  readonly type: string
  /** Whether machines can be started. */
  readonly isUp: boolean
  /** Null where it is not up. */
  readonly abilities: HypervisorAbilities | null
  /** Of what is running or paused: what is off takes no memory. */
  readonly use: { readonly running: number; readonly busy: number; readonly cores: number; readonly ramMiB: number }
  /** Every instance on it. */
  readonly instances: readonly Pick<InstanceRecord, 'id'>[]
  readonly upSeconds: number
  readonly diskGiB: number
  readonly freeDiskGiB: number
}

/** The hosts that instances run on, for administrators; the service's own first. @throws ServiceError `denied` */
export async function describeHosts(
  { catalog, disk, ...ports }: InstancePorts,
  caller: Caller,
): Promise<readonly [HostDescription, ...HostDescription[]]> {
  authorizeService(caller, 'read-hosts')
  const all = await instances.list(catalog.documents)
  const space = await disk.space()
  const described = ({ name, machines }: NamedHost): HostDescription => {
    const there = all.filter((instance) => hostNameOf(ports, instance) === name)
    const abilities = abilitiesOf({ machines })
    return {
      id: idOf(name),
      hostName: name,
      type: machines.type,
      isUp: abilities !== null,
      abilities,
      use: useOf(there),
      instances: there,
      upSeconds: uptime(),
      diskGiB: Math.floor(space.totalBytes / GiB),
      freeDiskGiB: Math.floor(space.freeBytes / GiB),
    }
  }
  const [own, ...others] = ports.hosts
  return [described(own), ...others.map(described)]
}

function useOf(there: readonly InstanceRecord[]): HostDescription['use'] {
  const use = { running: 0, busy: 0, cores: 0, ramMiB: 0 }
  for (const { power, taskState, flavor } of there) {
    if (taskState !== null) use.busy += 1
    if (power !== 'running' && power !== 'paused') continue
    use.running += 1
    use.cores += flavor.vcpus
    use.ramMiB += flavor.ramMiB
  }
  return use
}

/** A UUID made of a name: RFC 9562, version 8. */
function idOf(hostName: string): string {
  const hex = createHash('sha256').update(`compute host ${hostName}`).digest('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, `8${hex.slice(17, 20)}`, hex.slice(20, 32)].join('-')
}
