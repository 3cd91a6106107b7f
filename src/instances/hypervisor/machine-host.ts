import { isServiceError } from '../../base/errors.ts'
import type { DiskLayers } from './disk-layers.ts'
import type { DiskPlugs } from './disk-plugs.ts'
import type { Hypervisor, HypervisorAbilities } from './hypervisor.ts'
import type { MachineMemory } from './machine-memory.ts'
import type { MachineMigration } from './machine-migration.ts'

/** All that is asked of machines, wherever they are. */
export type Machines = Hypervisor & DiskLayers & DiskPlugs & MachineMemory
/** All that is asked of a host. */
export type MachineHost = Machines & MachineMigration

/** One of the hosts on which a service runs machines. */
export interface NamedHost {
  /** For people, and in records: letters, digits, `.`, `_` and `-`. */
  readonly name: string
  readonly machines: MachineHost
}

/** Null where the host is away, or can run no machines. */
export function abilitiesOf({ machines }: { readonly machines: Pick<Hypervisor, 'abilities'> }): HypervisorAbilities | null {
  try {
    return machines.abilities
  } catch (error) {
    if (isServiceError(error, 'unavailable')) return null
    throw error
  }
}
