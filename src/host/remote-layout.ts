import { ServiceError } from '../base/errors.ts'
import { MiB } from '../base/units.ts'
import { ByteCache } from '../store/content/byte-cache.ts'
import { countOf, digestAt, hexOf, isZeroAt, sha256Hex } from '../store/content/digests.ts'
import { chunksOf, PAGE_ENTRIES, parsePage, parseRoot, type Root } from '../store/content/manifest-format.ts'
import type { ChunkPool } from './chunk-pool.ts'
import type { ChunkOrigin, OriginFile } from './origin.ts'
import { patiently } from './patience.ts'

/** Pages in memory: 256 of them, the layout of 16 GiB. */
const PAGE_CACHE_BYTES = 8 * MiB

/** Which chunk lies where in a file elsewhere. Pages come when they are needed; each is verified by its digest in the root. */
export class RemoteLayout {
  readonly file: OriginFile
  readonly #origin: ChunkOrigin
  readonly #pool: ChunkPool
  readonly #root: Root
  readonly #signal: AbortSignal
  readonly #patienceMs: number
  readonly #pages = new ByteCache<Uint8Array>(PAGE_CACHE_BYTES, (bytes) => bytes.length)
  readonly #coming = new Map<number, Promise<Uint8Array>>()

  private constructor({ origin, pool, signal, patienceMs }: LayoutParts, file: OriginFile, root: Root) {
    this.file = file
    this.#origin = origin
    this.#pool = pool
    this.#root = root
    this.#signal = signal
    this.#patienceMs = patienceMs
  }

  /** @throws ServiceError as the origin; `corrupt` where the root is not the one that is named */
  static async open(parts: LayoutParts): Promise<RemoteLayout> {
    const { origin, signal, patienceMs } = parts
    const file = await patiently(signal, patienceMs, () => origin.describe(signal))
    const bytes = await patiently(signal, patienceMs, () => origin.root(signal))
    if (sha256Hex(bytes) !== file.manifest) throw damaged(`the root of manifest ${file.manifest}`)
    const root = parseRoot(bytes, file.chunkBytes)
    if (root.fileBytes !== file.fileBytes) throw damaged(`the size of the file of manifest ${file.manifest}`)
    return new RemoteLayout(parts, file, root)
  }

  get chunks(): number {
    return chunksOf(this.file.fileBytes, this.file.chunkBytes)
  }

  plainBytes(chunk: number): number {
    return Math.min(this.file.chunkBytes, this.file.fileBytes - chunk * this.file.chunkBytes)
  }

  /** Digests of a page's chunks, if they are in memory. */
  pageNow(page: number): Uint8Array | undefined {
    return this.#pages.get(String(page))
  }

  /** Digests of a page's chunks, 32 bytes each; undefined: all of them are zeros. @throws ServiceError as the origin; `corrupt` */
  async page(page: number): Promise<Uint8Array | undefined> {
    if (page >= countOf(this.#root.pages) || isZeroAt(this.#root.pages, page)) return undefined
    const known = this.pageNow(page)
    if (known) return known
    const coming = this.#coming.get(page) ?? this.#bring(page).finally(() => this.#coming.delete(page))
    this.#coming.set(page, coming)
    return coming
  }

  async #bring(page: number): Promise<Uint8Array> {
    const digest = digestAt(this.#root.pages, page)
    const bytes = (await this.#kept(digest)) ?? (await this.#fetched(page, digest))
    const entries = parsePage(bytes, Math.min(PAGE_ENTRIES, this.chunks - page * PAGE_ENTRIES))
    this.#pages.set(String(page), entries)
    return entries
  }

  async #kept(digest: Uint8Array): Promise<Uint8Array | undefined> {
    const bytes = await this.#pool.keptBytes(digest)
    if (!bytes) return undefined
    if (sha256Hex(bytes) === hexOf(digest)) return bytes
    this.#pool.dropKept(digest)
    return undefined
  }

  async #fetched(page: number, digest: Uint8Array): Promise<Uint8Array> {
    const bytes = await patiently(this.#signal, this.#patienceMs, () => this.#origin.page(page, this.#signal))
    if (sha256Hex(bytes) !== hexOf(digest)) throw damaged(`page ${page} of manifest ${this.file.manifest}`)
    await this.#pool.keep(digest, bytes)
    return bytes
  }
}

export interface LayoutParts {
  readonly origin: ChunkOrigin
  readonly pool: ChunkPool
  readonly signal: AbortSignal
  readonly patienceMs: number
}

const damaged = (what: string): ServiceError =>
  new ServiceError('corrupt', `the service sent other bytes than it named: ${what} does not match its digest`)
