import { randomBytes } from 'node:crypto'
import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import { keyOf } from '../../store/content/digests.ts'
import { CHUNKS_SUFFIX, INDEX_SUFFIX, Segment, SegmentWriter, type StoredCopy } from './segment.ts'
import type { IndexEntry } from './segment-index.ts'

export type { StoredCopy } from './segment.ts'

export const LEAST_CACHE_BYTES = 64 * MiB
const LEAST_SEGMENT_BYTES = MiB
const MOST_SEGMENT_BYTES = 64 * MiB
/** A cache is so many full segments: what is dropped at a time is a sixty-fourth of it. */
const SEGMENTS = 64
/** With those that are not full; bounds open files and the time of a start. */
const MAX_SEGMENTS = 512
/** What waits to be written; beyond it `put` waits too. */
const MAX_PENDING_BYTES = 8 * MiB
/** At most so often it is looked for what other processes have added, and for a twentieth of the time. */
const LOOK_EVERY_MS = 100
const LOOK_SHARE = 20
/** Half a segment that is older is of a process that ended while it made or removed one. */
const REMNANT_MS = 3_600_000
/** After a write that failed, as on a full disk, nothing is written for so long. */
const WRITE_PAUSE_MS = 60_000

interface Place extends Omit<IndexEntry, 'key'> {
  readonly segment: Segment
}

/**
 * Chunks on a disk, by their digests, for all images and for as many processes as like: docs/chunk-cache-format.md. A process appends to
 * segments of its own and reads those of all. The segments that were used last stay: chunks that came together are used together. Nothing is
 * synced and nothing is locked, since nothing is believed: **whoever takes a chunk must verify it by its digest**, and say so with `drop`
 * where it is not what it should be. Whatever is damaged, torn or gone is a miss.
 */
export class DiskCache {
  readonly #folder: string
  readonly #maxBytes: number
  readonly #segmentBytes: number
  readonly #now: () => number
  readonly #segments = new Map<string, Segment>()
  readonly #places = new Map<string, Place>()
  #writer: SegmentWriter | undefined
  #pending: StoredCopy[] = []
  #pendingBytes = 0
  #writing: Promise<void> | undefined
  #looking: Promise<void> | undefined
  #lookFrom = Number.NEGATIVE_INFINITY
  #writesFrom = Number.NEGATIVE_INFINITY

  private constructor(folder: string, maxBytes: number, now: () => number) {
    this.#folder = folder
    this.#maxBytes = maxBytes
    this.#segmentBytes = Math.min(MOST_SEGMENT_BYTES, Math.max(LEAST_SEGMENT_BYTES, Math.floor(maxBytes / SEGMENTS)))
    this.#now = now
  }

  /**
   * Opens the cache in `folder`, or makes one there.
   * @param maxBytes of all its files, whichever process wrote them
   * @throws ServiceError `invalid-request` where the folder cannot be used
   */
  static async open(folder: string, maxBytes: number, now: () => number = Date.now): Promise<DiskCache> {
    const cache = new DiskCache(folder, Math.max(maxBytes, LEAST_CACHE_BYTES), now)
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      await cache.#look()
    } catch (cause) {
      const message = `the cache folder ${folder} cannot be used (${(cause as Error).message}): choose another with --cache`
      throw new ServiceError('invalid-request', message, {}, { cause })
    }
    await cache.#makeRoom()
    return cache
  }

  get chunks(): number {
    return this.#places.size
  }
  /** Of all files, as far as this process knows. */
  get bytes(): number {
    let bytes = 0
    for (const segment of this.#segments.values()) bytes += segment.bytes
    return bytes
  }

  /** What lies here under this digest, not verified, alone in its buffer. Looks also for what other processes have added lately. */
  async get(digest: Uint8Array): Promise<Omit<StoredCopy, 'digest'> | undefined> {
    const key = keyOf(digest)
    if (!this.#places.has(key)) await this.#lookAgain()
    const place = this.#places.get(key)
    if (!place) return undefined
    const { segment, offset, storedBytes, codec } = place
    const bytes = await segment.read(offset, storedBytes).catch(() => undefined)
    if (!bytes) this.drop(digest)
    else segment.used(this.#now())
    return bytes && { bytes, codec }
  }

  /** What lies here is not what its digest says. */
  drop(digest: Uint8Array): void {
    this.#places.delete(keyOf(digest))
  }

  /** Keeps a chunk, verified by the caller. Settles at once, or when there is room for more. What cannot be written is not kept. */
  async put(copy: StoredCopy): Promise<void> {
    if (this.#places.has(keyOf(copy.digest)) || this.#now() < this.#writesFrom) return
    this.#pending.push(copy)
    this.#pendingBytes += copy.bytes.length
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = undefined
    })
    if (this.#pendingBytes > MAX_PENDING_BYTES) await this.#writing
  }

  /** When what was put is written. */
  async settled(): Promise<void> {
    await this.#writing
  }

  async close(): Promise<void> {
    await this.settled()
    await this.#looking
    await this.#writer?.close()
    for (const segment of this.#segments.values()) await segment.close()
  }

  async #writeAll(): Promise<void> {
    while (this.#pending.length > 0) {
      const copies = this.#pending
      this.#pending = []
      try {
        await this.#write(copies.filter(({ digest }) => !this.#places.has(keyOf(digest))))
      } catch {
        this.#writesFrom = this.#now() + WRITE_PAUSE_MS // a cache that cannot be written is slow, not wrong
        this.#pending = []
      }
      this.#pendingBytes = this.#pending.reduce((sum, { bytes }) => sum + bytes.length, 0)
    }
  }

  async #write(copies: readonly StoredCopy[]): Promise<void> {
    if (copies.length === 0) return
    const writer = await this.#openWriter()
    const { segment } = writer
    const entries = await writer.append(copies)
    if (!this.#isKnown(segment)) return // another process removed it meanwhile, and these with it
    for (const entry of entries) this.#enter(segment, entry)
    segment.used(this.#now())
    if (segment.chunkBytes < this.#segmentBytes) return
    this.#writer = undefined
    await writer.close()
    await this.#makeRoom()
  }

  async #openWriter(): Promise<SegmentWriter> {
    if (this.#writer && this.#isKnown(this.#writer.segment)) return this.#writer
    await this.#writer?.close()
    this.#writer = undefined
    const name = `${this.#now().toString(36)}-${randomBytes(6).toString('hex')}`
    const segment = new Segment(this.#folder, name, this.#now(), true)
    this.#segments.set(name, segment)
    try {
      this.#writer = await SegmentWriter.create(segment)
    } catch (error) {
      this.#segments.delete(name)
      throw error
    }
    return this.#writer
  }

  #isKnown(segment: Segment): boolean {
    return this.#segments.get(segment.name) === segment
  }

  #enter(segment: Segment, { key, offset, storedBytes, codec }: IndexEntry): void {
    if (!this.#places.has(key)) this.#places.set(key, { segment, offset, storedBytes, codec })
  }

  /** Removes segments that were not used for longest, by whichever process. */
  async #makeRoom(): Promise<void> {
    await this.#look()
    const others = [...this.#segments.values()].filter((segment) => segment !== this.#writer?.segment)
    const oldestFirst = others.sort((a, b) => a.usedAt - b.usedAt)
    let [bytes, count] = [this.bytes, this.#segments.size]
    for (const segment of oldestFirst) {
      if (bytes <= this.#maxBytes && count <= MAX_SEGMENTS) return
      await segment.remove()
      this.#forget(segment)
      bytes -= segment.bytes
      count -= 1
    }
  }

  #forget(segment: Segment): void {
    this.#segments.delete(segment.name)
    for (const [key, place] of this.#places) if (place.segment === segment) this.#places.delete(key)
    void segment.close()
  }

  async #lookAgain(): Promise<void> {
    if (!this.#looking && performance.now() < this.#lookFrom) return
    await this.#look().catch(() => undefined)
  }

  /** Learns which segments there are now, and what was added to those of others. */
  #look(): Promise<void> {
    const began = performance.now()
    this.#looking ??= this.#lookNow().finally(() => {
      this.#looking = undefined
      const ended = performance.now()
      this.#lookFrom = ended + Math.max(LOOK_EVERY_MS, LOOK_SHARE * (ended - began))
    })
    return this.#looking
  }

  async #lookNow(): Promise<void> {
    const names = new Set(await readdir(this.#folder))
    for (const segment of [...this.#segments.values()]) {
      const isThere = names.has(segment.name + INDEX_SUFFIX)
      if (!isThere && !(segment.isOwn && segment.bytes === 0)) this.#forget(segment) // an own one may be about to be made
    }
    const looks = [...names].map(async (file) => {
      if (file.endsWith(INDEX_SUFFIX)) await this.#lookInto(file.slice(0, -INDEX_SUFFIX.length))
      else if (file.endsWith(CHUNKS_SUFFIX) && !names.has(file.slice(0, -CHUNKS_SUFFIX.length) + INDEX_SUFFIX))
        await this.#removeRemnant(file)
    })
    await Promise.all(looks)
  }

  async #lookInto(name: string): Promise<void> {
    const segment = this.#segments.get(name) ?? new Segment(this.#folder, name, 0, false)
    if (segment.isOwn) return
    try {
      const { size, mtimeMs } = await stat(segment.indexPath)
      segment.usedAt = Math.max(segment.usedAt, mtimeMs)
      for (const entry of await segment.newEntries(size)) this.#enter(segment, entry)
      this.#segments.set(name, segment)
    } catch {
      this.#forget(segment) // removed by another process in between
    }
  }

  async #removeRemnant(file: string): Promise<void> {
    const path = join(this.#folder, file)
    const found = await stat(path).catch(() => undefined)
    if (found && this.#now() - found.mtimeMs > REMNANT_MS) await rm(path, { force: true })
  }
}
