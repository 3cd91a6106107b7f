import { createHash, type Hash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { ServiceError } from '../../base/errors.ts'
import { KiB, MiB } from '../../base/units.ts'
import type { ByteReader } from './byte-reader.ts'
import { Crc64 } from './crc64.ts'
import { PartCount, refusePacked } from './damage.ts'
import { LzmaDecoder, SPARE_BYTES, Window } from './lzma.ts'
import { branchFilter, branchFilters, deltaFilter, type XzFilter } from './xz-filters.ts'

/** Source: L. Collin, I. Pavlov, "The .xz File Format" 1.2.1; LZMA2 as in xz-embedded and liblzma. Numbers are little-endian. */
const STREAM_MAGIC = Uint8Array.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00)
const FOOTER_MAGIC = 0x595a // "YZ"
const MAX_DICTIONARY_BYTES = 64 * MiB // what `xz -9` asks for; the format has up to 4 GiB
const FILTER_LZMA2 = 0x21
const MAX_CHUNK_BYTES = 65536 // of packed bytes, LZMA2
const OUTPUT_BYTES = 1 * MiB
const FIRST_WINDOW_BYTES = 64 * KiB // most of a small file's time would go into a larger one
const FILTER_DELTA = 3

/** What of a block its index must say again. */
interface BlockSizes {
  readonly unpadded: number
  readonly unpacked: number
}
interface Check {
  readonly name: string
  readonly bytes: number
  begin(): { update(bytes: Uint8Array): void; digest(): Uint8Array }
}

/**
 * What is in all streams of `input`, every check and index verified. Holds the dictionary, at most 64 MiB, and 2 MiB.
 * @throws ServiceError `invalid-image`; `unsupported` for larger dictionaries, the filter of RISC-V and unknown ones, and unknown checks
 */
export function* unpackXz(input: ByteReader): Generator<Uint8Array, void, undefined> {
  const parts = new PartCount('xz', 'streams and blocks')
  const decoder = new BlockDecoder(input, parts)
  for (let first = true; first || !input.atEnd(); first = false) {
    if (!first && !startsStream(input)) return
    yield* stream(input, decoder, parts, first ? 0 : 1)
  }
}

/** Skips the padding between streams, zeros by fours. @returns whether another stream follows, of which the first byte was read */
function startsStream(input: ByteReader): boolean {
  for (let zeros = 0; ; zeros += 1) {
    if (input.atEnd()) {
      if (zeros % 4 !== 0) throw refuse('the padding behind the last stream is no multiple of 4 bytes', input)
      return false
    }
    const byte = input.byte()
    if (byte === 0) continue
    if (zeros % 4 !== 0 || byte !== STREAM_MAGIC[0]) throw refuse('something else follows the last stream', input)
    return true
  }
}

function* stream(input: ByteReader, decoder: BlockDecoder, parts: PartCount, known: number): Generator<Uint8Array> {
  parts.add(decoder.given)
  for (const byte of STREAM_MAGIC.subarray(known)) {
    if (input.byte() !== byte) throw refuse('a stream does not begin with its magic', input)
  }
  const flags = input.fill(new Uint8Array(2))
  assertCrc(input, 'stream flags', flags)
  const check = checkOf(flags, input)
  const index = new RunningIndex()
  for (;;) {
    const first = input.byte()
    if (first === 0) break
    index.add(yield* decoder.block(first, check))
  }
  const indexBytes = readIndex(input, index)
  const crc = u32(input.fill(new Uint8Array(4)))
  const footer = input.fill(new Uint8Array(6))
  if (crc !== crc32(footer)) throw refuse('the checksum of a stream footer is wrong', input)
  if ((u32(footer) + 1) * 4 !== indexBytes) throw refuse('the backward size of a stream footer is not that of its index', input)
  if (footer[4] !== flags[0] || footer[5] !== flags[1])
    throw refuse('the flags of a stream footer are not those of its header', input)
  if (input.byte() * 256 + input.byte() !== FOOTER_MAGIC) throw refuse('a stream footer does not end with its magic', input)
}

function checkOf(flags: Uint8Array, input: ByteReader): Check {
  const [reserved, kind] = flags as unknown as readonly [number, number]
  if (reserved !== 0 || kind > 15) throw refuse('the stream flags have reserved bits set', input)
  const check = checks[kind]
  if (!check) throw refusePacked('xz', 'unsupported', `a check of kind ${kind}; none, CRC32, CRC64 and SHA-256 are known`)
  return check
}

const checks: Readonly<Record<number, Check>> = {
  0: { name: 'none', bytes: 0, begin: () => ({ update() {}, digest: () => new Uint8Array() }) },
  1: {
    name: 'CRC32',
    bytes: 4,
    begin() {
      let crc = 0
      return {
        update: (bytes) => {
          crc = crc32(bytes, crc)
        },
        digest: () => Uint8Array.of(crc, crc >>> 8, crc >>> 16, crc >>> 24),
      }
    },
  },
  4: { name: 'CRC64', bytes: 8, begin: () => new Crc64() },
  10: {
    name: 'SHA-256',
    bytes: 32,
    begin() {
      const hash = createHash('sha256')
      return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest() }
    },
  },
}

/** Reads blocks, whose window and tables it keeps for the next one. */
class BlockDecoder {
  given = 0
  readonly #input: ByteReader
  readonly #parts: PartCount
  readonly #lzma = new LzmaDecoder()
  readonly #chunk = new Uint8Array(MAX_CHUNK_BYTES + SPARE_BYTES)
  readonly #window = new Window(FIRST_WINDOW_BYTES)

  constructor(input: ByteReader, parts: PartCount) {
    this.#input = input
    this.#parts = parts
  }

  /** @param first its first byte, which says how long its header is */
  *block(first: number, check: Check): Generator<Uint8Array, BlockSizes, undefined> {
    const input = this.#input
    this.#parts.add(this.given)
    const start = input.position - 1
    const header = new Uint8Array((first + 1) * 4 - 4)
    header[0] = first
    input.fill(header.subarray(1))
    assertCrc(input, 'block header', header)
    const { packedBytes, unpackedBytes, dictionaryBytes, filters } = parseBlockHeader(header, input)
    this.#window.growTo(dictionaryBytes)
    this.#window.reset()
    const dataStart = input.position
    const running = check.begin()
    let unpacked = 0
    for (const piece of filtered(this.#chunks(), filters)) {
      running.update(piece)
      unpacked += piece.length
      this.given += piece.length
      if (unpackedBytes !== undefined && unpacked > unpackedBytes) throw refuse('a block holds more than its header says', input)
      yield piece
    }
    const dataBytes = input.position - dataStart
    if (packedBytes !== undefined && packedBytes !== dataBytes) throw refuse('a block is not as long as its header says', input)
    if (unpackedBytes !== undefined && unpackedBytes !== unpacked) throw refuse('a block holds less than its header says', input)
    const unpadded = input.position - start + check.bytes
    for (let left = (4 - (dataBytes % 4)) % 4; left > 0; left -= 1) {
      if (input.byte() !== 0) throw refuse('the padding of a block is not zero', input)
    }
    const stored = input.fill(new Uint8Array(check.bytes))
    if (Buffer.compare(stored, running.digest()) !== 0)
      throw refuse(`the ${check.name} of a block is not that of what it holds`, input)
    return { unpadded, unpacked }
  }

  /** LZMA2: chunks with a control byte each, up to one that is zero. */
  *#chunks(): Generator<Uint8Array, void, undefined> {
    const input = this.#input
    const window = this.#window
    let [needsReset, needsProperties, needsState, waiting] = [true, true, true, 0]
    for (;;) {
      const control = input.byte()
      if (control === 0) break
      if (control === 1 || control >= 0xe0) {
        window.reset()
        this.#lzma.resetPosition()
        needsReset = false
        if (control === 1) needsProperties = true
      } else if (needsReset) throw refuse('the first chunk does not reset the dictionary', input)
      if (control > 2 && control < 0x80) throw refuse(`the control byte ${control} of a chunk is reserved`, input)
      const isCoded = control >= 0x80
      const unpacked = (isCoded ? (control & 0x1f) << 16 : 0) + input.byte() * 256 + input.byte() + 1
      const packed = isCoded ? input.byte() * 256 + input.byte() + 1 : 0
      if (control >= 0xc0) {
        if (!this.#lzma.setProperties(input.byte())) throw refuse('the properties of a chunk are not possible in LZMA2', input)
        needsProperties = false
      } else if (isCoded && needsProperties) throw refuse('a chunk has no properties, and none before it has', input)
      if (control >= 0xa0) {
        this.#lzma.resetState()
        needsState = false
      } else if (isCoded && needsState) throw refuse('a chunk does not reset the state, and none before it does', input)
      if (isCoded) {
        if (packed < 5) throw refuse('a chunk has no room for its range coder', input)
        input.fill(this.#chunk.subarray(0, packed))
        this.#lzma.begin(this.#chunk, packed)
      }
      for (let left = unpacked; left > 0; ) {
        const count = Math.min(left, window.room, OUTPUT_BYTES - waiting)
        if (isCoded) this.#lzma.decode(window, count)
        else {
          input.fill(window.bytes.subarray(window.at, window.at + count))
          window.advance(count)
          this.#lzma.skip(count)
        }
        left -= count
        waiting += count
        if (window.room === 0 || waiting === OUTPUT_BYTES) {
          yield window.take()
          waiting = 0
        }
      }
      if (isCoded && !this.#lzma.isFinished()) throw refuse('a chunk does not end where its header says', input)
    }
    if (waiting > 0) yield window.take()
  }
}

function parseBlockHeader(header: Uint8Array, input: ByteReader) {
  const numbers = new HeaderNumbers(header, input)
  const flags = header[1] as number
  if ((flags & 0x3c) !== 0) throw refusePacked('xz', 'unsupported', 'the flags of a block have reserved bits set')
  const packedBytes = (flags & 0x40) === 0 ? undefined : numbers.next()
  const unpackedBytes = (flags & 0x80) === 0 ? undefined : numbers.next()
  const filters: XzFilter[] = []
  for (let left = flags & 3; left > 0; left -= 1) filters.unshift(readFilter(numbers, input))
  const filter = numbers.next()
  if (filter !== FILTER_LZMA2)
    throw refusePacked('xz', 'unsupported', `the last filter of a block is ${filter}; LZMA2, ${FILTER_LZMA2}, is read`)
  if (numbers.next() !== 1) throw refuse('the properties of LZMA2 are not one byte', input)
  const bits = numbers.byte()
  if (bits > 40) throw refuse('the dictionary size of LZMA2 is out of range', input)
  const dictionaryBytes = bits === 40 ? 2 ** 32 - 1 : (2 | (bits & 1)) * 2 ** ((bits >>> 1) + 11)
  if (dictionaryBytes > MAX_DICTIONARY_BYTES) {
    const problem = `a block needs a dictionary of ${dictionaryBytes} bytes; ${MAX_DICTIONARY_BYTES} is the limit, as "xz -9" makes it`
    throw refusePacked('xz', 'unsupported', problem, { dictionaryBytes, max: MAX_DICTIONARY_BYTES })
  }
  if (!numbers.restIsZero()) throw refuse('the padding of a block header is not zero', input)
  return { packedBytes, unpackedBytes, dictionaryBytes, filters }
}

/** One that stands before LZMA2, by its id and properties. */
function readFilter(numbers: HeaderNumbers, input: ByteReader): XzFilter {
  const id = numbers.next()
  const bytes = numbers.next()
  if (id === FILTER_DELTA) {
    if (bytes !== 1) throw refuse('the properties of the delta filter are not one byte', input)
    return deltaFilter(numbers.byte() + 1)
  }
  const branch = branchFilters[id]
  if (!branch) throw refusePacked('xz', 'unsupported', `a block was made with the filter ${id}, which is not known`)
  if (bytes !== 0 && bytes !== 4) throw refuse(`the properties of the filter ${id} are not four bytes or none`, input)
  const start = bytes === 0 ? 0 : u32(Uint8Array.of(numbers.byte(), numbers.byte(), numbers.byte(), numbers.byte()))
  if (start % branch.alignment !== 0)
    throw refuse(`the start offset of the filter ${id} is no multiple of ${branch.alignment}`, input)
  return branchFilter(branch, start)
}

/** Pieces with the filters undone, the nearest to LZMA2 first. Of none, the pieces. */
function* filtered(pieces: Iterable<Uint8Array>, filters: readonly XzFilter[]): Generator<Uint8Array, void, undefined> {
  const [filter, ...rest] = filters
  if (!filter) return yield* pieces
  yield* filtered(through(pieces, filter), rest)
}
function* through(pieces: Iterable<Uint8Array>, filter: XzFilter): Generator<Uint8Array, void, undefined> {
  for (const piece of pieces) {
    const given = filter.push(piece)
    if (given.length > 0) yield given
  }
  const given = filter.end()
  if (given.length > 0) yield given
}

/** Numbers of variable length inside a block header, from its third byte on. */
class HeaderNumbers {
  readonly #header: Uint8Array
  readonly #input: ByteReader
  #at = 2

  constructor(header: Uint8Array, input: ByteReader) {
    this.#header = header
    this.#input = input
  }
  byte(): number {
    const byte = this.#header[this.#at]
    if (byte === undefined) throw refuse('a block header ends in the middle of a field', this.#input)
    this.#at += 1
    return byte
  }
  next(): number {
    return readNumber(() => this.byte(), this.#input)
  }
  restIsZero(): boolean {
    return this.#header.subarray(this.#at).every((byte) => byte === 0)
  }
}

/** The sizes of blocks, as a hash of them all: there may be any number. */
class RunningIndex {
  records = 0
  readonly #hash: Hash = createHash('sha256')

  add({ unpadded, unpacked }: BlockSizes): void {
    this.records += 1
    this.#hash.update(`${unpadded} ${unpacked}\n`)
  }
  digest(): string {
    return this.#hash.digest('hex')
  }
}

/** Compares the index with the blocks that were read. @returns its bytes, from the zero that it begins with, which was read, to its checksum */
function readIndex(input: ByteReader, read: RunningIndex): number {
  const start = input.position - 1
  let crc = crc32(Uint8Array.of(0))
  const byte = () => {
    const next = input.byte()
    crc = crc32(Uint8Array.of(next), crc)
    return next
  }
  const records = readNumber(byte, input)
  if (records !== read.records) throw refuse(`an index lists ${records} blocks where there are ${read.records}`, input)
  const listed = new RunningIndex()
  while (listed.records < records) listed.add({ unpadded: readNumber(byte, input), unpacked: readNumber(byte, input) })
  if (listed.digest() !== read.digest()) throw refuse('an index lists other blocks than there are', input)
  while ((input.position - start) % 4 !== 0) if (byte() !== 0) throw refuse('the padding of an index is not zero', input)
  if (u32(input.fill(new Uint8Array(4))) !== crc) throw refuse('the checksum of an index is wrong', input)
  return input.position - start
}

/** Seven bits a byte, lowest first, at most nine bytes; the last is zero only where it is the only one. */
function readNumber(byte: () => number, input: ByteReader): number {
  let value = 0
  for (let place = 0; place < 9; place += 1) {
    const next = byte()
    if (next === 0 && place > 0) break
    value += (next & 0x7f) * 2 ** (7 * place)
    if (!Number.isSafeInteger(value)) throw refuse('a size of 2^53 or more', input)
    if (next < 0x80) return value
  }
  throw refuse('a number is not in its shortest form', input)
}

function assertCrc(input: ByteReader, what: string, bytes: Uint8Array): void {
  if (u32(input.fill(new Uint8Array(4))) !== crc32(bytes)) throw refuse(`the checksum of the ${what} is wrong`, input)
}
const u32 = (bytes: Uint8Array): number => new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true)
const refuse = (problem: string, input: ByteReader): ServiceError =>
  refusePacked('xz', 'malformed', `${problem}, at byte ${input.position}`, { offset: input.position })
