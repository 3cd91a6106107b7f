import { MiB } from '../../base/units.ts'
import { DIGEST_BYTES } from '../content/digests.ts'
import { PAGE_ENTRIES } from '../content/manifest-format.ts'
import type { OpenManifest } from './chunk-reader.ts'
import type { IngestOptions, KnownFile, StreamDigest } from './chunk-store.ts'
import { digestFile, digestStored } from './digest-file.ts'
import type { Engine } from './engine.ts'
import { enterReading } from './file-source.ts'
import { pieceInSlot, StreamDigests } from './stream-digests.ts'
import type { Piece } from './workers/jobs.ts'

type Digests = Partial<Record<StreamDigest, string>>

interface Candidate extends KnownFile {
  readonly open: OpenManifest
  /** The collector may have the manifest. */
  leave(): void
}

/**
 * Bytes that are caught up while the sender waits: at some 300 MB/s less than a second, in which the ingest keeps its slots.
 * A file that parts later from all that are known is digested when it is stored.
 */
const MOST_CAUGHT_UP_BYTES = 128 * MiB

/**
 * Digests of the file that an ingest takes in. md5 and sha512 of a long stream cost more than everything else about it, and each
 * is one thread's work from front to back. So they are not computed as long as the file is, chunk by chunk, one that the store
 * knows already; where it soon parts from the last of these, what came until then is read from that one.
 */
export class FileDigests {
  readonly #engine: Engine
  readonly #digests: StreamDigests
  readonly #signal: AbortSignal | undefined
  /** Files that this one is like so far; empty: it is a new one. */
  #candidates: readonly Candidate[]
  /** How much of it was found to be like them. */
  #chunks = 0
  #bytes = 0
  /** Parts whose turn to be compared has not come. */
  #waiting = 0
  #turn: Promise<void> = Promise.resolve()
  /** Some of the file was left out: only the stored file can tell. */
  #isBehind = false

  private constructor(engine: Engine, options: IngestOptions, candidates: readonly Candidate[]) {
    this.#engine = engine
    this.#digests = new StreamDigests(engine, options.digests ?? [])
    this.#signal = options.signal
    this.#candidates = candidates
  }

  static async begin(engine: Engine, options: IngestOptions): Promise<FileDigests> {
    const wanted = options.digests ?? []
    const candidates: Candidate[] = []
    for (const known of wanted.length > 0 ? (options.likely ?? []) : []) {
      if (wanted.some((algorithm) => known.digests[algorithm] === undefined)) continue
      const leave = enterReading(engine, known.manifest)
      const open = await engine.reader.openManifest(known.manifest).catch(() => undefined) // gone or damaged: of no use here
      if (open) candidates.push({ ...known, open, leave })
      else leave()
    }
    return new FileDigests(engine, options, candidates)
  }

  /**
   * Calls must follow the order of the file.
   * @param hashed digests of the chunks in the slot
   * @returns when it resolves, the slot's bytes are not needed any more; where it rejects, the file has no digests
   */
  block(slot: number, bytes: number, hashed: Promise<Uint8Array>): Promise<void> {
    return this.#inOrder(bytes, () => hashed, pieceInSlot(slot, bytes))
  }

  zeros(bytes: number, chunks: number): Promise<void> {
    return this.#inOrder(bytes, async () => new Uint8Array(chunks * DIGEST_BYTES), { in: 'zeros', bytes })
  }

  /** After all parts were dealt with. @returns lower-case hex by algorithm; undefined: they are to be made of the stored file */
  async finish(): Promise<Digests | undefined> {
    const same = this.#candidates.find(({ open }) => open.root.fileBytes === this.#bytes)
    if (same) {
      this.abandon()
      return Object.fromEntries(this.#digests.algorithms.map((algorithm) => [algorithm, same.digests[algorithm]!]))
    }
    if (this.#candidates.length > 0) await this.#part()
    if (!this.#isBehind) return this.#digests.finish()
    this.abandon()
    return undefined
  }

  /** The same, of what the ingest has made of the file by then. */
  async ofStored(manifest: string): Promise<Digests> {
    return digestFile(this.#engine, manifest, this.#digests.algorithms, { signal: this.#signal })
  }

  abandon(): void {
    this.#leaveAll()
    this.#digests.abandon()
  }

  #inOrder(bytes: number, hashed: () => Promise<Uint8Array>, piece: Piece): Promise<void> {
    if (this.#candidates.length === 0 && this.#waiting === 0) return this.#update(piece)
    this.#waiting += 1
    let update: Promise<void> | undefined // only its beginning keeps the next part waiting
    this.#turn = this.#turn.then(async () => {
      try {
        if (!(await this.#isKnown(bytes, hashed))) {
          update = this.#update(piece)
          update.catch(() => undefined) // whoever waits for the part gets it
        }
      } finally {
        this.#waiting -= 1
      }
    })
    this.#turn.catch(() => undefined)
    return this.#turn.then(() => update)
  }

  async #update(piece: Piece): Promise<void> {
    if (!this.#isBehind) await this.#digests.update(piece)
  }

  async #isKnown(bytes: number, hashed: () => Promise<Uint8Array>): Promise<boolean> {
    if (this.#candidates.length === 0) return false
    const digests = await hashed()
    const isLike = await Promise.all(
      // a page that cannot be read says nothing of the file that comes
      this.#candidates.map(({ open }) => this.#goesOnAs(open, digests, bytes).catch(() => false)),
    )
    const like = this.#candidates.filter((_, index) => isLike[index])
    if (like.length === 0) {
      await this.#part()
      return false
    }
    for (const [index, { leave }] of this.#candidates.entries()) if (!isLike[index]) leave()
    this.#candidates = like
    this.#chunks += digests.length / DIGEST_BYTES
    this.#bytes += bytes
    return true
  }

  async #goesOnAs(open: OpenManifest, digests: Uint8Array, bytes: number): Promise<boolean> {
    if (this.#bytes + bytes > open.root.fileBytes) return false
    for (let at = 0; at < digests.length; ) {
      const chunk = this.#chunks + at / DIGEST_BYTES
      const page = Math.floor(chunk / PAGE_ENTRIES)
      const entries = await this.#engine.reader.pageEntries(open, page)
      const from = (chunk - page * PAGE_ENTRIES) * DIGEST_BYTES
      const take = Math.min(digests.length - at, entries.length - from)
      if (take <= 0) return false
      if (Buffer.compare(entries.subarray(from, from + take), digests.subarray(at, at + take)) !== 0) return false
      at += take
    }
    return true
  }

  /** The file is none of those that are known: it gets digests of its own, now or when it is stored. */
  async #part(): Promise<void> {
    const [last] = this.#candidates
    try {
      this.#isBehind = this.#bytes > MOST_CAUGHT_UP_BYTES
      if (!this.#isBehind) await digestStored(this.#engine, this.#digests, last!.manifest, this.#bytes, { signal: this.#signal })
    } catch (error) {
      if (this.#signal?.aborted) throw error
      this.#isBehind = true // what the store has of it will tell; some of it may be in the digests by now
    } finally {
      this.#leaveAll()
    }
  }

  #leaveAll(): void {
    for (const { leave } of this.#candidates) leave()
    this.#candidates = []
  }
}
