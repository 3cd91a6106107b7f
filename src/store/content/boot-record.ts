import { ServiceError } from '../../base/errors.ts'
import { KiB } from '../../base/units.ts'

/**
 * In which order a machine first read the chunks of a file when it started: docs/boot-records.md, byte by byte. It is a hint. A wrong one
 * costs reads that were not needed, of the file's own chunks.
 */
export interface BootEntry {
  readonly chunk: number
  /** Milliseconds since the first read. */
  readonly afterMs: number
  /** The beginning of the chunk's digest: tells whether another file has the same chunk there. */
  readonly prefix: Uint8Array
}

export const MAX_BOOT_RECORD_BYTES = 48 * KiB
export const MAX_BOOT_ENTRIES = 8192
/** A boot takes so long at most; what is read later is the work of the machine. */
export const MAX_BOOT_MS = 120_000
export const PREFIX_BYTES = 4

const MAGIC = 'IMPRboot'
const VERSION = 1
const HEAD_BYTES = 16
const MAX_CHUNK = 2 ** 32 - 1
/** Of a varint that holds 35 bits. */
const MAX_VARINT_BYTES = 5

/** As many entries as fit, from the first on. */
export function encodeBootRecord(entries: readonly BootEntry[]): Uint8Array {
  const bytes = Buffer.alloc(MAX_BOOT_RECORD_BYTES)
  bytes.write(MAGIC, 0, 'latin1')
  bytes.writeUInt16BE(VERSION, 8)
  let [at, count, expected, ms] = [HEAD_BYTES, 0, 0, 0]
  for (const { chunk, afterMs, prefix } of entries.slice(0, MAX_BOOT_ENTRIES)) {
    if (at + 2 * MAX_VARINT_BYTES + PREFIX_BYTES > bytes.length) break
    const step = chunk - expected
    at = writeVarint(bytes, at, step < 0 ? -2 * step - 1 : 2 * step)
    at = writeVarint(bytes, at, Math.max(0, Math.round(afterMs) - ms))
    ms = Math.max(ms, Math.round(afterMs))
    bytes.set(prefix, at)
    at += PREFIX_BYTES
    expected = chunk + 1
    count += 1
  }
  bytes.writeUInt32BE(count, 12)
  return bytes.subarray(0, at)
}

/** @throws ServiceError `invalid-request` at the first thing that is not as it should be */
export function decodeBootRecord(record: Uint8Array): readonly BootEntry[] {
  const bytes = Buffer.from(record.buffer, record.byteOffset, record.length)
  const isRecord = bytes.length >= HEAD_BYTES && bytes.length <= MAX_BOOT_RECORD_BYTES && bytes.toString('latin1', 0, 8) === MAGIC
  if (!isRecord || bytes.readUInt16BE(8) !== VERSION) throw wrong('it does not begin as one, or is too long')
  const count = bytes.readUInt32BE(12)
  if (count > MAX_BOOT_ENTRIES) throw wrong(`it has ${count} entries; ${MAX_BOOT_ENTRIES} are allowed`)
  const entries: BootEntry[] = []
  const seen = new Set<number>()
  let [at, expected, afterMs] = [HEAD_BYTES, 0, 0]
  const varint = (): number => {
    let [value, scale] = [0, 1]
    for (let length = 1; length <= MAX_VARINT_BYTES && at < bytes.length; length += 1) {
      const byte = bytes[at]!
      at += 1
      value += (byte & 127) * scale
      if (byte < 128) return value
      scale *= 128
    }
    throw wrong('a number in it does not end')
  }
  for (let entry = 0; entry < count; entry += 1) {
    const step = varint()
    const chunk = expected + (step % 2 === 0 ? step / 2 : -(step + 1) / 2)
    afterMs += varint()
    const prefix = bytes.subarray(at, at + PREFIX_BYTES)
    at += PREFIX_BYTES
    if (chunk < 0 || chunk > MAX_CHUNK || seen.has(chunk))
      throw wrong(`entry ${entry} names chunk ${chunk}, again or beyond any file`)
    if (prefix.length < PREFIX_BYTES || afterMs > MAX_BOOT_MS)
      throw wrong(`entry ${entry} is cut off, or later than a boot may take`)
    seen.add(chunk)
    entries.push({ chunk, afterMs, prefix })
    expected = chunk + 1
  }
  if (at !== bytes.length) throw wrong('it goes on behind its last entry')
  return entries
}

function writeVarint(bytes: Buffer, at: number, value: number): number {
  let [left, to] = [value, at]
  for (; left >= 128; left = Math.floor(left / 128)) {
    bytes[to] = (left % 128) + 128
    to += 1
  }
  bytes[to] = left
  return to + 1
}

/** Of the chunks that a copy reads, so many come about where their order on the disk would have them … */
const COPY_SHARE = 0.95
/** … as exactly as this share of all, since copies have many requests under way. A start goes to and fro. */
const COPY_JITTER = 1 / 8
const LEAST_ENTRIES = 4

/** Whether it looks like the start of a machine: not like a copy, which is read ahead of by itself, nor like a glance at the first sectors. */
export function looksLikeBoot(chunks: readonly number[]): boolean {
  const places = new Map(chunks.toSorted((one, other) => one - other).map((chunk, place) => [chunk, place]))
  const jitter = Math.max(1, COPY_JITTER * chunks.length)
  const inOrder = chunks.filter((chunk, index) => Math.abs(places.get(chunk)! - index) <= jitter).length
  return chunks.length >= LEAST_ENTRIES && inOrder < COPY_SHARE * chunks.length
}

const wrong = (what: string): ServiceError =>
  new ServiceError('invalid-request', `this is no boot record: ${what}; docs/boot-records.md has the form`)
