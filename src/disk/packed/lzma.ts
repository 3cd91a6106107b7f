import { refusePacked } from './damage.ts'

/**
 * LZMA: an adaptive range coder over literals, matches and repeated matches. Source: I. Pavlov, "LZMA specification" (draft, 2015),
 * whose names for the parts are kept: state, rep0 to rep3, posSlot, align.
 */
const STATES = 12
const POS_STATES_MAX = 16
const PROB_HALF = 1 << 10
const MIN_MATCH = 2
const LENGTH_LOW = 2 // of one length coder, behind two choices; low and middle have eight for each position
const LENGTH_MIDDLE = LENGTH_LOW + POS_STATES_MAX * 8
const LENGTH_HIGH = LENGTH_MIDDLE + POS_STATES_MAX * 8
const LENGTH_SIZE = LENGTH_HIGH + 256

/** Where each part begins in the one array of probabilities. */
const IS_MATCH = 0
const IS_REP = IS_MATCH + STATES * POS_STATES_MAX
const IS_REP_G0 = IS_REP + STATES
const IS_REP_G1 = IS_REP_G0 + STATES
const IS_REP_G2 = IS_REP_G1 + STATES
const IS_REP0_LONG = IS_REP_G2 + STATES
const POS_SLOT = IS_REP0_LONG + STATES * POS_STATES_MAX
const POS_SPECIAL = POS_SLOT + 4 * 64
const POS_ALIGN = POS_SPECIAL + 128
const MATCH_LENGTH = POS_ALIGN + 16
const REP_LENGTH = MATCH_LENGTH + LENGTH_SIZE
const LITERAL = REP_LENGTH + LENGTH_SIZE
const LITERAL_SIZE = 0x300
const MAX_LITERAL_BITS = 4 // LZMA2: lc + lp is at most 4

/** The last bytes that came out, in a ring that grows as they come, and those of them that were not taken yet. */
export class Window {
  bytes: Uint8Array
  /** Where the next byte goes. */
  at = 0
  /** Bytes that may be referred to. */
  filled = 0
  #maxBytes: number
  #taken = 0

  /** @param bytes at first, and at least */
  constructor(bytes: number) {
    this.bytes = new Uint8Array(bytes)
    this.#maxBytes = bytes
  }

  /** What was before may not be referred to any more. */
  reset(): void {
    this.filled = 0
  }
  /** @param bytes that may be referred to from now on; they have met their limit */
  growTo(bytes: number): void {
    this.#maxBytes = Math.max(this.#maxBytes, bytes)
  }
  /** How many bytes may be put before `take` must be called. */
  get room(): number {
    return this.bytes.length - this.at
  }
  advance(count: number): void {
    this.at += count
    this.filled = Math.min(this.bytes.length, this.filled + count)
  }
  /** A copy of what came since the last call. */
  take(): Uint8Array {
    const piece = this.bytes.slice(this.#taken, this.at)
    if (this.at === this.bytes.length) this.#turn()
    this.#taken = this.at
    return piece
  }

  /** At the end of the ring all of it is in order: it goes on at its start, or behind. */
  #turn(): void {
    if (this.bytes.length >= this.#maxBytes) {
      this.at = 0
      return
    }
    const larger = new Uint8Array(Math.min(this.#maxBytes, this.bytes.length * 4))
    larger.set(this.bytes)
    this.bytes = larger
  }
}

/** Decodes the chunks of an LZMA2 stream, one after the other. */
export class LzmaDecoder {
  readonly #probs = new Uint16Array(LITERAL + (LITERAL_SIZE << MAX_LITERAL_BITS))
  #literalContextBits = 0
  #literalPosMask = 0
  #posMask = 0
  #state = 0
  /** The last four distances, less one. */
  #rep0 = 0
  #rep1 = 0
  #rep2 = 0
  #rep3 = 0
  /** Of the chunk: what is read, the next byte of it. */
  #input: Uint8Array = new Uint8Array()
  #next = 0
  #range = 0
  #code = 0
  /** The low bits of how many bytes came since the dictionary was reset: literals and lengths depend on them. */
  #position = 0
  /** What is left of a match for which the window had no room. */
  #owedLength = 0

  /** @param properties (pb × 5 + lp) × 9 + lc. @returns whether they are possible in LZMA2 */
  setProperties(properties: number): boolean {
    const literalContextBits = properties % 9
    const rest = Math.floor(properties / 9)
    const literalPosBits = rest % 5
    const posBits = Math.floor(rest / 5)
    if (posBits > 4 || literalContextBits + literalPosBits > MAX_LITERAL_BITS) return false
    this.#literalContextBits = literalContextBits
    this.#literalPosMask = (1 << literalPosBits) - 1
    this.#posMask = (1 << posBits) - 1
    return true
  }

  resetState(): void {
    this.#probs.fill(PROB_HALF)
    this.#state = 0
    this.#rep0 = this.#rep1 = this.#rep2 = this.#rep3 = 0
  }

  resetPosition(): void {
    this.#position = 0
  }
  /** Bytes went by without being coded. */
  skip(count: number): void {
    this.#position = (this.#position + count) & 0xff
  }

  /** Begins a chunk. @param input from its first byte, which is 0, to its last */
  begin(input: Uint8Array): void {
    this.#input = input
    this.#range = -1
    this.#code = new DataView(input.buffer, input.byteOffset, input.byteLength).getInt32(1)
    this.#next = 5
    this.#owedLength = 0
    if (input[0] !== 0) throw damaged('a chunk does not begin with a zero')
  }

  /** Whether the chunk has been read to its very end. */
  isFinished(): boolean {
    if ((this.#range & 0xff000000) === 0) this.#shift()
    return this.#next === this.#input.length && this.#code === 0 && this.#owedLength === 0
  }

  /** Puts exactly `count` bytes, for which there is room, into the window. @throws ServiceError `invalid-image` */
  decode(window: Window, count: number): void {
    const { bytes } = window
    const end = window.at + count
    const start = window.at
    let at = start
    if (this.#owedLength > 0) at = this.#copy(bytes, at, end, this.#owedLength)
    while (at < end) {
      const position = this.#position + at - start
      const posState = position & this.#posMask
      const state = this.#state
      if (this.#bit(IS_MATCH + state * POS_STATES_MAX + posState) === 0) {
        const before = window.filled + at - start === 0 ? 0 : (bytes[at === 0 ? bytes.length - 1 : at - 1] as number)
        const low = position & this.#literalPosMask
        const context = (low << this.#literalContextBits) + (before >>> (8 - this.#literalContextBits))
        const matched = state < 7 ? -1 : (bytes[this.#back(bytes, at, this.#rep0 + 1)] as number)
        bytes[at] = this.#literal(LITERAL + LITERAL_SIZE * context, matched)
        at += 1
        this.#state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6
        continue
      }
      const known = Math.min(bytes.length, window.filled + at - start)
      const length = this.#match(state, posState)
      if (this.#rep0 >= known) throw damaged(`a match goes back ${this.#rep0 + 1} bytes, where ${known} are known`)
      at = this.#copy(bytes, at, end, length)
    }
    this.skip(count)
    window.advance(count)
  }

  /** Reads a match: its distance is in `#rep0` then. @returns its length */
  #match(state: number, posState: number): number {
    if (this.#bit(IS_REP + state) === 0) {
      const length = this.#length(MATCH_LENGTH, posState)
      this.#rep3 = this.#rep2
      this.#rep2 = this.#rep1
      this.#rep1 = this.#rep0
      this.#rep0 = this.#distance(length)
      this.#state = state < 7 ? 7 : 10
      return length
    }
    if (this.#bit(IS_REP_G0 + state) === 0) {
      if (this.#bit(IS_REP0_LONG + state * POS_STATES_MAX + posState) === 0) {
        this.#state = state < 7 ? 9 : 11
        return 1
      }
    } else {
      let distance = this.#rep1
      if (this.#bit(IS_REP_G1 + state) === 1) {
        distance = this.#rep2
        if (this.#bit(IS_REP_G2 + state) === 1) {
          distance = this.#rep3
          this.#rep3 = this.#rep2
        }
        this.#rep2 = this.#rep1
      }
      this.#rep1 = this.#rep0
      this.#rep0 = distance
    }
    this.#state = state < 7 ? 8 : 11
    return this.#length(REP_LENGTH, posState)
  }

  #length(at: number, posState: number): number {
    if (this.#bit(at) === 0) return MIN_MATCH + this.#tree(at + LENGTH_LOW + posState * 8, 3)
    if (this.#bit(at + 1) === 0) return MIN_MATCH + 8 + this.#tree(at + LENGTH_MIDDLE + posState * 8, 3)
    return MIN_MATCH + 16 + this.#tree(at + LENGTH_HIGH, 8)
  }

  /** Less one, as the specification counts. The highest value, an end mark, is refused as every other that is too far. */
  #distance(length: number): number {
    const slot = this.#tree(POS_SLOT + Math.min(length - MIN_MATCH, 3) * 64, 6)
    if (slot < 4) return slot
    const directBits = (slot >>> 1) - 1
    const high = (2 | (slot & 1)) * 2 ** directBits
    if (slot < 14) return high + this.#reverse(POS_SPECIAL + high - slot, directBits)
    return high + this.#direct(directBits - 4) * 16 + this.#reverse(POS_ALIGN, 4)
  }

  /** Copies as much of a match as there is room for; the rest is owed. @returns where the next byte goes */
  #copy(bytes: Uint8Array, at: number, end: number, length: number): number {
    const distance = this.#rep0 + 1
    const count = Math.min(length, end - at)
    this.#owedLength = length - count
    let from = this.#back(bytes, at, distance)
    if (distance === 1) {
      bytes.fill(bytes[from] as number, at, at + count)
      return at + count
    }
    const isApart = from < at ? distance >= count : from + count <= bytes.length
    if (count > 32 && isApart) {
      bytes.copyWithin(at, from, from + count)
      return at + count
    }
    for (const to = at + count; at < to; at += 1) {
      bytes[at] = bytes[from] as number
      from += 1
      if (from === bytes.length) from = 0
    }
    return at
  }

  #back(bytes: Uint8Array, at: number, distance: number): number {
    return distance <= at ? at - distance : at - distance + bytes.length
  }

  #literal(at: number, matched: number): number {
    let symbol = 1
    if (matched >= 0) {
      let rest = matched
      do {
        const matchBit = (rest >>> 7) & 1
        rest <<= 1
        const bit = this.#bit(at + ((1 + matchBit) << 8) + symbol)
        symbol = (symbol << 1) | bit
        if (matchBit !== bit) break
      } while (symbol < 0x100)
    }
    while (symbol < 0x100) symbol = (symbol << 1) | this.#bit(at + symbol)
    return symbol & 0xff
  }

  #tree(at: number, bits: number): number {
    let symbol = 1
    for (let left = bits; left > 0; left -= 1) symbol = (symbol << 1) | this.#bit(at + symbol)
    return symbol - (1 << bits)
  }

  #reverse(at: number, bits: number): number {
    let [node, symbol] = [1, 0]
    for (let index = 0; index < bits; index += 1) {
      const bit = this.#bit(at + node)
      node = (node << 1) | bit
      symbol |= bit << index
    }
    return symbol
  }

  #direct(bits: number): number {
    let value = 0
    for (let left = bits; left > 0; left -= 1) {
      if ((this.#range & 0xff000000) === 0) this.#shift()
      this.#range >>>= 1
      const isBelow = (this.#code ^ 0x80000000) < (this.#range ^ 0x80000000)
      if (!isBelow) this.#code = (this.#code - this.#range) | 0
      value = value * 2 + (isBelow ? 0 : 1)
    }
    return value
  }

  /** Range and code are unsigned numbers of 32 bits in signed ones: compared with their highest bits turned. */
  #bit(at: number): number {
    if ((this.#range & 0xff000000) === 0) this.#shift()
    const probs = this.#probs
    const prob = probs[at] as number
    const bound = Math.imul(this.#range >>> 11, prob)
    if ((this.#code ^ 0x80000000) < (bound ^ 0x80000000)) {
      this.#range = bound
      probs[at] = prob + ((2048 - prob) >>> 5)
      return 0
    }
    this.#range = (this.#range - bound) | 0
    this.#code = (this.#code - bound) | 0
    probs[at] = prob - (prob >>> 5)
    return 1
  }

  /** Behind the end of the chunk come zeros; `isFinished` tells. */
  #shift(): void {
    this.#code = (this.#code << 8) | (this.#next < this.#input.length ? (this.#input[this.#next] as number) : 0)
    this.#range <<= 8
    this.#next += 1
  }
}

const damaged = (problem: string): Error => refusePacked('xz', 'malformed', problem)
