import { ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import { CODEC_ZSTD } from '../content/codec.ts'
import { DIGEST_BYTES, sha256 } from '../content/digests.ts'

/** Packs, byte by byte: docs/store-format.md, section "Pack". */
export const PACK_PREFIX = 'packs/'
/** A pack is sealed when the next chunk would take it beyond this; the footer comes on top. */
export const PACK_BYTES = 16 * MiB
export const HEADER_BYTES = 8
export const ENTRY_BYTES = 52
export const TRAILER_BYTES = 64
/** Bounds what is allocated for a footer, from a trailer that may be damaged: the smallest chunk takes one byte. */
export const MAX_PACK_ENTRIES = 1024 * 1024

const HEADER_MAGIC = 'IMPRpack'
const FOOTER_MAGIC = 'IMPRfoot'
const VERSION = 1

export const KIND_DATA = 0
export const KIND_PAGE = 1
export const KIND_ROOT = 2

export interface PackEntry {
  readonly digest: Uint8Array
  /** From the start of the pack. */
  readonly offset: number
  readonly storedBytes: number
  readonly plainBytes: number
  readonly crc: number
  readonly kind: number
  readonly codec: number
}

export const packKey = (id: string): string => `${PACK_PREFIX}${id.slice(0, 2)}/${id}`
export const packHeader = (): Uint8Array => new TextEncoder().encode(HEADER_MAGIC)

/** Footer and trailer of a pack whose chunks end at `footerOffset`. */
export function encodeFooter(entries: readonly PackEntry[], footerOffset: number): Uint8Array {
  const bytes = Buffer.alloc(entries.length * ENTRY_BYTES + TRAILER_BYTES)
  for (const [index, entry] of entries.entries()) {
    const at = index * ENTRY_BYTES
    bytes.set(entry.digest, at)
    bytes.writeUInt32LE(entry.offset, at + 32)
    bytes.writeUInt32LE(entry.storedBytes, at + 36)
    bytes.writeUInt32LE(entry.plainBytes, at + 40)
    bytes.writeUInt32LE(entry.crc, at + 44)
    bytes.writeUInt8(entry.kind, at + 48)
    bytes.writeUInt8(entry.codec, at + 49)
  }
  const trailer = bytes.subarray(entries.length * ENTRY_BYTES)
  trailer.write(FOOTER_MAGIC, 0, 'latin1')
  trailer.writeUInt16LE(VERSION, 8)
  trailer.writeUInt32LE(entries.length, 12)
  trailer.writeUInt32LE(footerOffset, 16)
  trailer.writeUInt32LE(footerOffset + bytes.length, 20)
  trailer.set(sha256(bytes.subarray(0, bytes.length - TRAILER_BYTES + 32)), 32)
  return bytes
}

/**
 * Where the footer lies, from the last 64 bytes of a pack.
 * @throws ServiceError `corrupt`
 */
export function parseTrailer(trailer: Uint8Array, packBytes: number): { readonly offset: number; readonly entries: number } {
  const view = Buffer.from(trailer.buffer, trailer.byteOffset, trailer.length)
  const check = makeCheck()
  check(view.length === TRAILER_BYTES && packBytes >= HEADER_BYTES + TRAILER_BYTES, 'too short')
  check(view.toString('latin1', 0, 8) === FOOTER_MAGIC, 'wrong footer magic')
  check(view.readUInt16LE(8) === VERSION, 'unknown footer version')
  const entries = view.readUInt32LE(12)
  const offset = view.readUInt32LE(16)
  check(view.readUInt32LE(20) === packBytes, 'the length in the trailer is not the length of the blob')
  check(entries <= MAX_PACK_ENTRIES, 'more footer entries than a pack can have')
  check(offset >= HEADER_BYTES && offset + entries * ENTRY_BYTES + TRAILER_BYTES === packBytes, 'the footer does not fit')
  return { offset, entries }
}

/**
 * @param bytes footer entries and trailer
 * @returns entries in the order of their offsets, which tile the pack from its header to its footer
 * @throws ServiceError `corrupt`
 */
export function parseFooter(bytes: Uint8Array, packBytes: number): PackEntry[] {
  const { offset: footerOffset, entries: count } = parseTrailer(bytes.subarray(-TRAILER_BYTES), packBytes)
  const check = makeCheck()
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  check(view.length === count * ENTRY_BYTES + TRAILER_BYTES, 'the footer is cut off')
  const body = view.subarray(0, view.length - 32)
  check(Buffer.compare(sha256(body), view.subarray(-32)) === 0, 'the footer does not match its checksum')
  let expected = HEADER_BYTES
  const entries = Array.from({ length: count }, (_, index): PackEntry => {
    const at = index * ENTRY_BYTES
    const entry = {
      digest: new Uint8Array(view.subarray(at, at + DIGEST_BYTES)),
      offset: view.readUInt32LE(at + 32),
      storedBytes: view.readUInt32LE(at + 36),
      plainBytes: view.readUInt32LE(at + 40),
      crc: view.readUInt32LE(at + 44),
      kind: view.readUInt8(at + 48),
      codec: view.readUInt8(at + 49),
    }
    check(entry.offset === expected && entry.storedBytes > 0 && entry.plainBytes > 0, 'chunks do not lie side by side')
    check(entry.kind <= KIND_ROOT && entry.codec <= CODEC_ZSTD, 'unknown kind or codec')
    expected += entry.storedBytes
    return entry
  })
  check(expected === footerOffset, 'chunks do not reach the footer')
  return entries
}

export const hasPackHeader = (bytes: Uint8Array): boolean => Buffer.from(bytes.subarray(0, 8)).toString('latin1') === HEADER_MAGIC

const makeCheck = () => (holds: boolean, problem: string) => {
  if (!holds) throw new ServiceError('corrupt', `A pack's footer is damaged: ${problem}.`)
}
