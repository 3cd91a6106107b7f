/** CRC-64 of ECMA-182, bits reversed, as xz has it. Source: "The .xz file format" 1.2.1, section 6.2. Four bytes a step. */
const POLY_HIGH = 0xc96c5795 | 0
const POLY_LOW = 0xd7870f42 | 0

/** Of each byte with 0 to 3 bytes behind it: low and high half. */
const tables = Array.from({ length: 4 }, () => ({ low: new Int32Array(256), high: new Int32Array(256) }))
for (let byte = 0; byte < 256; byte += 1) {
  let [low, high] = [byte, 0]
  for (let bit = 1; bit <= 32; bit += 1) {
    const isOdd = (low & 1) === 1
    low = (low >>> 1) | (high << 31)
    high >>>= 1
    if (isOdd) {
      low ^= POLY_LOW
      high ^= POLY_HIGH
    }
    if (bit % 8 === 0) {
      const table = tables[bit / 8 - 1] as (typeof tables)[number]
      table.low[byte] = low
      table.high[byte] = high
    }
  }
}
const [t0, t1, t2, t3] = tables as [
  (typeof tables)[number],
  (typeof tables)[number],
  (typeof tables)[number],
  (typeof tables)[number],
]

export class Crc64 {
  #low = -1
  #high = -1

  update(bytes: Uint8Array): void {
    let [low, high] = [this.#low, this.#high]
    let at = 0
    for (const end = bytes.length - (bytes.length % 4); at < end; at += 4) {
      const four =
        low ^
        ((bytes[at] as number) |
          ((bytes[at + 1] as number) << 8) |
          ((bytes[at + 2] as number) << 16) |
          ((bytes[at + 3] as number) << 24))
      const [a, b, c, d] = [four & 0xff, (four >>> 8) & 0xff, (four >>> 16) & 0xff, four >>> 24]
      low = high ^ (t3.low[a] as number) ^ (t2.low[b] as number) ^ (t1.low[c] as number) ^ (t0.low[d] as number)
      high = (t3.high[a] as number) ^ (t2.high[b] as number) ^ (t1.high[c] as number) ^ (t0.high[d] as number)
    }
    for (; at < bytes.length; at += 1) {
      const index = (low ^ (bytes[at] as number)) & 0xff
      low = ((low >>> 8) | (high << 24)) ^ (t0.low[index] as number)
      high = (high >>> 8) ^ (t0.high[index] as number)
    }
    this.#low = low
    this.#high = high
  }

  /** 8 bytes, little-endian. */
  digest(): Uint8Array {
    const answer = new Uint8Array(8)
    const view = new DataView(answer.buffer)
    view.setInt32(0, ~this.#low, true)
    view.setInt32(4, ~this.#high, true)
    return answer
  }
}
