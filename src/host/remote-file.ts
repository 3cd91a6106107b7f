import { ServiceError } from '../base/errors.ts'
import { assertRange, type BlockSource, type Extent } from '../disk/block/block-source.ts'
import { merged } from '../disk/block/run-merger.ts'
import { digestAt, isZeroAt } from '../store/content/digests.ts'
import { PAGE_ENTRIES } from '../store/content/manifest-format.ts'
import { ChunkFetcher } from './chunk-fetcher.ts'
import type { ChunkPool } from './chunk-pool.ts'
import type { ChunkOrigin, OriginFile } from './origin.ts'
import { endedBy, PATIENCE_MS } from './patience.ts'
import { RemoteLayout } from './remote-layout.ts'

/** Chunks of one long read that are on their way together: what it holds at a time. */
const WINDOW_CHUNKS = 64

export interface RemoteFileOptions {
  readonly origin: ChunkOrigin
  readonly pool: ChunkPool
  /** How long a service that does not answer is waited for. */
  readonly patienceMs?: number
  /** Ends the opening; what is open is ended by `close`. */
  readonly signal?: AbortSignal
}

/** A file that rests in a store elsewhere, chunk by chunk as it is read. */
export class RemoteFile implements BlockSource {
  readonly size: number
  readonly #pool: ChunkPool
  readonly #layout: RemoteLayout
  readonly #fetcher: ChunkFetcher
  readonly #over: AbortController

  private constructor(pool: ChunkPool, layout: RemoteLayout, fetcher: ChunkFetcher, over: AbortController) {
    this.size = layout.file.fileBytes
    this.#pool = pool
    this.#layout = layout
    this.#fetcher = fetcher
    this.#over = over
  }

  /** @throws ServiceError as the origin; `corrupt` */
  static async open({ origin, pool, patienceMs = PATIENCE_MS, signal }: RemoteFileOptions): Promise<RemoteFile> {
    const over = new AbortController()
    const opening = () => RemoteLayout.open({ origin, pool, signal: over.signal, patienceMs })
    const layout = await endedBy(signal, over, opening)
    return new RemoteFile(pool, layout, new ChunkFetcher(origin, pool.counters, patienceMs), over)
  }

  get facts(): OriginFile {
    return this.#layout.file
  }

  /** A view where the range lies in one chunk. */
  async read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    this.#assertOpen()
    assertRange(offset, length, this.size)
    const { chunkBytes } = this.#layout.file
    const first = Math.floor(offset / chunkBytes)
    const at = offset - first * chunkBytes
    if (length > 0 && at + length <= chunkBytes) {
      const bytes = await this.#chunk(first)
      return bytes?.subarray(at, at + length) ?? new Uint8Array(length)
    }
    const all = into ?? new Uint8Array(length)
    for (let done = 0; done < length; ) {
      const window = Math.min(length - done, WINDOW_CHUNKS * chunkBytes)
      await this.#readWindow(offset + done, window, all.subarray(done, done + window))
      done += window
    }
    return all
  }

  /** Brings a range nearer; settles when it is here. @throws as `read` */
  async prefetch(offset: number, length: number): Promise<void> {
    if (length === 0) return
    const { chunkBytes } = this.#layout.file
    const first = Math.floor(offset / chunkBytes)
    const count = Math.ceil((offset + length) / chunkBytes) - first
    await this.prefetchChunks(Array.from({ length: count }, (_, index) => first + index))
  }

  /** @param chunks their numbers, in the order in which they will be wanted */
  async prefetchChunks(chunks: readonly number[]): Promise<void> {
    this.#assertOpen()
    await Promise.all(chunks.map((chunk) => this.#chunk(chunk, true)))
  }

  /** Undefined for zeros, and beyond the end. @throws as `read` */
  async digestOf(chunk: number): Promise<Uint8Array | undefined> {
    const page = await this.#layout.page(Math.floor(chunk / PAGE_ENTRIES))
    const entry = chunk % PAGE_ENTRIES
    if (!page || entry * 32 >= page.length || isZeroAt(page, entry)) return undefined
    return digestAt(page, entry)
  }

  extents(offset: number, length: number): AsyncIterable<Extent> {
    assertRange(offset, length, this.size)
    return merged(this.#runs(offset, offset + length))
  }

  async close(): Promise<void> {
    this.#over.abort()
    this.#fetcher.close()
  }

  async *#runs(offset: number, end: number): AsyncGenerator<Extent> {
    const { chunkBytes } = this.#layout.file
    const pageBytes = PAGE_ENTRIES * chunkBytes
    for (let at = offset; at < end; ) {
      this.#assertOpen()
      const page = Math.floor(at / pageBytes)
      const entries = await this.#layout.page(page)
      const pageEnd = Math.min(end, (page + 1) * pageBytes)
      if (!entries) yield { offset: at, length: pageEnd - at, kind: 'hole' }
      for (let from = at; entries && from < pageEnd; ) {
        const chunk = Math.floor(from / chunkBytes)
        const next = Math.min(pageEnd, (chunk + 1) * chunkBytes)
        yield { offset: from, length: next - from, kind: isZeroAt(entries, chunk % PAGE_ENTRIES) ? 'hole' : 'data' }
        from = next
      }
      at = pageEnd
    }
  }

  async #readWindow(offset: number, length: number, into: Uint8Array): Promise<void> {
    const { chunkBytes } = this.#layout.file
    const first = Math.floor(offset / chunkBytes)
    const count = Math.ceil((offset + length) / chunkBytes) - first
    const place = async (chunk: number) => {
      const start = chunk * chunkBytes
      const from = Math.max(offset, start)
      const to = Math.min(offset + length, start + chunkBytes)
      const bytes = await this.#chunk(chunk)
      if (bytes) into.set(bytes.subarray(from - start, to - start), from - offset)
      else into.fill(0, from - offset, to - offset)
    }
    const placing = Array.from({ length: count }, (_, index) => place(first + index))
    await Promise.allSettled(placing) // where one fails, the others still write
    await Promise.all(placing)
  }

  /** Undefined for zeros. */
  async #chunk(chunk: number, isAhead = false): Promise<Uint8Array | undefined> {
    const page = Math.floor(chunk / PAGE_ENTRIES)
    const entry = chunk % PAGE_ENTRIES
    const entries = this.#layout.pageNow(page) ?? (await this.#layout.page(page))
    if (!entries || isZeroAt(entries, entry)) return undefined
    const digest = digestAt(entries, entry)
    const known = this.#pool.cached(digest)
    if (known) return known
    const wanted = { number: chunk, digest, plainBytes: this.#layout.plainBytes(chunk) }
    return this.#pool.get(wanted, this.#fetcher, isAhead)
  }

  #assertOpen(): void {
    if (this.#over.signal.aborted) throw new ServiceError('invalid-request', 'this file was closed: open it again')
  }
}
