import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { LayeredDisk, type ScratchDisk } from './layered-disk.ts'
import { currentBootId } from './live-map.ts'
import { limitsFor, type Opener, type OpenLimits, OpenPlaces } from './open-places.ts'
import { createLayer } from './scratch-file.ts'

/** The map of the largest one takes 4 MiB of memory when all of it was touched. */
export const MAX_SCRATCH_BYTES = 2 ** 40
const ID = /^[0-9a-f-]{36}$/

interface OpenScratch {
  /** Settles when its files are closed. */
  readonly closed: Promise<void>
  isUnwanted: boolean
}

/** Disks that may be written for a while, a folder each. Whoever makes one says when it goes; what a crash left is swept. */
export class ScratchDisks {
  readonly #folder: string
  readonly #bootId: string
  readonly #open = new Map<string, OpenScratch>()
  readonly #places: OpenPlaces
  /** Made, and not yet named by whoever wants them. */
  readonly #fresh = new Set<string>()

  private constructor(folder: string, bootId: string, limits: OpenLimits) {
    this.#folder = folder
    this.#bootId = bootId
    this.#places = new OpenPlaces(limits)
  }

  /** @param bootId of the system that runs: what was written and not flushed counts as long as it is the same */
  static async at(folder: string, bootId = currentBootId(), limits = limitsFor()): Promise<ScratchDisks> {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    return new ScratchDisks(folder, bootId, limits)
  }

  /**
   * Makes a disk that nobody has written yet. Where `name` fails it is gone again.
   * @param id a UUID
   * @param name says to whoever sweeps that the disk is wanted
   * @throws ServiceError `too-large`; errors of the system pass through
   */
  async create<T>(id: string, diskBytes: number, name: () => Promise<T>): Promise<T> {
    if (diskBytes > MAX_SCRATCH_BYTES) {
      const message = `a writable disk has at most ${MAX_SCRATCH_BYTES} bytes here`
      throw new ServiceError('too-large', message, { most: MAX_SCRATCH_BYTES })
    }
    const path = this.#pathOf(id)
    this.#fresh.add(id)
    try {
      await mkdir(path, { mode: 0o700 })
      return await this.#undone(id, async () => {
        await createLayer(path, 0, diskBytes)
        failpoint('scratch:made')
        return name()
      })
    } finally {
      this.#fresh.delete(id)
    }
  }

  /**
   * The disk with this id as it was left. Open once at a time: while it is being closed, this waits.
   * @param base read where nothing was written; closed with the disk, also where this fails. It may have grown, by whole blocks, since
   *   the disk was made
   * @param opener whose share of the open disks it is
   * @throws ServiceError `unavailable` where too many are open, `corrupt`; errors of the system pass through
   */
  async open(id: string, base: BlockSource, opener: Opener = null): Promise<ScratchDisk> {
    try {
      for (let before = this.#open.get(id); before; before = this.#open.get(id)) await before.closed
      return await this.#openAlone(id, base, opener)
    } catch (error) {
      await base.close()
      throw error
    }
  }

  /** Now, or, where it is open, when it is closed. Removing what is not there succeeds. */
  async remove(id: string): Promise<void> {
    const open = this.#open.get(id)
    if (open) open.isUnwanted = true
    else await rm(this.#pathOf(id), { recursive: true, force: true })
  }

  /** Bytes that all disks take on the file system. */
  async takenBytes(): Promise<number> {
    let bytes = 0
    for (const entry of await readdir(this.#folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      const found = await stat(join(entry.parentPath, entry.name)).catch(() => null) // removed meanwhile
      bytes += (found?.blocks ?? 0) * 512
    }
    return bytes
  }

  /** Removes every disk that is not open and that nobody wants any more. @returns how many */
  async sweep(isWanted: (id: string) => Promise<boolean>): Promise<number> {
    let removed = 0
    for (const id of await readdir(this.#folder)) {
      if (!ID.test(id) || this.#fresh.has(id) || (await isWanted(id)) || this.#fresh.has(id)) continue
      await this.remove(id)
      removed += 1
    }
    return removed
  }

  /** Removes the disk where `work` fails. */
  async #undone<T>(id: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      await this.remove(id)
      throw error
    }
  }

  async #openAlone(id: string, base: BlockSource, opener: Opener): Promise<ScratchDisk> {
    const giveBack = this.#places.take(opener, base.size)
    const { promise: closed, resolve } = Promise.withResolvers<void>()
    const entry: OpenScratch = { closed, isUnwanted: false }
    this.#open.set(id, entry)
    const path = this.#pathOf(id)
    const leave = async () => {
      try {
        if (entry.isUnwanted) await rm(path, { recursive: true, force: true })
      } finally {
        this.#open.delete(id)
        giveBack()
        resolve()
      }
    }
    try {
      return await LayeredDisk.open(path, base, this.#bootId, leave)
    } catch (error) {
      await leave()
      throw error
    }
  }

  #pathOf(id: string): string {
    if (!ID.test(id)) throw new Error(`no id of a scratch disk: ${id}`)
    return join(this.#folder, id)
  }
}
