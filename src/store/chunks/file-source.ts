import { ServiceError } from '../../base/errors.ts'
import { assertRange, type BlockSource, type Extent } from '../../disk/block/block-source.ts'
import type { OpenManifest } from './chunk-reader.ts'
import { isZeroAt } from './digests.ts'
import type { Engine } from './engine.ts'
import { PAGE_ENTRIES } from './manifest-format.ts'
import { SLOT_BYTES } from './workers/slot-pool.ts'

/** Reads longer than this go past the cache, in blocks. */
const CACHED_READ_CHUNKS = 4
/** Blocks of one long read that are fetched side by side. */
const BLOCKS_AHEAD = 3

/** A file as a BlockSource; while it is open the collector leaves its chunks alone. */
export async function openFile(engine: Engine, name: string): Promise<BlockSource> {
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

class FileSource implements BlockSource {
  readonly size: number
  readonly #engine: Engine
  readonly #manifest: OpenManifest
  readonly #leave: () => void
  #closed = false

  constructor(engine: Engine, manifest: OpenManifest, leave: () => void) {
    this.size = manifest.root.fileBytes
    this.#engine = engine
    this.#manifest = manifest
    this.#leave = leave
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    assertRange(offset, length, this.size)
    this.#assertOpen()
    if (length === 0) return new Uint8Array(0)
    const { chunkBytes } = this.#engine
    const first = Math.floor(offset / chunkBytes)
    const last = Math.floor((offset + length - 1) / chunkBytes)
    return last - first < CACHED_READ_CHUNKS ? this.#readChunks(offset, length, first, last) : this.#readBlocks(offset, length)
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

  async #readChunks(offset: number, length: number, first: number, last: number): Promise<Uint8Array> {
    const { chunkBytes, reader } = this.#engine
    const bytes = new Uint8Array(length)
    const chunks = Array.from({ length: last - first + 1 }, (_, index) => first + index)
    await Promise.all(
      chunks.map(async (chunk) => {
        const plain = await reader.readCached(this.#manifest, chunk)
        if (!plain) return
        const start = chunk * chunkBytes
        const part = plain.subarray(Math.max(0, offset - start), offset + length - start)
        bytes.set(part, Math.max(0, start - offset))
      }),
    )
    return bytes
  }

  async #readBlocks(offset: number, length: number): Promise<Uint8Array> {
    const { chunkBytes, reader } = this.#engine
    const bytes = new Uint8Array(length)
    const blocks = blocksOf(offset, length, chunkBytes, SLOT_BYTES)
    const worker = async () => {
      for (const { first, count, skip, take, at } of blocks) {
        const joined = await reader.readJoined(this.#manifest, first, count)
        bytes.set(joined.subarray(skip, skip + take), at)
      }
    }
    await Promise.all(Array.from({ length: BLOCKS_AHEAD }, worker)) // the workers share one generator of blocks
    return bytes
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
