/** CRC-64 of ECMA-182, bits reversed, as xz has it. Source: "The .xz file format" 1.2.1, section 6.2. Four bytes a step. */
const POLY_HIGH = 0xc96c5795 | 0
const POLY_LOW = 0xd7870f42 | 0

/** Of each byte with 0 to 3 bytes behind it: low and high half. */
const [low0, low1, low2, low3] = [new Int32Array(256), new Int32Array(256), new Int32Array(256), new Int32Array(256)]
const [high0, high1, high2, high3] = [new Int32Array(256), new Int32Array(256), new Int32Array(256), new Int32Array(256)]
for (let byte = 0; byte < 256; byte += 1) {
  let [low, high] = [byte, 0]
  for (const [lows, highs] of [
    [low0, high0],
    [low1, high1],
    [low2, high2],
    [low3, high3],
  ] as const) {
    for (let bit = 0; bit < 8; bit += 1) {
      const isOdd = (low & 1) === 1
      low = (low >>> 1) | (high << 31)
      high >>>= 1
      if (isOdd) {
        low ^= POLY_LOW
        high ^= POLY_HIGH
      }
    }
    lows[byte] = low
    highs[byte] = high
  }
}

/** Zeros are most of many disks: 64 KiB of them change each bit of the sum in one way, which is found out once. */
const ZERO_RUN = new Uint8Array(65536)
let runsOfBits: readonly (readonly [low: number, high: number])[] | undefined
const afterZeros = (low: number, high: number) => {
  const sum = new Crc64(low, high)
  sum.updateEach(ZERO_RUN)
  return [sum.low, sum.high] as const
}

export class Crc64 {
  low: number
  high: number

  /** The sum of nothing, or as it stands after something. */
  constructor(low = -1, high = -1) {
    this.low = low
    this.high = high
  }

  update(bytes: Uint8Array): void {
    let from = 0
    for (let at = 0; at + ZERO_RUN.length <= bytes.length; at += ZERO_RUN.length) {
      if (bytes[at] !== 0 || Buffer.compare(bytes.subarray(at, at + ZERO_RUN.length), ZERO_RUN) !== 0) continue
      this.updateEach(bytes.subarray(from, at))
      this.#updateZeros()
      from = at + ZERO_RUN.length
    }
    this.updateEach(bytes.subarray(from))
  }

  #updateZeros(): void {
    runsOfBits ??= Array.from({ length: 64 }, (_, bit) => (bit < 32 ? afterZeros(1 << bit, 0) : afterZeros(0, 1 << bit)))
    let [low, high] = [0, 0]
    for (let bit = 0; bit < 64; bit += 1) {
      if ((((bit < 32 ? this.low : this.high) >>> bit) & 1) === 0) continue
      const [bitLow, bitHigh] = runsOfBits[bit] as readonly [number, number]
      low ^= bitLow
      high ^= bitHigh
    }
    this.low = low
    this.high = high
  }

  /** The same, byte by byte. */
  updateEach(bytes: Uint8Array): void {
    let { low, high } = this
    let at = 0
    for (const end = bytes.length - (bytes.length % 4); at < end; at += 4) {
      const a = (low ^ (bytes[at] as number)) & 0xff
      const b = ((low >>> 8) ^ (bytes[at + 1] as number)) & 0xff
      const c = ((low >>> 16) ^ (bytes[at + 2] as number)) & 0xff
      const d = (low >>> 24) ^ (bytes[at + 3] as number)
      low = high ^ (low3[a] as number) ^ (low2[b] as number) ^ (low1[c] as number) ^ (low0[d] as number)
      high = (high3[a] as number) ^ (high2[b] as number) ^ (high1[c] as number) ^ (high0[d] as number)
    }
    for (; at < bytes.length; at += 1) {
      const index = (low ^ (bytes[at] as number)) & 0xff
      low = ((low >>> 8) | (high << 24)) ^ (low0[index] as number)
      high = (high >>> 8) ^ (high0[index] as number)
    }
    this.low = low
    this.high = high
  }

  /** 8 bytes, little-endian. */
  digest(): Uint8Array {
    const answer = new Uint8Array(8)
    const view = new DataView(answer.buffer)
    view.setInt32(0, ~this.low, true)
    view.setInt32(4, ~this.high, true)
    return answer
  }
}
