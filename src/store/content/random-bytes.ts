const SAMPLES = 4096
/**
 * χ² of 256 byte values over the samples: 255 on average for random bytes, beyond 340 once in a thousand chunks. On a Debian image
 * the chunks below this limit (compressed and encrypted files) hold 0.07 % of what compression saves.
 */
const LIMIT = 400
const counts = new Uint16Array(256)

/**
 * Whether bytes look random, so that compressing them would only cost time: 8 µs against 180 for zstd of 64 KiB. Measures how evenly
 * the byte values of evenly spaced samples are spread.
 */
export function looksRandom(bytes: Uint8Array): boolean {
  if (bytes.length < SAMPLES) return false
  const step = Math.floor(bytes.length / SAMPLES)
  counts.fill(0)
  for (let sample = 0, at = 0; sample < SAMPLES; sample += 1, at += step) counts[bytes[at]!]! += 1
  let squares = 0
  for (const count of counts) squares += count * count
  return (squares * 256) / SAMPLES - SAMPLES < LIMIT
}
