/**
 * SHA-256 of four messages of one length at once, in the four 32-bit lanes of WebAssembly's 128-bit vectors.
 * Source of the function: FIPS 180-4, section 6.2. Why: on processors without SHA instructions OpenSSL hashes one stream at 260
 * to 400 MB/s a core; four independent chunks side by side go about twice as fast. The module is assembled below, as the
 * compression function is the same 64 steps with other constants.
 */
import { hash } from 'node:crypto'

export const LANES = 4
const DIGEST_BYTES = 32
const BLOCK_BYTES = 64
const PAGE_BYTES = 65_536
/** Longest message that is hashed in lanes; its four copies live in the module's memory. */
export const MAX_LANE_BYTES = 256 * 1024

export interface Sha256 {
  /** The digest of each message, 32 bytes one after the other. */
  digests(messages: readonly Uint8Array[]): Uint8Array
}

/** One message after the other, by OpenSSL: what is fastest where the processor has SHA instructions. */
export const opensslSha256: Sha256 = {
  digests(messages) {
    const out = new Uint8Array(messages.length * DIGEST_BYTES)
    for (const [index, message] of messages.entries()) out.set(hash('sha256', message, 'buffer'), index * DIGEST_BYTES)
    return out
  },
}

const TRIALS = 24

/**
 * The faster of the two on this processor. OpenSSL's SHA-256 is faster than its SHA-512 only where the processor has instructions
 * for it, and there it is faster than the lanes as well; short trials of these two tell it on a busy machine too, where the lanes
 * themselves could not be tried before V8 has found the time to optimise them. One for each thread.
 */
export function fastestSha256(): Sha256 {
  const trial = new Uint8Array(PAGE_BYTES)
  const best = (algorithm: string): number => {
    const times = Array.from({ length: TRIALS }, () => {
      const start = performance.now()
      hash(algorithm, trial, 'buffer')
      return performance.now() - start
    })
    return Math.min(...times)
  }
  return best('sha256') < best('sha512') || !canRunLanes() ? opensslSha256 : createSha256Lanes()
}

const LANE_BYTES = MAX_LANE_BYTES + 2 * BLOCK_BYTES // padding included

/** Processors without SSE 4.1, as QEMU's plainest, have no vectors in WebAssembly. */
const canRunLanes = (): boolean => WebAssembly.validate(assemble(LANE_BYTES))

/** Messages of one length go four at a time. One instance for each thread: it owns about 1 MiB of memory. */
export function createSha256Lanes(): Sha256 {
  const stateAt = 0
  const lanesAt = PAGE_BYTES
  const memory = new WebAssembly.Memory({ initial: 1 + Math.ceil((LANE_BYTES * LANES) / PAGE_BYTES) })
  const module = new WebAssembly.Module(assemble(LANE_BYTES))
  const { compress } = new WebAssembly.Instance(module, { m: { m: memory } }).exports as {
    compress(state: number, lanes: number, blocks: number): void
  }
  const bytes = new Uint8Array(memory.buffer)
  const view = new DataView(memory.buffer)

  function four(messages: readonly Uint8Array[], first: number, out: Uint8Array): void {
    const length = messages[first]!.length
    const blocks = Math.floor((length + 8) / BLOCK_BYTES) + 1
    for (let lane = 0; lane < LANES; lane += 1) {
      const at = lanesAt + lane * LANE_BYTES
      bytes.set(messages[first + lane]!, at)
      bytes.fill(0, at + length, at + blocks * BLOCK_BYTES)
      bytes[at + length] = 0x80
      view.setUint32(at + blocks * BLOCK_BYTES - 4, length * 8) // below 2^32, as MAX_LANE_BYTES is
    }
    for (let word = 0; word < 8; word += 1) {
      for (let lane = 0; lane < LANES; lane += 1) view.setInt32(stateAt + word * 16 + lane * 4, INITIAL[word]!, true)
    }
    compress(stateAt, lanesAt, blocks)
    const result = new DataView(out.buffer, out.byteOffset, out.byteLength)
    for (let lane = 0; lane < LANES; lane += 1) {
      for (let word = 0; word < 8; word += 1) {
        result.setUint32((first + lane) * DIGEST_BYTES + word * 4, view.getUint32(stateAt + word * 16 + lane * 4, true))
      }
    }
  }

  return {
    digests(messages) {
      const out = new Uint8Array(messages.length * DIGEST_BYTES)
      let index = 0
      while (index < messages.length) {
        const { length } = messages[index]!
        let same = 1
        while (same < LANES && messages[index + same]?.length === length) same += 1
        if (same === LANES && length <= MAX_LANE_BYTES) {
          four(messages, index, out)
        } else {
          out.set(opensslSha256.digests(messages.slice(index, index + same)), index * DIGEST_BYTES)
        }
        index += same
      }
      return out
    },
  }
}

// ---------------------------------------------------------------- constants: FIPS 180-4, 4.2.2 and 5.3.3

/** The first 32 bits of the fractional part of `root`. */
const fraction = (root: bigint): number => Number(BigInt.asIntN(32, root))
/** floor(x^(1/n) · 2^32), by bisection on integers. */
function rootBits(x: number, n: bigint): bigint {
  const target = BigInt(x) << (32n * n)
  let low = 0n
  let high = 1n << 40n
  while (high - low > 1n) {
    const middle = (low + high) >> 1n
    if (middle ** n <= target) low = middle
    else high = middle
  }
  return low
}
const PRIMES = Array.from({ length: 312 }, (_, n) => n).filter(
  (n) => n > 1 && !Array.from({ length: n }, (_, d) => d).some((d) => d > 1 && n % d === 0),
)
const INITIAL = PRIMES.slice(0, 8).map((prime) => fraction(rootBits(prime, 2n)))
const ROUND = PRIMES.slice(0, 64).map((prime) => fraction(rootBits(prime, 3n)))

// ---------------------------------------------------------------- the module: WebAssembly core specification 2.0, chapter 5

function unsigned(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)]
}
function signed(value: number): number[] {
  const low = value & 127
  const rest = value >> 7
  return (rest === 0 && low < 64) || (rest === -1 && low >= 64) ? [low] : [low | 128, ...signed(rest)]
}
const vector = (items: readonly number[][]): number[] => [...unsigned(items.length), ...items.flat()]
const section = (id: number, content: number[]): number[] => [id, ...unsigned(content.length), ...content]
const word = (text: string): number[] => vector([...Buffer.from(text)].map((byte) => [byte]))

const I32 = 0x7f
const V128 = 0x7b
const get = (local: number): number[] => [0x20, ...unsigned(local)]
const set = (local: number): number[] => [0x21, ...unsigned(local)]
const i32 = (value: number): number[] => [0x41, ...signed(value)]
const simd = (code: number): number[] => [0xfd, ...unsigned(code)]
const load = (offset: number): number[] => [...simd(0), 4, ...unsigned(offset)]
const store = (offset: number): number[] => [...simd(11), 4, ...unsigned(offset)]
const shuffle = (lanes: readonly number[]): number[] => [...simd(13), ...lanes]
const splat = (value: number): number[] => {
  const bytes = [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24]
  return [...simd(12), ...bytes, ...bytes, ...bytes, ...bytes]
}
const and = simd(0x4e)
const xor = simd(0x51)
const or = simd(0x50)
const add = simd(0xae)
const shiftLeft = simd(0xab)
const shiftRight = simd(0xad)

const right = (local: number, bits: number): number[] => [...get(local), ...i32(bits), ...shiftRight]
const rotate = (local: number, bits: number): number[] => [
  ...right(local, bits),
  ...get(local),
  ...i32(32 - bits),
  ...shiftLeft,
  ...or,
]

/** `compress(state, lanes, blocks)`: message words of lane n lie from `lanes + n × laneBytes`; `state` holds eight vectors. */
function assemble(laneBytes: number): Uint8Array<ArrayBuffer> {
  const [STATE, LANE, BLOCKS] = [0, 1, 2]
  const vars = Array.from({ length: 8 }, (_, n) => 3 + n) // a … h
  const message = Array.from({ length: 16 }, (_, n) => 11 + n)
  const [sum, previous] = [27, 28] // T1, and a^b of the step before
  const scratch = [29, 30, 31, 32]

  const code: number[] = []
  for (const [n, local] of vars.entries()) code.push(...get(STATE), ...load(n * 16), ...set(local))
  code.push(0x03, 0x40) // loop

  // Sixteen message words: four lanes by four words at a time, big-endian, transposed.
  const swap = [3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12]
  for (let group = 0; group < 4; group += 1) {
    for (let lane = 0; lane < LANES; lane += 1) {
      const loaded = [...get(LANE), ...load(lane * laneBytes + group * 16), ...set(scratch[lane]!)]
      code.push(...loaded, ...get(scratch[lane]!), ...get(scratch[lane]!), ...shuffle(swap), ...set(scratch[lane]!))
    }
    const pair = (a: number, b: number, words: readonly number[]) => [
      ...get(a),
      ...get(b),
      ...shuffle(words.flatMap((w) => [4 * w, 4 * w + 1, 4 * w + 2, 4 * w + 3])),
    ]
    const [s0, s1, s2, s3] = scratch as [number, number, number, number]
    const [w0, w1, w2, w3] = message.slice(group * 4, group * 4 + 4) as [number, number, number, number]
    code.push(...pair(s0, s1, [0, 4, 1, 5]), ...set(w0), ...pair(s2, s3, [0, 4, 1, 5]), ...set(w1))
    code.push(...pair(s0, s1, [2, 6, 3, 7]), ...set(w2), ...pair(s2, s3, [2, 6, 3, 7]), ...set(w3))
    code.push(...pair(w0, w1, [0, 1, 4, 5]), ...set(s0), ...pair(w0, w1, [2, 3, 6, 7]), ...set(s1))
    code.push(...pair(w2, w3, [0, 1, 4, 5]), ...set(s2), ...pair(w2, w3, [2, 3, 6, 7]), ...set(s3))
    for (const [n, w] of [w0, w1, w2, w3].entries()) code.push(...get(scratch[n]!), ...set(w))
  }

  let [a, b, c, d, e, f, g, h] = vars as [number, number, number, number, number, number, number, number]
  code.push(...get(b), ...get(c), ...xor, ...set(previous))
  for (let step = 0; step < 64; step += 1) {
    const w = message[step % 16]!
    if (step >= 16) {
      const [w1, w9, w14] = [message[(step + 1) % 16]!, message[(step + 9) % 16]!, message[(step + 14) % 16]!]
      code.push(...get(w), ...get(w9), ...add)
      code.push(...rotate(w1, 7), ...rotate(w1, 18), ...xor, ...right(w1, 3), ...xor, ...add)
      code.push(...rotate(w14, 17), ...rotate(w14, 19), ...xor, ...right(w14, 10), ...xor, ...add, ...set(w))
    }
    // T1 = h + Σ1(e) + Ch(e, f, g) + K + W, with Ch as g ^ (e & (f ^ g))
    code.push(...get(h), ...splat(ROUND[step]!), ...get(w), ...add, ...add)
    code.push(...get(f), ...get(g), ...xor, ...get(e), ...and, ...get(g), ...xor, ...add)
    code.push(...rotate(e, 6), ...rotate(e, 11), ...xor, ...rotate(e, 25), ...xor, ...add, ...set(sum))
    code.push(...get(d), ...get(sum), ...add, ...set(d))
    // T2 = Σ0(a) + Maj(a, b, c), with Maj as b ^ ((a ^ b) & (b ^ c)), whose b ^ c is a ^ b of the step before
    const here = scratch[0]!
    code.push(...get(a), ...get(b), ...xor, ...set(here))
    code.push(...get(here), ...get(previous), ...and, ...get(b), ...xor, ...get(here), ...set(previous))
    code.push(...rotate(a, 2), ...rotate(a, 13), ...xor, ...rotate(a, 22), ...xor, ...add, ...get(sum), ...add, ...set(h))
    ;[a, b, c, d, e, f, g, h] = [h, a, b, c, d, e, f, g]
  }
  for (const [n, local] of vars.entries()) {
    code.push(
      ...get(STATE),
      ...get(STATE),
      ...load(n * 16),
      ...get(local),
      ...add,
      ...set(local),
      ...get(local),
      ...store(n * 16),
    )
  }
  code.push(...get(LANE), ...i32(BLOCK_BYTES), 0x6a, ...set(LANE))
  code.push(...get(BLOCKS), ...i32(1), 0x6b, 0x22, BLOCKS, 0x0d, 0, 0x0b) // tee, br_if, end of loop

  const body = [...vector([[30, V128]]), ...code, 0x0b]
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector([[0x60, ...vector([[I32], [I32], [I32]]), 0]])),
    ...section(2, vector([[...word('m'), ...word('m'), 2, 0, 1]])),
    ...section(3, vector([[0]])),
    ...section(7, vector([[...word('compress'), 0, 0]])),
    ...section(10, vector([[...unsigned(body.length), ...body]])),
  ])
}
