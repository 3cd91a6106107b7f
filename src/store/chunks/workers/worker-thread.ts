/** A worker thread: hashes, compresses, unpacks and verifies. Holds nothing between jobs but the digests of open streams. */
import { createHash, type Hash } from 'node:crypto'
import { parentPort, workerData } from 'node:worker_threads'
import { KiB } from '../../../base/units.ts'
import { CODEC_PLAIN, crcOf, decodeChunk, encodeChunk } from '../../content/codec.ts'
import { joinDigests } from '../../content/digests.ts'
import { digestsOf, hashChunks } from './hash-chunks.ts'
import type {
  CompressJob,
  DecodeJob,
  DigestEndJob,
  DigestJob,
  HashJob,
  Job,
  JobResults,
  LoadJob,
  Piece,
  Reply,
  Request,
  SlotChunk,
  UnpackJob,
  VerifyJob,
  WorkerSettings,
} from './jobs.ts'
import { READ_SLOT_BYTES } from './read-slots.ts'

const { memory, slotBytes, readMemory, stagingMemory, chunkMemory } = workerData as WorkerSettings
const streams = new Map<number, Hash>()
const zeros = new Uint8Array(64 * KiB) // small enough to stay in the processor's cache
const slotOf = (slot: number, bytes: number) => new Uint8Array(memory, slot * slotBytes, bytes)

function hash({ slot, bytes, chunkBytes }: HashJob): JobResults['hash'] {
  const all = slotOf(slot, bytes)
  const count = Math.ceil(bytes / chunkBytes)
  return hashChunks(Array.from({ length: count }, (_, place) => all.subarray(place * chunkBytes, (place + 1) * chunkBytes)))
}

function compress({ slot, chunkBytes, places, plainBytes }: CompressJob): JobResults['compress'] {
  const all = slotOf(slot, slotBytes)
  const result = { storedBytes: [] as number[], codecs: [] as number[], crcs: [] as number[] }
  for (const [index, place] of places.entries()) {
    const at = place * chunkBytes
    const { bytes, codec } = encodeChunk(all.subarray(at, at + plainBytes[index]!))
    if (bytes.buffer !== memory) all.set(bytes, at)
    result.storedBytes.push(bytes.length)
    result.codecs.push(codec)
    result.crcs.push(crcOf(bytes))
  }
  return result
}

function decode({ inputs, chunks, joinedBytes }: DecodeJob): JobResults['decode'] {
  const joined = new Uint8Array(joinedBytes ?? 0)
  const plain = chunks.map(({ input, ...chunk }) => {
    if (joinedBytes !== undefined) return plainInPlace(inputs[input]!, joined, chunk)
    const bytes = decodeChunk(inputs[input]!.subarray(chunk.at, chunk.at + chunk.storedBytes), chunk.codec, chunk.plainBytes)
    return bytes?.length === chunk.plainBytes ? bytes : undefined
  })
  return { joined, damaged: placesOfDamaged(plain, joinDigests(chunks.map(({ digest }) => digest))) }
}

function verify({ slot, bytes, chunks, digests }: VerifyJob): JobResults['verify'] {
  const all = new Uint8Array(readMemory, slot * READ_SLOT_BYTES, READ_SLOT_BYTES)
  const plain = chunks.map((chunk) => plainInPlace(all, all, chunk))
  let end = 0
  for (const { to, plainBytes } of chunks) {
    all.fill(0, end, to)
    end = to + plainBytes
  }
  all.fill(0, end, bytes)
  return placesOfDamaged(plain, digests)
}

function load({ chunks, digests }: LoadJob): JobResults['load'] {
  const [staged, memory] = [new Uint8Array(stagingMemory), new Uint8Array(chunkMemory)]
  return placesOfDamaged(
    chunks.map((chunk) => plainInPlace(staged, memory, chunk)),
    digests,
  )
}

function placesOfDamaged(plain: readonly (Uint8Array | undefined)[], digests: Uint8Array): number[] {
  const whole = [...plain.keys()].filter((place) => plain[place] !== undefined)
  const found = digestsOf(whole.map((place) => plain[place]!))
  const good = new Set(
    whole.filter(
      (place, index) =>
        Buffer.compare(found.subarray(index * 32, index * 32 + 32), digests.subarray(place * 32, place * 32 + 32)) === 0,
    ),
  )
  return [...plain.keys()].filter((place) => !good.has(place))
}

/** @returns the chunk at its `to`; undefined for stored bytes that are no such chunk */
function plainInPlace(
  from: Uint8Array,
  into: Uint8Array,
  { at, storedBytes, plainBytes, codec, to }: SlotChunk,
): Uint8Array | undefined {
  const target = into.subarray(to, to + plainBytes)
  const isInPlace = from === into && at === to
  if (isInPlace && codec === CODEC_PLAIN && storedBytes === plainBytes) return target
  const plain = decodeChunk(from.subarray(at, at + storedBytes), codec, plainBytes)
  if (plain?.length !== plainBytes) return undefined
  target.set(plain)
  return target
}

function unpack({ slot, chunkBytes, chunks }: UnpackJob): JobResults['unpack'] {
  const all = slotOf(slot, slotBytes)
  const plainBytes = chunks.map(({ bytes, codec }, place) => {
    const plain = decodeChunk(bytes, codec, chunkBytes)
    if (plain) all.set(plain, place * chunkBytes)
    return plain?.length ?? 0
  })
  const digests = digestsOf(plainBytes.map((bytes, place) => all.subarray(place * chunkBytes, place * chunkBytes + bytes)))
  return { plainBytes, digests }
}

function digest({ stream, algorithm, piece }: DigestJob): null {
  const running = streams.get(stream) ?? createHash(algorithm)
  streams.set(stream, running)
  for (const bytes of bytesOf(piece)) running.update(bytes)
  return null
}

function* bytesOf(piece: Piece): Generator<Uint8Array> {
  if (piece.in === 'message') yield piece.content
  else if (piece.in === 'zeros')
    for (let left = piece.bytes; left > 0; left -= zeros.length) yield zeros.subarray(0, Math.min(left, zeros.length))
  else yield new Uint8Array(piece.in === 'slots' ? memory : readMemory, piece.at, piece.bytes)
}

function digestEnd({ stream }: DigestEndJob): string {
  const running = streams.get(stream)
  streams.delete(stream)
  return running?.digest('hex') ?? ''
}

function run(job: Job): unknown {
  switch (job.kind) {
    case 'hash':
      return hash(job)
    case 'compress':
      return compress(job)
    case 'decode':
      return decode(job)
    case 'verify':
      return verify(job)
    case 'load':
      return load(job)
    case 'unpack':
      return unpack(job)
    case 'digest':
      return digest(job)
    case 'digest-end':
      return digestEnd(job)
  }
}

parentPort?.on('message', ({ id, job }: Request) => {
  let reply: Reply
  let transfer: ArrayBuffer[] = []
  try {
    const result = run(job)
    reply = { id, result }
    if (job.kind === 'decode') transfer = [(result as JobResults['decode']).joined.buffer as ArrayBuffer]
  } catch (error) {
    reply = { id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  }
  parentPort?.postMessage(reply, transfer)
})
