import type { ChunkStore } from '../../store/chunks/chunk-store.ts'
import { countOf, digestAt, isZeroAt } from '../../store/content/digests.ts'
import { chunksOf, PAGE_ENTRIES, parsePage, parseRoot } from '../../store/content/manifest-format.ts'

/** Pages of one manifest that are held at a time: 2 MiB. A boot goes to and fro between a few. */
const MAX_PAGES = 64

/** The digests of a file's chunks by their numbers; the store has the pages in memory that were read lately. */
export class ChunkDigests {
  readonly #chunks: Pick<ChunkStore, 'layout' | 'layoutPage' | 'chunkBytes'>
  readonly #manifest: string
  readonly #root: ReturnType<typeof parseRoot>
  readonly #pages = new Map<number, Uint8Array>()

  private constructor(chunks: ChunkStore, manifest: string, root: ReturnType<typeof parseRoot>) {
    this.#chunks = chunks
    this.#manifest = manifest
    this.#root = root
  }

  /** @throws ServiceError `not-found`, `corrupt` */
  static async open(chunks: ChunkStore, manifest: string): Promise<ChunkDigests> {
    return new ChunkDigests(chunks, manifest, parseRoot(await chunks.layout(manifest), chunks.chunkBytes))
  }

  get count(): number {
    return chunksOf(this.#root.fileBytes, this.#root.chunkBytes)
  }

  /** @returns undefined for zeros, and beyond the end */
  async of(chunk: number): Promise<Uint8Array | undefined> {
    if (chunk >= this.count) return undefined
    const number = Math.floor(chunk / PAGE_ENTRIES)
    if (number >= countOf(this.#root.pages) || isZeroAt(this.#root.pages, number)) return undefined
    const page = this.#pages.get(number) ?? (await this.#readPage(number))
    const entry = chunk % PAGE_ENTRIES
    return isZeroAt(page, entry) ? undefined : digestAt(page, entry)
  }

  async #readPage(number: number): Promise<Uint8Array> {
    const bytes = await this.#chunks.layoutPage(this.#manifest, number)
    const page = parsePage(bytes, Math.min(PAGE_ENTRIES, this.count - number * PAGE_ENTRIES))
    const [oldest] = this.#pages.keys()
    if (this.#pages.size >= MAX_PAGES && oldest !== undefined) this.#pages.delete(oldest)
    this.#pages.set(number, page)
    return page
  }
}
