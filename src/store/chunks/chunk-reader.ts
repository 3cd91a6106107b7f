import { isServiceError, ServiceError } from '../../base/errors.ts'
import { KiB, MiB } from '../../base/units.ts'
import type { BlobStore } from '../blobs/blob-store.ts'
import { ByteCache } from '../content/byte-cache.ts'
import { ChunkCache } from '../content/chunk-cache.ts'
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
import type { Counters } from './counters.ts'
import { distrustDamaged } from './distrust.ts'
import type { ChunkIndex, Locations } from './index/chunk-index.ts'
import { packKey } from './pack-format.ts'
import { DecodeQueue, type Haste } from './workers/decode-queue.ts'
import type { StoredChunk } from './workers/jobs.ts'
import { PLAIN_BYTES, READ_SLOT_BYTES, type ReadSlots } from './workers/read-slots.ts'
import type { WorkerPool } from './workers/worker-pool.ts'

/** Neighbours in a pack are fetched by one read, with what lies between them, up to so much of it … */
const MAX_GAP_BYTES = 32 * KiB
/** … and up to so much altogether. */
const MAX_READ_BYTES = 2 * MiB
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

/** Reads chunks: finds them, fetches them, has them unpacked and verified on a worker thread. */
export class ChunkReader {
  readonly #blobs: BlobStore
  readonly #index: ChunkIndex
  readonly #workers: WorkerPool
  readonly #readSlots: ReadSlots
  readonly #counters: Counters
  readonly #chunkBytes: number
  readonly #decoding: DecodeQueue
  readonly #cache: ChunkCache
  readonly #manifests = new ByteCache<Uint8Array>(MANIFEST_CACHE_BYTES, (bytes) => bytes.length)
  readonly #locations = new ByteCache<Promise<Locations>>(LOCATION_CACHE_BYTES, () => LOCATION_BYTES)
  /** Chunks that are being read now: who wants the same waits for the same. */
  readonly #coming = new Map<string, { readonly bytes: Promise<Uint8Array>; readonly haste: Haste }>()

  constructor(
    parts: { blobs: BlobStore; index: ChunkIndex; workers: WorkerPool; readSlots: ReadSlots; counters: Counters },
    chunkBytes: number,
    cacheBytes: number,
  ) {
    this.#blobs = parts.blobs
    this.#index = parts.index
    this.#workers = parts.workers
    this.#readSlots = parts.readSlots
    this.#counters = parts.counters
    this.#chunkBytes = chunkBytes
    this.#decoding = new DecodeQueue(parts.workers)
    this.#cache = new ChunkCache(cacheBytes)
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

  /** Digests of a page's entries; all zeros for a page of zeros. */
  async pageEntries({ name, root }: OpenManifest, page: number): Promise<Uint8Array> {
    const entries = Math.min(PAGE_ENTRIES, chunksOf(root.fileBytes, this.#chunkBytes) - page * PAGE_ENTRIES)
    if (isZeroAt(root.pages, page)) return new Uint8Array(entries * DIGEST_BYTES)
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

  /** A chunk that is in memory already. The caller must not change it. */
  cached(key: string): Uint8Array | undefined {
    const bytes = this.#cache.get(key)
    if (bytes) this.#counters.cacheHits += 1
    return bytes
  }

  /**
   * Chunks by way of the cache, each undefined for zeros; the caller must not change them. `first + count` must not cross a page.
   * Chunks that are on their way already are waited for.
   * @param isAhead nobody waits for them yet: those that somebody waits for go before
   */
  async readChunks(
    manifest: OpenManifest,
    first: number,
    count: number,
    isAhead = false,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    const { page, entries, wanted } = await this.#wantedOf(manifest, first, count)
    const chunks = new Array<Promise<Uint8Array> | Uint8Array | undefined>(count)
    const missing: Wanted[] = []
    for (const one of wanted) {
      const key = keyOf(one.digest)
      const coming = this.#coming.get(key)
      if (coming && !isAhead) coming.haste.isUrgent = true
      const known = coming?.bytes ?? this.cached(key)
      if (known) chunks[one.to / this.#chunkBytes] = known
      else missing.push(one)
    }
    for (const [index, coming] of this.#fetchEach(manifest, page, entries, missing, { isUrgent: !isAhead }).entries())
      chunks[missing[index]!.to / this.#chunkBytes] = coming
    return Promise.all(chunks)
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
      const [bytes] = await this.readChunks(manifest, number, 1)
      if (bytes) chunks.push({ digest: digestAt(entries, number % PAGE_ENTRIES), codec: 'plain', bytes })
    }
    return chunks
  }

  /** Fetches chunks together, and one by one where that fails, so that a damaged one spoils no other. */
  #fetchEach(
    manifest: OpenManifest,
    page: number,
    entries: Uint8Array,
    missing: readonly Wanted[],
    haste: Haste,
  ): Promise<Uint8Array>[] {
    const fetch = (wanted: readonly Wanted[]) =>
      this.#withPlaces(manifest, page, entries, wanted, (places) => this.#fetchChunks(manifest, wanted, places, haste))
    const together = missing.length > 0 ? fetch(missing) : undefined
    return missing.map((one, index) => {
      const key = keyOf(one.digest)
      const bytes = together!
        .then(
          (chunks) => chunks[index]!,
          async (error) => (missing.length === 1 ? Promise.reject(error) : (await fetch([one]))[0]!),
        )
        .then((chunk) => {
          this.#cache.set(key, chunk)
          this.#counters.cacheMisses += 1
          this.#counters.bytesRead += chunk.length
          return chunk
        })
        .finally(() => this.#coming.delete(key))
      this.#coming.set(key, { bytes, haste })
      return bytes
    })
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
      return { ...storedIn(reads[input]!, one, places[index]!), input, to: one.to }
    })
    const { outputs, damaged } = await this.#workers.run(
      { kind: 'decode', inputs, chunks, joinedBytes },
      inputs.map(({ buffer }) => buffer as ArrayBuffer),
    )
    if (damaged.length > 0) throw damagedChunk(manifest, wanted[damaged[0]!]!, places[damaged[0]!]!)
    return outputs[0]!
  }

  async #fetchChunks(
    manifest: OpenManifest,
    wanted: readonly Wanted[],
    places: readonly Place[],
    haste: Haste,
  ): Promise<readonly Uint8Array[]> {
    assertPlaces(wanted, places)
    const fetched = new Array<Uint8Array>(wanted.length)
    const fetching = planReads(places).map(async (read) => {
      const input = await this.#readRun(read)
      const chunks = read.members.map((member) => storedIn(read, wanted[member]!, places[member]!))
      const plain = await this.#decoding.decode({ input, chunks }, haste)
      for (const [index, member] of read.members.entries()) {
        const bytes = plain[index]
        if (!bytes) throw damagedChunk(manifest, wanted[member]!, places[member]!)
        fetched[member] = bytes
      }
    })
    await Promise.all(fetching)
    return fetched
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

/** A chunk as it lies in what a read brings. */
const storedIn = (read: Read, { digest, plainBytes }: Wanted, { offset, storedBytes, codec }: Place) => ({
  at: offset - read.from,
  storedBytes,
  plainBytes,
  codec,
  digest: digest.slice(),
})

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
