import type { ServiceError } from '../../../base/errors.ts'
import type { DiskLayers } from '../disk-layers.ts'
import type { DiskPlugs } from '../disk-plugs.ts'
import type { Hypervisor } from '../hypervisor.ts'
import type { MachineMemory } from '../machine-memory.ts'
import type { MachineMigration } from '../machine-migration.ts'

/**
 * Stands in where this host can run no machines, so that the rest of the service runs: whatever is asked of it fails with the
 * reason, its abilities too, and nothing is recorded as lost.
 * @param reason `unavailable`, saying what is missing
 */
export function absentHypervisor(reason: ServiceError): Hypervisor & DiskLayers & DiskPlugs & MachineMemory & MachineMigration {
  const refuse = async (): Promise<never> => {
    throw reason
  }
  return {
    type: 'none',
    get abilities(): never {
      throw reason
    },
    launch: refuse,
    start: refuse,
    list: refuse,
    show: refuse,
    stop: refuse,
    reboot: refuse,
    pause: refuse,
    resume: refuse,
    consoleLog: refuse,
    serial: refuse,
    seal: refuse,
    openLayer: refuse,
    rebase: refuse,
    hydrate: refuse,
    saveMemory: refuse,
    assertResumable: refuse,
    receive: refuse,
    withdraw: refuse,
    specOf: refuse,
    migrateTo: refuse,
    attach: refuse,
    detach: refuse,
    remove: refuse,
    watch: () => () => {},
    close: async () => {},
  }
}
