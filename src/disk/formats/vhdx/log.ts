import { crc32c } from '../../../base/crc32c.ts'
import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checksumOf, MAX_FILE_BYTES, REGION_TABLE_OFFSETS, refuse, type VhdxHeader } from './header.ts'
import { Overlay } from './overlay.ts'

/**
 * The log: updates of metadata that were promised and perhaps not made. They are made here in memory, and the file stays as it is.
 * Source: [MS-VHDX], section 2.3.
 */
const SECTOR_BYTES = 4 * KiB
const ENTRY_HEADER_BYTES = 64
const DESCRIPTOR_BYTES = 32
const DESCRIPTORS_PER_SECTOR = SECTOR_BYTES / DESCRIPTOR_BYTES
/** Hyper-V and QEMU make logs of 1 MiB. All of it is held in memory while it is read, and what it writes for as long as the disk is open. */
const MAX_LOG_BYTES = 16 * MiB
/** What is checked of entries, in logs: those that were written one after another do not overlap, but a torn one may lie over older ones. */
const MAX_CHECKED_LOGS = 4
/** Of one replay. A log of 16 MiB holds 4,095 data descriptors at most; zero descriptors take 32 bytes each and could be far more. */
const MAX_DESCRIPTORS = 16_384

const ENTRY_SIGNATURE = 0x65676f6c // "loge"
const ZERO_SIGNATURE = 0x6f72657a // "zero"
const DATA_SIGNATURE = 0x63736564 // "desc"
const SECTOR_SIGNATURE = 0x61746164 // "data"

/** An entry whose every field and checksum is right. Sections 2.3.1.1 to 2.3.1.4. */
interface Entry {
  /** Where it begins, and how many it has, in sectors of the log. */
  readonly start: number
  readonly sectors: number
  /** Where the oldest entry begins that is still to be made. */
  readonly tail: number
  readonly sequence: bigint
  readonly descriptors: number
  readonly flushedFileOffset: bigint
  readonly lastFileOffset: bigint
}

/** By which a log may make the file longer: what is not in the file and not in the log is zeros, and would be taken for data. */
const MAX_GROWTH_BYTES = 1024 * MiB

/**
 * The file as it is once its log is replayed: `file` itself where the log is empty. The answer closes it.
 * @throws ServiceError `invalid-image` where the log has no valid sequence, or one that writes where it must not
 */
export async function replayed(file: BlockSource, header: VhdxHeader): Promise<BlockSource> {
  const { logGuid, log } = header
  if (!logGuid) return file
  if (log.bytes > MAX_LOG_BYTES) {
    throw refuse('too-large', `the log to be replayed has ${log.bytes} bytes; at most ${MAX_LOG_BYTES}`, { logBytes: log.bytes })
  }
  const reader = new LogReader(await file.read(log.offset, log.bytes), logGuid)
  const sequence = reader.activeSequence()
  const head = sequence.at(-1)
  if (!head) throw refuse('malformed', 'the header says that the log is not empty, but no sequence of entries in it is whole')
  if (head.flushedFileOffset > BigInt(file.size)) {
    throw refuse(
      'truncated',
      `the file had ${head.flushedFileOffset} bytes (FlushedFileOffset) when its log was written, and has ${file.size}; is the upload complete?`,
      { fileBytes: file.size },
    )
  }
  const lastFileOffset = limited(head.lastFileOffset, 'LastFileOffset')
  if (lastFileOffset > file.size + MAX_GROWTH_BYTES) {
    throw refuse(
      'truncated',
      `the log says that the file has ${lastFileOffset} bytes (LastFileOffset), ${MAX_GROWTH_BYTES} more than it has, at least; is the upload complete?`,
      { fileBytes: file.size },
    )
  }
  const overlay = new Overlay(Math.max(file.size, lastFileOffset))
  let descriptors = 0
  for (const entry of sequence) {
    descriptors += entry.descriptors
    if (descriptors > MAX_DESCRIPTORS) {
      throw refuse('too-large', `the log has more than ${MAX_DESCRIPTORS} descriptors to be replayed`, { descriptors })
    }
    for (const update of reader.updates(entry)) {
      const end = update.offset + update.length
      const isInLog = update.offset < log.offset + log.bytes && end > log.offset
      if (update.offset < REGION_TABLE_OFFSETS[0] || isInLog) {
        throw refuse('malformed', `a descriptor of the log writes at byte ${update.offset}, over the headers or the log itself`, {
          fileOffset: update.offset,
        })
      }
      overlay.write(update)
    }
  }
  return overlay.over(file)
}

function limited(value: bigint, field: string): number {
  if (value <= BigInt(MAX_FILE_BYTES)) return Number(value)
  throw refuse('malformed', `the log has a ${field} of ${value}; a file has at most ${MAX_FILE_BYTES} bytes`)
}

class LogReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #guid: Uint8Array
  readonly #sectors: number
  /** By the sector where they begin; null: there is none that is valid. */
  readonly #entries = new Map<number, Entry | null>()
  #checkedSectors = 0

  constructor(bytes: Uint8Array, guid: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#guid = guid
    this.#sectors = bytes.length / SECTOR_BYTES
  }

  /** Section 2.3.3, steps 1 to 7; the entries from tail to head of the newest sequence, or none. */
  activeSequence(): readonly Entry[] {
    let active: readonly Entry[] = []
    /** A sequence whose head does not point into it has no part that ends in that head and is valid: it is not walked again. */
    const invalid = new Set<number>()
    for (let tail = 0; ; ) {
      const found = invalid.has(tail) ? [] : this.#sequenceAt(tail)
      const head = found.at(-1)
      const from = head ? found.findIndex((entry) => entry.start === head.tail) : -1
      if (head && from >= 0) {
        if (head.sequence > (active.at(-1)?.sequence ?? 0n)) active = found.slice(from)
      }
      if (from < 0) for (const { start } of found) invalid.add(start)
      const next = head && from >= 0 ? head.start + head.sectors : tail + 1
      if (next >= this.#sectors || next <= tail) return active // wrapped: all of the log was looked at
      tail = next
    }
  }

  /** Step 3: entries that follow one another, in place and in number. */
  #sequenceAt(start: number): readonly Entry[] {
    const entries: Entry[] = []
    for (let at = start; ; ) {
      const entry = this.#entryAt(at)
      const last = entries.at(-1)
      if (!entry || (last && entry.sequence !== last.sequence + 1n)) return entries
      entries.push(entry)
      at = (entry.start + entry.sectors) % this.#sectors
    }
  }

  #entryAt(start: number): Entry | null {
    const known = this.#entries.get(start)
    if (known !== undefined) return known
    const entry = this.#validEntry(start)
    this.#entries.set(start, entry)
    return entry
  }

  #validEntry(start: number): Entry | null {
    const view = this.#view
    const at = start * SECTOR_BYTES
    if (view.getUint32(at, true) !== ENTRY_SIGNATURE) return null
    if (Buffer.compare(this.#bytes.subarray(at + 32, at + 48), this.#guid) !== 0) return null
    const entryBytes = view.getUint32(at + 8, true)
    const tailBytes = view.getUint32(at + 12, true)
    const sequence = view.getBigUint64(at + 16, true)
    const descriptors = view.getUint32(at + 24, true)
    const sectors = entryBytes / SECTOR_BYTES
    const descriptorSectors = Math.ceil((ENTRY_HEADER_BYTES + descriptors * DESCRIPTOR_BYTES) / SECTOR_BYTES)
    const isPlausible =
      entryBytes % SECTOR_BYTES === 0 &&
      sectors <= this.#sectors &&
      descriptorSectors <= sectors &&
      tailBytes % SECTOR_BYTES === 0 &&
      tailBytes < this.#bytes.length &&
      sequence > 0n
    if (!isPlausible) return null

    this.#checkedSectors += sectors
    if (this.#checkedSectors > MAX_CHECKED_LOGS * this.#sectors) {
      throw refuse(
        'malformed',
        `entries of the log overlap one another; they add up to more than ${MAX_CHECKED_LOGS} times its length`,
      )
    }
    if (!this.#areDescriptorsValid(start, sectors, descriptorSectors, descriptors, sequence)) return null
    if (this.#checksum(start, sectors) !== view.getUint32(at + 4, true)) return null
    return {
      start,
      sectors,
      tail: tailBytes / SECTOR_BYTES,
      sequence,
      descriptors,
      flushedFileOffset: view.getBigUint64(at + 48, true),
      lastFileOffset: view.getBigUint64(at + 56, true),
    }
  }

  #areDescriptorsValid(start: number, sectors: number, first: number, descriptors: number, sequence: bigint): boolean {
    const view = this.#view
    let dataSector = first
    for (let index = 0; index < descriptors; index += 1) {
      const at = this.#descriptorAt(start, index)
      const signature = view.getUint32(at, true)
      const isAligned = view.getUint16(at + 16, true) % SECTOR_BYTES === 0
      if (!isAligned || view.getBigUint64(at + 24, true) !== sequence) return false
      if (signature === ZERO_SIGNATURE) {
        if (view.getUint16(at + 8, true) % SECTOR_BYTES !== 0) return false
        continue
      }
      if (signature !== DATA_SIGNATURE || dataSector >= sectors) return false
      const data = this.#sectorAt(start + dataSector)
      const written = (BigInt(view.getUint32(data + 4, true)) << 32n) | BigInt(view.getUint32(data + 4092, true))
      if (view.getUint32(data, true) !== SECTOR_SIGNATURE || written !== sequence) return false
      dataSector += 1
    }
    return dataSector === sectors
  }

  #checksum(start: number, sectors: number): number {
    const wrapped = start + sectors - this.#sectors
    const head = this.#bytes.subarray(start * SECTOR_BYTES, (start + sectors) * SECTOR_BYTES)
    const rest = this.#bytes.subarray(0, Math.max(0, wrapped) * SECTOR_BYTES)
    return crc32c(rest, checksumOf(head))
  }

  /** What an entry writes, in order. Data are copies. @throws ServiceError for an offset that no file has */
  *updates(entry: Entry): Generator<{ readonly offset: number; readonly length: number; readonly bytes?: Uint8Array }> {
    const view = this.#view
    let dataSector = Math.ceil((ENTRY_HEADER_BYTES + entry.descriptors * DESCRIPTOR_BYTES) / SECTOR_BYTES)
    for (let index = 0; index < entry.descriptors; index += 1) {
      const at = this.#descriptorAt(entry.start, index)
      const fileOffset = view.getBigUint64(at + 16, true)
      if (view.getUint32(at, true) === ZERO_SIGNATURE) {
        const length = view.getBigUint64(at + 8, true)
        limited(fileOffset + length, 'FileOffset')
        yield { offset: Number(fileOffset), length: Number(length) }
        continue
      }
      limited(fileOffset + BigInt(SECTOR_BYTES), 'FileOffset')
      const data = this.#sectorAt(entry.start + dataSector)
      const bytes = Uint8Array.from(this.#bytes.subarray(data, data + SECTOR_BYTES)) // `slice` of a Buffer would be no copy
      bytes.set(this.#bytes.subarray(at + 8, at + 16), 0) // LeadingBytes
      bytes.set(this.#bytes.subarray(at + 4, at + 8), SECTOR_BYTES - 4) // TrailingBytes
      dataSector += 1
      yield { offset: Number(fileOffset), length: SECTOR_BYTES, bytes }
    }
  }

  /** Bytes from the start of the log to a sector, or to a descriptor of the entry that begins at one. */
  #sectorAt(sector: number): number {
    return (sector % this.#sectors) * SECTOR_BYTES
  }
  #descriptorAt(start: number, index: number): number {
    const place = index + ENTRY_HEADER_BYTES / DESCRIPTOR_BYTES
    const sector = start + Math.floor(place / DESCRIPTORS_PER_SECTOR)
    return this.#sectorAt(sector) + (place % DESCRIPTORS_PER_SECTOR) * DESCRIPTOR_BYTES
  }
}
