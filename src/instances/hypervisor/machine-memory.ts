import type { Sealed } from './disk-layers.ts'
import type { MachineSpec } from './hypervisor.ts'

/**
 * The memory of machines, taken together with their disks, so that a machine goes on where it was rather than starts.
 * `machine-memory.suite.ts` says what an adapter must do. How it goes on: `MachineSpec.memory`, `MachineChanges.memory`.
 *
 * File systems are not asked to stand still: they would do so in the memory as well, and a guest that goes on from it would hang.
 */
export interface MachineMemory {
  /**
   * A snapshot of memory and disks of one moment, after which the guest goes on; where it was paused, it is so again. Memory is
   * stored while the guest runs, what it changes meanwhile again. One that changes more than the sink takes stands still for the rest
   * after a few rounds (how many, and for how long at most, the adapter says), so the stream is at most a few times its memory.
   * Failed or cut short at any point, the guest runs on; a layer more may have been sealed. `pause`, `resume` and `reboot` wait
   * for the end; `stop` and `remove` do not.
   * @param sink is given the stream, once; its buffers may be kept. The stream fails where what came is not all. It settles when the
   *   bytes are safe, before which the snapshot is not answered; the guest does not wait for that
   * @throws ServiceError `not-found`; `conflict` where it does not run; `unavailable` where it cannot be saved, or the rest was not taken
   *   in time; `too-large`, `no-space` as `seal`; `cancelled`. Errors of `sink` pass through
   */
  saveMemory(id: string, sink: (body: AsyncIterable<Uint8Array>) => Promise<void>, options?: SaveOptions): Promise<SavedMemory>

  /**
   * Whether a machine that is made so could go on from its `memory`, asked before there is one; where its disks are to be had does not matter.
   * @throws ServiceError `invalid-request`, naming what differs, or what this host cannot give
   */
  assertResumable(spec: MachineSpec): Promise<void>
}

export interface SaveOptions {
  readonly signal?: AbortSignal
  /**
   * Done while the guest stands still, its disks being sealed and all that it wrote to stores having arrived there: the moment of what
   * is not in its layers. It is a part of the time for which the guest may stand still. Where it fails, so does the saving.
   */
  readonly whileStill?: () => Promise<void>
}

/** `consistency` is that of the disks alone. */
export interface SavedMemory extends Sealed {
  /** For how long the guest stood still: 0 where it was paused. */
  readonly pausedMs: number
  /** What a machine must be to go on from this memory; to be given back as it is. */
  readonly shape: string
  /** The disc with cloud-init's data, which the guest may have mounted: it holds secrets. Null: it has none. */
  readonly seedDisc: Uint8Array | null
}

/** Memory to go on from. What it was saved with comes back with it: `shape`, `seedDisc`. */
export interface MemoryState {
  readonly shape: string
  readonly seedDisc: Uint8Array | null
  /**
   * The stream, from its start. **It must be one that this service's `saveMemory` made and that nobody could change since**: what
   * reads it trusts it, as all programs that load a machine's state do, and a forged one may take over the process. A stream that
   * a user has had in hands must not come here.
   */
  open(signal: AbortSignal): AsyncIterable<Uint8Array>
}
