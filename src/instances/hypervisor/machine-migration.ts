import type { MachineSpec } from './hypervisor.ts'

/**
 * A running machine goes to another hypervisor with its memory and all that its guest wrote; what its disks lie on, and the stores that
 * they are written through to, both hypervisors reach. Whatever befalls either of them or the way between, at each moment the guest
 * goes on at one of the two or stands still for the other, and never at both; nobody else writes to its stores.
 * `machine-migration.suite.ts` says what an adapter must do.
 */
export interface MachineMigration {
  /**
   * At the target: from now on the machine may come, once. It is there when whoever watches is told that it runs. Until then it can be
   * withdrawn by `remove`; it is as well when the hypervisor is closed.
   * @param machine as it is at the source, its bases and stores where they are to be had here; without seed and memory, which come with it
   * @throws ServiceError as `launch`, as far as that can be known by now
   */
  receive(machine: MachineSpec): Promise<MigrationTarget>
  /**
   * At the target: a machine of this id that is expected comes no more. One that is here by now stays, so whoever does not know how a
   * migration ended learns it by `show` after this. Withdrawing what is not expected succeeds.
   */
  withdraw(id: string): Promise<void>
  /**
   * A machine as it is here, to be expected elsewhere, with the addresses of its bases and stores, which are secrets; without seed and
   * memory.
   * @throws ServiceError `not-found`
   */
  specOf(id: string): Promise<MachineSpec>
  /**
   * At the source: copies the sealed layers of its disks, then its memory and what it goes on writing, and then it stands still here and
   * goes on there. Settles when nothing is left of it here. What its guest wrote to its
   * console goes along, as far as an adapter keeps it. Paused, it is so there. Failed or cut short, it goes on here.
   *
   * Its last step is told to the target by a word whose answer may be lost. Then it stands still here until the target has been asked
   * again: by this call, and when it is cut short by the hypervisor, also when it is opened again. Until then `resume`, `reboot` and
   * `start` are refused with `conflict`.
   * @throws ServiceError `not-found`; `conflict` where it does not run; `invalid-request` where the target cannot make the same machine;
   *   `unavailable` where the target does not answer or the way is too slow; `too-large`, `no-space`; `cancelled`
   */
  migrateTo(id: string, target: MigrationTarget, options?: { readonly signal?: AbortSignal }): Promise<Migrated>
}

/** It is a secret: who has it may send a machine. */
export interface MigrationTarget {
  /** Where the target hypervisor listens. */
  readonly socketPath: string
  readonly token: string
}

export interface Migrated {
  /** For how long the guest stood still: from here until the target said that it runs. 0 where it was paused. */
  readonly downtimeMs: number
  /** Of layers, of memory with what of the disks was written meanwhile. */
  readonly layerBytes: number
  readonly memoryBytes: number
}
