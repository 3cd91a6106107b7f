/**
 * Filters of xz, which make programs pack better: they stand before LZMA2, and are undone behind it. Source: "The .xz File Format" 1.2.1,
 * section 5.3; what each branch filter changes, as liblzma 5.4 does (simple/*.c), which the text does not say.
 */
export interface XzFilter {
  /** What can be given by now; it may be `piece` itself, which is never written to. */
  push(piece: Uint8Array): Uint8Array
  /** The rest. */
  end(): Uint8Array
}
/** Changes `bytes`, which begin at `position` of what is packed (32 bits without a sign). @returns how many of them are done */
type Convert = (bytes: Uint8Array, position: number) => number
interface Branch {
  readonly alignment: number
  /** With its state, for one block. */
  begin(): Convert
}

/** By id: branches of instructions, absolute when packed and relative again behind. */
export const branchFilters: Readonly<Record<number, Branch>> = {
  4: { alignment: 1, begin: beginX86 },
  5: { alignment: 4, begin: () => powerPc },
  6: { alignment: 16, begin: () => ia64 },
  7: { alignment: 4, begin: () => arm },
  8: { alignment: 2, begin: () => armThumb },
  9: { alignment: 4, begin: () => sparc },
  10: { alignment: 4, begin: () => arm64 },
}

/** @param start what the position counts from */
export function branchFilter(branch: Branch, start: number): XzFilter {
  const convert = branch.begin()
  let position = start
  let rest: Uint8Array = new Uint8Array()
  return {
    push(piece) {
      const all = new Uint8Array(rest.length + piece.length)
      all.set(rest)
      all.set(piece, rest.length)
      const done = convert(all, position)
      position = (position + done) >>> 0
      rest = all.slice(done)
      return all.subarray(0, done)
    },
    end: () => rest,
  }
}

/** Each byte is the difference to the one `distance` before. @param distance 1 to 256 */
export function deltaFilter(distance: number): XzFilter {
  const before = new Uint8Array(256)
  let at = 0
  return {
    push(piece) {
      const answer = new Uint8Array(piece.length)
      for (let index = 0; index < piece.length; index += 1) {
        const byte = (piece[index] as number) + (before[(at - distance) & 255] as number)
        answer[index] = byte
        before[at & 255] = byte
        at = (at + 1) & 255
      }
      return answer
    },
    end: () => new Uint8Array(),
  }
}

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

/** Words of four bytes. @returns what each becomes; itself where it is no branch */
const words =
  (isLittle: boolean, convert: (word: number, position: number) => number): Convert =>
  (bytes, position) => {
    const all = view(bytes)
    const end = bytes.length - (bytes.length % 4)
    for (let at = 0; at < end; at += 4) {
      const word = all.getInt32(at, isLittle)
      const now = convert(word, (position + at) | 0)
      if (now !== word) all.setInt32(at, now, isLittle)
    }
    return end
  }

const arm = words(true, (word, position) =>
  word >>> 24 === 0xeb ? 0xeb000000 | 0 | ((((word << 2) - (position + 8)) >>> 2) & 0x00ffffff) : word,
)
const powerPc = words(false, (word, position) =>
  word >>> 26 === 0x12 && (word & 3) === 1 ? 0x48000000 | (((word & 0x03fffffc) - position) & 0x03fffffc) | 1 : word,
)
const sparc = words(false, (word, position) => {
  if (word >>> 22 !== 0x100 && word >>> 22 !== 0x1ff) return word
  const target = ((word << 2) - position) >>> 2
  return ((-((target >>> 22) & 1) << 22) & 0x3fffffff) | (target & 0x3fffff) | 0x40000000
})
const arm64 = words(true, (word, position) => {
  if (word >>> 26 === 0x25) return 0x94000000 | 0 | ((word - (position >>> 2)) & 0x03ffffff) // BL
  if ((word & 0x9f000000) !== (0x90000000 | 0)) return word // ADRP
  const source = ((word >>> 29) & 3) | ((word >>> 3) & 0x001ffffc)
  if (((source + 0x00020000) & 0x001c0000) !== 0) return word
  const target = (source - (position >>> 12)) | 0
  return (word & (0x9000001f | 0)) | ((target & 3) << 29) | ((target & 0x0003fffc) << 3) | (-(target & 0x00020000) & 0x00e00000)
})

function armThumb(bytes: Uint8Array, position: number): number {
  let at = 0
  for (; at + 4 <= bytes.length; at += 2) {
    const [low, high, low2, high2] = bytes.subarray(at, at + 4) as unknown as readonly [number, number, number, number]
    if ((high & 0xf8) !== 0xf0 || (high2 & 0xf8) !== 0xf8) continue
    const source = ((high & 7) << 19) | (low << 11) | ((high2 & 7) << 8) | low2
    const target = ((source << 1) - (position + at + 4)) >>> 1
    bytes[at + 1] = 0xf0 | ((target >>> 19) & 7)
    bytes[at] = target >>> 11
    bytes[at + 3] = 0xf8 | ((target >>> 8) & 7)
    bytes[at + 2] = target
    at += 2
  }
  return at
}

/** Of each kind of bundle, which of its three instructions may be branches. */
const BUNDLES = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 6, 6, 0, 0, 7, 7, 4, 4, 0, 0, 4, 4, 0, 0]
function ia64(bytes: Uint8Array, position: number): number {
  const end = bytes.length - (bytes.length % 16)
  for (let at = 0; at < end; at += 16) {
    const mask = BUNDLES[(bytes[at] as number) & 0x1f] as number
    for (let slot = 0; slot < 3; slot += 1) {
      if (((mask >>> slot) & 1) === 0) continue
      const bit = 5 + slot * 41
      const place = Buffer.from(bytes.buffer, bytes.byteOffset + at + (bit >>> 3), 6)
      const whole = BigInt(place.readUIntLE(0, 6))
      const shift = BigInt(bit & 7)
      const instruction = whole >> shift
      if (((instruction >> 37n) & 0xfn) !== 5n || ((instruction >> 9n) & 7n) !== 0n) continue
      const source = Number(((instruction >> 13n) & 0xfffffn) | (((instruction >> 36n) & 1n) << 20n))
      const target = BigInt(((source << 4) - (position + at)) >>> 4)
      const changed = (instruction & ~(0x8fffffn << 13n)) | ((target & 0xfffffn) << 13n) | ((target & 0x100000n) << 16n)
      place.writeUIntLE(Number((whole & ((1n << shift) - 1n)) | (changed << shift)), 0, 6)
    }
  }
  return end
}

/** Of the last bytes, by which of them were E8 or E9: whether one here can be a call, and which byte of its target they would be. */
const ALLOWED = [true, true, true, false, true, false, false, false]
const BIT_NUMBERS = [0, 1, 2, 2, 3, 3, 3, 3]
const MAX_TURNS = 4 // two are enough for what was packed
const isSignByte = (byte: number): boolean => byte === 0 || byte === 0xff
function beginX86(): Convert {
  let [mask, last] = [0, -5 >>> 0]
  return (bytes, position) => {
    if (bytes.length < 5) return 0
    if ((position - last) >>> 0 > 5) last = (position - 5) >>> 0
    const all = view(bytes)
    let at = 0
    while (at <= bytes.length - 5) {
      const opcode = bytes[at] as number
      if (opcode !== 0xe8 && opcode !== 0xe9) {
        at += 1
        continue
      }
      const distance = (position + at - last) >>> 0
      last = (position + at) >>> 0
      if (distance > 5) mask = 0
      else for (let step = 0; step < distance; step += 1) mask = (mask & 0x77) << 1
      const sign = bytes[at + 4] as number
      if (!isSignByte(sign) || !ALLOWED[(mask >>> 1) & 7] || mask >>> 1 >= 16) {
        at += 1
        mask |= isSignByte(sign) ? 0x11 : 1
        continue
      }
      let source = all.getInt32(at + 1, true)
      let target = 0
      for (let turn = 0; turn < MAX_TURNS; turn += 1) {
        target = (source - (position + at + 5)) | 0
        if (mask === 0) break
        const bits = (BIT_NUMBERS[mask >>> 1] as number) * 8
        if (!isSignByte((target >>> (24 - bits)) & 0xff)) break
        source = target ^ (2 ** (32 - bits) - 1)
      }
      all.setInt32(at + 1, (target & 0x01ffffff) | -(target & 0x01000000), true)
      at += 5
      mask = 0
    }
    return at
  }
}
