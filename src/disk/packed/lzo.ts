/** LZO1X, as its compressors have written it since 1996. Source: Linux Documentation/staging/lzo.rst, "LZO stream format as understood by Linux's LZO decompressor". */
const AFTER_LITERALS = 4
const FAR = 2048 // of the short match that follows literals
const END_DISTANCE = 16_384
const SHORT_MATCH = 16 // instructions below it depend on what came before

/**
 * Unpacks one stream.
 * @param output  filled from its beginning
 * @returns how many bytes it has; −1 where the stream is damaged, goes on beyond `output`, or does not end
 */
export function unpackLzo(input: Uint8Array, output: Uint8Array): number {
  let [at, made, state] = [0, 0, 0]

  /** A length that did not fit its instruction: a row of zeros, of 255 each, and what is left. NaN: cut off. */
  const longLength = (base: number): number => {
    let length = base
    while (at < input.length && input[at] === 0) {
      length += 255
      at += 1
    }
    return at < input.length ? length + input[at++]! : Number.NaN
  }
  const literals = (count: number): boolean => {
    if (!(at + count <= input.length && made + count <= output.length)) return false
    for (const end = at + count; at < end; at += 1, made += 1) output[made] = input[at]!
    return true
  }
  const match = (distance: number, count: number): boolean => {
    if (!(distance <= made && made + count <= output.length)) return false
    for (const end = made + count; made < end; made += 1) output[made] = output[made - distance]! // may read what it just wrote
    return true
  }

  const first = input[0] ?? 0
  if (first > 17) {
    at = 1
    if (!literals(first - 17)) return -1
    state = Math.min(first - 17, AFTER_LITERALS)
  }
  while (at < input.length) {
    const code = input[at++]!
    if (code < SHORT_MATCH && state === 0) {
      if (!literals(3 + (code || longLength(15)))) return -1
      state = AFTER_LITERALS
      continue
    }
    let [distance, count, trailing] = [0, 0, code & 3]
    if (code >= 64 || code < SHORT_MATCH) {
      if (at >= input.length) return -1
      const high = input[at++]!
      if (code >= 64) {
        count = code >= 128 ? 5 + ((code >> 5) & 3) : 3 + ((code >> 5) & 1)
        distance = high * 8 + ((code >> 2) & 7) + 1
      } else {
        count = state === AFTER_LITERALS ? 3 : 2
        distance = high * 4 + (code >> 2) + 1 + (state === AFTER_LITERALS ? FAR : 0)
      }
    } else {
      const mask = code >= 32 ? 31 : 7
      count = 2 + (code & mask || longLength(mask))
      if (at + 2 > input.length) return -1
      const word = input[at]! + input[at + 1]! * 256
      at += 2
      trailing = word & 3
      distance = code >= 32 ? (word >> 2) + 1 : END_DISTANCE + (code & 8) * 2048 + (word >> 2)
      if (distance === END_DISTANCE && code < 32) return made
    }
    if (!match(distance, count) || !literals(trailing)) return -1
    state = trailing
  }
  return -1
}
