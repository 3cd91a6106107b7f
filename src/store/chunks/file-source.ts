import { allEnded } from '../../base/all-ended.ts'
import { ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import { assertRange, type Extent } from '../../disk/block/block-source.ts'
import { DIGEST_BYTES, isZeroAt, keyAt } from '../content/digests.ts'
import { PAGE_ENTRIES } from '../content/manifest-format.ts'
import type { OpenManifest } from './chunk-reader.ts'
import type { StoredFile } from './chunk-store.ts'
import type { Engine } from './engine.ts'

/** Bytes that are fetched together: a divisor of what a page's entries stand for. */
const RUN_BYTES = MiB
/** Reads that are under way side by side go through several pages. 32 KiB each. */
const KEPT_PAGES = 32
/** Runs of one long read that are under way side by side. */
const RUNS_AHEAD = 3

/** A file as a BlockSource; while it is open the collector leaves its chunks alone. */
export async function openFile(engine: Engine, name: string): Promise<StoredFile> {
  const leave = enterReading(engine, name)
  try {
    return new FileSource(engine, await engine.reader.openManifest(name), leave)
  } catch (error) {
    leave()
    throw error
  }
}

/** Notes that somebody reads this manifest. @returns ends it; may be called more than once */
export function enterReading({ reading }: Engine, name: string): () => void {
  reading.set(name, (reading.get(name) ?? 0) + 1)
  let ended = false
  return () => {
    if (ended) return
    ended = true
    const left = reading.get(name)! - 1
    if (left === 0) reading.delete(name)
    else reading.set(name, left)
  }
}

class FileSource implements StoredFile {
  readonly size: number
  readonly #engine: Engine
  readonly #manifest: OpenManifest
  readonly #leave: () => void
  /** Entries of pages that were read, by number, the first to come the first to go. Those of zeros are never among them. */
  readonly #pages = new Map<number, Uint8Array>()
  #closed = false

  constructor(engine: Engine, manifest: OpenManifest, leave: () => void) {
    this.size = manifest.root.fileBytes
    this.#engine = engine
    this.#manifest = manifest
    this.#leave = leave
  }

  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    try {
      assertRange(offset, length, this.size)
      this.#assertOpen()
      const bytes = into ?? new Uint8Array(length)
      return this.#isReadNow(offset, bytes) ? Promise.resolve(bytes) : this.#read(offset, bytes)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  async prefetch(offset: number, length: number): Promise<void> {
    assertRange(offset, length, this.size)
    this.#assertOpen()
    for (const { first, count } of this.#runsOf(offset, length))
      await this.#engine.reader.readChunks(this.#manifest, first, count, () => undefined, true)
  }

  async *extents(offset: number, length: number): AsyncIterable<Extent> {
    assertRange(offset, length, this.size)
    this.#assertOpen()
    const { chunkBytes, reader } = this.#engine
    const end = offset + length
    const pageBytes = PAGE_ENTRIES * chunkBytes
    let run: { offset: number; length: number; kind: 'data' | 'hole' } | undefined
    for (let at = offset; at < end; ) {
      const page = Math.floor(at / pageBytes)
      const isHole = isZeroAt(this.#manifest.root.pages, page)
      const entries = isHole ? undefined : await reader.pageEntries(this.#manifest, page)
      const pageEnd = Math.min(end, (page + 1) * pageBytes)
      while (at < pageEnd) {
        const chunk = Math.floor(at / chunkBytes)
        const next = entries ? Math.min(pageEnd, (chunk + 1) * chunkBytes) : pageEnd
        const kind = entries && !isZeroAt(entries, chunk % PAGE_ENTRIES) ? 'data' : 'hole'
        if (run?.kind === kind) run.length += next - at
        else {
          if (run) yield run
          run = { offset: at, length: next - at, kind }
        }
        at = next
      }
    }
    if (run) yield run
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#leave()
  }

  /** Where all chunks of the range are in memory. @returns false: `bytes` is not filled */
  #isReadNow(offset: number, bytes: Uint8Array): boolean {
    const { chunkBytes, reader } = this.#engine
    const { pages } = this.#manifest.root
    for (let done = 0; done < bytes.length; ) {
      const chunk = Math.floor((offset + done) / chunkBytes)
      const entry = chunk % PAGE_ENTRIES
      const page = (chunk - entry) / PAGE_ENTRIES
      const entries = this.#pages.get(page)
      const from = offset + done - chunk * chunkBytes
      const count = Math.min(chunkBytes - from, bytes.length - done)
      if (entries ? isZeroAt(entries, entry) : isZeroAt(pages, page)) bytes.fill(0, done, done + count)
      else {
        const found = entries && reader.cached(keyAt(entries, entry))
        if (!found) return false
        bytes.set(found.subarray(from, from + count), done)
      }
      done += count
    }
    return true
  }

  async #read(offset: number, bytes: Uint8Array): Promise<Uint8Array> {
    const { chunkBytes, reader } = this.#engine
    const runs = this.#runsOf(offset, bytes.length)
    await this.#keepPage(Math.floor(offset / chunkBytes))
    const worker = async () => {
      for (const { first, count, skip, take, at } of runs) {
        await reader.readChunks(this.#manifest, first, count, (index, chunk) => {
          const from = Math.max(0, skip - index * chunkBytes)
          const to = Math.min(chunkBytes, skip + take - index * chunkBytes)
          const place = at + index * chunkBytes + from - skip
          if (chunk) bytes.set(chunk.subarray(from, to), place)
          else bytes.fill(0, place, place + to - from)
        })
      }
    }
    await allEnded(Array.from({ length: Math.min(RUNS_AHEAD, Math.ceil(bytes.length / RUN_BYTES)) }, worker)) // they share the runs
    return bytes
  }

  async #keepPage(chunk: number): Promise<void> {
    const number = Math.min(Math.floor(chunk / PAGE_ENTRIES), this.#manifest.root.pages.length / DIGEST_BYTES - 1)
    if (number < 0 || this.#pages.has(number) || isZeroAt(this.#manifest.root.pages, number)) return
    this.#pages.set(number, await this.#engine.reader.pageEntries(this.#manifest, number))
    if (this.#pages.size > KEPT_PAGES) for (const [oldest] of this.#pages) return void this.#pages.delete(oldest)
  }

  #runsOf(offset: number, length: number): Generator<BlockOfChunks> {
    const { chunkBytes } = this.#engine
    return blocksOf(offset, length, chunkBytes, RUN_BYTES)
  }

  #assertOpen(): void {
    if (this.#closed) throw new ServiceError('invalid-request', 'This file was closed: open it again.')
  }
}

/** A run of chunks inside one page, and the part of their bytes that is wanted. */
export interface BlockOfChunks {
  readonly first: number
  readonly count: number
  /** Of the chunks' bytes, from here … */
  readonly skip: number
  /** … so many. */
  readonly take: number
  /** Where they belong in the wanted range. */
  readonly at: number
}

/** Cuts `[offset, offset + length)` into blocks that lie within multiples of `blockBytes`, itself a multiple of the chunk size. */
export function* blocksOf(offset: number, length: number, chunkBytes: number, blockBytes: number): Generator<BlockOfChunks> {
  const end = offset + length
  for (let at = offset; at < end; ) {
    const blockEnd = Math.min(end, (Math.floor(at / blockBytes) + 1) * blockBytes)
    const first = Math.floor(at / chunkBytes)
    yield {
      first,
      count: Math.ceil(blockEnd / chunkBytes) - first,
      skip: at - first * chunkBytes,
      take: blockEnd - at,
      at: at - offset,
    }
    at = blockEnd
  }
}
