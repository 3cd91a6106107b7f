import { KiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { mappedDisk, type Segment } from '../../block/mapped-disk.ts'
import { refuseArchive } from './archive.ts'
import { partOf } from './part.ts'
import type { AnnouncedSparse } from './pax.ts'
import { BLOCK_BYTES, isZero, readNumber } from './tar-header.ts'

/**
 * Files with holes in tar: what is between the holes lies in the archive without them, and a map says where it goes. Source: GNU tar
 * manual, "Storing Sparse Files" (old GNU, pax 0.0, 0.1 and 1.0), and "Basic Tar Format", struct sparse and oldgnu_header.
 */
const HEADER_RUNS = 4
const HEADER_MAP = 386
const HEADER_MORE = 482
const REAL_SIZE = 483
const BLOCK_RUNS = 21
const BLOCK_MORE = 504
const RUN_BYTES = 24
const READ_BYTES = 64 * KiB

/** Of all sparse files of an archive: 16 bytes of memory each. A disk of 1 TiB with a hole every 4 MiB has as many. */
const MAX_RUNS = 262_144

/** How many more runs the maps of an archive may have. */
export class RunBudget {
  #runs = 0

  /** @throws ServiceError `invalid-image` */
  take(runs: number, at: number): void {
    this.#runs += runs
    if (this.#runs <= MAX_RUNS) return
    const problem = `the map of the sparse file at byte ${at} brings all maps to ${this.#runs} runs; ${MAX_RUNS} is the limit`
    throw refuseArchive('tar', 'malformed', problem, { offset: at, max: MAX_RUNS })
  }
}

/** Where the data of a sparse file go. */
export class SparseMap {
  /** With the holes. */
  readonly bytes: number
  /** Without them. */
  storedBytes = 0
  readonly #at: number
  /** Of each run that is not empty: where it begins in the file, and in what is stored. */
  readonly #offsets: number[] = []
  readonly #stored: number[] = []
  #end = 0

  /** @param at of the member's header, for messages */
  constructor(bytes: number, at: number) {
    this.bytes = bytes
    this.#at = at
  }

  /** @throws ServiceError `invalid-image` for a run that begins before the last one ends, or ends beyond the file */
  add(offset: number, length: number): void {
    const bad = (reason: 'overlap' | 'malformed', problem: string) =>
      refuseArchive(
        'tar',
        reason,
        `in the map of the sparse file at byte ${this.#at}, the run of ${length} bytes at ${offset} ${problem}`,
        { offset: this.#at },
      )
    if (offset < this.#end) throw bad('overlap', `begins before ${this.#end}, where the one before it ends`)
    if (offset > this.bytes || length > this.bytes - offset) throw bad('malformed', `ends beyond the file's ${this.bytes} bytes`)
    this.#end = offset + length
    if (length === 0) return // the last one, where a hole ends the file
    this.#offsets.push(offset)
    this.#stored.push(this.storedBytes)
    this.storedBytes += length
  }

  /** @param data what is stored, of `storedBytes`; it stays open */
  open(data: BlockSource): BlockSource {
    return mappedDisk(partOf(data, 0, data.size), {
      size: this.bytes,
      segments: (offset, length) => this.#segments(offset, offset + length),
    })
  }

  *#segments(from: number, to: number): Generator<Segment> {
    let at = from
    for (let index = this.#indexAt(from); at < to; index += 1) {
      const start = this.#offsets[index] ?? this.bytes
      const hole = Math.min(start, to) - at
      if (hole > 0) {
        yield { kind: 'hole', offset: at, length: hole }
        at += hole
      }
      if (at >= to) return
      const stored = this.#stored[index] as number
      const length = Math.min(start + (this.#stored[index + 1] ?? this.storedBytes) - stored, to) - at
      yield { kind: 'data', offset: at, length, hostOffset: stored + at - start }
      at += length
    }
  }

  /** Of the first run that ends behind `offset`. */
  #indexAt(offset: number): number {
    let [low, high] = [0, this.#offsets.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      const bytes = (this.#stored[middle + 1] ?? this.storedBytes) - (this.#stored[middle] as number)
      if ((this.#offsets[middle] as number) + bytes <= offset) low = middle + 1
      else high = middle
    }
    return low
  }
}

/**
 * The map of a member of type S: four runs in its header, then blocks of 21, each saying whether another follows.
 * @returns the map, and the bytes of the blocks between header and data
 * @throws ServiceError `invalid-image`
 */
export async function readOldMap(
  file: BlockSource,
  header: Uint8Array,
  at: number,
  budget: RunBudget,
): Promise<{ readonly map: SparseMap; readonly mapBytes: number }> {
  const map = new SparseMap(readNumber(header.subarray(REAL_SIZE, REAL_SIZE + 12), at), at)
  let hasEnded = false
  const take = (bytes: Uint8Array, runs: number, blockAt: number) => {
    for (let index = 0; index < runs; index += 1) {
      const run = bytes.subarray(index * RUN_BYTES, (index + 1) * RUN_BYTES)
      const isEmpty = run[0] === 0 && run[12] === 0
      if (isEmpty ? !isZero(run) : hasEnded || run[0] === 0 || run[12] === 0) {
        throw refuseArchive('tar', 'malformed', `the map of the sparse file at byte ${at} goes on behind its end`, {
          offset: blockAt,
        })
      }
      hasEnded ||= isEmpty
      if (isEmpty) continue
      budget.take(1, at)
      map.add(readNumber(run.subarray(0, 12), blockAt), readNumber(run.subarray(12), blockAt))
    }
  }
  take(header.subarray(HEADER_MAP), HEADER_RUNS, at)
  const start = at + BLOCK_BYTES
  let mapBytes = 0
  let read: Uint8Array = new Uint8Array()
  let readAt = start
  for (let more = header[HEADER_MORE] !== 0; more; mapBytes += BLOCK_BYTES) {
    const blockAt = start + mapBytes
    if (blockAt - readAt >= read.length) {
      const count = Math.min(READ_BYTES, file.size - blockAt)
      read = count < BLOCK_BYTES ? new Uint8Array() : await file.read(blockAt, count - (count % BLOCK_BYTES))
      readAt = blockAt
    }
    if (read.length === 0) {
      const problem = `the map of the sparse file at byte ${at} ends with the file`
      throw refuseArchive('tar', 'truncated', problem, { offset: blockAt })
    }
    const block = read.subarray(blockAt - readAt, blockAt - readAt + BLOCK_BYTES)
    if (hasEnded || isZero(block.subarray(0, RUN_BYTES))) {
      throw refuseArchive('tar', 'malformed', `the map of the sparse file at byte ${at} has a block with nothing in it`, {
        offset: blockAt,
      })
    }
    take(block, BLOCK_RUNS, blockAt)
    more = block[BLOCK_MORE] !== 0
  }
  return { map, mapBytes }
}

/**
 * The map of a member that a pax header says to be sparse: in its records (0.0, 0.1), or before its data (1.0).
 * @param stored what lies in the archive of it
 * @param at of the member's header
 * @returns the map, and the bytes that it takes of `stored`
 * @throws ServiceError `invalid-image`; `unsupported` for other versions
 */
export async function readPaxMap(
  stored: BlockSource,
  { major, minor, bytes, runs, numbers, listedBy }: AnnouncedSparse,
  at: number,
  budget: RunBudget,
): Promise<{ readonly map: SparseMap; readonly mapBytes: number }> {
  const bad = (problem: string) => refuseArchive('tar', 'malformed', `the sparse file at byte ${at} ${problem}`, { offset: at })
  if (bytes === undefined) throw bad('has no size')
  const map = new SparseMap(bytes, at)
  if ((major ?? 0) === 0 && (minor ?? 0) <= 1) {
    if (listedBy === undefined && runs !== 0) throw bad('has no map')
    if (numbers.length !== (runs ?? -1) * 2) throw bad(`has a map of ${numbers.length / 2} runs; numblocks is ${runs}`)
    budget.take(numbers.length / 2, at)
    for (let index = 0; index < numbers.length; index += 2) map.add(numbers[index] as number, numbers[index + 1] as number)
    return { map, mapBytes: 0 }
  }
  if (major !== 1 || minor !== 0)
    throw refuseArchive(
      'tar',
      'unsupported',
      `the sparse file at byte ${at} is of version ${major}.${minor ?? '?'}; 1.0 is known`,
    )
  if (listedBy !== undefined || runs !== undefined) throw bad('is of version 1.0 and has a map in its header as well')
  const text = new MapText(stored, at)
  const count = await text.next()
  budget.take(count, at)
  for (let index = 0; index < count; index += 1) map.add(await text.next(), await text.next())
  const mapBytes = Math.ceil(text.position / BLOCK_BYTES) * BLOCK_BYTES
  if (mapBytes > stored.size) throw bad('ends within its map')
  return { map, mapBytes }
}

/** Decimal numbers with a line feed behind each. */
class MapText {
  /** Behind the last number. */
  position = 0
  readonly #source: BlockSource
  readonly #at: number
  #bytes: Uint8Array = new Uint8Array()
  #read = 0

  constructor(source: BlockSource, at: number) {
    this.#source = source
    this.#at = at
  }

  async next(): Promise<number> {
    let value = 0
    for (let digits = 0; ; digits += 1) {
      const byte = this.#bytes[this.#read] ?? (await this.#more())
      this.#read += 1
      this.position += 1
      if (byte === 0x0a && digits > 0) return value
      value = value * 10 + (byte as number) - 0x30
      if (byte === undefined || byte < 0x30 || byte > 0x39 || digits >= 16 || !Number.isSafeInteger(value)) {
        const problem = `the map of the sparse file at byte ${this.#at} has no number below 2^53 before its byte ${this.position}`
        throw refuseArchive('tar', 'malformed', problem, { offset: this.#at })
      }
    }
  }

  /** @returns the first byte of what follows; undefined: nothing */
  async #more(): Promise<number | undefined> {
    this.#bytes = await this.#source.read(this.position, Math.min(READ_BYTES, this.#source.size - this.position))
    this.#read = 0
    return this.#bytes[0]
  }
}
