/**
 * CRC-32C (Castagnoli), as in iSCSI, ext4 and VHDX. Polynomial 0x1edc6f41, reflected 0x82f63b78; RFC 3720, section 12.1.
 * Eight bytes a step ("slicing by 8", Kounavis and Berry 2005).
 */
const POLYNOMIAL = 0x82f63b78
const SLICES = 8

/** `tables[slice * 256 + byte]`: what a byte does that has `slice` bytes behind it. */
const tables = (() => {
  const made = new Int32Array(SLICES * 256)
  for (let byte = 0; byte < 256; byte += 1) {
    let value = byte
    for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1
    made[byte] = value
  }
  for (let at = 256; at < made.length; at += 1) {
    const before = made[at - 256]!
    made[at] = (before >>> 8) ^ made[before & 0xff]!
  }
  return made
})()

/** @param before the checksum of what comes before `bytes`, to go on from there */
export function crc32c(bytes: Uint8Array, before = 0): number {
  let crc = ~before
  let at = 0
  for (const stop = bytes.length - (SLICES - 1); at < stop; at += SLICES) {
    crc ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
    crc =
      tables[0x700 | (crc & 0xff)]! ^
      tables[0x600 | ((crc >>> 8) & 0xff)]! ^
      tables[0x500 | ((crc >>> 16) & 0xff)]! ^
      tables[0x400 | (crc >>> 24)]! ^
      tables[0x300 | bytes[at + 4]!]! ^
      tables[0x200 | bytes[at + 5]!]! ^
      tables[0x100 | bytes[at + 6]!]! ^
      tables[bytes[at + 7]!]!
  }
  for (; at < bytes.length; at += 1) crc = (crc >>> 8) ^ tables[(crc ^ bytes[at]!) & 0xff]!
  return ~crc >>> 0
}

/** The polynomial x^(2^k), reflected: what 2^k zero bits behind a message multiply its remainder by. */
const powers = (() => {
  const made = new Int32Array(32)
  made[0] = 1 << 30
  for (let k = 1; k < made.length; k += 1) made[k] = product(made[k - 1]!, made[k - 1]!)
  return made
})()

/** Of two polynomials, modulo that of the checksum; all reflected. */
function product(a: number, b: number): number {
  let sum = 0
  let shifted = b
  for (let bit = 31; bit >= 0; bit -= 1) {
    if ((a >>> bit) & 1) sum ^= shifted
    shifted = shifted & 1 ? (shifted >>> 1) ^ POLYNOMIAL : shifted >>> 1
  }
  return sum
}

/** The checksum of what has `count` zero bytes behind it, in a time that hardly grows with them. @param before of what is in front of them */
export function crc32cOfZeros(count: number, before = 0): number {
  let remainder = ~before
  for (let [left, k] = [count, 3]; left > 0; left = Math.floor(left / 2), k = (k + 1) % 32) {
    if (left % 2 === 1) remainder = product(powers[k]!, remainder)
  }
  return ~remainder >>> 0
}
