import { readFileSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { bytes, struct } from '../../base/struct.ts'
import { type BlockMap, MAP_PAGE_BYTES } from '../../disk/filters/block-map.ts'

/** First page of the file; docs/scratch-format.md. */
const header = struct('live map header', { magic: bytes(0, 8), bootId: bytes(8, 36) })
const MAGIC = Buffer.from('IMPSCRTL')

/** Of the system as it runs since it was started: what is in its memory is there as long. random(4). */
export const currentBootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()

/**
 * The map of a layer as it is in memory, written to a file of its own without making it durable: where the process dies, and the system
 * does not, whoever opens the layer next finds there what was answered and not flushed. After a start of the system it counts for nothing,
 * since its pages may be ahead of the bytes that they name.
 */
export class LiveMap {
  readonly #file: FileHandle
  readonly #map: BlockMap
  readonly #bootId: string
  /** Whether the file speaks for the map. Until something new is noted the durable map says the same, and no room is needed. */
  #isBegun: boolean
  /** Not written yet, or not successfully. */
  readonly #pages = new Set<number>()
  /** The writing that runs, and the one after it, which those who come meanwhile share. */
  #writing: Promise<void> = Promise.resolve()
  #next: Promise<void> | undefined

  /** @param isTakenUp the map is what `readLive` found in the file; else the file counts for nothing yet */
  constructor(file: FileHandle, map: BlockMap, bootId: string, isTakenUp: boolean) {
    this.#file = file
    this.#map = map
    this.#bootId = bootId
    this.#isBegun = isTakenUp
  }

  /**
   * Settles when a writing that began after the call has ended; at once where nothing is to be written. What failed is written with the next.
   * @param isNew whether the map says something new of these blocks
   */
  async note(first: number, end: number, isNew: boolean): Promise<void> {
    if (isNew) for (const page of this.#map.pagesOf(first, end)) this.#pages.add(page)
    await this.catchUp()
  }

  /** Writes what is not written yet. */
  async catchUp(): Promise<void> {
    if (this.#pages.size === 0) return
    this.#next ??= this.#writing
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined
        this.#writing = this.#write()
        return this.#writing
      })
    await this.#next
  }

  /** From now on the file counts for nothing: the durable map speaks. */
  async invalidate(): Promise<void> {
    await this.#next?.catch(() => undefined)
    await this.#writing.catch(() => undefined)
    if (!this.#isBegun && (await this.#file.stat()).size === 0) return // nor did it ever
    await writeAll(this.#file, new Uint8Array(MAP_PAGE_BYTES), 0)
  }

  async #write(): Promise<void> {
    const pages = [...this.#pages]
    this.#pages.clear()
    try {
      if (!this.#isBegun) await beginLive(this.#file, this.#bootId, this.#map.states)
      else for (const page of pages) await writeAll(this.#file, this.#map.page(page), (page + 1) * MAP_PAGE_BYTES)
      this.#isBegun = true
    } catch (error) {
      for (const page of pages) this.#pages.add(page)
      throw error
    }
  }
}

/** The states that a process of the same start of the system left; null where there are none. */
export async function readLive(file: FileHandle, bootId: string, mapBytes: number): Promise<Uint8Array | null> {
  const found = Buffer.alloc(MAP_PAGE_BYTES + mapBytes)
  let done = 0
  while (done < found.length) {
    const { bytesRead } = await file.read(found, done, found.length - done, done)
    if (bytesRead === 0) break // pages beyond the end of the file were never written
    done += bytesRead
  }
  if (done < MAP_PAGE_BYTES) return null
  const { magic, bootId: written } = header.parse(found)
  return MAGIC.equals(magic) && idBytes(bootId).equals(written) ? found.subarray(MAP_PAGE_BYTES) : null
}

/** Says what the map says. The header comes last: cut short before it, the file is as it was, of another start or of none. */
async function beginLive(file: FileHandle, bootId: string, states: Uint8Array): Promise<void> {
  await writeAll(file, new Uint8Array(MAP_PAGE_BYTES), 0)
  await file.truncate(MAP_PAGE_BYTES)
  for (let at = 0; at < states.length; at += MAP_PAGE_BYTES) {
    const page = states.subarray(at, at + MAP_PAGE_BYTES)
    if (page.some((four) => four !== 0)) await writeAll(file, page, MAP_PAGE_BYTES + at)
  }
  const first = new Uint8Array(MAP_PAGE_BYTES)
  first.set(header.build({ magic: MAGIC, bootId: idBytes(bootId) }))
  await writeAll(file, first, 0)
}

const idBytes = (bootId: string): Buffer => Buffer.from(bootId.padEnd(36).slice(0, 36), 'latin1')

export async function writeAll(file: FileHandle, from: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < from.length; ) {
    const { bytesWritten } = await file.write(from, done, from.length - done, offset + done)
    done += bytesWritten
  }
}
