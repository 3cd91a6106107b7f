import { nameOfUnits } from '../file-name.ts'
import type { FileNode } from '../file-system.ts'
import { refuse } from './boot-region.ts'
import type { Allocation } from './clusters.ts'

/** Entries of a directory. Source: "exFAT file system specification", sections 6 and 7. */
export const ENTRY_BYTES = 32
export const ENTRY = { end: 0x00, bitmap: 0x81, capitals: 0x82, label: 0x83, file: 0x85, stream: 0xc0, name: 0xc1 } as const
const IN_USE = 0x80
const SECONDARY = 0x40
const BENIGN = 0x20
const MIN_SECONDARY = 2 // a stream and a name
const MAX_SECONDARY = 18
const NAME_UNITS = 15
const FLAG = { contiguous: 2 } as const
const ATTRIBUTE = { readOnly: 0x01, directory: 0x10 } as const
const MODE = { all: 0o755, readOnly: 0o555 } as const // as a mount with umask 022
const MAX_LABEL_UNITS = 11

const viewOf = (input: Uint8Array): DataView => new DataView(input.buffer, input.byteOffset, input.byteLength)
const type = (entry: Uint8Array): number => entry[0]!

/** An entry of a directory with those that belong to it, and where the first one is. */
export interface EntrySet {
  readonly offset: number
  readonly bytes: Uint8Array
}

/** Puts the entries of a directory together as they come. */
export class EntryReader {
  hasEnded = false
  #offset = 0
  #left = 0
  #parts: Uint8Array[] = []
  /** What cannot be shown; the rest can. */
  damage: Error | undefined;

  /** Sets that are whole, and primary entries that stand alone. @param offset of the block on the volume */
  *setsIn(block: Uint8Array, offset: number): Generator<EntrySet> {
    for (let at = 0; at + ENTRY_BYTES <= block.length; at += ENTRY_BYTES) {
      const entry = block.subarray(at, at + ENTRY_BYTES)
      const here = offset + at
      const isSecondary = (type(entry) & (IN_USE | SECONDARY)) === (IN_USE | SECONDARY)
      if (this.#left > 0 && !isSecondary) {
        this.#bad(this.#offset, 'a file without all of its entries')
        this.#left = 0
      }
      if (type(entry) === ENTRY.end) {
        this.hasEnded = true
        return
      }
      if ((type(entry) & IN_USE) === 0) continue
      if (isSecondary) {
        if (this.#left === 0) continue // of what is not known, or was damaged
        this.#parts.push(entry)
        this.#left -= 1
        if (this.#left === 0) yield { offset: this.#offset, bytes: Buffer.concat(this.#parts) }
        continue
      }
      if (type(entry) === ENTRY.file) {
        const count = entry[1]!
        if (count < MIN_SECONDARY || count > MAX_SECONDARY) this.#bad(here, `a file with ${count} secondary entries`)
        else {
          this.#left = count
          this.#offset = here
          this.#parts = [entry]
        }
      } else if (type(entry) === ENTRY.bitmap || type(entry) === ENTRY.capitals || type(entry) === ENTRY.label) {
        yield { offset: here, bytes: entry }
      } else if ((type(entry) & BENIGN) === 0) {
        this.damage ??= refuse('unknown-feature', `an entry of type 0x${type(entry).toString(16)}`, { offset: here })
      }
    }
  }

  #bad(offset: number, problem: string): void {
    this.damage ??= refuse('malformed', problem, { offset })
  }
}

/** What a set says of its file. */
export interface FileEntry extends Allocation {
  readonly name: string
  readonly units: Uint16Array
  readonly isDirectory: boolean
  readonly isReadOnly: boolean
  readonly bytes: number
  readonly modifiedNs: bigint | null
}

/** @throws ServiceError `invalid-image` where it is none, or its checksum is another */
export function parseFile({ bytes, offset }: EntrySet): FileEntry {
  const bad = (problem: string) => refuse('malformed', `an entry of a directory: ${problem}`, { offset })
  const view = viewOf(bytes)
  if (type(bytes) !== ENTRY.file || bytes.length < (1 + MIN_SECONDARY) * ENTRY_BYTES) throw bad('there is no file')
  if (setChecksumOf(bytes) !== view.getUint16(2, true)) throw bad('its checksum is another')
  if (bytes[ENTRY_BYTES] !== ENTRY.stream) throw bad(`a file whose second entry is of type 0x${bytes[ENTRY_BYTES]!.toString(16)}`)
  const units = new Uint16Array(bytes[ENTRY_BYTES + 3]!)
  const entries = Math.ceil(units.length / NAME_UNITS)
  for (let index = 0; index < entries; index += 1) {
    const at = (2 + index) * ENTRY_BYTES
    if (at >= bytes.length || bytes[at] !== ENTRY.name) throw bad(`a name of ${units.length} units, without entry ${index} of it`)
    for (let unit = 0; unit < NAME_UNITS && index * NAME_UNITS + unit < units.length; unit += 1) {
      units[index * NAME_UNITS + unit] = view.getUint16(at + 2 + unit * 2, true)
    }
  }
  for (let at = (2 + entries) * ENTRY_BYTES; at < bytes.length; at += ENTRY_BYTES) {
    if ((bytes[at]! & BENIGN) === 0) throw refuse('unknown-feature', `an entry of type 0x${bytes[at]!.toString(16)}`, { offset })
  }
  const name = nameOfUnits(units)
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name)) throw bad(`the name ${JSON.stringify(name)}`)
  const [written, size] = [sizeAt(view, ENTRY_BYTES + 8), sizeAt(view, ENTRY_BYTES + 24)]
  if (size === undefined || written === undefined || written > size) throw bad('more bytes than there can be, or than it has')
  const attributes = view.getUint16(4, true)
  const isDirectory = (attributes & ATTRIBUTE.directory) !== 0
  return {
    name,
    units,
    isDirectory,
    isReadOnly: (attributes & ATTRIBUTE.readOnly) !== 0,
    firstCluster: view.getUint32(ENTRY_BYTES + 20, true),
    isContiguous: (bytes[ENTRY_BYTES + 1]! & FLAG.contiguous) !== 0,
    bytes: size,
    writtenBytes: isDirectory ? size : written,
    modifiedNs: timeNs(view.getUint32(12, true), bytes[21]!, bytes[23]!),
  }
}

function sizeAt(view: DataView, at: number): number | undefined {
  const size = Number(view.getBigUint64(at, true))
  return Number.isSafeInteger(size) ? size : undefined
}

/** Source: section 6.3.3, figure 2. */
function setChecksumOf(bytes: Uint8Array): number {
  let sum = 0
  for (const [at, byte] of bytes.entries()) {
    if (at !== 2 && at !== 3) sum = (((sum << 15) | (sum >>> 1)) + byte) & 0xffff
  }
  return sum
}

/** Local time, with its distance to UTC where that is kept; where it is not, as if it were UTC. Source: section 7.4. Null where it is no time. */
function timeNs(stamp: number, hundredths: number, zone: number): bigint | null {
  const [date, time] = [stamp >>> 16, stamp & 0xffff]
  const [year, month, day] = [1980 + (date >>> 9), (date >>> 5) & 0xf, date & 0x1f]
  const [hour, minute, second] = [time >>> 11, (time >>> 5) & 0x3f, (time & 0x1f) * 2]
  if (month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59 || hundredths > 199) return null
  const quarters = (zone & 0x80) === 0 ? 0 : (zone << 25) >> 25 // seven bits, signed
  const local = Date.UTC(year, month - 1, day, hour, minute, second) + hundredths * 10
  return BigInt(local - quarters * 15 * 60_000) * 1_000_000n
}

export interface ExfatNode extends FileNode, Allocation {
  readonly bytes: number
}

export const nodeOf = (id: number, file: FileEntry): ExfatNode => ({
  id,
  kind: file.isDirectory ? 'directory' : 'file',
  mode: file.isReadOnly && !file.isDirectory ? MODE.readOnly : MODE.all,
  uid: 0,
  gid: 0,
  links: 1,
  bytes: file.bytes,
  modifiedNs: file.modifiedNs,
  changedNs: null,
  firstCluster: file.firstCluster,
  isContiguous: file.isContiguous,
  writtenBytes: file.writtenBytes,
})

/** What the root says of the volume. Source: sections 7.1 to 7.3. */
export interface VolumeEntries {
  label?: string
  bitmap?: Allocation & { readonly bytes: number }
  capitals?: Allocation & { readonly bytes: number }
}

export function readVolumeEntry({ bytes }: EntrySet, activeTable: number, found: VolumeEntries): void {
  const view = viewOf(bytes)
  const size = sizeAt(view, 24) ?? 0
  const place = { firstCluster: view.getUint32(20, true), isContiguous: false, bytes: size, writtenBytes: size }
  if (type(bytes) === ENTRY.label) {
    const units = Math.min(MAX_LABEL_UNITS, bytes[1]!)
    found.label ??= nameOfUnits(Uint16Array.from({ length: units }, (_, unit) => view.getUint16(2 + unit * 2, true)))
  } else if (type(bytes) === ENTRY.bitmap && (bytes[1]! & 1) === activeTable) found.bitmap ??= place
  else if (type(bytes) === ENTRY.capitals) found.capitals ??= place
}
