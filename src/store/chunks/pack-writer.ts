import { randomBytes } from 'node:crypto'
import { failpoint } from '../../base/failpoint.ts'
import type { BlobStore } from '../blobs/blob-store.ts'
import { crcOf } from '../content/codec.ts'
import { countOf, digestAt, joinDigests, keyAt } from '../content/digests.ts'
import type { ChunkColumns, ChunkIndex, RefColumns } from './index/chunk-index.ts'
import { encodeFooter, HEADER_BYTES, PACK_BYTES, type PackEntry, packHeader, packKey } from './pack-format.ts'

/** One is filled while the other is written. */
const PACK_BUFFERS = 2
/** A pack that nobody waits for, and that nothing more comes to, is sealed after this. */
const IDLE_MS = 1000

export interface EncodedChunk {
  readonly bytes: Uint8Array
  readonly plainBytes: number
  readonly kind: number
  readonly codec: number
  /** Of `bytes`, where it is known. */
  readonly crc?: number
}

/** What became of chunks that were placed. */
export interface Placed {
  readonly knownChunks: number
  readonly newChunks: number
  /** Stored bytes of the new ones. */
  readonly newBytes: number
  /** Resolve when the chunks are durable and indexed; each is a pack's, and may come more than once. */
  readonly durable: readonly Promise<void>[]
}

/** A digest that somebody is bringing into the store right now. Everybody else who has the same chunk joins in. */
interface Coming {
  readonly holds: Set<number>
  /** known: it was in the store; appended: it is in `pack`; given-up: who brought it failed. */
  readonly outcome: Promise<'known' | 'appended' | 'given-up'>
  settle(outcome: 'known' | 'appended' | 'given-up'): void
  pack: OpenPack | undefined
}

interface OpenPack {
  readonly id: string
  readonly buffer: Uint8Array
  usedBytes: number
  readonly entries: PackEntry[]
  readonly keys: string[]
  readonly coming: (Coming | undefined)[]
  readonly movedFrom: Set<string>
  /** The refs are on their way to the index: who comes later must claim the chunk there. */
  frozen: boolean
  readonly durable: Promise<void>
  resolve(): void
  reject(error: unknown): void
}

/**
 * The one writer of packs, for all ingests at once. Gives each chunk a place, once, however many bring it at the same time;
 * who waits for durability shares a pack, and its sync, with all others who do.
 */
export class PackWriter {
  readonly #blobs: BlobStore
  readonly #index: ChunkIndex
  readonly #coming = new Map<string, Coming>()
  readonly #buffers: Uint8Array[] = []
  #buffersMade = 0
  #open: OpenPack | undefined
  readonly #writing = new Set<OpenPack>()
  #sealWhenIdle = false
  #roomWaiters: (() => void)[] = []
  #idleTimer: NodeJS.Timeout | undefined

  constructor(blobs: BlobStore, index: ChunkIndex) {
    this.#blobs = blobs
    this.#index = index
  }

  /** Packs that are registered with the index and not yet in it. */
  get writing(): number {
    return this.#writing.size
  }

  /**
   * Makes `hold` keep these chunks: those in the store by a ref, the others by appending them.
   * @param digests no zeros among them; may repeat
   * @param encode called with places in `digests` of chunks that are new, once for each; the bytes are copied before the next
   *   `await` of the caller's promise resolves
   */
  async place(
    hold: number,
    digests: Uint8Array,
    encode: (places: readonly number[]) => Promise<EncodedChunk[]>,
  ): Promise<Placed> {
    const durable = new Set<Promise<void>>()
    let [knownChunks, newChunks, newBytes] = [0, 0, 0]
    let todo = firstPlaces(digests)
    while (todo.length > 0) {
      const { mine, joined } = this.#split(hold, digests, todo)
      const fresh = await this.#claim(hold, digests, mine)
      knownChunks += mine.length - fresh.length
      newChunks += fresh.length
      newBytes += await this.#appendAll(digests, fresh, encode, durable)
      todo = []
      for (const { place, coming, frozen } of joined) {
        const outcome = await coming.outcome
        if (outcome === 'appended' && !frozen) {
          durable.add(coming.pack!.durable)
          knownChunks += 1
          continue
        }
        if (frozen) await coming.pack?.durable.catch(() => undefined)
        todo.push(place)
      }
    }
    return { knownChunks, newChunks, newBytes, durable: [...durable] }
  }

  /**
   * For the collector: puts a stored chunk into another pack.
   * @returns when the bytes are copied: a promise in an object, as an async function would wait for it
   */
  async move(chunk: EncodedChunk & { readonly digest: Uint8Array }, from: string): Promise<{ readonly durable: Promise<void> }> {
    const pack = await this.#append(chunk.digest, chunk, '', undefined)
    pack.movedFrom.add(from)
    return { durable: pack.durable }
  }

  /** Has everything that was placed until now sealed soon, together with what others bring meanwhile. */
  flush(): void {
    if (this.#open === undefined) return
    this.#sealWhenIdle = true
    setImmediate(() => this.#sealIfIdle())
  }

  /** Resolves when what was placed until now is in the index, or has failed. */
  async settle(): Promise<void> {
    this.#seal()
    await Promise.allSettled([...this.#writing].map(({ durable }) => durable))
  }

  /** Resolves when nothing is open or being written; failures went to those who wait for them. */
  async drain(): Promise<void> {
    for (;;) {
      this.#seal()
      const [pack] = this.#writing
      if (!pack) return
      await pack.durable.catch(() => undefined)
    }
  }

  #split(hold: number, digests: Uint8Array, places: readonly number[]) {
    const mine: number[] = []
    const joined: { place: number; coming: Coming; frozen: boolean }[] = []
    for (const place of places) {
      const key = keyAt(digests, place)
      const coming = this.#coming.get(key)
      if (coming) {
        const frozen = coming.pack?.frozen ?? false
        if (!frozen) coming.holds.add(hold)
        joined.push({ place, coming, frozen })
      } else {
        this.#coming.set(key, makeComing(hold))
        mine.push(place)
      }
    }
    return { mine, joined }
  }

  /** @returns places of the chunks that the store lacks; of the others, nobody is told to wait any more */
  async #claim(hold: number, digests: Uint8Array, mine: readonly number[]): Promise<number[]> {
    if (mine.length === 0) return []
    const known = await this.#index.claim(hold, pick(digests, mine)).catch((error) => {
      for (const place of mine) this.#settle(keyAt(digests, place), 'given-up')
      throw error
    })
    failpoint('chunks:claimed')
    const fresh: number[] = []
    for (const [index, place] of mine.entries()) {
      if (known[index] === 0) fresh.push(place)
      else this.#settle(keyAt(digests, place), 'known')
    }
    return fresh
  }

  async #appendAll(
    digests: Uint8Array,
    fresh: readonly number[],
    encode: (places: readonly number[]) => Promise<EncodedChunk[]>,
    durable: Set<Promise<void>>,
  ): Promise<number> {
    if (fresh.length === 0) return 0
    let appended = 0
    let bytes = 0
    try {
      for (const chunk of await encode(fresh)) {
        const place = fresh[appended]!
        const key = keyAt(digests, place)
        const pack = await this.#append(digestAt(digests, place), chunk, key, this.#coming.get(key)!)
        durable.add(pack.durable)
        appended += 1
        bytes += chunk.bytes.length
      }
      return bytes
    } finally {
      for (const place of fresh.slice(appended)) this.#settle(keyAt(digests, place), 'given-up')
    }
  }

  #settle(key: string, outcome: 'known' | 'given-up'): void {
    const coming = this.#coming.get(key)
    this.#coming.delete(key)
    coming?.settle(outcome)
  }

  #copy(pack: OpenPack, digest: Uint8Array, { bytes, plainBytes, kind, codec, crc }: EncodedChunk): void {
    pack.buffer.set(bytes, pack.usedBytes)
    pack.entries.push({
      digest: digest.slice(),
      offset: pack.usedBytes,
      storedBytes: bytes.length,
      plainBytes,
      crc: crc ?? crcOf(bytes),
      kind,
      codec,
    })
    pack.usedBytes += bytes.length
  }

  /**
   * Copies the chunk into the open pack, once there is one with room. Many who waited go on side by side, so no `await` may
   * come between the look at the room and the copy.
   */
  async #append(digest: Uint8Array, chunk: EncodedChunk, key: string, coming: Coming | undefined): Promise<OpenPack> {
    for (;;) {
      const pack = this.#packWithRoom(chunk.bytes.length)
      if (pack) {
        this.#copy(pack, digest, chunk)
        pack.keys.push(key)
        pack.coming.push(coming)
        if (coming) {
          coming.pack = pack
          coming.settle('appended')
        }
        return pack
      }
      await new Promise<void>((resolve) => this.#roomWaiters.push(resolve))
    }
  }

  /** @returns undefined while both buffers are being written */
  #packWithRoom(bytes: number): OpenPack | undefined {
    if (this.#open && this.#open.usedBytes + bytes > PACK_BYTES) this.#seal()
    if (this.#open) return this.#open
    const buffer = this.#takeBuffer()
    return buffer && this.#begin(buffer)
  }

  #takeBuffer(): Uint8Array | undefined {
    if (this.#buffers.length > 0) return this.#buffers.pop()
    if (this.#buffersMade === PACK_BUFFERS) return undefined
    this.#buffersMade += 1
    return Buffer.allocUnsafeSlow(PACK_BYTES)
  }

  #begin(buffer: Uint8Array): OpenPack {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    promise.catch(() => undefined) // whoever waits gets the error; nobody may be waiting
    buffer.set(packHeader())
    const id = randomBytes(16).toString('hex')
    this.#open = {
      id,
      buffer,
      usedBytes: HEADER_BYTES,
      entries: [],
      keys: [],
      coming: [],
      movedFrom: new Set(),
      frozen: false,
      durable: promise,
      resolve,
      reject,
    }
    this.#watch(this.#open, 0)
    return this.#open
  }

  /** Seals the pack once a whole period has brought nothing. */
  #watch(pack: OpenPack, bytesBefore: number): void {
    this.#idleTimer = setTimeout(() => {
      if (pack.usedBytes === bytesBefore) this.#seal()
      else this.#watch(pack, pack.usedBytes)
    }, IDLE_MS)
    this.#idleTimer.unref()
  }

  #sealIfIdle(): void {
    if (this.#sealWhenIdle && this.#writing.size === 0) this.#seal()
  }

  #seal(): void {
    const pack = this.#open
    if (!pack) return
    clearTimeout(this.#idleTimer)
    this.#open = undefined
    this.#sealWhenIdle = false
    this.#writing.add(pack)
    void this.#write(pack).then(pack.resolve, pack.reject)
  }

  async #write(pack: OpenPack): Promise<void> {
    try {
      await this.#index.registerPack(pack.id)
      const footer = encodeFooter(pack.entries, pack.usedBytes)
      await this.#blobs.put(packKey(pack.id), [pack.buffer.subarray(0, pack.usedBytes), footer])
      failpoint('pack:put')
      pack.frozen = true
      const packBytes = pack.usedBytes + footer.length
      await this.#index.addPack(pack.id, packBytes, columnsOf(pack.entries), refsOf(pack), [...pack.movedFrom])
      failpoint('pack:indexed')
    } catch (error) {
      await this.#undo(pack)
      throw error
    } finally {
      for (const key of pack.keys) this.#coming.delete(key)
      this.#writing.delete(pack)
      this.#buffers.push(pack.buffer)
      for (const wake of this.#roomWaiters.splice(0)) wake()
      this.#sealIfIdle()
    }
  }

  /** What cannot be undone now, since the disk fails, is found when the store is opened again. */
  async #undo(pack: OpenPack): Promise<void> {
    pack.frozen = true
    await this.#blobs
      .delete(packKey(pack.id))
      .then(
        () => this.#index.forgetPack(pack.id),
        () => undefined,
      )
      .catch(() => undefined)
  }
}

function makeComing(hold: number): Coming {
  const { promise, resolve } = Promise.withResolvers<'known' | 'appended' | 'given-up'>()
  return { holds: new Set([hold]), outcome: promise, settle: resolve, pack: undefined }
}

/** Places of digests, each digest once. */
function firstPlaces(digests: Uint8Array): number[] {
  const seen = new Set<string>()
  const places: number[] = []
  for (let place = 0; place < countOf(digests); place += 1) {
    const key = keyAt(digests, place)
    if (!seen.has(key)) places.push(place)
    seen.add(key)
  }
  return places
}

const pick = (digests: Uint8Array, places: readonly number[]) => joinDigests(places.map((place) => digestAt(digests, place)))

export const columnsOf = (entries: readonly PackEntry[]): ChunkColumns => ({
  digests: joinDigests(entries.map(({ digest }) => digest)),
  offsets: Uint32Array.from(entries, ({ offset }) => offset),
  storedBytes: Uint32Array.from(entries, ({ storedBytes }) => storedBytes),
  plainBytes: Uint32Array.from(entries, ({ plainBytes }) => plainBytes),
  kinds: Uint8Array.from(entries, ({ kind }) => kind),
  codecs: Uint8Array.from(entries, ({ codec }) => codec),
})

function refsOf(pack: OpenPack): RefColumns {
  const pairs = pack.coming.flatMap((coming, chunk) => [...(coming?.holds ?? [])].map((hold) => ({ chunk, hold })))
  return { chunks: Uint32Array.from(pairs, ({ chunk }) => chunk), holds: Float64Array.from(pairs, ({ hold }) => hold) }
}
