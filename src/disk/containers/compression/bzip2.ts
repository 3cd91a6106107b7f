import { crc32 } from 'node:zlib'
import type { ServiceError } from '../../../base/errors.ts'
import type { ByteReader } from '../../packed/byte-reader.ts'
import { PartCount, refusePacked } from '../../packed/damage.ts'

/**
 * bzip2 has no specification but its program; what is known of the format is written down in J. Tsai, "BZIP2: Format
 * Specification" (2016). A file is a row of streams, a stream a row of blocks; bits are taken from the highest of each byte on.
 */
const STREAM_MAGIC = 0x425a68 // "BZh"
const BLOCK_MAGIC = [0x314159, 0x265359] as const // pi
const END_MAGIC = [0x177245, 0x385090] as const // its square root
const LEVEL_BYTES = 100_000 // a level, 1 to 9, says how many of these a block has at most
const GROUP_SYMBOLS = 50
const MAX_CODE_BITS = 20
const FAST_BITS = 10
const RUN_B = 1
const OUTPUT_BYTES = 256 * 1024

const refuse = (problem: string, offset: number): ServiceError =>
  refusePacked('bzip2', 'malformed', `${problem}, at byte ${offset}`, { offset })

/** What is in all streams of `input`. Holds 5 MiB. @throws ServiceError `invalid-image`, `unsupported` for randomised blocks */
export function* unpackBzip2(input: ByteReader): Generator<Uint8Array, void, undefined> {
  const parts = new PartCount('bzip2', 'streams and blocks')
  const block = new Block()
  let given = 0
  for (let first = true; first || !input.atEnd(); first = false) {
    parts.add(given)
    const bits = new BitReader(input)
    if (bits.take(24) !== STREAM_MAGIC) {
      throw refuse(first ? 'a stream does not begin with "BZh"' : 'something else follows the last stream', input.position)
    }
    const level = bits.take(8) - 0x30
    if (level < 1 || level > 9) throw refuse('the block size is none of 1 to 9', input.position)
    let streamCrc = 0
    for (;;) {
      const magic = [bits.take(24), bits.take(24)] as const
      const crc = bits.take(16) * 65536 + bits.take(16)
      if (magic[0] === END_MAGIC[0] && magic[1] === END_MAGIC[1]) {
        if (crc !== streamCrc) throw refuse('the checksum of a stream is not that of what it holds', input.position)
        break
      }
      if (magic[0] !== BLOCK_MAGIC[0] || magic[1] !== BLOCK_MAGIC[1]) {
        throw refuse('neither a block nor the end of the stream follows', input.position)
      }
      parts.add(given)
      block.read(bits, level * LEVEL_BYTES)
      for (const piece of block.pieces()) {
        given += piece.length
        yield piece
      }
      if (block.crc !== crc) throw refuse('the checksum of a block is not that of what it holds', input.position)
      streamCrc = (((streamCrc << 1) | (streamCrc >>> 31)) ^ crc) >>> 0
    }
  }
}

/** Takes whole bytes as it needs them: at the end of a stream what is left of the last one is padding. */
class BitReader {
  readonly input: ByteReader
  #bits = 0
  #count = 0

  constructor(input: ByteReader) {
    this.input = input
  }

  /** @param count 1 to 24 */
  take(count: number): number {
    const value = this.peek(count)
    this.#count -= count
    return value
  }
  /** Looks ahead: for places behind which there is more than `count`. */
  peek(count: number): number {
    while (this.#count < count) {
      this.#bits = (this.#bits << 8) | this.input.byte()
      this.#count += 8
    }
    return (this.#bits >>> (this.#count - count)) & ((1 << count) - 1)
  }
  skip(count: number): void {
    this.#count -= count
  }
}

/** The canonical Huffman code of one table: shorter codes come first, and among codes of one length lower symbols. */
class Code {
  /** By the next 10 bits: symbol × 32 + length; 0: the code is longer, or none. */
  readonly #fast = new Uint16Array(1 << FAST_BITS)
  readonly #symbols: Uint16Array
  /** Of each length: one past its last code; where its first code's symbol is, less that code. */
  readonly #ends = new Int32Array(MAX_CODE_BITS + 1)
  readonly #shifts = new Int32Array(MAX_CODE_BITS + 1)

  constructor(lengths: Uint8Array, at: number) {
    this.#symbols = new Uint16Array(lengths.length)
    let [code, place] = [0, 0]
    for (let bits = 1; bits <= MAX_CODE_BITS; bits += 1) {
      code <<= 1
      this.#shifts[bits] = place - code
      for (let symbol = 0; symbol < lengths.length; symbol += 1) {
        if (lengths[symbol] !== bits) continue
        if (bits <= FAST_BITS) {
          const from = code << (FAST_BITS - bits)
          this.#fast.fill(symbol * 32 + bits, from, from + (1 << (FAST_BITS - bits)))
        }
        this.#symbols[place] = symbol
        place += 1
        code += 1
      }
      if (code > 1 << bits) throw refuse('a Huffman table has more codes than there is room for', at)
      this.#ends[bits] = code
    }
  }

  next(bits: BitReader): number {
    const ahead = bits.peek(MAX_CODE_BITS)
    const fast = this.#fast[ahead >>> (MAX_CODE_BITS - FAST_BITS)] as number
    if (fast !== 0) {
      bits.skip(fast & 31)
      return fast >>> 5
    }
    for (let length = FAST_BITS + 1; length <= MAX_CODE_BITS; length += 1) {
      const code = ahead >>> (MAX_CODE_BITS - length)
      if (code < (this.#ends[length] as number)) {
        bits.skip(length)
        return this.#symbols[code + (this.#shifts[length] as number)] as number
      }
    }
    throw refuse('a Huffman code is in none of the tables', bits.input.position)
  }
}

/** One block: read whole, since its bytes are sorted by what follows them, then put out in order. */
class Block {
  crc = 0
  /** The byte in the low 8 bits, above it where the next one is. */
  #links = new Uint32Array()
  #count = 0
  #first = 0
  readonly #turned = new Uint8Array(OUTPUT_BYTES)

  read(bits: BitReader, maxBytes: number): void {
    const { input } = bits
    if (bits.take(1) === 1)
      throw refusePacked('bzip2', 'unsupported', 'blocks that are randomised, as only bzip2 0.9.0 made them')
    this.#first = bits.take(24)
    const used = usedBytes(bits)
    if (used.length === 0) throw refuse('a block uses no byte at all', input.position)
    const { codes, selectors } = tables(bits, used.length + 2)
    if (this.#links.length < maxBytes) this.#links = new Uint32Array(maxBytes)
    const links = this.#links
    const counts = new Int32Array(256)
    const endOfBlock = used.length + 1
    let [count, left, group] = [0, 0, 0]
    let code = codes[0] as Code
    for (let run = 0, place = 1; ; ) {
      if (left === 0) {
        if (group === selectors.length) throw refuse('a block goes on behind its last selector', input.position)
        code = codes[selectors[group] as number] as Code
        group += 1
        left = GROUP_SYMBOLS
      }
      left -= 1
      const symbol = code.next(bits)
      if (symbol <= RUN_B) {
        if (place > 1 << 21) throw refuse('a run is longer than a block', input.position)
        run += place << symbol
        place <<= 1
        continue
      }
      if (run > 0) {
        const byte = used[0] as number
        if (run > maxBytes - count) throw refuse(`a block has more than ${maxBytes} bytes`, input.position)
        links.fill(byte, count, count + run)
        counts[byte] = (counts[byte] as number) + run
        count += run
        run = 0
        place = 1
      }
      if (symbol === endOfBlock) break
      if (count === maxBytes) throw refuse(`a block has more than ${maxBytes} bytes`, input.position)
      const byte = used[symbol - 1] as number
      used.copyWithin(1, 0, symbol - 1) // move to front
      used[0] = byte
      links[count] = byte
      counts[byte] = (counts[byte] as number) + 1
      count += 1
    }
    if (this.#first >= count) throw refuse('the first byte of a block lies outside of it', input.position)
    this.#count = count
    this.#link(counts)
  }

  /** The transformation of Burrows and Wheeler backwards: the n-th of a byte in the last column is the n-th in the first. */
  #link(counts: Int32Array): void {
    const links = this.#links
    let sum = 0
    for (let byte = 0; byte < 256; byte += 1) {
      const own = counts[byte] as number
      counts[byte] = sum
      sum += own
    }
    for (let index = 0; index < this.#count; index += 1) {
      const byte = (links[index] as number) & 0xff
      const place = counts[byte] as number
      counts[byte] = place + 1
      links[place] = (links[place] as number) | (index << 8)
    }
  }

  /** Four equal bytes are followed by the number of more of them. `crc` is right when all pieces were taken. */
  *pieces(): Generator<Uint8Array, void, undefined> {
    const links = this.#links
    let position = (links[this.#first] as number) >>> 8
    let output = new Uint8Array(OUTPUT_BYTES)
    let [filled, equal, last, crc] = [0, 0, -1, 0]
    for (let left = this.#count; left > 0; left -= 1) {
      const link = links[position] as number
      const byte = link & 0xff
      position = link >>> 8
      let copies = 1
      if (equal === 4) {
        copies = byte
        equal = 0
      } else {
        equal = byte === last ? equal + 1 : 1
        last = byte
      }
      while (copies > 0) {
        const count = Math.min(copies, OUTPUT_BYTES - filled)
        if (count === 1) output[filled] = last
        else output.fill(last, filled, filled + count)
        filled += count
        copies -= count
        if (filled === OUTPUT_BYTES) {
          crc = this.#crcOf(output, crc)
          yield output
          output = new Uint8Array(OUTPUT_BYTES)
          filled = 0
        }
      }
      if (equal === 0) last = -1
    }
    if (filled > 0) {
      crc = this.#crcOf(output.subarray(0, filled), crc)
      yield output.subarray(0, filled)
    }
    this.crc = mirrored(crc)
  }

  /** CRC-32 takes the bits of a byte from the highest on here, everywhere else from the lowest: the same sum of mirrored bytes, mirrored. */
  #crcOf(bytes: Uint8Array, crc: number): number {
    const turned = this.#turned
    for (let at = 0; at < bytes.length; at += 1) turned[at] = mirrors[bytes[at] as number] as number
    return crc32(turned.subarray(0, bytes.length), crc)
  }
}

/** The bytes that a block has at all, ascending: 16 bits say which sixteenths are used, 16 more for each of those which bytes. */
function usedBytes(bits: BitReader): Uint8Array {
  const used: number[] = []
  const parts = bits.take(16)
  for (let part = 0; part < 16; part += 1) {
    if ((parts & (0x8000 >>> part)) === 0) continue
    const flags = bits.take(16)
    for (let index = 0; index < 16; index += 1) if ((flags & (0x8000 >>> index)) !== 0) used.push(part * 16 + index)
  }
  return Uint8Array.from(used)
}

/** Two to six codes, and which of them each group of 50 symbols is in. */
function tables(bits: BitReader, symbols: number): { readonly codes: readonly Code[]; readonly selectors: Uint8Array } {
  const { input } = bits
  const count = bits.take(3)
  if (count < 2 || count > 6) throw refuse(`a block has ${count} Huffman tables; 2 to 6 are possible`, input.position)
  const selectors = new Uint8Array(bits.take(15))
  if (selectors.length === 0) throw refuse('a block has no selectors', input.position)
  const order = Uint8Array.of(0, 1, 2, 3, 4, 5)
  for (let index = 0; index < selectors.length; index += 1) {
    let place = 0
    while (bits.take(1) === 1) {
      place += 1
      if (place === count) throw refuse('a selector names a table that is not there', input.position)
    }
    const selector = order[place] as number
    order.copyWithin(1, 0, place)
    order[0] = selector
    selectors[index] = selector
  }
  const codes: Code[] = []
  const lengths = new Uint8Array(symbols)
  while (codes.length < count) {
    let length = bits.take(5)
    for (let symbol = 0; symbol < symbols; symbol += 1) {
      for (;;) {
        if (length < 1 || length > MAX_CODE_BITS)
          throw refuse(`a Huffman code of ${length} bits; 1 to 20 are possible`, input.position)
        if (bits.take(1) === 0) break
        length += bits.take(1) === 0 ? 1 : -1
      }
      lengths[symbol] = length
    }
    codes.push(new Code(lengths, input.position))
  }
  return { codes, selectors }
}

const mirrors = Uint8Array.from({ length: 256 }, (_, byte) => {
  let mirror = 0
  for (let bit = 0; bit < 8; bit += 1) if ((byte & (1 << bit)) !== 0) mirror |= 0x80 >>> bit
  return mirror
})
const mirrored = (word: number): number => {
  const [a, b, c, d] = [word & 0xff, (word >>> 8) & 0xff, (word >>> 16) & 0xff, word >>> 24].map(
    (byte) => mirrors[byte] as number,
  )
  return (((a as number) << 24) | ((b as number) << 16) | ((c as number) << 8) | (d as number)) >>> 0
}
