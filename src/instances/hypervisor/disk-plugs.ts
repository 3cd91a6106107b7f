import type { MachineDisk } from './hypervisor.ts'

/** Disks that come and go while a machine is there. `disk-plugs.suite.ts` says what an adapter must do. */
export interface DiskPlugs {
  /**
   * The last of the machine's disks from now on, its guest sees it at once; that of a machine that is off, when it starts. Cut short,
   * it is attached or not, and nobody can say which: detach it, and attach it again.
   * @param disk one without `store` is the machine's own: empty, or as its base, and deleted when it is detached
   * @throws ServiceError `not-found` for the machine; `conflict` where it has a disk of that name, or its bus takes none while it runs;
   *   `invalid-request` for a disk that cannot be, or more than its bus has places for; `no-space`; `unavailable`. It is not
   *   attached then
   */
  attach(id: string, disk: MachineDisk): Promise<void>
  /**
   * The machine has it no more, and what the guest wrote to it is with its store. Detaching what is not attached succeeds.
   * @param graceMs for how long the guest may take to let go of it, where the machine runs
   * @throws ServiceError `not-found` for the machine; `conflict` where the guest does not let go, or the bus cannot while it runs: it
   *   is attached then, as far as the service is concerned: a guest that lets go later has it back at its next start. `unavailable`
   *   where nobody knows: ask again
   */
  detach(id: string, diskName: string, graceMs: number): Promise<void>
}
