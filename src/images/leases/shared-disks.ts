import type { BlockSource } from '../../disk/block/block-source.ts'

interface Entry<Disk> {
  readonly disk: Promise<Disk>
  users: number
  /** Settles when it is closed. */
  readonly closed: PromiseWithResolvers<void>
}

export interface SharedDisk<Disk> {
  readonly disk: Disk
  /** More than once is harmless. */
  giveBack(): Promise<void>
}

/** Disks that are open, each once however many read it: what one of them fetched, the others find. Closed by the last. */
export class SharedDisks<Disk extends BlockSource> {
  readonly #entries = new Map<string, Entry<Disk>>()
  /** By key, those who wait until somebody has it open. */
  readonly #awaited = new Map<string, PromiseWithResolvers<void>>()

  /** @param open is called where nobody has the disk of this key open */
  async take(key: string, open: () => Promise<Disk>): Promise<SharedDisk<Disk>> {
    const entry = this.#entries.get(key) ?? { disk: open(), users: 0, closed: Promise.withResolvers<void>() }
    this.#entries.set(key, entry)
    this.#awaited.get(key)?.resolve()
    this.#awaited.delete(key)
    entry.users += 1
    let isTaken = true
    const giveBack = async () => {
      if (!isTaken) return
      isTaken = false
      entry.users -= 1
      if (entry.users > 0) return
      this.#entries.delete(key)
      try {
        await (await entry.disk).close()
      } finally {
        entry.closed.resolve()
      }
    }
    try {
      return { disk: await entry.disk, giveBack }
    } catch (error) {
      await giveBack().catch(() => undefined) // it never opened, so there is nothing to close
      throw error
    }
  }

  /** Settles when somebody has the disk of this key open, or is about to. */
  async whenOpen(key: string): Promise<void> {
    if (this.#entries.has(key)) return
    const awaited = this.#awaited.get(key) ?? Promise.withResolvers<void>()
    this.#awaited.set(key, awaited)
    await awaited.promise
  }

  /** Settles when nobody has the disk of this key open. */
  async whenClosed(key: string): Promise<void> {
    for (let entry = this.#entries.get(key); entry; entry = this.#entries.get(key)) await entry.closed.promise
  }

  get size(): number {
    return this.#entries.size
  }
}
