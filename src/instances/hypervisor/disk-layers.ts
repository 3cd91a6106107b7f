import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import type { DiskAddress } from './hypervisor.ts'

/**
 * What a snapshot of a machine is made from. Each of its disks lies on its base in layers, of which the top one is written to. To
 * seal is to put an empty layer on top of all disks at one moment: the ones below change no more and are read at leisure while the
 * guest goes on, and what was written since the snapshot before is what the layers since then hold. Sealed layers are there until
 * the disk gets another base that holds them, or none, or the machine is removed. `disk-layers.suite.ts` says what an adapter must do.
 */
export interface DiskLayers {
  /**
   * The guest's memory is not in it: a disk is as after a power cut, with what the guest had asked to be made durable. Where its
   * agent stops the file systems meanwhile, they are whole as well. The machine may be off.
   * @param quiesceMs for how long the guest may be kept from writing; it goes on then, whatever has become of the rest. 0: not at all
   * @throws ServiceError `not-found`, `no-space`, `unavailable`, `too-large` for more layers than a disk may have; then none is sealed.
   *   Errors of `whileStill` pass through; a layer more may have been sealed
   */
  seal(id: string, quiesceMs: number, options?: SealOptions): Promise<Sealed>
  /**
   * What the guest wrote while that layer was on top. Extents of kind `hole` it did not write; `zero` it wrote zeros or threw away.
   * @param layer a sealed one
   * @throws ServiceError `not-found`; reads of a damaged layer as `BlockSource` says
   */
  openLayer(id: string, disk: string, layer: number): Promise<BlockSource>
  /**
   * Each of the disks lies on its new base from now on, and the layers that are in it are deleted. The guest does not notice; the
   * machine may be off. Settled, nothing reads the bases that the disks had before. Failed or cut short, a disk lies on the one or
   * the other, and nobody can say which: both must be kept until it was asked for again, which may be done at any time, also where it
   * had succeeded, and with another address of the same base.
   * @param bases by disk name
   * @throws ServiceError `not-found` for the machine, a disk or its layer; `invalid-request` for an address that is none;
   *   `unavailable` where a base cannot be opened: then all disks that were not rebased yet are as they were
   */
  rebase(id: string, bases: Readonly<Record<string, NewBase>>): Promise<void>
  /**
   * Everything under the disk is copied into the machine's own files, while the guest goes on: the disk has no base and no sealed layers
   * afterwards. Until then its base must be kept, and the machine's disks are neither sealed nor changed. What was copied by an
   * attempt that came to nothing is not copied again; of a disk that is whole already nothing is done, and its machine may be off.
   * @throws ServiceError `not-found`; `conflict` where the disk has a store, or the machine does not run, goes off, or copies already; `cancelled`, `no-space`,
   *   `unavailable`: then the disk reads as before, and lies on what it lay on
   */
  hydrate(id: string, disk: string, options?: HydrateOptions): Promise<void>
}

export interface SealOptions {
  /**
   * Done while the guest's processors stand still, its disks being sealed and all that it wrote to stores having arrived there: the moment of
   * what is not in its layers. `pause`, `resume` and `reboot` wait for the end. Cut short, the guest goes on when the machine is found.
   */
  readonly whileStill?: () => Promise<void>
  /** A guest that is on and does not stand still is not sealed: `conflict`, and what kept it. One that had to go on too early may have been. */
  readonly mustBeQuiet?: boolean
}

/** What `mustBeQuiet` is refused with. */
export const notQuiet = (id: string, evidence: string): ServiceError =>
  new ServiceError(
    'conflict',
    `the file systems of machine ${id} did not stand still, as they must for this snapshot: ${evidence}. See that its guest agent runs ` +
      '(hw_qemu_guest_agent=yes), or stop it first',
    { id },
  )

export interface HydrateOptions {
  readonly signal?: AbortSignal
  /** Told now and then. Bytes of the guest's disk; what need not be copied counts as done. It must not throw. */
  readonly onProgress?: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void
}

export interface NewBase {
  /** Reads as the disk did when `through` was sealed. */
  readonly base: DiskAddress
  /** The last layer that is in it: a sealed one, or the one of the rebase before. */
  readonly through: number
}

/**
 * `crash`: as after a power cut. `file-system`: what the guest's programs had written was on its disks, and nothing half. `application`: they
 * were told before, too, and had made ready.
 */
export type Consistency = 'crash' | 'file-system' | 'application'

export interface Sealed {
  /** By disk name: all that are sealed by now, the lowest first. Disks with a store have none, and are not named. */
  readonly layers: Readonly<Record<string, readonly number[]>>
  readonly consistency: Consistency
  /** For people: how that is known. */
  readonly evidence: string
}
