import { CODEC_PLAIN, CODEC_ZSTD } from '../../store/content/codec.ts'
import { DIGEST_BYTES } from '../../store/content/digests.ts'

/**
 * Which chunks a segment holds: docs/chunk-cache-format.md. An entry is believed in nothing but where to look: what lies there is
 * verified by the digest, so an entry that was torn or flipped names nothing, or bytes that are refused.
 */
export const INDEX_ENTRY_BYTES = 44
const OFFSET_AT = DIGEST_BYTES
const LENGTH_AT = DIGEST_BYTES + 4
const CODEC_AT = DIGEST_BYTES + 8

export interface IndexEntry {
  /** The digest, as `keyOf` has it. */
  readonly key: string
  /** Of the stored bytes, in the segment. */
  readonly offset: number
  readonly storedBytes: number
  readonly codec: number
}

export function encodeEntries(entries: readonly IndexEntry[]): Uint8Array {
  const bytes = Buffer.alloc(entries.length * INDEX_ENTRY_BYTES)
  for (const [index, { key, offset, storedBytes, codec }] of entries.entries()) {
    const at = index * INDEX_ENTRY_BYTES
    bytes.write(key, at, 'latin1')
    bytes.writeUInt32BE(offset, at + OFFSET_AT)
    bytes.writeUInt32BE(storedBytes, at + LENGTH_AT)
    bytes.writeUInt8(codec, at + CODEC_AT)
  }
  return bytes
}

/** Whole entries that can be; what follows the last whole one was being written when its writer ended, or still is. */
export function* decodeEntries(bytes: Uint8Array, maxStoredBytes: number): Generator<IndexEntry> {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  for (let at = 0; at + INDEX_ENTRY_BYTES <= view.length; at += INDEX_ENTRY_BYTES) {
    const storedBytes = view.readUInt32BE(at + LENGTH_AT)
    const codec = view.readUInt8(at + CODEC_AT)
    if (storedBytes < 1 || storedBytes > maxStoredBytes || (codec !== CODEC_PLAIN && codec !== CODEC_ZSTD)) continue
    yield { key: view.toString('latin1', at, at + DIGEST_BYTES), offset: view.readUInt32BE(at + OFFSET_AT), storedBytes, codec }
  }
}
