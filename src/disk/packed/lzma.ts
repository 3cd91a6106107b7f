import { refusePacked } from './damage.ts'
import { ZEROS } from './zeros.ts'

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
/** One symbol takes less: its bits are at most 50, of 11 bits of the range each. */
export const SPARE_BYTES = 128
const MAX_LITERAL_BITS = 4 // LZMA2: lc + lp is at most 4

const PAGE_BITS = 16

/**
 * The last bytes that came out, in a ring, and those of them that were not taken yet. The ring is as large as the dictionary once more than
 * its first bytes have come: memory that nothing but zeros were written to is never touched, and costs nothing.
 */
export class Window {
  bytes: Uint8Array
  /** Where the next byte goes. */
  at = 0
  /** Bytes that may be referred to. */
  filled = 0
  #maxBytes: number
  #taken = 0
  /** Of each 64 KiB, whether it may hold anything but zeros, as of the last `take`. */
  #used: Uint8Array

  /** @param bytes at first, and at least */
  constructor(bytes: number) {
    this.bytes = new Uint8Array(bytes)
    this.#maxBytes = bytes
    this.#used = new Uint8Array(Math.ceil(bytes / 2 ** PAGE_BITS))
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
  /** Whether zeros are there before they are written; `count` is less than 64 KiB, and nothing was put there since the last `take`. */
  isUnused(at: number, count: number): boolean {
    return this.#used[at >>> PAGE_BITS] === 0 && this.#used[(at + count - 1) >>> PAGE_BITS] === 0
  }
  /** A copy of what came since the last call; of zeros, the same each time. */
  take(): Uint8Array {
    const [from, to] = [this.#taken, this.at]
    const isZero = to - from <= ZEROS.length && Buffer.compare(this.bytes.subarray(from, to), ZEROS.subarray(0, to - from)) === 0
    if (!isZero && to > from) this.#used.fill(1, from >>> PAGE_BITS, ((to - 1) >>> PAGE_BITS) + 1)
    const piece = isZero ? ZEROS.subarray(0, to - from) : this.bytes.slice(from, to)
    if (to === this.bytes.length) this.#turn()
    this.#taken = this.at
    return piece
  }

  /** At the end of the ring all of it is in order: it goes on at its start, or behind. */
  #turn(): void {
    if (this.bytes.length >= this.#maxBytes) {
      this.at = 0
      return
    }
    const larger = new Uint8Array(this.#maxBytes)
    larger.set(this.bytes)
    const used = new Uint8Array(Math.ceil(this.#maxBytes / 2 ** PAGE_BITS))
    used.set(this.#used)
    used.fill(1, 0, this.#used.length)
    this.bytes = larger
    this.#used = used
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
  #inputBytes = 0
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

  /**
   * Begins a chunk.
   * @param input the chunk, from its first byte, which is 0, and `SPARE_BYTES` behind: whether it was read beyond its end is looked at once
   *   for each symbol
   * @param inputBytes without those behind it
   */
  begin(input: Uint8Array, inputBytes: number): void {
    this.#input = input
    this.#inputBytes = inputBytes
    this.#range = -1
    this.#code = new DataView(input.buffer, input.byteOffset, input.byteLength).getInt32(1)
    this.#next = 5
    this.#owedLength = 0
    if (input[0] !== 0) throw damaged('a chunk does not begin with a zero')
  }

  /** Whether the chunk has been read to its very end. */
  isFinished(): boolean {
    if (this.#range >>> 24 === 0) this.#shift()
    return this.#next === this.#inputBytes && this.#code === 0 && this.#owedLength === 0
  }

  /**
   * Puts exactly `count` bytes, for which there is room, into the window. Literals, most of what is read, are decoded here, with the state of
   * the range coder in local variables: as calls they took twice the time.
   * @throws ServiceError `invalid-image`
   */
  decode(window: Window, count: number): void {
    const { bytes } = window
    const start = window.at
    const end = start + count
    const probs = this.#probs
    const input = this.#input
    const contextShift = 8 - this.#literalContextBits
    let at = start
    if (this.#owedLength > 0) at = this.#copy(window, at, end, this.#owedLength)
    let [range, code, next, state] = [this.#range, this.#code, this.#next, this.#state]
    while (at < end) {
      if (next > this.#inputBytes) break // `isFinished` says so
      const position = this.#position + at - start
      const posState = position & this.#posMask
      if (range >>> 24 === 0) {
        code = (code << 8) | (input[next++] as number)
        range <<= 8
      }
      const choice = IS_MATCH + state * POS_STATES_MAX + posState
      const matchProb = probs[choice] as number
      const matchBound = Math.imul(range >>> 11, matchProb)
      if (code >>> 0 >= matchBound >>> 0) {
        probs[choice] = matchProb - (matchProb >>> 5)
        this.#range = (range - matchBound) | 0
        this.#code = (code - matchBound) | 0
        this.#next = next
        const length = this.#match(state, posState)
        range = this.#range
        code = this.#code
        next = this.#next
        state = this.#state
        const known = Math.min(bytes.length, window.filled + at - start)
        if (this.#rep0 >>> 0 >= known)
          throw damaged(`a match goes back ${(this.#rep0 >>> 0) + 1} bytes, where ${known} are known`)
        at = this.#copy(window, at, end, length)
        continue
      }
      range = matchBound
      probs[choice] = matchProb + ((2048 - matchProb) >>> 5)
      const before = window.filled + at - start === 0 ? 0 : (bytes[at === 0 ? bytes.length - 1 : at - 1] as number)
      const context = ((position & this.#literalPosMask) << this.#literalContextBits) + (before >>> contextShift)
      const base = LITERAL + LITERAL_SIZE * context
      let symbol = 1
      // behind a match, the byte that would have gone on with it says which probabilities are used, up to the first bit that differs
      let matched = state < 7 ? 0 : (bytes[this.#back(bytes, at, this.#rep0 + 1)] as number)
      let offset = state < 7 ? 0 : 0x100
      do {
        if (range >>> 24 === 0) {
          code = (code << 8) | (input[next++] as number)
          range <<= 8
        }
        matched <<= 1
        const matchBit = matched & offset
        const index = base + offset + matchBit + symbol
        const prob = probs[index] as number
        const bound = Math.imul(range >>> 11, prob)
        if (code >>> 0 < bound >>> 0) {
          range = bound
          probs[index] = prob + ((2048 - prob) >>> 5)
          symbol <<= 1
          offset &= ~matchBit
        } else {
          range = (range - bound) | 0
          code = (code - bound) | 0
          probs[index] = prob - (prob >>> 5)
          symbol = (symbol << 1) | 1
          offset &= matchBit
        }
      } while (symbol < 0x100)
      bytes[at] = symbol
      at += 1
      state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6
    }
    this.#range = range
    this.#code = code
    this.#next = next
    this.#state = state
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

  /** Less one, as the specification counts, of 32 bits without a sign in a signed number. The highest value, an end mark, is refused as every other that is too far. */
  #distance(length: number): number {
    const slot = this.#tree(POS_SLOT + Math.min(length - MIN_MATCH, 3) * 64, 6)
    if (slot < 4) return slot
    const directBits = (slot >>> 1) - 1
    const high = (2 | (slot & 1)) << directBits
    if (slot < 14) return high + this.#reverse(POS_SPECIAL + high - slot, directBits)
    return (high + (this.#direct(directBits - 4) << 4) + this.#reverse(POS_ALIGN, 4)) | 0
  }

  /** Copies as much of a match as there is room for; the rest is owed. @returns where the next byte goes */
  #copy(window: Window, at: number, end: number, length: number): number {
    const { bytes } = window
    const distance = this.#rep0 + 1
    const count = Math.min(length, end - at)
    this.#owedLength = length - count
    let from = this.#back(bytes, at, distance)
    if (distance === 1) {
      const byte = bytes[from] as number
      if (byte !== 0 || !window.isUnused(at, count)) bytes.fill(byte, at, at + count)
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

  #tree(at: number, bits: number): number {
    const probs = this.#probs
    const input = this.#input
    const limit = 1 << bits
    let [range, code, next, symbol] = [this.#range, this.#code, this.#next, 1]
    do {
      if (range >>> 24 === 0) {
        code = (code << 8) | (input[next++] as number)
        range <<= 8
      }
      const prob = probs[at + symbol] as number
      const bound = Math.imul(range >>> 11, prob)
      if (code >>> 0 < bound >>> 0) {
        range = bound
        probs[at + symbol] = prob + ((2048 - prob) >>> 5)
        symbol <<= 1
      } else {
        range = (range - bound) | 0
        code = (code - bound) | 0
        probs[at + symbol] = prob - (prob >>> 5)
        symbol = (symbol << 1) | 1
      }
    } while (symbol < limit)
    this.#range = range
    this.#code = code
    this.#next = next
    return symbol - limit
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
      if (this.#range >>> 24 === 0) this.#shift()
      this.#range >>>= 1
      const isBelow = this.#code >>> 0 < this.#range >>> 0
      if (!isBelow) this.#code = (this.#code - this.#range) | 0
      value = (value << 1) | (isBelow ? 0 : 1)
    }
    return value
  }

  /** Range and code are numbers of 32 bits without a sign, in signed ones. */
  #bit(at: number): number {
    if (this.#range >>> 24 === 0) this.#shift()
    const probs = this.#probs
    const prob = probs[at] as number
    const bound = Math.imul(this.#range >>> 11, prob)
    if (this.#code >>> 0 < bound >>> 0) {
      this.#range = bound
      probs[at] = prob + ((2048 - prob) >>> 5)
      return 0
    }
    this.#range = (this.#range - bound) | 0
    this.#code = (this.#code - bound) | 0
    probs[at] = prob - (prob >>> 5)
    return 1
  }

  #shift(): void {
    this.#code = (this.#code << 8) | (this.#input[this.#next++] as number)
    this.#range <<= 8
  }
}

const damaged = (problem: string): Error => refusePacked('xz', 'malformed', problem)
