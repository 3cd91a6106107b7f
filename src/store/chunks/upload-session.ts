import { randomUUID } from 'node:crypto'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { isZero } from '../../disk/block/zero.ts'
import { CODEC_PLAIN, CODEC_ZSTD } from '../content/codec.ts'
import { countOf, DIGEST_BYTES, digestAt, hexOf, isZeroAt, joinDigests, sha256 } from '../content/digests.ts'
import type { WireChunk } from '../content/encode-chunks.ts'
import { chunksOf, maxFileBytes } from '../content/manifest-format.ts'
import type { ChunkUpload, Ingested } from './chunk-store.ts'
import { Durability } from './durability.ts'
import type { Engine } from './engine.ts'
import { finishManifest } from './finish-manifest.ts'
import { placeSlot } from './ingest-run.ts'
import { ManifestBuilder } from './manifest-builder.ts'
import { SLOT_BYTES } from './workers/slot-pool.ts'

/** Digests that one question to the index carries. */
const DIGESTS_A_QUESTION = 512

export async function beginUpload(engine: Engine, owner: string): Promise<ChunkUpload> {
  const id = randomUUID()
  return new UploadSession(engine, id, owner, await engine.index.beginSession(id, owner))
}

/** @throws ServiceError `not-found` */
export async function resumeUpload(engine: Engine, id: string): Promise<ChunkUpload> {
  const found = await engine.index.findSession(id)
  if (!found)
    throw new ServiceError('not-found', 'There is no such upload: it was committed or given up. Begin a new one.', {
      upload: id.slice(0, 80),
    })
  return new UploadSession(engine, id, found.owner, found.hold)
}

/**
 * An upload by chunks. What is sent is held by refs as soon as its pack is durable, so after a crash `lacks` names what was
 * lost with an unfinished pack, and nothing else.
 */
class UploadSession implements ChunkUpload {
  readonly id: string
  readonly owner: string
  readonly #engine: Engine
  readonly #hold: number
  readonly #durability = new Durability()
  #newBytes = 0

  constructor(engine: Engine, id: string, owner: string, hold: number) {
    this.#engine = engine
    this.id = id
    this.owner = owner
    this.#hold = hold
  }

  async lacks(digests: Uint8Array): Promise<Uint8Array> {
    if (digests.length % DIGEST_BYTES !== 0)
      throw new ServiceError('invalid-request', 'Digests are 32 bytes each.', { bytes: digests.length })
    this.#engine.lastMovedMs = performance.now()
    const lacking = new Uint8Array(countOf(digests))
    for (let first = 0; first < lacking.length; first += DIGESTS_A_QUESTION) {
      const part = digests.slice(first * DIGEST_BYTES, (first + DIGESTS_A_QUESTION) * DIGEST_BYTES)
      const known = await this.#engine.index.claimOwned(this.#hold, part)
      for (const [index, plainBytes] of known.entries()) lacking[first + index] = plainBytes === 0 ? 1 : 0
    }
    return lacking
  }

  async put(chunks: readonly WireChunk[]): Promise<void> {
    const { chunkBytes } = this.#engine
    const maxBytes = chunkBytes + chunkBytes / 256 + 64 // what zstd makes at most of a chunk that does not compress
    for (const [index, { digest, bytes }] of chunks.entries())
      if (digest.length !== DIGEST_BYTES || bytes.length === 0 || bytes.length > maxBytes)
        throw new ServiceError('invalid-request', `Chunk ${index} needs a digest of 32 bytes and 1 to ${maxBytes} bytes.`, {
          index,
        })
    const perSlot = SLOT_BYTES / chunkBytes
    for (let first = 0; first < chunks.length; first += perSlot) await this.#putSlot(chunks.slice(first, first + perSlot), first)
    failpoint('session:chunk-put')
    this.#durability.assert()
  }

  async commit(fileBytes: number, digests: AsyncIterable<Uint8Array | null>): Promise<Ingested> {
    const { chunkBytes, index, writer } = this.#engine
    if (!Number.isSafeInteger(fileBytes) || fileBytes < 0 || fileBytes > maxFileBytes(chunkBytes))
      throw new ServiceError('invalid-request', `A file has 0 to ${maxFileBytes(chunkBytes)} bytes.`, { fileBytes })
    writer.flush()
    await this.#durability.all()
    const hold = await index.begin(this.owner)
    try {
      return await this.#commitTo(hold, fileBytes, digests)
    } catch (error) {
      await index.abandon(hold).catch(() => this.#engine.givenUp.add(hold))
      throw error
    }
  }

  /** A hold of its own keeps what the manifest refers to, so that what else was sent, before or meanwhile, is kept by nothing. */
  async #commitTo(hold: number, fileBytes: number, digests: AsyncIterable<Uint8Array | null>): Promise<Ingested> {
    const { chunkBytes, writer } = this.#engine
    const durability = new Durability()
    const builder = new ManifestBuilder(writer, hold, chunkBytes, durability)
    const chunks = chunksOf(fileBytes, chunkBytes)
    let allocatedBytes = 0
    let done = 0
    const zeros = [chunkBytes, fileBytes % chunkBytes].map((bytes) => sha256(new Uint8Array(bytes)))
    for await (const part of inParts(digests, chunks)) {
      clearZeros(part, zeros)
      allocatedBytes += await this.#keep(hold, part, done, fileBytes)
      await builder.append(part)
      done += countOf(part)
    }
    if (done !== chunks)
      throw new ServiceError('invalid-request', `The file has ${chunks} chunks, and ${done} digests came.`, { chunks, done })
    const root = await builder.finish(fileBytes, allocatedBytes)
    writer.flush()
    await durability.all()
    failpoint('session:committed')
    const newBytes = this.#newBytes + builder.newBytes
    return finishManifest(this.#engine, { hold, session: this.#hold }, root, { fileBytes, allocatedBytes }, newBytes, {})
  }

  abandon(): Promise<void> {
    return this.#engine.index.abandon(this.#hold)
  }

  async #putSlot(chunks: readonly WireChunk[], first: number): Promise<void> {
    this.#engine.lastMovedMs = performance.now()
    const { chunkBytes, slots, workers } = this.#engine
    const slot = await slots.acquire()
    try {
      const sent = chunks.map(({ bytes, codec }) => ({
        bytes: new Uint8Array(bytes), // a Buffer's slice would be no copy
        codec: codec === 'zstd' ? CODEC_ZSTD : CODEC_PLAIN,
      }))
      const { plainBytes, digests } = await workers.run(
        { kind: 'unpack', slot, chunkBytes, chunks: sent },
        sent.map(({ bytes }) => bytes.buffer as ArrayBuffer),
      )
      for (const [index, { digest }] of chunks.entries())
        if (plainBytes[index] === 0 || Buffer.compare(digestAt(digests, index), digest) !== 0)
          throw new ServiceError('invalid-request', `The bytes of chunk ${first + index} are not those of its digest.`, {
            index: first + index,
            digest: hexOf(digest),
          })
      // a chunk of zeros is an entry, never a chunk: "commit" knows its digest
      for (const [index, bytes] of plainBytes.entries())
        if (isZero(slots.bytes(slot).subarray(index * chunkBytes, index * chunkBytes + bytes)))
          digests.fill(0, index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES)
      const stored = await placeSlot(this.#engine, this.#hold, slot, digests, plainBytes, Promise.resolve(), this.#durability)
      this.#newBytes += stored.newBytes
      this.#engine.counters.bytesIngested += plainBytes.reduce((sum, bytes) => sum + bytes, 0)
    } finally {
      slots.release(slot)
    }
  }

  /**
   * Makes `hold` keep the part's chunks, each of which this upload must know.
   * @returns their plain bytes
   * @throws ServiceError `conflict`, `invalid-request`
   */
  async #keep(hold: number, part: Uint8Array, first: number, fileBytes: number): Promise<number> {
    const { chunkBytes, index } = this.#engine
    const places = Array.from({ length: countOf(part) }, (_, place) => place).filter((place) => !isZeroAt(part, place))
    const wanted = joinDigests(places.map((place) => digestAt(part, place)))
    const known = await index.claimOwned(this.#hold, wanted)
    const held = known.includes(0) ? known : await index.claim(hold, wanted)
    let bytes = 0
    for (const [at, place] of places.entries()) {
      const chunk = first + place
      const digest = hexOf(digestAt(part, place))
      if (held[at] === 0)
        throw new ServiceError('conflict', `Chunk ${chunk} was never sent: send it, then commit again.`, { chunk, digest })
      const expected = Math.min(chunkBytes, fileBytes - chunk * chunkBytes)
      if (held[at] !== expected)
        throw new ServiceError(
          'invalid-request',
          `Chunk ${chunk} has ${held[at]} bytes where its place in the file has ${expected}.`,
          {
            chunk,
            digest,
          },
        )
      bytes += expected
    }
    return bytes
  }
}

/** Digests of zeros become the entry for zeros. */
function clearZeros(part: Uint8Array, zeros: readonly Uint8Array[]): void {
  for (let index = 0; index < countOf(part); index += 1) {
    const digest = digestAt(part, index)
    if (zeros.some((zero) => Buffer.compare(zero, digest) === 0)) digest.fill(0)
  }
}

/** @throws ServiceError `invalid-request` where more come than `chunks`, or something that is no digest */
async function* inParts(digests: AsyncIterable<Uint8Array | null>, chunks: number): AsyncGenerator<Uint8Array> {
  let part = new Uint8Array(DIGESTS_A_QUESTION * DIGEST_BYTES)
  let count = 0
  let total = 0
  for await (const digest of digests) {
    total += 1
    if (total > chunks || (digest && digest.length !== DIGEST_BYTES))
      throw new ServiceError('invalid-request', `The file has ${chunks} chunks, each with a digest of 32 bytes.`, { chunks })
    if (digest) part.set(digest, count * DIGEST_BYTES)
    count += 1
    if (count < DIGESTS_A_QUESTION) continue
    yield part
    part = new Uint8Array(part.length)
    count = 0
  }
  if (count > 0) yield part.subarray(0, count * DIGEST_BYTES)
}
