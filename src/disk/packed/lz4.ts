/** LZ4, one block without a frame. Source: "LZ4 Block Format Description", 2022. */
const MIN_MATCH = 4
const LONG = 15

/**
 * Unpacks one block.
 * @param output  filled from its beginning
 * @returns how many bytes it has; −1 where the block is damaged or goes on beyond `output`
 */
export function unpackLz4(input: Uint8Array, output: Uint8Array): number {
  let [at, made] = [0, 0]
  /** NaN: cut off. */
  const length = (first: number): number => {
    if (first < LONG) return first
    for (let sum = first; at < input.length; ) {
      const more = input[at++]!
      sum += more
      if (more !== 255) return sum
    }
    return Number.NaN
  }
  while (at < input.length) {
    const token = input[at++]!
    const literals = length(token >>> 4)
    if (!(at + literals <= input.length && made + literals <= output.length)) return -1
    output.set(input.subarray(at, at + literals), made)
    at += literals
    made += literals
    if (at === input.length) return made // the last has no match
    if (at + 2 > input.length) return -1
    const distance = input[at]! + input[at + 1]! * 256
    at += 2
    const end = made + MIN_MATCH + length(token & LONG)
    if (!(distance > 0 && distance <= made && end <= output.length)) return -1
    for (; made < end; made += 1) output[made] = output[made - distance]! // may read what it just wrote
  }
  return -1
}
