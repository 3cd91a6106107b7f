import { createHash } from 'node:crypto'
import { uptime } from 'node:os'
import type { Caller } from '../base/caller.ts'
import { isServiceError } from '../base/errors.ts'
import { GiB } from '../base/units.ts'
import type { Hypervisor, HypervisorAbilities } from './hypervisor/hypervisor.ts'
import { authorizeService } from './policy.ts'
import type { InstancePorts } from './ports.ts'
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

/** The machine that instances run on, for administrators. @throws ServiceError `denied` */
export async function describeHost(
  { catalog, hypervisor, disk, settings }: InstancePorts,
  caller: Caller,
): Promise<HostDescription> {
  authorizeService(caller, 'read-hosts')
  const use = { running: 0, busy: 0, cores: 0, ramMiB: 0 }
  const there = await instances.list(catalog.documents)
  for (const { power, taskState, flavor } of there) {
    if (taskState !== null) use.busy += 1
    if (power !== 'running' && power !== 'paused') continue
    use.running += 1
    use.cores += flavor.vcpus
    use.ramMiB += flavor.ramMiB
  }
  const abilities = abilitiesOf(hypervisor)
  const { totalBytes, freeBytes } = await disk.space()
  return {
    id: idOf(settings.hostName),
    hostName: settings.hostName,
    type: hypervisor.type,
    isUp: abilities !== null,
    abilities,
    use,
    instances: there,
    upSeconds: uptime(),
    diskGiB: Math.floor(totalBytes / GiB),
    freeDiskGiB: Math.floor(freeBytes / GiB),
  }
}

function abilitiesOf(hypervisor: Hypervisor): HypervisorAbilities | null {
  try {
    return hypervisor.abilities
  } catch (error) {
    if (isServiceError(error, 'unavailable')) return null
    throw error
  }
}

/** A UUID made of a name: RFC 9562, version 8. */
function idOf(hostName: string): string {
  const hex = createHash('sha256').update(`compute host ${hostName}`).digest('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, `8${hex.slice(17, 20)}`, hex.slice(20, 32)].join('-')
}
