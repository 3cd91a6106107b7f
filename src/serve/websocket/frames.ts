/**
 * Frames of RFC 6455, section 5, read as a stream: the bytes of a data frame are handed on as they come, so a frame of any length
 * takes no memory. Nothing here cares where a message ends, nor whether it is called text: both ends use the connection as a
 * stream of bytes, as websockify and its clients do.
 */
const FIN = 0x80
const RESERVED = 0x70
const MASKED = 0x80
const LENGTH_IN_16 = 126
const LENGTH_IN_64 = 127
const MAX_CONTROL_BYTES = 125 // 5.5: "All control frames MUST have a payload length of 125 bytes or less"
const MASK_BYTES = 4

export const opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const
const knownOpcodes: ReadonlySet<number> = new Set(Object.values(opcode))
const isControl = (code: number): boolean => code >= opcode.close

/** Status codes of section 7.4.1. */
export const closeCode = { normal: 1000, goingAway: 1001, protocolError: 1002, none: 1005, policy: 1008 } as const

/** What breaks the protocol: the connection is failed with the code 1002. */
export class ProtocolError extends Error {}

export interface ControlFrame {
  readonly code: number
  readonly payload: Uint8Array
}

interface Frame {
  readonly code: number
  left: number
  /** Empty: not masked. */
  readonly mask: Uint8Array
  /** Bytes of the payload that were read: where in the mask the next one stands. */
  read: number
  /** Of a control frame. */
  readonly payload: Buffer | null
}

export class FrameReader {
  readonly #isMasked: boolean
  readonly #onControl: (frame: ControlFrame) => void
  #header = Buffer.alloc(0)
  #frame: Frame | null = null
  /** A message of several frames is under way; control frames may stand between them. */
  #isFragmented = false

  /** @param isMasked whether the other end is a client: 5.1, "a client MUST mask all frames", "a server MUST NOT mask any" */
  constructor(isMasked: boolean, onControl: (frame: ControlFrame) => void) {
    this.#isMasked = isMasked
    this.#onControl = onControl
  }

  /**
   * @param bytes the next of the connection; they are changed
   * @returns those of them that are data, in the same memory
   * @throws ProtocolError
   */
  read(bytes: Buffer): Buffer {
    let at = 0
    let kept = 0
    while (at < bytes.length) {
      if (!this.#frame) {
        at = this.#readHeader(bytes, at)
        continue
      }
      const piece = bytes.subarray(at, at + Math.min(this.#frame.left, bytes.length - at))
      at += piece.length
      unmask(piece, this.#frame)
      if (this.#frame.payload) piece.copy(this.#frame.payload, this.#frame.payload.length - this.#frame.left)
      else {
        bytes.copyWithin(kept, at - piece.length, at)
        kept += piece.length
      }
      this.#frame.left -= piece.length
      this.#endFrame()
    }
    return bytes.subarray(0, kept)
  }

  #readHeader(bytes: Buffer, at: number): number {
    const known = this.#header.length
    const header = Buffer.concat([this.#header, bytes.subarray(at, at + 14 - known)]) // the longest there is
    const needed = headerBytes(header)
    if (header.length < needed) {
      this.#header = header
      return at + header.length - known
    }
    this.#header = Buffer.alloc(0)
    this.#begin(header.subarray(0, needed))
    this.#endFrame()
    return at + needed - known
  }

  #begin(header: Buffer): void {
    const [first = 0, second = 0] = header
    const code = first & 0x0f
    const isFinal = (first & FIN) !== 0
    const isMasked = (second & MASKED) !== 0
    must((first & RESERVED) === 0, 'a reserved bit is set, and no extension was agreed on')
    must(knownOpcodes.has(code), `the opcode ${code} is none`)
    must(isMasked === this.#isMasked, this.#isMasked ? 'a client must mask its frames' : 'a server must not mask its frames')
    const length = lengthOf(header)
    if (isControl(code)) must(isFinal && length <= MAX_CONTROL_BYTES, 'a control frame is whole and has 125 bytes at most')
    else {
      must((code === opcode.continuation) === this.#isFragmented, 'a fragment has no beginning, or no end')
      this.#isFragmented = !isFinal
    }
    const mask = isMasked ? Buffer.from(header.subarray(header.length - MASK_BYTES)) : Buffer.alloc(0)
    this.#frame = { code, left: length, mask, read: 0, payload: isControl(code) ? Buffer.alloc(length) : null }
  }

  #endFrame(): void {
    if (!this.#frame || this.#frame.left > 0) return
    const { code, payload } = this.#frame
    this.#frame = null
    if (payload) this.#onControl({ code, payload })
  }
}

/** How long the header is, as far as its first two bytes say. */
function headerBytes(header: Buffer): number {
  if (header.length < 2) return 2
  const length = header[1]! & 0x7f
  const extended = length === LENGTH_IN_16 ? 2 : length === LENGTH_IN_64 ? 8 : 0
  return 2 + extended + (header[1]! & MASKED ? MASK_BYTES : 0)
}

/** 5.2: "the minimal number of bytes MUST be used to encode the length". */
function lengthOf(header: Buffer): number {
  const short = header[1]! & 0x7f
  if (short < LENGTH_IN_16) return short
  if (short === LENGTH_IN_16) {
    const length = header.readUInt16BE(2)
    must(length >= LENGTH_IN_16, 'a length takes more bytes than it needs')
    return length
  }
  const length = header.readBigUInt64BE(2)
  must(length > 0xffffn, 'a length takes more bytes than it needs')
  must(length <= BigInt(Number.MAX_SAFE_INTEGER), 'a frame is longer than any can be')
  return Number(length)
}

function unmask(bytes: Buffer, frame: Frame): void {
  const { mask } = frame
  if (mask.length > 0) for (let at = 0; at < bytes.length; at += 1) bytes[at]! ^= mask[(frame.read + at) & 3]!
  frame.read += bytes.length
}

/** @param mask four bytes that nobody can guess, of a client; absent: of a server */
export function encodeFrame(code: number, payload: Uint8Array, mask?: Uint8Array): Buffer {
  const extended = payload.length < LENGTH_IN_16 ? 0 : payload.length <= 0xffff ? 2 : 8
  const start = 2 + extended + (mask ? MASK_BYTES : 0)
  const frame = Buffer.alloc(start + payload.length)
  frame[0] = FIN | code
  frame[1] = (mask ? MASKED : 0) | (extended === 0 ? payload.length : extended === 2 ? LENGTH_IN_16 : LENGTH_IN_64)
  if (extended === 2) frame.writeUInt16BE(payload.length, 2)
  if (extended === 8) frame.writeBigUInt64BE(BigInt(payload.length), 2)
  frame.set(payload, start)
  if (mask) {
    frame.set(mask, start - MASK_BYTES)
    for (let at = 0; at < payload.length; at += 1) frame[start + at]! ^= mask[at & 3]!
  }
  return frame
}

/** The payload of a close frame. @param reason cut to what fits */
export function closePayload(code: number, reason: string): Buffer {
  let text = Buffer.from(reason)
  while (text.length > MAX_CONTROL_BYTES - 2) text = Buffer.from(text.toString('utf8').slice(0, -1))
  const payload = Buffer.alloc(2 + text.length)
  payload.writeUInt16BE(code)
  payload.set(text, 2)
  return payload
}

/** @throws ProtocolError */
export function readClose(payload: Uint8Array): { readonly code: number; readonly reason: string } {
  if (payload.length === 0) return { code: closeCode.none, reason: '' }
  must(payload.length >= 2, 'a close frame has half a code')
  const bytes = Buffer.from(payload)
  return { code: bytes.readUInt16BE(0), reason: bytes.toString('utf8', 2) }
}

function must(holds: boolean, problem: string): asserts holds {
  if (!holds) throw new ProtocolError(problem)
}
