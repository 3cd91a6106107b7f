import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ServiceError } from '../../base/errors.ts'
import { Places } from '../../base/places.ts'
import { formatBytes, MiB } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import type { StreamWriter } from '../../disk/formats/index.ts'
import { NamelessFile } from '../../store/scratch/nameless-file.ts'

export interface PackingLimits {
  /** Of all files together: those that are made, those that are read, and those that are kept. */
  readonly maxBytes: number
  /** Made at once; others wait, and of those who ask nobody for all that another has asked for. */
  readonly atATime: number
  /** Bytes that the file system has beyond what must stay free. */
  readonly roomBytes: () => Promise<number>
}

/** How a file is made. */
export interface Packing {
  /** Whose share of the places it takes: a project. */
  readonly owner: string
  readonly writer: Pick<StreamWriter, 'pack'>
  /** The disk to write. It is closed. */
  open(): Promise<BlockSource>
}

export interface PackingState {
  /** Whether it waits for a place yet. */
  readonly isWaiting: boolean
  /** Bytes of the disk that are in the file. */
  readonly doneBytes: number
  /** Of the disk; null until it is opened. */
  readonly totalBytes: number | null
}

export interface Wait {
  /** Aborted, nobody waits any more. */
  readonly signal: AbortSignal
  /** How long the file is made on without anybody who waits, for whoever will ask again. */
  readonly lingerMs?: number
}

interface Entry {
  readonly key: string
  readonly ending: AbortController
  readonly made: Promise<NamelessFile>
  /** Undefined while it is made. */
  file: NamelessFile | undefined
  state: PackingState
  bytes: number
  waiting: number
  readers: number
  wantedUntilMs: number
  lastUsedMs: number
}

/**
 * Files that can be made from front to back only, and whose first byte is known when the last one is: made once, in a file on the disk,
 * for all who ask for the same, and kept there for a while for those who come later, or come again for the rest. They have no names: a
 * process that ends leaves none.
 */
export class PackedFiles {
  static readonly IDLE_MS = 3_600_000
  static readonly MAX_KEPT = 256 // open files
  static readonly #SWEEP_MS = 10_000
  static readonly #ROOM_EVERY_BYTES = 16 * MiB // how often the file system is asked while one grows
  readonly #folder: string
  readonly #limits: PackingLimits
  readonly #places: Places
  readonly #now: () => number
  readonly #byKey = new Map<string, Entry>()
  /** Those that take room: also what can be found no more and is being read yet. */
  readonly #entries = new Set<Entry>()
  #timer: NodeJS.Timeout | undefined

  private constructor(folder: string, limits: PackingLimits, now: () => number) {
    this.#folder = folder
    this.#limits = limits
    this.#places = new Places({ places: limits.atATime, share: Math.max(1, limits.atATime - 1) })
    this.#now = now
  }

  /** @param folder for nothing else: what a kill left there is removed */
  static async at(folder: string, limits: PackingLimits, now: () => number = Date.now): Promise<PackedFiles> {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    for (const name of await readdir(folder)) await rm(join(folder, name), { recursive: true, force: true })
    return new PackedFiles(folder, limits, now)
  }

  /** Whether `get` gives it at once. */
  has(key: string): boolean {
    return this.#byKey.get(key)?.file !== undefined
  }

  /** How far one is that is being made; undefined: it is not. */
  stateOf(key: string): PackingState | undefined {
    return this.#byKey.get(key)?.state
  }

  /** Bytes that go when something else needs them. */
  get idleBytes(): number {
    return this.#idle().reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /**
   * The file, when it is made: by this call, or by another that asked for the same. `close` gives it back.
   * @throws ServiceError `cancelled` where the wait ended; `too-large`, `unavailable`, `no-space` where there is no room; what the disk throws
   */
  async get(key: string, packing: Packing, { signal, lingerMs = 0 }: Wait): Promise<BlockSource> {
    if (signal.aborted) throw notWaitedFor()
    const entry = this.#byKey.get(key) ?? this.#begin(key, packing)
    entry.waiting += 1
    try {
      const file = await unlessAborted(entry.made, signal)
      entry.readers += 1
      return this.#reader(entry, file)
    } finally {
      entry.waiting -= 1
      entry.wantedUntilMs = Math.max(entry.wantedUntilMs, this.#now() + lingerMs)
      this.#endUnlessWanted(entry)
    }
  }

  /** The keys that begin so are of no use any more: nobody finds those files, and they go when their last reader leaves. */
  async forget(prefix: string): Promise<void> {
    const entries = [...this.#byKey.values()].filter(({ key }) => key.startsWith(prefix))
    for (const entry of entries) {
      this.#byKey.delete(entry.key)
      entry.wantedUntilMs = 0
      this.#endUnlessWanted(entry)
      await this.#dropIfIdle(entry)
    }
  }

  /** Nothing is made any more, and what nobody reads goes. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    const entries = [...this.#entries]
    this.#byKey.clear()
    for (const { ending } of entries) ending.abort()
    await Promise.allSettled(entries.map(({ made }) => made))
    for (const entry of entries) await this.#dropIfIdle(entry)
  }

  /** What nobody came for goes, and as much more as the file system needs. */
  async sweep(): Promise<void> {
    const expired = this.#now() - PackedFiles.IDLE_MS
    const idle = this.#idle()
    const surplus = idle.slice(0, Math.max(0, idle.length - PackedFiles.MAX_KEPT))
    const old = idle.filter(({ lastUsedMs }) => lastUsedMs < expired)
    await Promise.all([...new Set([...surplus, ...old])].map((entry) => this.#drop(entry)))
    while ((await this.#limits.roomBytes()) < 0) {
      const [oldest] = this.#idle()
      if (!oldest) return
      await this.#drop(oldest)
    }
  }

  #begin(key: string, packing: Packing): Entry {
    const { promise: made, resolve, reject } = Promise.withResolvers<NamelessFile>()
    const entry: Entry = {
      key,
      ending: new AbortController(),
      made,
      file: undefined,
      state: { isWaiting: true, doneBytes: 0, totalBytes: null },
      bytes: 0,
      waiting: 0,
      readers: 0,
      wantedUntilMs: 0,
      lastUsedMs: 0,
    }
    made.catch(() => undefined) // told to those who wait, if there are any
    this.#byKey.set(key, entry)
    this.#entries.add(entry)
    this.#timer ??= setInterval(() => void this.sweep().catch(() => undefined), PackedFiles.#SWEEP_MS).unref()
    this.#make(entry, packing).then(
      (file) => {
        entry.file = file
        entry.lastUsedMs = this.#now()
        resolve(file)
        void this.#dropIfIdle(entry)
      },
      (error: unknown) => {
        if (this.#byKey.get(key) === entry) this.#byKey.delete(key)
        this.#leave(entry)
        reject(error)
      },
    )
    return entry
  }

  async #make(entry: Entry, { owner, writer, open }: Packing): Promise<NamelessFile> {
    const { signal } = entry.ending
    const giveBack = await this.#places.take(owner, [signal])
    if (!giveBack) throw notWaitedFor()
    let file: NamelessFile | undefined
    try {
      file = await NamelessFile.create(this.#folder)
      await this.#fill(entry, file, writer, await open())
      return file
    } catch (error) {
      await file?.close()
      throw signal.aborted ? notWaitedFor() : error
    } finally {
      giveBack()
    }
  }

  async #fill(entry: Entry, file: NamelessFile, writer: Packing['writer'], disk: BlockSource): Promise<void> {
    const { signal } = entry.ending
    entry.state = { isWaiting: false, doneBytes: 0, totalBytes: disk.size }
    const watched: BlockSource = {
      size: disk.size,
      extents: (offset, length) => disk.extents(offset, length),
      async read(offset, length, into) {
        const bytes = await disk.read(offset, length, into)
        entry.state = { ...entry.state, doneBytes: Math.max(entry.state.doneBytes, offset + length) }
        return bytes
      },
      close: async () => {},
    }
    try {
      let askedAt = Number.NEGATIVE_INFINITY
      const rewrite = (offset: number, bytes: Uint8Array) => file.write(offset, bytes)
      for await (const piece of writer.pack(watched, { signal, rewrite })) {
        signal.throwIfAborted()
        if (entry.bytes - askedAt >= PackedFiles.#ROOM_EVERY_BYTES) {
          askedAt = entry.bytes
          await this.#makeRoomOnDisk()
        }
        await this.#makeRoom(entry, piece.length)
        entry.bytes += piece.length
        await this.#write(file, entry.bytes - piece.length, piece)
      }
    } finally {
      await disk.close()
    }
  }

  /** Where others filled the disk meanwhile, what is kept goes first. */
  async #write(file: NamelessFile, offset: number, bytes: Uint8Array): Promise<void> {
    for (;;) {
      try {
        return await file.write(offset, bytes)
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code !== 'ENOSPC') throw cause
        const [oldest] = this.#idle()
        if (!oldest) throw noSpace(cause)
        await this.#drop(oldest)
      }
    }
  }

  async #makeRoomOnDisk(): Promise<void> {
    while ((await this.#limits.roomBytes()) < PackedFiles.#ROOM_EVERY_BYTES) {
      const [oldest] = this.#idle()
      if (!oldest) throw noSpace()
      await this.#drop(oldest)
    }
  }

  async #makeRoom(entry: Entry, bytes: number): Promise<void> {
    const { maxBytes } = this.#limits
    while (this.#takenBytes() + bytes > maxBytes) {
      const [oldest] = this.#idle()
      if (oldest) {
        await this.#drop(oldest)
        continue
      }
      const most = `${formatBytes(maxBytes)} of compressed files`
      if (entry.bytes + bytes <= maxBytes)
        throw new ServiceError('unavailable', `the ${most} that this service has room for are all in use: try again later`)
      const instead = 'take a plain form and convert it where it arrives, or ask for more room (packedBytes)'
      throw new ServiceError(
        'too-large',
        `the disk does not fit, compressed, in the ${most} that there is room for: ${instead}`,
        {
          maxBytes,
        },
      )
    }
  }

  #takenBytes(): number {
    let sum = 0
    for (const { bytes } of this.#entries) sum += bytes
    return sum
  }

  /** Those that nobody reads or waits for, the one that was used longest ago first. */
  #idle(): Entry[] {
    const idle = [...this.#entries].filter(({ file, readers, waiting }) => file && readers === 0 && waiting === 0)
    return idle.sort((a, b) => a.lastUsedMs - b.lastUsedMs)
  }

  #reader(entry: Entry, file: NamelessFile): BlockSource {
    let reading = true
    return {
      size: file.bytes,
      read: (offset, length) => file.read(offset, length),
      async *extents(offset, length) {
        if (length > 0) yield { offset, length, kind: 'data' }
      },
      close: async () => {
        if (!reading) return
        reading = false
        entry.readers -= 1
        entry.lastUsedMs = this.#now()
        await this.#dropIfIdle(entry)
      },
    }
  }

  #endUnlessWanted(entry: Entry): void {
    if (entry.file || entry.waiting > 0) return
    const leftMs = entry.wantedUntilMs - this.#now()
    if (leftMs > 0) {
      setTimeout(() => this.#endUnlessWanted(entry), leftMs).unref()
      return
    }
    entry.ending.abort()
    if (this.#byKey.get(entry.key) === entry) this.#byKey.delete(entry.key) // who asks from now on has it made anew
  }

  /** What can be found is kept, for a while. */
  async #dropIfIdle(entry: Entry): Promise<void> {
    const isKept = this.#byKey.get(entry.key) === entry
    if (!isKept && entry.file && entry.readers === 0 && entry.waiting === 0) await this.#drop(entry)
  }

  async #drop(entry: Entry): Promise<void> {
    if (!this.#entries.has(entry)) return
    if (this.#byKey.get(entry.key) === entry) this.#byKey.delete(entry.key)
    this.#leave(entry)
    await entry.file?.close()
  }

  #leave(entry: Entry): void {
    this.#entries.delete(entry)
    if (this.#entries.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}

const notWaitedFor = (): ServiceError => new ServiceError('cancelled', 'nobody waits for the compressed file any more')
const noSpace = (cause?: unknown): ServiceError =>
  new ServiceError('no-space', 'the file system has no room for a compressed file: take a plain form', {}, { cause })

function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const leave = () => reject(notWaitedFor())
  signal.addEventListener('abort', leave, { once: true })
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener('abort', leave))
}
