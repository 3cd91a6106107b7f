import { failpoint } from '../../../base/failpoint.ts'
import type { Sealed } from '../disk-layers.ts'
import type { SavedMemory, SaveOptions } from '../machine-memory.ts'
import type { Migrated, MigrationTarget } from '../machine-migration.ts'
import { shapeText } from '../memory-shape.ts'
import { depart } from './departure.ts'
import { clearMirrors } from './disk-mirror.ts'
import type { KeptRecord } from './kept-record.ts'
import type { MachineDisks } from './machine-disks.ts'
import type { MachineRecord } from './machine-folder.ts'
import { callOff } from './migration-state.ts'
import { cancelled, type Run } from './run.ts'
import { type Outgoing, saveMemory } from './save-memory.ts'
import { type HostShape, shapeOf } from './shape-of-machine.ts'

/**
 * The memory of one machine on its way out, or its disks being sealed with more than them. Its processors may stand still for that, and how they stood before is in the record from
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
  async save(run: Run, wasPaused: boolean, sink: Outgoing['sink'], { signal, whileStill }: Saving): Promise<SavedMemory> {
    if (signal.aborted) throw cancelled(run.id)
    const { spec, chosen } = this.#kept.now
    const [shape, seedDisc] = await Promise.all([shapeOf(spec, chosen, this.#host), this.#kept.folder.readSeed(run.id)])
    this.isUnderWay = true
    try {
      await this.#kept.save((record) => ({ ...record, transit: { wasPaused } }))
      const layers = await this.#disks.addLayers(run)
      failpoint('memory:begun')
      const seal = async () => {
        failpoint('memory:still')
        const sealed = await this.#disks.putOnTop(run, layers)
        await whileStill?.()
        failpoint('memory:sealed')
        return sealed
      }
      const { result, pausedMs } = await saveMemory(run, this.#kept.folder, { wasPaused, sink, signal }, seal)
      const evidence = 'the disks are of the moment of the memory; without it they are as after a power cut'
      return { layers: result, consistency: 'crash', evidence, pausedMs, shape: shapeText(shape), seedDisc }
    } finally {
      await this.bringBack(run).catch(this.#host.onProblem) // it is done again when QEMU answers again, or is found
      this.isUnderWay = false
    }
  }

  /** All disks at one moment, for which the guest stands still. Failed or not, it goes on when this settles. */
  async seal(run: Run, whileStill: () => Promise<void>): Promise<Sealed['layers']> {
    this.isUnderWay = true
    try {
      const layers = await this.#disks.addLayers(run)
      await this.#kept.save((record) => ({ ...record, transit: { wasPaused: false, isHeld: true } }))
      await run.execute('stop') // QEMU answers when all that the guest wrote has arrived, and is durable
      failpoint('machine:still')
      const sealed = await this.#disks.putOnTop(run, layers)
      await whileStill()
      failpoint('machine:sealed-still')
      return sealed
    } finally {
      await this.bringBack(run).catch(this.#host.onProblem)
      this.isUnderWay = false
    }
  }

  /**
   * To another hypervisor. Settles when the guest goes on there; failed, it stands here as it did before, unless the record says that it is
   * given away.
   */
  async leave(run: Run, wasPaused: boolean, target: MigrationTarget, ends: Ends): Promise<Migrated> {
    const { spec, chosen } = this.#kept.now
    const [shape, seed] = await Promise.all([shapeOf(spec, chosen, this.#host), this.#kept.folder.readSeed(run.id)])
    const offer = { shape: shapeText(shape), seedDisc: seed && Buffer.from(seed).toString('base64'), wasPaused }
    this.isUnderWay = true
    try {
      await this.#kept.save((record) => ({ ...record, transit: { wasPaused } }))
      return await depart({ run, kept: this.#kept, disks: this.#disks, offer, target, ...ends })
    } catch (error) {
      await this.bringBack(run).catch(this.#host.onProblem)
      throw error
    } finally {
      this.isUnderWay = false
    }
  }

  /** Where the record says that memory was on its way, and QEMU is there. What was given away is not brought back. */
  async bringBack(run: Run): Promise<void> {
    const { transit, spec } = this.#kept.now
    if (!transit || transit.givenTo) return
    const isHere = transit.hasArrived || transit.isHeld
    if (isHere && !transit.wasPaused) await run.execute('cont')
    if (!isHere) {
      await callOff(run, transit.wasPaused)
      await clearMirrors(run, spec.disks)
      await this.#kept.folder.sweepOutgoing()
    }
    await this.#kept.save(arrived)
  }
}

type Saving = SaveOptions & { readonly signal: AbortSignal }

/** As for `Departing`. */
export interface Ends {
  readonly signal: AbortSignal
  readonly closing: AbortSignal
  readonly console: () => Promise<Uint8Array>
}

/** It is on its way no more, unless it may be elsewhere. */
export const arrived = ({ transit, ...record }: MachineRecord): MachineRecord =>
  transit?.givenTo ? { ...record, transit } : record
