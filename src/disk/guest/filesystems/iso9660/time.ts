/** Times of ISO 9660. Null where it is none. */

/** Seven bytes, the last of which is the zone in quarters of an hour. Source: ECMA-119, section 9.1.5. */
export function shortTimeNs(view: DataView, at: number): bigint | null {
  const [year, month, day, hour, minute, second] = Array.from({ length: 6 }, (_, index) => view.getUint8(at + index)) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  return timeNs([1900 + year, month, day, hour, minute, second], 0, view.getInt8(at + 6))
}

/** Sixteen digits and the zone. Source: ECMA-119, section 8.4.26.1. */
export function longTimeNs(bytes: Uint8Array): bigint | null {
  const digits = Buffer.from(bytes.subarray(0, 16)).toString('latin1')
  if (!/^\d{16}$/.test(digits)) return null
  const part = (from: number, to: number) => Number(digits.slice(from, to))
  const zone = new DataView(bytes.buffer, bytes.byteOffset).getInt8(16)
  return timeNs([part(0, 4), part(4, 6), part(6, 8), part(8, 10), part(10, 12), part(12, 14)], part(14, 16), zone)
}

type Parts = readonly [year: number, month: number, day: number, hour: number, minute: number, second: number]
const MAX_ZONE = 52 // 13 hours; the kernel's own limit

function timeNs([year, month, day, hour, minute, second]: Parts, hundredths: number, zone: number): bigint | null {
  if (month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 59) return null
  const away = Math.abs(zone) <= MAX_ZONE ? zone * 15 * 60_000 : 0
  return BigInt(Date.UTC(year, month - 1, day, hour, minute, second, hundredths * 10) - away) * 1_000_000n
}
