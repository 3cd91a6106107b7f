import { failpoint } from '../../base/failpoint.ts'
import { countOf, digestAt, hexOf, isZeroAt, joinDigests } from '../content/digests.ts'
import { chunksOf } from '../content/manifest-format.ts'
import type { Ingested, IngestOptions } from './chunk-store.ts'
import { Durability } from './durability.ts'
import type { Engine } from './engine.ts'
import { FileDigests } from './file-digests.ts'
import { finishManifest, type HoldFacts } from './finish-manifest.ts'
import { cancelledError, MAX_RUN_BYTES, orCancelled } from './gather.ts'
import { ManifestBuilder } from './manifest-builder.ts'
import { KIND_DATA } from './pack-format.ts'
import { SLOT_BYTES } from './workers/slot-pool.ts'

const PROGRESS_BYTES = 4 * SLOT_BYTES

export interface StoredBlock {
  /** Zeros for chunks of zeros. */
  readonly digests: Uint8Array
  readonly allocatedBytes: number
  readonly newBytes: number
}
/** What has become of a part of the file, in its order. */
export type StoredPart = StoredBlock | { readonly zeroChunks: number }

/** One ingest: blocks are worked on side by side, and their entries join the manifest in order. */
export class IngestRun {
  readonly #engine: Engine
  readonly #options: IngestOptions
  readonly #hold: HoldFacts
  readonly #durability = new Durability()
  readonly #builder: ManifestBuilder
  readonly #fileDigests: FileDigests
  readonly #underWay: Promise<StoredPart>[] = []
  #fileBytes = 0
  #allocatedBytes = 0
  #newBytes = 0
  #reportedBytes = 0

  private constructor(engine: Engine, options: IngestOptions, hold: HoldFacts, fileDigests: FileDigests) {
    this.#engine = engine
    this.#options = options
    this.#hold = hold
    this.#builder = new ManifestBuilder(engine.writer, hold.hold, engine.chunkBytes, this.#durability)
    this.#fileDigests = fileDigests
  }

  static async begin(engine: Engine, options: IngestOptions): Promise<IngestRun> {
    if (options.signal?.aborted) throw cancelledError()
    const hold = await engine.index.begin(options.owner)
    return new IngestRun(engine, options, { hold }, await FileDigests.begin(engine, options))
  }

  /** What keeps its chunks in the index. */
  get hold(): number {
    return this.#hold.hold
  }

  /** Runs `feed` and finishes, or undoes what can be undone. */
  async through(feed: () => Promise<void>): Promise<Ingested> {
    try {
      await feed()
      while (this.#underWay.length > 0) await this.#takeOldest()
      const digests = await this.#fileDigests.finish()
      const root = await this.#builder.finish(this.#fileBytes, this.#allocatedBytes)
      this.#engine.writer.flush()
      await orCancelled(this.#durability.all(), this.#options.signal)
      failpoint('manifest:pages-put')
      this.#options.onProgress?.(this.#fileBytes)
      const sizes = { fileBytes: this.#fileBytes, allocatedBytes: this.#allocatedBytes }
      const newBytes = this.#newBytes + this.#builder.newBytes
      const known = digests ?? (await this.#fileDigests.ofStored(hexOf(root)))
      return await finishManifest(this.#engine, this.#hold, root, sizes, newBytes, known)
    } catch (error) {
      await Promise.allSettled(this.#underWay) // they use slots, and refer to the hold
      this.#fileDigests.abandon()
      await this.#engine.index.abandon(this.#hold.hold).catch(() => this.#engine.givenUp.add(this.#hold.hold))
      throw error
    }
  }

  /** Takes a block, into a slot when this ingest may have one more. Blocks come in order; all but the last are whole chunks. */
  async copy(block: Uint8Array): Promise<void> {
    await this.#untilRoom()
    const slot = await this.#engine.slots.acquire()
    this.#engine.slots.bytes(slot).set(block)
    this.#engine.counters.bytesIngested += block.length
    this.#add(this.store(slot, block.length), block.length)
  }

  /** In runs, so that others have their turn and the sender is heard between them. All but the last are whole chunks. */
  async addZeros(bytes: number): Promise<void> {
    for (let left = bytes; left > 0; left -= MAX_RUN_BYTES) await this.#addRun(Math.min(left, MAX_RUN_BYTES))
  }

  async #addRun(bytes: number): Promise<void> {
    await this.#untilRoom()
    const zeroChunks = chunksOf(bytes, this.#engine.chunkBytes)
    this.#engine.counters.chunksZero += zeroChunks
    this.#engine.counters.bytesIngested += bytes
    this.#add(
      this.#fileDigests.zeros(bytes, zeroChunks).then(() => ({ zeroChunks })),
      bytes,
    )
  }

  /**
   * Takes a part that has found its chunks' places by itself, when this ingest may have one more under way.
   * @param bytes of the file
   */
  async add(bytes: number, store: () => Promise<StoredPart>): Promise<void> {
    await this.#untilRoom()
    this.#add(store(), bytes)
  }

  async #untilRoom(): Promise<void> {
    if (this.#options.signal?.aborted) throw cancelledError()
    while (this.#underWay.length >= this.#engine.plan.slotsOfOne) await this.#takeOldest()
  }

  #add(part: Promise<StoredPart>, bytes: number): void {
    part.catch(() => undefined) // it is awaited in its turn
    this.#underWay.push(part)
    this.#fileBytes += bytes
    this.#engine.lastMovedMs = performance.now()
    this.#report()
    this.#durability.assert()
  }

  async #takeOldest(): Promise<void> {
    const part = await this.#underWay[0]!
    this.#underWay.shift()
    if ('zeroChunks' in part) return this.#builder.appendZeros(part.zeroChunks)
    this.#allocatedBytes += part.allocatedBytes
    this.#newBytes += part.newBytes
    await this.#builder.append(part.digests)
  }

  /** Hashes what is in the slot, stores what is new of it, and gives the slot back. */
  async store(slot: number, bytes: number): Promise<StoredBlock> {
    const { chunkBytes, workers, slots } = this.#engine
    const hashed = workers.run({ kind: 'hash', slot, bytes, chunkBytes })
    hashed.catch(() => undefined)
    // the file's digests read the plain bytes: compression, which happens in place, waits for them
    const digested = this.#fileDigests.block(slot, bytes, hashed)
    digested.catch(() => undefined)
    try {
      const digests = await hashed
      const plainBytes = Array.from({ length: countOf(digests) }, (_, at) => Math.min(chunkBytes, bytes - at * chunkBytes))
      const stored = await placeSlot(this.#engine, this.#hold.hold, slot, digests, plainBytes, digested, this.#durability)
      await digested // where all chunks are known, nobody has waited for it: who lost a digest need not take the rest
      return stored
    } finally {
      await digested.catch(() => undefined)
      slots.release(slot)
    }
  }

  #report(): void {
    if (this.#fileBytes - this.#reportedBytes < PROGRESS_BYTES) return
    this.#reportedBytes = this.#fileBytes
    this.#options.onProgress?.(this.#fileBytes)
  }
}

/**
 * Gives the chunks in a slot their place: refs for those that the store has, a pack for those that are new.
 * @param digests zeros for chunks of zeros
 * @param readable when it resolves, the slot's bytes may be overwritten
 */
export async function placeSlot(
  engine: Engine,
  hold: number,
  slot: number,
  digests: Uint8Array,
  plainBytes: readonly number[],
  readable: Promise<void>,
  durability: Durability,
): Promise<StoredBlock> {
  const { chunkBytes, counters, slots, workers, writer } = engine
  const places = plainBytes.flatMap((_, place) => (isZeroAt(digests, place) ? [] : [place]))
  const named = joinDigests(places.map((place) => digestAt(digests, place)))
  const placed = await writer.place(hold, named, async (fresh) => {
    await readable
    const chosen = fresh.map((index) => places[index]!)
    const lengths = chosen.map((place) => plainBytes[place]!)
    const { storedBytes, codecs, crcs } = await workers.run({
      kind: 'compress',
      slot,
      chunkBytes,
      places: chosen,
      plainBytes: lengths,
    })
    return chosen.map((place, index) => ({
      bytes: slots.bytes(slot).subarray(place * chunkBytes, place * chunkBytes + storedBytes[index]!),
      plainBytes: lengths[index]!,
      kind: KIND_DATA,
      codec: codecs[index]!,
      crc: crcs[index]!,
    }))
  })
  durability.add(placed.durable)
  counters.chunksNew += placed.newChunks
  counters.chunksKnown += places.length - placed.newChunks
  counters.chunksZero += plainBytes.length - places.length
  return { digests, allocatedBytes: places.reduce((sum, place) => sum + plainBytes[place]!, 0), newBytes: placed.newBytes }
}
