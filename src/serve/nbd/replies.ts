/** Replies as bytes. A request's cookie comes back as it came, as two halves. */
import { sentenceOf } from './errno.ts'
import {
  CHUNK,
  CHUNK_FLAG_DONE,
  CHUNK_HEADER_BYTES,
  DATA_CHUNK_HEADER_BYTES,
  type Errno,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './protocol.ts'

export interface Cookie {
  readonly cookieHigh: number
  readonly cookieLow: number
}

/** Bytes 0–15: magic, error, cookie. The data of a READ follows without a length of its own. */
export function putSimpleHeader(view: DataView, at: number, cookie: Cookie, errno: number): void {
  view.setUint32(at, SIMPLE_REPLY_MAGIC)
  view.setUint32(at + 4, errno)
  view.setUint32(at + 8, cookie.cookieHigh)
  view.setUint32(at + 12, cookie.cookieLow)
}

/** Bytes 0–19: magic, flags, type, cookie, length of what follows. */
function putChunkHeader(view: DataView, at: number, cookie: Cookie, type: number, bytes: number, isLast: boolean): void {
  view.setUint32(at, STRUCTURED_REPLY_MAGIC)
  view.setUint16(at + 4, isLast ? CHUNK_FLAG_DONE : 0)
  view.setUint16(at + 6, type)
  view.setUint32(at + 8, cookie.cookieHigh)
  view.setUint32(at + 12, cookie.cookieLow)
  view.setUint32(at + 16, bytes)
}

/** Bytes 0–27: the header of a chunk and the offset on the disk; `bytes` of data follow. */
export function putDataHeader(view: DataView, at: number, cookie: Cookie, offset: number, bytes: number, isLast: boolean): void {
  putChunkHeader(view, at, cookie, CHUNK.OFFSET_DATA, 8 + bytes, isLast)
  putOffset(view, at + CHUNK_HEADER_BYTES, offset)
}

export function simpleReply(cookie: Cookie, errno: number): Buffer {
  const [buffer, view] = reply(SIMPLE_REPLY_BYTES)
  putSimpleHeader(view, 0, cookie, errno)
  return buffer
}

export function dataHeader(cookie: Cookie, offset: number, bytes: number, isLast: boolean): Buffer {
  const [buffer, view] = reply(DATA_CHUNK_HEADER_BYTES)
  putDataHeader(view, 0, cookie, offset, bytes, isLast)
  return buffer
}

export function holeChunk(cookie: Cookie, offset: number, bytes: number, isLast: boolean): Buffer {
  const [buffer, view] = reply(CHUNK_HEADER_BYTES + 12)
  putChunkHeader(view, 0, cookie, CHUNK.OFFSET_HOLE, 12, isLast)
  putOffset(view, CHUNK_HEADER_BYTES, offset)
  view.setUint32(CHUNK_HEADER_BYTES + 8, bytes)
  return buffer
}

export function errorChunk(cookie: Cookie, errno: Errno): Buffer {
  const sentence = sentenceOf[errno]
  const [buffer, view] = reply(CHUNK_HEADER_BYTES + 6 + sentence.length)
  putChunkHeader(view, 0, cookie, CHUNK.ERROR, 6 + sentence.length, true)
  view.setUint32(CHUNK_HEADER_BYTES, errno)
  view.setUint16(CHUNK_HEADER_BYTES + 4, sentence.length)
  buffer.write(sentence, CHUNK_HEADER_BYTES + 6, 'latin1')
  return buffer
}

/** @param descriptors pairs of length in bytes and flags */
export function statusChunk(cookie: Cookie, contextId: number, descriptors: readonly number[]): Buffer {
  const bytes = 4 + descriptors.length * 4
  const [buffer, view] = reply(CHUNK_HEADER_BYTES + bytes)
  putChunkHeader(view, 0, cookie, CHUNK.BLOCK_STATUS, bytes, true)
  view.setUint32(CHUNK_HEADER_BYTES, contextId)
  for (let index = 0; index < descriptors.length; index += 1) {
    view.setUint32(CHUNK_HEADER_BYTES + 4 + index * 4, descriptors[index]!)
  }
  return buffer
}

function putOffset(view: DataView, at: number, offset: number): void {
  view.setUint32(at, Math.floor(offset / 2 ** 32))
  view.setUint32(at + 4, offset % 2 ** 32)
}

function reply(bytes: number): readonly [Buffer, DataView] {
  const buffer = Buffer.allocUnsafe(bytes)
  return [buffer, new DataView(buffer.buffer, buffer.byteOffset, bytes)]
}
