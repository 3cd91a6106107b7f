import { crc32c } from '../../../../base/crc32c.ts'
import { struct, u32be, u32le } from '../../../../base/struct.ts'
import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { offsetOf, refuse, type Superblock, viewOf } from './superblock.ts'

/** The log: a ring of sectors of 512 bytes, each stamped with how often it was gone round. Source: "XFS Algorithms & Data Structures", "Journaling Log"; Linux fs/xfs/libxfs/xfs_log_format.h. */
const header = struct('XFS log record', {
  magic: u32be(0),
  cycle: u32be(4),
  version: u32be(8),
  bytes: u32be(12), // of what follows the header
  tailCycle: u32be(24),
  tailSector: u32be(28),
  checksum: u32le(32),
  operations: u32be(40),
  format: u32be(300), // of the machine that wrote it
  bufferBytes: u32be(320), // in version 2
})
export const SECTOR_BYTES = 512
const MAGIC = 0xfeedbabe
const CYCLES_AT = 44
const CYCLES_PER_HEADER = 64
const HEADER_SPAN_BYTES = CYCLES_PER_HEADER * SECTOR_BYTES
const CHECKSUM_AT = 32
const [HEADER_CHECKED_BYTES, OLD_HEADER_CHECKED_BYTES] = [328, 324] // 32-bit x86 leaves a padding out
const MORE_CHECKED_BYTES = 260
const MAX_RECORD_BYTES = 256 * KiB
const MAX_RECORD_SECTORS = MAX_RECORD_BYTES / SECTOR_BYTES + 8 // its headers
/** Writes that can be on their way at a time, and so can be missing. */
const MAX_IN_FLIGHT = 8
const SCANNED_SECTORS = (MAX_IN_FLIGHT * MAX_RECORD_BYTES) / SECTOR_BYTES
const UNMOUNT_FLAG = 0x20
const FORMAT_LITTLE_ENDIAN = 1
const MAX_LOG_BYTES = 2 ** 31 // XFS_MAX_LOG_BYTES

export interface LogRecord {
  /** In the log, as `sectors`, which counts its headers. */
  readonly sector: number
  readonly sectors: number
  readonly header: ReturnType<typeof header.parse>
}

/** What lies between the tail of a log and its head: all that is not known to be on disk otherwise. */
export interface LogState {
  readonly isClean: boolean
  readonly tail: number
  readonly head: number
}

const bad = (problem: string) => refuse('malformed', `the log: ${problem}`)

export class Log {
  readonly #volume: BlockSource
  readonly #offset: number
  readonly sectors: number

  constructor(volume: BlockSource, superblock: Superblock) {
    const { raw, blockBytes, logStart } = superblock
    if (raw.logBlocks * blockBytes > MAX_LOG_BYTES || raw.logBlocks === 0) throw bad(`sb_logblocks is ${raw.logBlocks}`)
    this.#volume = volume
    this.#offset = offsetOf(superblock, volume, logStart, raw.logBlocks, 'the log')
    this.sectors = (raw.logBlocks * blockBytes) / SECTOR_BYTES
  }

  /** @throws ServiceError `invalid-image` where its end cannot be found */
  async state(): Promise<LogState> {
    const found = await this.#firstOfLastCycle()
    if (!found) return { isClean: true, tail: 0, head: 0 }
    const quick = await this.#recordBefore(found.head)
    if (quick && (await this.#isUnmount(quick, found.head))) return { isClean: true, tail: found.head, head: found.head }
    let head = await this.#withoutHoles(found.head, found.stopAt)
    let last = await this.#recordBefore(head)
    if (!last) throw bad('no record before its head')
    if (this.#end(last) !== head % this.sectors) head = last.sector
    const whole = await this.#wholeBefore(head)
    ;[head, last] = [whole.head, whole.last]
    const isClean = await this.#isUnmount(last, head)
    const tail = last.header.tailSector
    if (tail >= this.sectors) throw bad(`h_tail_lsn is ${last.header.tailCycle}, ${tail}`)
    return { isClean, tail: isClean ? head : tail, head: head % this.sectors }
  }

  /** The record at a sector. @throws ServiceError `invalid-image` where there is none */
  async record(sector: number): Promise<LogRecord> {
    const raw = header.parse(await this.#read(sector, 1))
    if (raw.magic !== MAGIC) throw bad(`no record at its sector ${sector}`)
    if (raw.version === 0 || raw.version > 3) throw bad(`h_version is ${raw.version}`)
    if (raw.bytes > MAX_RECORD_BYTES || raw.bufferBytes > MAX_RECORD_BYTES)
      throw bad(`h_len is ${raw.bytes}, and h_size ${raw.bufferBytes}`)
    const headers = raw.version >= 2 ? Math.max(1, Math.ceil(raw.bufferBytes / HEADER_SPAN_BYTES)) : 1
    return { sector, sectors: headers + Math.ceil(raw.bytes / SECTOR_BYTES), header: raw }
  }

  /**
   * What a record holds, with the bytes that the stamps of cycles are in the place of.
   * @throws ServiceError `invalid-image` where its checksum is another
   */
  async contents({ sector, sectors, header: raw }: LogRecord): Promise<Uint8Array> {
    if (raw.format !== FORMAT_LITTLE_ENDIAN) throw refuse('unknown-feature', `the log: h_fmt is ${raw.format}`)
    const input = new Uint8Array(await this.#read(sector, sectors)) // a copy: what is read is others' too
    if (!this.#isWhole(input, sectors, raw)) throw bad(`the record at its sector ${sector} has another checksum`)
    const headers = sectors - Math.ceil(raw.bytes / SECTOR_BYTES)
    const view = viewOf(input)
    const data = input.subarray(headers * SECTOR_BYTES)
    const dataView = viewOf(data)
    for (let index = 0; index * SECTOR_BYTES < data.length; index += 1) {
      const which = Math.floor(index / CYCLES_PER_HEADER)
      if (which >= headers) throw bad(`the record at its sector ${sector} has ${headers} headers for ${raw.bytes} bytes`)
      const at = (which === 0 ? CYCLES_AT : which * SECTOR_BYTES + 4) + (index % CYCLES_PER_HEADER) * 4
      dataView.setUint32(index * SECTOR_BYTES, view.getUint32(at))
    }
    return data.subarray(0, raw.bytes)
  }

  #isWhole(input: Uint8Array, sectors: number, raw: LogRecord['header']): boolean {
    if (raw.checksum === 0) return true // as mkfs.xfs writes it, and old kernels
    const headers = sectors - Math.ceil(raw.bytes / SECTOR_BYTES)
    const data = input.subarray(headers * SECTOR_BYTES, headers * SECTOR_BYTES + raw.bytes)
    const zeroed = new Uint8Array(input.subarray(0, HEADER_CHECKED_BYTES)).fill(0, CHECKSUM_AT, CHECKSUM_AT + 4)
    const used = Math.ceil(raw.bytes / HEADER_SPAN_BYTES) // all that there are, to older kernels
    return [used, headers].some((count) =>
      [HEADER_CHECKED_BYTES, OLD_HEADER_CHECKED_BYTES].some((bytes) => {
        let sum = crc32c(zeroed.subarray(0, bytes))
        for (let index = 1; index < count; index += 1) {
          sum = crc32c(input.subarray(index * SECTOR_BYTES, index * SECTOR_BYTES + MORE_CHECKED_BYTES), sum)
        }
        return crc32c(data, sum) === raw.checksum
      }),
    )
  }

  /** By bisection: where the next write would be if all that were on their way arrived. Undefined: nothing was ever written. */
  async #firstOfLastCycle(): Promise<{ head: number; stopAt: number } | undefined> {
    const [first, last] = [await this.#cycle(0), await this.#cycle(this.sectors - 1)]
    if (first === 0) return undefined
    if (last === 0 && first !== 1) throw bad(`its cycles are ${first} and ${last}`)
    if (first === last) return { head: this.sectors, stopAt: last - 1 }
    let [low, high] = [0, this.sectors - 1]
    while (low + 1 < high) {
      const middle = (low + high) >>> 1
      if ((await this.#cycle(middle)) === last) high = middle
      else low = middle
    }
    return { head: high, stopAt: last }
  }

  /** Writes arrive in any order: the head is at the first that is missing. */
  async #withoutHoles(head: number, stopAt: number): Promise<number> {
    const before = Math.min(head, SCANNED_SECTORS)
    const around = SCANNED_SECTORS - before
    if (around > 0 && stopAt > 0 && around <= this.sectors) {
      const hole = await this.#firstWith(stopAt - 1, this.sectors - around, this.sectors)
      if (hole !== undefined) return hole
    }
    return (await this.#firstWith(stopAt, head - before, head)) ?? head
  }

  async #firstWith(cycle: number, from: number, to: number): Promise<number | undefined> {
    for (let sector = from; sector < to; sector += 1) if ((await this.#cycle(sector)) === cycle) return sector
    return undefined
  }

  /** Of the last records some may be torn: the head is at the first of these. */
  async #wholeBefore(from: number): Promise<{ head: number; last: LogRecord }> {
    const records: LogRecord[] = []
    let head = from
    for (let at = from; records.length <= MAX_IN_FLIGHT; ) {
      const record = await this.#recordBefore(at)
      if (!record || this.#end(record) !== at % this.sectors) break
      records.unshift(record)
      at = record.sector
    }
    for (const [index, record] of records.entries()) {
      if (this.#isWhole(await this.#read(record.sector, record.sectors), record.sectors, record.header)) continue
      if (index === 0) throw bad('none of its last records is whole')
      head = record.sector
      return { head, last: records[index - 1]! }
    }
    const last = records.at(-1)
    if (!last) throw bad('no whole record before its head')
    return { head, last }
  }

  async #recordBefore(head: number): Promise<LogRecord | undefined> {
    for (let back = 1; back <= Math.min(MAX_RECORD_SECTORS, this.sectors); back += 1) {
      const sector = (head - back + this.sectors) % this.sectors
      if (viewOf(await this.#read(sector, 1)).getUint32(0) === MAGIC) return this.record(sector)
    }
    return undefined
  }

  /** A record that says that the file system was unmounted, and that nothing follows. */
  async #isUnmount(record: LogRecord, head: number): Promise<boolean> {
    if (record.header.operations !== 1 || this.#end(record) !== head % this.sectors) return false
    const dataAt = record.sector + record.sectors - Math.ceil(record.header.bytes / SECTOR_BYTES)
    return ((await this.#read(dataAt % this.sectors, 1))[9]! & UNMOUNT_FLAG) !== 0
  }

  #end(record: LogRecord): number {
    return (record.sector + record.sectors) % this.sectors
  }

  async #cycle(sector: number): Promise<number> {
    const view = viewOf(await this.#read(sector, 1))
    return view.getUint32(0) === MAGIC ? view.getUint32(4) : view.getUint32(0)
  }

  /** Goes on at the beginning where the log ends. */
  async #read(sector: number, count: number): Promise<Uint8Array> {
    const at = (from: number, many: number) => this.#volume.read(this.#offset + from * SECTOR_BYTES, many * SECTOR_BYTES)
    if (count > this.sectors) throw bad(`a record of ${count} sectors, of ${this.sectors}`)
    const straight = Math.min(count, this.sectors - sector)
    return straight === count ? at(sector, count) : Buffer.concat([await at(sector, straight), await at(0, count - straight)])
  }
}
