import { ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'
import type { BlockSource } from '../../../disk/block/block-source.ts'
import { openFileSource } from '../../../disk/block/file-source.ts'
import { openImage } from '../../../disk/formats/index.ts'
import type { HydrateOptions, NewBase, Sealed } from '../disk-layers.ts'
import type { MachineDisk } from '../hypervisor.ts'
import { assertDisks, MAX_DISKS, rebased } from '../machine-spec.ts'
import { placesOf } from './command-line.ts'
import { comingDevice, storageDevices } from './devices.ts'
import { endStream, streamIntoTop } from './hydration.ts'
import type { KeptRecord } from './kept-record.ts'
import { deleteUnusedNodes, isInserted, layersInUse, putOnBase, putOnTop } from './live-layers.ts'
import { notLetGo, plugIn, unplug } from './live-plugs.ts'
import { files } from './machine-files.ts'
import { type KeptDisk, keptDisk } from './machine-folder.ts'
import { isRefusal } from './qmp.ts'
import type { Run } from './run.ts'
import { inPublic } from './words.ts'

/** Each read of what was never written looks through all of them, and each is a file that QEMU holds open. */
const MAX_SEALED_LAYERS = 32

export interface LayersAdded {
  readonly before: readonly KeptDisk[]
  /** With one more each. */
  readonly after: readonly KeptDisk[]
}

const sealedOf = (disks: readonly KeptDisk[]): Sealed['layers'] =>
  Object.fromEntries(disks.map(({ name, layers }) => [name, layers.slice(0, -1)]))

/**
 * The disks of one machine, on disk and in its process where it has one. What changes them takes turns, and the caller sees to that:
 * nothing else changes the disks of the record, or those of the process, meanwhile.
 */
export class MachineDisks {
  readonly #record: KeptRecord
  readonly #runNow: () => Run | null

  constructor(record: KeptRecord, runNow: () => Run | null) {
    this.#record = record
    this.#runNow = runNow
  }

  get #id(): string {
    return this.#record.now.spec.id
  }

  /** Of disks that were coming or going when that was cut short, those that the process has; where it does not answer, it may have them. */
  async names(): Promise<readonly string[]> {
    const run = this.#runNow()
    const names: string[] = []
    for (const disk of this.#record.now.spec.disks) {
      const isThere = !disk.isPassing || (run !== null && (await isInserted(run, disk).catch(() => true)))
      if (isThere) names.push(disk.name)
    }
    return names
  }

  /**
   * The new layers are on disk and in the record before QEMU takes them: whenever this is cut short, the layers of the record hold
   * all that the guest wrote, the last one perhaps nothing.
   */
  async seal(): Promise<Sealed['layers']> {
    const run = this.#runNow()
    const layers = await this.addLayers(run)
    return run ? this.putOnTop(run, layers) : sealedOf(layers.after)
  }

  /** The first half of a seal, which takes the most time. */
  async addLayers(run: Run | null): Promise<LayersAdded> {
    if (run) await this.#forgetUnusedLayers(run)
    const { folder } = this.#record
    const disks = this.#record.now.spec.disks.filter(({ store }) => !store)
    if (disks.some((disk) => disk.layers.length > MAX_SEALED_LAYERS)) {
      const message = `The machine ${this.#id} has ${MAX_SEALED_LAYERS} layers already; make a new one from its snapshot.`
      throw new ServiceError('too-large', message, { id: this.#id, layers: MAX_SEALED_LAYERS })
    }
    const added = disks.map((disk) => ({ ...disk, layers: [...disk.layers, disk.layers.at(-1)! + 1] }))
    for (const disk of added) await folder.addLayer(this.#id, disk, disk.layers.at(-1)!)
    await this.#put(added)
    return { before: disks, after: added }
  }

  /** The second half: its moment is the snapshot's. */
  async putOnTop(run: Run, { before, after }: LayersAdded): Promise<Sealed['layers']> {
    // so that little is left to be flushed while the guest stands still
    for (const { name, layers } of before) await this.#record.folder.syncLayer(name, layers.at(-1)!)
    await putOnTop(run, after).catch(async (error) => {
      // where nobody knows whether QEMU did it, an empty layer more does no harm, and one less would lose what is written to it
      if (isRefusal(error)) await this.#put(before)
      throw error
    })
    return sealedOf(after)
  }

  /**
   * As `DiskLayers.rebase`. QEMU first, then the record, then what neither needs: the new base holds what the layers do, so the record
   * of before is as true as the new one, on whichever base, and what is deleted no record names.
   */
  async rebase(bases: Readonly<Record<string, NewBase>>): Promise<void> {
    const run = this.#runNow()
    if (run) await this.#forgetUnusedLayers(run)
    const wanted = Object.entries(bases).map(([name, base]) => rebased(this.#id, this.#record.now.spec.disks, name, base))
    for (const disk of wanted) {
      if (run) {
        await putOnBase(run, disk, disk.base).catch((error) => {
          throw inPublic(error, [disk])
        })
      }
      failpoint('machine:on-base')
      await this.#put([disk])
      failpoint('machine:base-recorded')
      await this.deleteUnused()
    }
  }

  /** As `DiskLayers.hydrate`. The record of before is as true as the new one: what was copied hides nothing that it names. */
  async hydrate(name: string, options: HydrateOptions): Promise<void> {
    const run = this.#runNow()
    const kept = this.#record.now.spec.disks.find((each) => each.name === name)
    if (!kept) throw new ServiceError('not-found', `The machine ${this.#id} has no disk "${name}".`, { id: this.#id })
    if (kept.store)
      throw new ServiceError('conflict', `The disk "${name}" has a store: nothing of it is copied.`, { id: this.#id })
    if (!kept.base && kept.layers.length === 1) return // it was, and who asked was not told
    if (!run) throw new ServiceError('conflict', `The machine ${this.#id} is off; start it, and ask again.`, { id: this.#id })
    await this.takeUp(run)
    const disk = this.#record.now.spec.disks.find((each) => each.slot === kept.slot)!
    await streamIntoTop(run, disk, options).catch((error) => {
      throw inPublic(error, [disk])
    })
    failpoint('machine:streamed')
    const { base, ...whole } = { ...disk, layers: disk.layers.slice(-1) }
    await this.#put([whole])
    await this.deleteUnused()
  }

  /**
   * As `DiskPlugs.attach`. The record knows of it before QEMU does, as one of which it is not known whether it came: whoever finds
   * it so looks whether QEMU has it.
   */
  async attach(disk: MachineDisk): Promise<void> {
    const run = this.#runNow()
    if (run) await this.takeUp(run)
    const { folder, now } = this.#record
    const { disks } = now.spec
    if (disks.some(({ name }) => name === disk.name)) throw this.#conflict(`has a disk "${disk.name}" already; detach it first`)
    assertDisks([...disks, disk])
    const kept = keptDisk(structuredClone(disk), freeSlot(disks))
    const spec = { ...now.spec, disks: [...disks, kept] }
    const places = placesOf(now.chosen)!
    storageDevices(spec, places) // whether they suffice
    const device = comingDevice(spec, places, kept)
    if (run && !device) throw this.#conflict('takes this disk only while it is off: its bus has no hot plug; stop it first')

    for (const layer of kept.layers) await folder.addLayer(this.#id, kept, layer)
    await this.#save([...disks, run ? { ...kept, isPassing: true } : kept])
    failpoint('machine:disk-recorded')
    if (!run || !device) return
    await plugIn(run, kept, device).catch(async (error) => {
      if (isRefusal(error) || (await run.endsSoon())) await this.#forget(kept)
      throw inPublic(error, [kept])
    })
    failpoint('machine:disk-plugged')
    await this.#put([kept])
  }

  /** As `DiskPlugs.detach`. */
  async detach(name: string, graceMs: number): Promise<void> {
    const run = this.#runNow()
    if (run) await this.takeUp(run)
    const { chosen, spec } = this.#record.now
    const disk = spec.disks.find((each) => each.name === name)
    if (!disk) return
    if (run) {
      if (!comingDevice(spec, placesOf(chosen)!, disk))
        throw this.#conflict('loses this disk only while it is off; stop it first')
      await this.#put([{ ...disk, isPassing: true }])
      failpoint('machine:disk-going')
      if (!(await unplug(run, disk, graceMs))) {
        await this.#put([disk])
        throw notLetGo(this.#id, disk)
      }
      failpoint('machine:disk-unplugged')
    }
    await this.#forget(disk)
  }

  /** Disks that came or went when that was cut short: what the process has is attached. */
  async #settlePassing(run: Run | null): Promise<void> {
    for (const disk of this.#record.now.spec.disks.filter(({ isPassing }) => isPassing)) {
      const { isPassing, ...kept } = disk
      if (run && (await isInserted(run, kept))) await this.#put([kept])
      else await this.#forget(kept)
    }
  }

  /** The record first: what it does not name is deleted when the machine is found. */
  async #forget(disk: KeptDisk): Promise<void> {
    await this.#save(this.#record.now.spec.disks.filter(({ slot }) => slot !== disk.slot))
    await this.#record.folder.dropOtherLayers(this.#record.now.spec.disks)
  }

  #conflict(how: string): ServiceError {
    return new ServiceError('conflict', `The machine ${this.#id} ${how}.`, { id: this.#id })
  }

  /** Nodes and files that were replaced, or made for what came to nothing. */
  async deleteUnused(): Promise<void> {
    const run = this.#runNow()
    const { disks } = this.#record.now.spec
    if (run) for (const disk of disks) await deleteUnusedNodes(run, disk)
    failpoint('machine:layers-unused')
    await this.#record.folder.dropOtherLayers(disks)
  }

  /** As `DiskLayers.openLayer`. */
  async openLayer(name: string, layer: number): Promise<BlockSource> {
    const file = await this.openLayerFile(name, layer)
    return openImage('qcow2', file).catch(async (error) => {
      await file.close()
      throw error
    })
  }

  /** The file itself, of a sealed layer: it changes no more. */
  async openLayerFile(name: string, layer: number): Promise<BlockSource> {
    const disk = this.#record.now.spec.disks.find((each) => each.name === name)
    if (!disk?.layers.slice(0, -1).includes(layer)) {
      throw new ServiceError('not-found', `The disk "${name}" of the machine ${this.#id} has no sealed layer ${layer}.`, {
        id: this.#id,
      })
    }
    const path = this.#record.folder.inRun(files.disk(name, layer))
    // QEMU's folder: what broke out of a guest might lead us to the disk of another machine
    return openFileSource(path, { followLinks: false }).catch((error) => {
      const message = `The machine ${this.#id} has lost a layer of its disk "${name}".`
      throw new ServiceError('corrupt', message, { id: this.#id, layer }, { cause: error })
    })
  }

  /** For people. @param node where QEMU found no room for what the guest writes */
  whyStopped(node: unknown): string {
    const [, slot] = /^(?:disk|store)(\d+)-/.exec(String(node)) ?? []
    const disk = this.#record.now.spec.disks.find((each) => each.slot === Number(slot))
    const name = disk ? `its disk "${disk.name}"` : 'one of its disks'
    return `there is no room for what its guest writes to ${name}: make some, and resume it`
  }

  /** Of a machine that is off: what an earlier service left half done. */
  async takeUpOff(): Promise<void> {
    await this.#settlePassing(null)
    await this.deleteUnused()
  }

  /** The same of one that has a process. */
  async takeUp(run: Run): Promise<void> {
    await this.#settlePassing(run)
    for (const disk of this.#record.now.spec.disks) await endStream(run, disk)
    await this.#forgetUnusedLayers(run)
    await this.deleteUnused()
  }

  /** Of a seal that was cut short before QEMU took its layers. */
  async #forgetUnusedLayers(run: Run): Promise<void> {
    const { disks } = this.#record.now.spec
    const used = await layersInUse(run, disks)
    if (used.some(({ layers }, index) => layers.length !== disks[index]!.layers.length)) await this.#save(used)
  }

  /** In the places of those that have their slots. */
  async #put(changed: readonly KeptDisk[]): Promise<void> {
    const bySlot = new Map(changed.map((disk) => [disk.slot, disk]))
    await this.#save(this.#record.now.spec.disks.map((disk) => bySlot.get(disk.slot) ?? disk))
  }

  async #save(disks: readonly KeptDisk[]): Promise<void> {
    await this.#record.save((record) => ({ ...record, spec: { ...record.spec, disks } }))
  }
}

const freeSlot = (disks: readonly KeptDisk[]): number =>
  Array.from({ length: MAX_DISKS }, (_, slot) => slot).find((slot) => disks.every((disk) => disk.slot !== slot)) ?? MAX_DISKS
