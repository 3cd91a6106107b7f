import { failpoint } from '../../../base/failpoint.ts'
import type { SavedMemory } from '../machine-memory.ts'
import { shapeText } from '../memory-shape.ts'
import type { KeptRecord } from './kept-record.ts'
import type { MachineDisks } from './machine-disks.ts'
import type { MachineRecord } from './machine-folder.ts'
import { callOff } from './migration-state.ts'
import { cancelled, type Run } from './run.ts'
import { type Outgoing, saveMemory } from './save-memory.ts'
import { type HostShape, shapeOf } from './shape-of-machine.ts'

/**
 * The memory of one machine on its way out. Its processors may stand still for that, and how they stood before is in the record from
 * before QEMU is asked until they stand so again. Takes its turn with all that changes disks or holds processors.
 */
export class MachineTransit {
  readonly #kept: KeptRecord
  readonly #disks: MachineDisks
  readonly #host: HostShape & { readonly onProblem: (error: unknown) => void }
  /** What the processors do meanwhile means nothing. */
  isUnderWay = false

  constructor(kept: KeptRecord, disks: MachineDisks, host: HostShape & { readonly onProblem: (error: unknown) => void }) {
    this.#kept = kept
    this.#disks = disks
    this.#host = host
  }

  /** Failed or not, the guest stands as it did before when it settles. */
  async save(run: Run, wasPaused: boolean, sink: Outgoing['sink'], signal: AbortSignal): Promise<SavedMemory> {
    if (signal.aborted) throw cancelled(run.id)
    const { spec, chosen } = this.#kept.now
    const [shape, seedDisc] = await Promise.all([shapeOf(spec, chosen, this.#host), this.#kept.folder.readSeed(run.id)])
    this.isUnderWay = true
    try {
      await this.#kept.save((record) => ({ ...record, transit: { wasPaused } }))
      const layers = await this.#disks.addLayers(run)
      failpoint('memory:begun')
      const seal = () => this.#disks.putOnTop(run, layers)
      const { result, pausedMs } = await saveMemory(run, this.#kept.folder, { wasPaused, sink, signal }, seal)
      const evidence = 'the disks are of the moment of the memory; without it they are as after a power cut'
      return { layers: result, consistency: 'crash', evidence, pausedMs, shape: shapeText(shape), seedDisc }
    } finally {
      await this.bringBack(run).catch(this.#host.onProblem) // it is done again when QEMU answers again, or is found
      this.isUnderWay = false
    }
  }

  /** Where the record says that memory was on its way, and QEMU is there. */
  async bringBack(run: Run): Promise<void> {
    const { transit } = this.#kept.now
    if (!transit) return
    await callOff(run, transit.wasPaused)
    await this.#kept.folder.sweepOutgoing()
    await this.#kept.save(arrived)
  }
}

/** It is on its way no more. */
export const arrived = ({ transit: _over, ...record }: MachineRecord): MachineRecord => record
