import type { BlockSource } from '../disk/block/block-source.ts'

interface Entry {
  readonly file: Promise<BlockSource>
  readers: number
  lastUsedMs: number
}

/**
 * Files as they come out in another format, kept open for a while: to plan the layout of one takes a walk over the extents of
 * the disk, which a client that asks for range after range should wait for once.
 */
export class ConvertedFiles {
  static readonly MAX_IDLE = 8 // each holds its layout: some MB for a disk of TiB
  static readonly IDLE_MS = 60_000
  readonly #entries = new Map<string, Entry>()
  readonly #now: () => number
  #timer: NodeJS.Timeout | undefined

  constructor(now: () => number = Date.now) {
    this.#now = now
  }

  /** @returns the file that `open` makes, or made before; `close` gives it back */
  async get(key: string, open: () => Promise<BlockSource>): Promise<BlockSource> {
    const entry = this.#entries.get(key) ?? { file: open(), readers: 0, lastUsedMs: 0 }
    this.#entries.set(key, entry)
    entry.readers += 1
    let reading = true
    const leave = async (): Promise<void> => {
      if (!reading) return
      reading = false
      entry.readers -= 1
      entry.lastUsedMs = this.#now()
      if (entry.readers === 0 && this.#entries.get(key) !== entry) await (await entry.file).close() // forgotten meanwhile
      await this.#tidy()
    }
    try {
      const file = await entry.file
      return {
        size: file.size,
        read: (offset, length) => file.read(offset, length),
        extents: (offset, length) => file.extents(offset, length),
        close: leave,
      }
    } catch (error) {
      if (this.#entries.get(key) === entry) this.#entries.delete(key)
      throw error
    }
  }

  /** The keys that begin so are of no use any more: closes those files, the ones being read when their last reader leaves. */
  async forget(prefix: string): Promise<void> {
    const entries = [...this.#entries].filter(([key]) => key.startsWith(prefix))
    for (const [key] of entries) this.#entries.delete(key)
    await this.#close(entries.filter(([, { readers }]) => readers === 0))
  }

  /** Closes what nobody reads. */
  async close(): Promise<void> {
    this.#stopTimer()
    await this.#close([...this.#entries].filter(([, { readers }]) => readers === 0))
  }

  async #tidy(): Promise<void> {
    const idle = [...this.#entries].filter(([, { readers }]) => readers === 0).sort(([, a], [, b]) => b.lastUsedMs - a.lastUsedMs)
    const expired = this.#now() - ConvertedFiles.IDLE_MS
    await this.#close(idle.filter(([, { lastUsedMs }], at) => at >= ConvertedFiles.MAX_IDLE || lastUsedMs < expired))
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      void this.#tidy().catch(() => undefined) // a file that cannot be closed holds nothing that matters
    }, ConvertedFiles.IDLE_MS).unref()
    if (this.#entries.size === 0) this.#stopTimer()
  }

  #stopTimer(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  async #close(entries: readonly (readonly [string, Entry])[]): Promise<void> {
    for (const [key] of entries) this.#entries.delete(key)
    for (const [, { file }] of entries) await (await file).close()
  }
}
