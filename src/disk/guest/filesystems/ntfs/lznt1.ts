import { KiB } from '../../../../base/units.ts'
import { refuse } from './boot-sector.ts'

/** Source: Microsoft, [MS-XCA], section 2.5, "LZNT1 Algorithm Details". */
const CHUNK_BYTES = 4 * KiB
const MIN_MATCH = 3

/** What `packed` says, in `bytes` bytes; what it does not say is zeros. @throws ServiceError `invalid-image` */
export function unpackLznt1(packed: Uint8Array, bytes: number): Uint8Array {
  const output = new Uint8Array(bytes)
  const bad = (problem: string) => refuse('malformed', `compressed data: ${problem}`)
  let at = 0
  for (let chunk = 0; chunk < bytes && at + 2 <= packed.length; chunk += CHUNK_BYTES) {
    const header = packed[at]! | (packed[at + 1]! << 8)
    if (header === 0) break
    const end = at + 3 + (header & 0xfff)
    if (end > packed.length) throw bad(`a chunk that ends at ${end}, of ${packed.length} bytes`)
    const room = output.subarray(chunk, Math.min(bytes, chunk + CHUNK_BYTES))
    const input = packed.subarray(at + 2, end)
    if ((header & 0x8000) === 0) {
      if (input.length > room.length) throw bad(`a chunk of ${input.length} bytes`)
      room.set(input)
    } else unpackChunk(input, room, bad)
    at = end
  }
  return output
}

function unpackChunk(input: Uint8Array, room: Uint8Array, bad: (problem: string) => Error): void {
  let [at, to] = [0, 0]
  while (at < input.length) {
    let flags = input[at++]!
    for (let token = 0; token < 8 && at < input.length; token += 1, flags >>>= 1) {
      if ((flags & 1) === 0) {
        if (to >= room.length) throw bad('a chunk that is too long')
        room[to++] = input[at++]!
        continue
      }
      if (at + 2 > input.length) throw bad('a match that is cut off')
      const pair = input[at]! | (input[at + 1]! << 8)
      at += 2
      let shift = 12
      for (let place = to - 1; place >= 0x10; place >>>= 1) shift -= 1 // the further, the more bits for the distance
      const distance = (pair >>> shift) + 1
      const length = (pair & ((1 << shift) - 1)) + MIN_MATCH
      if (distance > to || to + length > room.length) throw bad(`a match of ${length} bytes from ${distance} before byte ${to}`)
      for (const stop = to + length; to < stop; to += 1) room[to] = room[to - distance]!
    }
  }
}
