import { allEnded } from '../../base/all-ended.ts'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { KiB, MiB } from '../../base/units.ts'
import type { BlobStore } from '../blobs/blob-store.ts'
import { ByteCache } from '../content/byte-cache.ts'
import { CODEC_PLAIN, decodeChunk } from '../content/codec.ts'
import {
  countOf,
  DIGEST_BYTES,
  digestAt,
  digestOfManifest,
  hexOf,
  isZeroAt,
  joinDigests,
  keyAt,
  keyOf,
  sha256,
} from '../content/digests.ts'
import type { WireChunk } from '../content/encode-chunks.ts'
import { chunksOf, MAX_ROOT_BYTES, PAGE_ENTRIES, parsePage, parseRoot, type Root } from '../content/manifest-format.ts'
import type { ChunkMemory } from './chunk-memory.ts'
import type { Counters } from './counters.ts'
import { distrustDamaged } from './distrust.ts'
import type { ChunkIndex, Locations } from './index/chunk-index.ts'
import { packKey } from './pack-format.ts'
import type { StoredChunk } from './workers/jobs.ts'
import { type Haste, LoadQueue, type StagedChunk } from './workers/load-queue.ts'
import { PLAIN_BYTES, READ_SLOT_BYTES, type ReadSlots } from './workers/read-slots.ts'
import type { SlotPool } from './workers/slot-pool.ts'
import type { WorkerPool } from './workers/worker-pool.ts'

/** Neighbours in a pack are fetched by one read, with what lies between them, up to so much of it … */
const MAX_GAP_BYTES = 32 * KiB
/** … and up to so much altogether. */
const MAX_READ_BYTES = 2 * MiB
/** What one read may bring for random reads: as much as that, or one chunk. */
export const STAGING_BYTES = MAX_READ_BYTES
/** Chunks of one job, as many as SHA-256 has lanes: a long run of them keeps all workers busy. */
const CHUNKS_TOGETHER = 4
/** Entries whose places are looked up together: a question costs as much as some ten entries. A divisor of a page's entries. */
const LOOKUP_ENTRIES = 64
const MANIFEST_CACHE_BYTES = 8 * MiB
const LOCATION_CACHE_BYTES = 2 * MiB
const LOCATION_BYTES = 20 * LOOKUP_ENTRIES

interface Wanted {
  /** Its place in the page. */
  readonly entry: number
  readonly digest: Uint8Array
  readonly plainBytes: number
  readonly to: number
}

/** A manifest that is open for reading. */
export interface OpenManifest {
  readonly name: string
  readonly root: Root
}

/** A chunk that is being read: who wants the same waits for the same. */
interface Coming {
  readonly haste: Haste
  readonly waiting: Arrival[]
}
interface Arrival {
  arrived(bytes: Uint8Array): void
  failed(error: unknown): void
}

/**
 * Gets a chunk of a run, by its place in the run, or undefined for zeros. The bytes are good until it returns, and must not be
 * changed: it takes a copy of what it wants.
 */
export type TakeChunk = (index: number, bytes: Uint8Array | undefined) => void

const PAGE_OF_ZEROS = new Uint8Array(PAGE_ENTRIES * DIGEST_BYTES)

/** Reads chunks: finds them, fetches them, has them unpacked and verified on a worker thread. */
export class ChunkReader {
  readonly #blobs: BlobStore
  readonly #index: ChunkIndex
  readonly #workers: WorkerPool
  readonly #readSlots: ReadSlots
  readonly #staging: SlotPool
  readonly #memory: ChunkMemory
  readonly #loads: LoadQueue
  readonly #counters: Counters
  readonly #chunkBytes: number
  readonly #manifests = new ByteCache<Uint8Array>(MANIFEST_CACHE_BYTES, (bytes) => bytes.length)
  readonly #locations = new ByteCache<Promise<Locations>>(LOCATION_CACHE_BYTES, () => LOCATION_BYTES)
  readonly #coming = new Map<string, Coming>()

  constructor(
    parts: {
      readonly blobs: BlobStore
      readonly index: ChunkIndex
      readonly workers: WorkerPool
      readonly readSlots: ReadSlots
      /** Slots of `STAGING_BYTES`. */
      readonly staging: SlotPool
      readonly memory: ChunkMemory
      readonly counters: Counters
    },
    chunkBytes: number,
  ) {
    this.#blobs = parts.blobs
    this.#index = parts.index
    this.#workers = parts.workers
    this.#readSlots = parts.readSlots
    this.#staging = parts.staging
    this.#memory = parts.memory
    this.#loads = new LoadQueue(parts.workers)
    this.#counters = parts.counters
    this.#chunkBytes = chunkBytes
  }

  /** @throws ServiceError `not-found`, `corrupt` */
  async openManifest(name: string): Promise<OpenManifest> {
    return { name, root: parseRoot(await this.rootBytes(name), this.#chunkBytes) }
  }

  /** As it is stored. @throws ServiceError `not-found`, `corrupt` */
  rootBytes(name: string): Promise<Uint8Array> {
    return this.#readManifestChunk(digestOfManifest(name), `manifest ${name}`)
  }

  /** As it is stored. @throws ServiceError `not-found`, also for a page of zeros; `corrupt` */
  async pageBytes(name: string, page: number): Promise<Uint8Array> {
    const { root } = await this.openManifest(name)
    const isThere = page >= 0 && page < countOf(root.pages) && !isZeroAt(root.pages, page)
    if (!isThere) throw new ServiceError('not-found', `manifest ${name} has no page ${page}`, { manifest: name, page })
    return this.#readManifestChunk(digestAt(root.pages, page), `page ${page} of manifest ${name}`)
  }

  /** Digests of a page's entries, not to be changed; all zeros for a page of zeros. */
  async pageEntries({ name, root }: OpenManifest, page: number): Promise<Uint8Array> {
    const entries = Math.min(PAGE_ENTRIES, chunksOf(root.fileBytes, this.#chunkBytes) - page * PAGE_ENTRIES)
    if (isZeroAt(root.pages, page)) return PAGE_OF_ZEROS.subarray(0, entries * DIGEST_BYTES)
    const bytes = await this.#readManifestChunk(digestAt(root.pages, page), `page ${page} of manifest ${name}`)
    return parsePage(bytes, entries)
  }

  /** The chunks' bytes side by side, zeros where there is no chunk. `first + count` must not cross a page. */
  async readJoined(manifest: OpenManifest, first: number, count: number): Promise<Uint8Array> {
    const { page, entries, wanted, bytes } = await this.#wantedOf(manifest, first, count)
    if (wanted.length === 0) return new Uint8Array(bytes)
    const fetch = (places: readonly Place[]) => this.#fetchJoined(manifest, wanted, places, bytes)
    const joined = await this.#withPlaces(manifest, page, entries, wanted, fetch)
    this.#counters.bytesRead += bytes
    return joined
  }

  /**
   * The same in a read slot. When it settles, nobody writes to the slot any more.
   * @returns what the slot has from its start: the bytes; or nothing, since all are zeros, or since what has to be read
   *   for them does not fit into it
   */
  async readIntoSlot(
    manifest: OpenManifest,
    first: number,
    count: number,
    slot: number,
  ): Promise<'read' | 'zeros' | 'does-not-fit'> {
    const { page, entries, wanted, bytes } = await this.#wantedOf(manifest, first, count)
    if (wanted.length === 0) return 'zeros'
    if (bytes > PLAIN_BYTES) return 'does-not-fit'
    const fetch = (places: readonly Place[]) => this.#fetchIntoSlot(manifest, wanted, places, slot, bytes)
    const fits = await this.#withPlaces(manifest, page, entries, wanted, fetch)
    if (!fits) return 'does-not-fit'
    this.#counters.bytesRead += bytes
    return 'read'
  }

  /** A chunk that is in memory already: to be read before the next `await`. */
  cached(key: string): Uint8Array | undefined {
    const bytes = this.#memory.find(key)
    if (bytes) this.#counters.cacheHits += 1
    return bytes
  }

  /**
   * Chunks by way of the cache. `first + count` must not cross a page, nor the chunks be more than `STAGING_BYTES`. Chunks that are
   * on their way already are waited for. When it settles, `take` is not called any more.
   * @param isAhead nobody waits for them yet: those that somebody waits for go before
   */
  async readChunks(manifest: OpenManifest, first: number, count: number, take: TakeChunk, isAhead = false): Promise<void> {
    const { page, entries, wanted } = await this.#wantedOf(manifest, first, count)
    const missing: Wanted[] = []
    const arrivals: Promise<void>[] = []
    const haste: Haste = { isUrgent: !isAhead } // of all that is fetched together
    let next = 0
    for (const one of wanted) {
      const index = one.to / this.#chunkBytes
      for (; next < index; next += 1) take(next, undefined)
      next = index + 1
      const key = keyOf(one.digest)
      const bytes = this.cached(key)
      if (bytes) {
        take(index, bytes)
        continue
      }
      const coming = this.#coming.get(key)
      if (!coming) missing.push(one)
      else if (!isAhead) coming.haste.isUrgent = true
      arrivals.push(this.#arrival(key, coming ?? { haste, waiting: [] }, (come) => take(index, come)))
    }
    for (; next < count; next += 1) take(next, undefined)
    if (missing.length > 0) void this.#load(manifest, page, entries, missing, haste)
    await allEnded(arrivals)
  }

  /**
   * Chunks as they lie in packs, neither unpacked nor verified; those of zeros are left out. `numbers` lie within a page.
   * @param memory gives room for so many bytes, or has none. When it settles, nobody writes there any more
   */
  async readStored(
    manifest: OpenManifest,
    numbers: readonly number[],
    memory: (bytes: number) => Uint8Array | undefined,
  ): Promise<readonly WireChunk[]> {
    const page = Math.floor(numbers[0]! / PAGE_ENTRIES)
    const entries = await this.pageEntries(manifest, page)
    const wanted = numbers
      .filter((number) => !isZeroAt(entries, number % PAGE_ENTRIES))
      .map((number): Wanted => {
        const entry = number % PAGE_ENTRIES
        return { entry, digest: digestAt(entries, entry), plainBytes: this.#plainBytes(manifest, number), to: 0 }
      })
    if (wanted.length === 0) return []
    const fetch = (places: readonly Place[]) => this.#fetchStored(wanted, places, memory)
    const chunks = await this.#withPlaces(manifest, page, entries, wanted, fetch)
    this.#counters.bytesRead += wanted.reduce((sum, { plainBytes }) => sum + plainBytes, 0)
    return chunks
  }

  /** The same, unpacked and verified. */
  async readVerified(manifest: OpenManifest, numbers: readonly number[]): Promise<readonly WireChunk[]> {
    const entries = await this.pageEntries(manifest, Math.floor(numbers[0]! / PAGE_ENTRIES))
    const chunks: WireChunk[] = []
    for (const number of numbers) {
      await this.readChunks(manifest, number, 1, (_, bytes) => {
        if (bytes) chunks.push({ digest: digestAt(entries, number % PAGE_ENTRIES), codec: 'plain', bytes: bytes.slice() })
      })
    }
    return chunks
  }

  #arrival(key: string, coming: Coming, arrived: (bytes: Uint8Array) => void): Promise<void> {
    this.#coming.set(key, coming)
    return new Promise((resolve, reject) => {
      const come = (bytes: Uint8Array) => {
        arrived(bytes)
        resolve()
      }
      coming.waiting.push({ arrived: come, failed: reject })
    })
  }

  /** Loads chunks together, and one by one where that fails, so that a damaged one spoils no other. */
  async #load(
    manifest: OpenManifest,
    page: number,
    entries: Uint8Array,
    missing: readonly Wanted[],
    haste: Haste,
  ): Promise<void> {
    try {
      const places = await this.#withPlaces(manifest, page, entries, missing, (places) =>
        this.#fetchToMemory(manifest, missing, places, haste),
      )
      for (const [index, { digest, plainBytes }] of missing.entries()) this.#arrive(keyOf(digest), places[index]!, plainBytes)
    } catch (error) {
      if (missing.length > 1) for (const one of missing) void this.#load(manifest, page, entries, [one], haste)
      else this.#fail(keyOf(missing[0]!.digest), error)
    }
  }

  #arrive(key: string, place: number, plainBytes: number): void {
    const { waiting } = this.#coming.get(key)!
    this.#coming.delete(key)
    this.#counters.cacheMisses += 1
    this.#counters.bytesRead += plainBytes
    const bytes = this.#memory.keep(key, place, plainBytes)
    for (const { arrived } of waiting) arrived(bytes)
  }

  #fail(key: string, error: unknown): void {
    const { waiting } = this.#coming.get(key)!
    this.#coming.delete(key)
    for (const { failed } of waiting) failed(error)
  }

  /** Forgets where chunks are and which manifests there were; chunks are what their digests say, for ever. */
  forget(): void {
    this.#locations.clear()
    this.#manifests.clear()
  }

  /** Which chunks of a run are no zeros. */
  async #wantedOf(manifest: OpenManifest, first: number, count: number) {
    const wanted: Wanted[] = []
    const bytes = Math.min(count * this.#chunkBytes, manifest.root.fileBytes - first * this.#chunkBytes)
    const page = Math.floor(first / PAGE_ENTRIES)
    if (first + count > (page + 1) * PAGE_ENTRIES) throw new Error('a run of chunks crosses a page')
    const entries = await this.pageEntries(manifest, page)
    for (let chunk = first; chunk < first + count; chunk += 1) {
      const entry = chunk % PAGE_ENTRIES
      if (isZeroAt(entries, entry)) continue
      wanted.push({
        entry,
        digest: digestAt(entries, entry),
        plainBytes: this.#plainBytes(manifest, chunk),
        to: (chunk - first) * this.#chunkBytes,
      })
    }
    return { page, entries, wanted, bytes }
  }

  #plainBytes({ root }: OpenManifest, chunk: number): number {
    return Math.min(this.#chunkBytes, root.fileBytes - chunk * this.#chunkBytes)
  }

  /**
   * A chunk may have moved since it was looked up: by a collector, or since its copy was damaged and it came again. So it is
   * looked up once more; what is damaged then is distrusted.
   */
  async #withPlaces<T>(
    manifest: OpenManifest,
    page: number,
    entries: Uint8Array,
    wanted: readonly Wanted[],
    fetch: (places: readonly Place[]) => Promise<T>,
  ): Promise<T> {
    const pageKey = keyAt(manifest.root.pages, page)
    const places = await this.#locate(pageKey, entries, wanted)
    try {
      return await fetch(places)
    } catch (error) {
      if (!isDamage(error)) throw error
      for (const { entry } of wanted) this.#locations.delete(groupKey(pageKey, entry))
      const newPlaces = await this.#locate(pageKey, entries, wanted)
      return await fetch(newPlaces).catch(async (again) => {
        if (isDamage(again)) await this.#distrust(wanted, newPlaces)
        if (!isServiceError(again, 'not-found')) throw again
        throw new ServiceError('corrupt', `Chunks of manifest ${manifest.name} are gone: run "imprint store check".`, {
          manifest: manifest.name,
          page,
        })
      })
    }
  }

  /** What cannot be marked now, since the index fails, is found again by the next read. */
  async #distrust(wanted: readonly { readonly digest: Uint8Array }[], places: readonly Place[]): Promise<void> {
    const suspects = places.flatMap((place, index) => (place.pack === '' ? [] : [{ ...place, digest: wanted[index]!.digest }]))
    await distrustDamaged(this.#blobs, this.#index, suspects).catch(() => undefined)
  }

  /** Where each wanted chunk lies. Looks groups of entries up, and keeps the answers. */
  #locate(pageKey: string, entries: Uint8Array, wanted: readonly Wanted[]): Promise<Place[]> {
    return Promise.all(
      wanted.map(async ({ entry }) => {
        const key = groupKey(pageKey, entry)
        let asked = this.#locations.get(key)
        if (!asked) {
          const first = Math.floor(entry / LOOKUP_ENTRIES) * LOOKUP_ENTRIES * DIGEST_BYTES
          asked = this.#index.locate(entries.slice(first, first + LOOKUP_ENTRIES * DIGEST_BYTES))
          this.#locations.set(key, asked)
          asked.catch(() => this.#locations.delete(key))
        }
        return placeAt(await asked, entry % LOOKUP_ENTRIES)
      }),
    )
  }

  async #fetchJoined(
    manifest: OpenManifest,
    wanted: readonly Wanted[],
    places: readonly Place[],
    joinedBytes: number,
  ): Promise<Uint8Array> {
    assertPlaces(wanted, places)
    const reads = planReads(places)
    const inputs = await Promise.all(reads.map((read) => this.#readRun(read)))
    const inputOf = new Map(reads.flatMap(({ members }, input) => members.map((member) => [member, input] as const)))
    const chunks = wanted.map((one, index): StoredChunk => {
      const input = inputOf.get(index)!
      const { offset, storedBytes, codec } = places[index]!
      return {
        input,
        at: offset - reads[input]!.from,
        storedBytes,
        plainBytes: one.plainBytes,
        codec,
        digest: one.digest.slice(),
        to: one.to,
      }
    })
    const { joined, damaged } = await this.#workers.run(
      { kind: 'decode', inputs, chunks, joinedBytes },
      inputs.map(({ buffer }) => buffer as ArrayBuffer),
    )
    if (damaged.length > 0) throw damagedChunk(manifest, wanted[damaged[0]!]!, places[damaged[0]!]!)
    return joined
  }

  /** @returns for each wanted chunk the place in the chunk memory where it is now, not yet in the cache */
  async #fetchToMemory(
    manifest: OpenManifest,
    wanted: readonly Wanted[],
    places: readonly Place[],
    haste: Haste,
  ): Promise<readonly number[]> {
    assertPlaces(wanted, places)
    // All at once, and before any slot: who holds a slot waits for nobody who needs one.
    const filled = await this.#memory.take(wanted.length)
    const fetching = planReads(places).map(async (read) => {
      const slot = await this.#staging.acquire()
      try {
        await this.#readToStaging(read, slot)
        const chunks = read.members.map((member) => this.#staged(read, slot, wanted[member]!, places[member]!, filled[member]!))
        await this.#verify(manifest, read, chunks, wanted, places, haste)
      } finally {
        this.#staging.release(slot)
      }
    })
    const ended = await Promise.allSettled(fetching) // where one fails, the others still write to their places
    const failure = ended.find((one) => one.status === 'rejected')
    if (!failure) return filled
    this.#memory.giveBack(filled)
    throw failure.reason
  }

  async #readToStaging({ pack, from, to }: Read, slot: number): Promise<void> {
    const into = this.#staging.bytes(slot, to - from)
    const got = await this.#blobs.read(packKey(pack), from, to - from, into)
    if (got !== into) into.set(got)
  }

  async #verify(
    manifest: OpenManifest,
    { members }: Read,
    chunks: readonly StagedChunk[],
    wanted: readonly Wanted[],
    places: readonly Place[],
    haste: Haste,
  ): Promise<void> {
    const jobs: Promise<void>[] = []
    for (let from = 0; from < chunks.length; from += CHUNKS_TOGETHER) {
      const checked = this.#loads.load(chunks.slice(from, from + CHUNKS_TOGETHER), haste).then((bad) => {
        if (bad === undefined) return
        const member = members[from + bad]!
        throw damagedChunk(manifest, wanted[member]!, places[member]!)
      })
      jobs.push(checked)
    }
    await allEnded(jobs)
  }

  #staged(
    read: Read,
    slot: number,
    { digest, plainBytes }: Wanted,
    { offset, storedBytes, codec }: Place,
    place: number,
  ): StagedChunk {
    const at = slot * STAGING_BYTES + offset - read.from
    return { at, storedBytes, plainBytes, codec, digest, to: this.#memory.offsetOf(place) }
  }

  async #fetchStored(
    wanted: readonly Wanted[],
    places: readonly Place[],
    memory: (bytes: number) => Uint8Array | undefined,
  ): Promise<readonly WireChunk[]> {
    assertPlaces(wanted, places)
    const chunks = new Array<WireChunk>(wanted.length)
    const reading = planReads(places).map(async ({ pack, from, to, members }) => {
      const run = await this.#blobs.read(packKey(pack), from, to - from, memory(to - from))
      for (const member of members) {
        const { offset, storedBytes, codec } = places[member]!
        const bytes = run.subarray(offset - from, offset - from + storedBytes)
        chunks[member] = { digest: wanted[member]!.digest, codec: codec === CODEC_PLAIN ? 'plain' : 'zstd', bytes }
      }
    })
    await Promise.allSettled(reading) // where one fails, the others still write to the memory
    await Promise.all(reading)
    return chunks
  }

  /** Alone in its buffer. */
  async #readRun({ pack, from, to }: Read): Promise<Uint8Array> {
    const bytes = await this.#blobs.read(packKey(pack), from, to - from)
    return bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice()
  }

  /** Plain chunks that lie in a pack as they do in the file are read to where they belong. @returns false: does not fit */
  async #fetchIntoSlot(
    manifest: OpenManifest,
    wanted: readonly Wanted[],
    places: readonly Place[],
    slot: number,
    bytes: number,
  ): Promise<boolean> {
    assertPlaces(wanted, places)
    const reads = planReads(places)
    const at: number[] = []
    let storedEnd = PLAIN_BYTES
    for (const read of reads) {
      const isInPlace = liesAsWanted(read, wanted, places)
      at.push(isInPlace ? wanted[read.members[0]!]!.to : storedEnd)
      if (!isInPlace) storedEnd += read.to - read.from
    }
    if (storedEnd > READ_SLOT_BYTES) return false
    const reading = reads.map(async ({ pack, from, to }, index) => {
      const into = this.#readSlots.bytes(slot, at[index]!, to - from)
      const got = await this.#blobs.read(packKey(pack), from, to - from, into)
      if (got !== into) into.set(got)
    })
    await Promise.allSettled(reading) // where one fails, the others still write to the slot
    await Promise.all(reading)
    const startOf = new Map(
      reads.flatMap(({ members, from }, index) => members.map((member) => [member, at[index]! - from] as const)),
    )
    const chunks = wanted.map(({ plainBytes, to }, member) => {
      const { offset, storedBytes, codec } = places[member]!
      return { at: startOf.get(member)! + offset, storedBytes, plainBytes, codec, to }
    })
    const digests = joinDigests(wanted.map(({ digest }) => digest))
    const damaged = await this.#workers.run({ kind: 'verify', slot, bytes, chunks, digests })
    if (damaged.length > 0) throw damagedChunk(manifest, wanted[damaged[0]!]!, places[damaged[0]!]!)
    return true
  }

  /** Roots and pages: unpacked and verified here, since they are few and small. */
  async #readManifestChunk(digest: Uint8Array, what: string): Promise<Uint8Array> {
    const key = keyOf(digest)
    const cached = this.#manifests.get(key)
    if (cached) return cached
    const bytes = await this.readOne(digest, MAX_ROOT_BYTES, what)
    this.#manifests.set(key, bytes)
    return bytes
  }

  /** @throws ServiceError `not-found`, `corrupt` */
  async readOne(digest: Uint8Array, maxPlainBytes: number, what: string): Promise<Uint8Array> {
    for (let attempt = 1; ; attempt += 1) {
      const place = placeAt(await this.#index.locate(digest), 0)
      if (place.pack === '') throw new ServiceError('not-found', `The store has no ${what}.`, { digest: hexOf(digest) })
      try {
        const stored = await this.#blobs.read(packKey(place.pack), place.offset, place.storedBytes)
        const plain = decodeChunk(stored, place.codec, Math.min(place.plainBytes, maxPlainBytes))
        if (plain && Buffer.compare(sha256(plain), digest) === 0) return plain
        throw new ServiceError('corrupt', `The ${what} is damaged in pack ${place.pack}: run "imprint store check".`, {
          digest: hexOf(digest),
          pack: place.pack,
        })
      } catch (error) {
        if (!isDamage(error)) throw error
        if (attempt === 1) continue
        await this.#distrust([{ digest }], [place])
        if (isServiceError(error, 'corrupt')) throw error
        throw new ServiceError('corrupt', `The ${what} is gone with pack ${place.pack}: run "imprint store check".`, {
          digest: hexOf(digest),
          pack: place.pack,
        })
      }
    }
  }
}

interface Place {
  /** Empty: not in the index. */
  readonly pack: string
  readonly offset: number
  readonly storedBytes: number
  readonly plainBytes: number
  readonly codec: number
}

function placeAt(found: Locations, index: number): Place {
  const pack = found.pack[index] ?? -1
  return {
    pack: pack < 0 ? '' : found.packs[pack]!,
    offset: found.offsets[index] ?? 0,
    storedBytes: found.storedBytes[index] ?? 0,
    plainBytes: found.plainBytes[index] ?? 0,
    codec: found.codecs[index] ?? 0,
  }
}

interface Read {
  readonly pack: string
  readonly from: number
  to: number
  readonly members: number[]
}

/** Few reads that cover all places. */
function planReads(places: readonly Place[]): Read[] {
  const order = [...places.keys()].sort((a, b) => {
    const [one, other] = [places[a]!, places[b]!]
    if (one.pack !== other.pack) return one.pack < other.pack ? -1 : 1
    return one.offset - other.offset
  })
  const reads: Read[] = []
  for (const member of order) {
    const { pack, offset, storedBytes } = places[member]!
    const last = reads.at(-1)
    const end = offset + storedBytes
    const joins = last && last.pack === pack && offset - last.to <= MAX_GAP_BYTES && end - last.from <= MAX_READ_BYTES
    if (joins) {
      last.to = Math.max(last.to, end)
      last.members.push(member)
    } else reads.push({ pack, from: offset, to: end, members: [member] })
  }
  return reads
}

/** Whether a read brings its chunks as the reader wants them: plain, side by side, in this order, with nothing between. */
function liesAsWanted({ from, to, members }: Read, wanted: readonly Wanted[], places: readonly Place[]): boolean {
  const start = wanted[members[0]!]!.to
  let end = from
  for (const member of members) {
    const { offset, storedBytes, codec } = places[member]!
    const { plainBytes, to: place } = wanted[member]!
    if (codec !== CODEC_PLAIN || storedBytes !== plainBytes || offset !== end || place - start !== offset - from) return false
    end += storedBytes
  }
  return end === to
}

function assertPlaces(wanted: readonly Wanted[], places: readonly Place[]): void {
  const lost = places.findIndex(({ pack }) => pack === '')
  if (lost !== -1) throw new ServiceError('not-found', 'A chunk is not in the index.', { digest: hexOf(wanted[lost]!.digest) })
}

/** Bytes that are gone or are not what they should be; not a disk that does not answer. */
const isDamage = (error: unknown): boolean => isServiceError(error, 'not-found') || isServiceError(error, 'corrupt')

const damagedChunk = ({ name }: OpenManifest, { digest }: Wanted, { pack }: Place): ServiceError =>
  new ServiceError('corrupt', `Chunk ${hexOf(digest)} in pack ${pack} is damaged: run "imprint store check".`, {
    manifest: name,
    digest: hexOf(digest),
    pack,
  })

const groupKey = (pageKey: string, entry: number): string => `${pageKey}${Math.floor(entry / LOOKUP_ENTRIES)}`
