import { type FileHandle, open, rm, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '../../base/units.ts'
import { keyOf } from '../../store/content/digests.ts'
import { decodeEntries, encodeEntries, INDEX_ENTRY_BYTES, type IndexEntry } from './segment-index.ts'

export const CHUNKS_SUFFIX = '.chunks'
export const INDEX_SUFFIX = '.index'
/** The largest chunk that a store may have. */
const MAX_STORED_BYTES = MiB
/** How often a use is noted for other processes, and for the next start. */
const NOTE_EVERY_MS = 30_000

/** Two files of the cache: chunks side by side, and where each begins. Written by the process that made it, read by all. */
export class Segment {
  readonly name: string
  readonly #folder: string
  /** Bytes of both files, as far as they are known. */
  chunkBytes = 0
  indexBytes = 0
  /** Milliseconds since 1970. */
  usedAt: number
  /** Written here: nobody else adds to it. */
  readonly isOwn: boolean
  #notedAt = 0
  #reader: Promise<FileHandle> | undefined
  #isGone = false

  constructor(folder: string, name: string, usedAt: number, isOwn: boolean) {
    this.#folder = folder
    this.name = name
    this.usedAt = usedAt
    this.isOwn = isOwn
  }

  get bytes(): number {
    return this.chunkBytes + this.indexBytes
  }
  get chunksPath(): string {
    return join(this.#folder, this.name + CHUNKS_SUFFIX)
  }
  get indexPath(): string {
    return join(this.#folder, this.name + INDEX_SUFFIX)
  }

  /** Entries that were added since the last time. @param size of the index now */
  async newEntries(size: number): Promise<readonly IndexEntry[]> {
    const whole = size - (size % INDEX_ENTRY_BYTES)
    if (whole <= this.indexBytes) return []
    const file = await open(this.indexPath, 'r')
    try {
      const bytes = new Uint8Array(whole - this.indexBytes)
      const { bytesRead } = await file.read(bytes, 0, bytes.length, this.indexBytes)
      const read = bytesRead - (bytesRead % INDEX_ENTRY_BYTES)
      this.indexBytes += read
      const entries = [...decodeEntries(bytes.subarray(0, read), MAX_STORED_BYTES)]
      for (const { offset, storedBytes } of entries) this.chunkBytes = Math.max(this.chunkBytes, offset + storedBytes)
      return entries
    } finally {
      await file.close()
    }
  }

  /** Alone in its buffer. @returns undefined where the bytes are not all there */
  async read(offset: number, storedBytes: number): Promise<Uint8Array | undefined> {
    this.#reader ??= open(this.chunksPath, 'r')
    const file = await this.#reader
    const bytes = new Uint8Array(storedBytes)
    const { bytesRead } = await file.read(bytes, 0, storedBytes, offset)
    return bytesRead === storedBytes ? bytes : undefined
  }

  used(now: number): void {
    this.usedAt = now
    if (now - this.#notedAt < NOTE_EVERY_MS || this.#isGone) return
    this.#notedAt = now
    utimes(this.indexPath, now / 1000, now / 1000).catch(() => undefined) // another process has removed it
  }

  /** The index first: chunks without one are nobody's. Who reads it now reads on. */
  async remove(): Promise<void> {
    this.#isGone = true
    await rm(this.indexPath, { force: true })
    await rm(this.chunksPath, { force: true })
  }

  async close(): Promise<void> {
    const reader = this.#reader
    this.#reader = undefined
    await reader?.then(
      (file) => file.close(),
      () => undefined,
    )
  }
}

/** What is put into a segment. */
export interface StoredCopy {
  readonly digest: Uint8Array
  readonly codec: number
  readonly bytes: Uint8Array
}

/** Appends to a segment of its own. Nothing is synced: what a power cut tears is found by the digests. */
export class SegmentWriter {
  readonly segment: Segment
  readonly #chunks: FileHandle
  readonly #index: FileHandle

  private constructor(segment: Segment, chunks: FileHandle, index: FileHandle) {
    this.segment = segment
    this.#chunks = chunks
    this.#index = index
  }

  static async create(segment: Segment): Promise<SegmentWriter> {
    const chunks = await open(segment.chunksPath, 'wx', 0o600)
    try {
      return new SegmentWriter(segment, chunks, await open(segment.indexPath, 'wx', 0o600))
    } catch (error) {
      await chunks.close()
      throw error
    }
  }

  /** The chunks first, then where they are: an index never runs ahead of a living writer. */
  async append(copies: readonly StoredCopy[]): Promise<readonly IndexEntry[]> {
    const { segment } = this
    let offset = segment.chunkBytes
    const entries = copies.map(({ digest, codec, bytes }): IndexEntry => {
      const entry = { key: keyOf(digest), codec, offset, storedBytes: bytes.length }
      offset += bytes.length
      return entry
    })
    await writeAll(this.#chunks, Buffer.concat(copies.map(({ bytes }) => bytes)), segment.chunkBytes)
    segment.chunkBytes = offset
    const index = encodeEntries(entries)
    await writeAll(this.#index, index, segment.indexBytes)
    segment.indexBytes += index.length
    return entries
  }

  async close(): Promise<void> {
    await this.#chunks.close()
    await this.#index.close()
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, at + done)).bytesWritten
  }
}
