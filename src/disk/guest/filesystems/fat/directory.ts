import { nameOfUnits } from '../file-name.ts'
import type { FileNode } from '../file-system.ts'
import { refuse } from './boot-sector.ts'
import { textOf437 } from './code-page.ts'

/** Records of a directory. Source: fatgen103, "FAT Directory Structure" and "FAT Long Directory Entries". */
export const RECORD_BYTES = 32
const NAME_BYTES = 11
const BASE_BYTES = 8
const END = 0x00
const DELETED = 0xe5
const STANDS_FOR_E5 = 0x05
export const ATTRIBUTE = { readOnly: 0x01, label: 0x08, directory: 0x10, long: 0x0f } as const
const LONG_MASK = 0x3f
const CASE = { base: 0x08, extension: 0x10 } as const // "reserved for use by Windows NT"
const LONG_LAST = 0x40
const LONG_UNITS = 13
const MAX_LONG_RECORDS = 20 // 255 units
const LONG_PIECES: readonly (readonly [at: number, units: number])[] = [
  [1, 5],
  [14, 6],
  [28, 2],
]

/** An entry: its record and the name that goes before it. */
export interface Entry {
  readonly name: string
  /** The other name, in capitals, where there is a long one. */
  readonly shortName: string
  /** Of its record on the volume, in records. */
  readonly id: number
  readonly isDirectory: boolean
}

/** What a directory's records are, one after the other: long names come before the record that they name. */
export class DirectoryReader {
  /** The label of the volume, where the directory is the root. */
  label: Uint8Array | undefined
  /** What cannot be shown; the rest can. */
  damage: Error | undefined
  hasEnded = false
  #long: { units: Uint16Array; next: number; checksum: number } | undefined;

  /** @param id of the first record */
  *entriesIn(block: Uint8Array, firstId: number): Generator<Entry> {
    for (let at = 0; at + RECORD_BYTES <= block.length; at += RECORD_BYTES) {
      const record = block.subarray(at, at + RECORD_BYTES)
      if (record[0] === END) {
        this.hasEnded = true
        return
      }
      const attributes = record[11]!
      if (record[0] === DELETED) this.#long = undefined
      else if ((attributes & LONG_MASK) === ATTRIBUTE.long) this.#takeLong(record)
      else if ((attributes & ATTRIBUTE.label) !== 0) {
        if ((attributes & ATTRIBUTE.directory) === 0) this.label ??= withFirst(record.slice(0, NAME_BYTES))
        this.#long = undefined
      } else {
        const entry = this.#entry(record, firstId + at / RECORD_BYTES)
        if (entry) yield entry
      }
    }
  }

  #takeLong(record: Uint8Array): void {
    const order = record[0]! & ~LONG_LAST
    const checksum = record[13]!
    if ((record[0]! & LONG_LAST) !== 0) {
      const isPossible = order >= 1 && order <= MAX_LONG_RECORDS
      this.#long = isPossible ? { units: new Uint16Array(order * LONG_UNITS), next: order, checksum } : undefined
    }
    const long = this.#long
    if (!long || order !== long.next || checksum !== long.checksum) {
      this.#long = undefined
      return
    }
    const view = new DataView(record.buffer, record.byteOffset, RECORD_BYTES)
    let unit = (order - 1) * LONG_UNITS
    for (const [at, units] of LONG_PIECES) {
      for (let index = 0; index < units; index += 1) long.units[unit++] = view.getUint16(at + index * 2, true)
    }
    long.next -= 1
  }

  #entry(record: Uint8Array, id: number): Entry | undefined {
    const shortBytes = record.slice(0, NAME_BYTES)
    const long = this.#long?.next === 0 && this.#long.checksum === checksumOf(shortBytes) ? longName(this.#long.units) : ''
    this.#long = undefined
    const isDirectory = (record[11]! & ATTRIBUTE.directory) !== 0
    const shortName = shortNameOf(shortBytes, 0)
    if (isDirectory && (shortName === '.' || shortName === '..')) return undefined
    const name = isPossible(long) ? long : shortNameOf(shortBytes, record[12]!)
    if (isPossible(name)) return { name, shortName, id, isDirectory }
    this.damage ??= refuse('malformed', `an entry with the name ${JSON.stringify(name)}`, { offset: id * RECORD_BYTES })
    return undefined
  }
}

const isPossible = (name: string): boolean => name !== '' && name !== '.' && name !== '..' && !/[/\0]/.test(name)

function longName(units: Uint16Array): string {
  const end = units.indexOf(0)
  return nameOfUnits(end < 0 ? units : units.subarray(0, end))
}

/** Of a short name, which its long one carries. */
function checksumOf(name: Uint8Array): number {
  let sum = 0
  for (const byte of name) sum = (((sum & 1) << 7) + (sum >>> 1) + byte) & 0xff
  return sum
}

function shortNameOf(stored: Uint8Array, caseBits: number): string {
  const name = withFirst(stored)
  const part = (from: number, to: number, bit: number) => {
    const text = textOf437(name.subarray(from, to)).replace(/ +$/, '')
    return (caseBits & bit) === 0 ? text : text.toLowerCase()
  }
  const base = part(0, BASE_BYTES, CASE.base)
  const extension = part(BASE_BYTES, NAME_BYTES, CASE.extension)
  return extension === '' ? base : `${base}.${extension}`
}

function withFirst(name: Uint8Array): Uint8Array {
  if (name[0] !== STANDS_FOR_E5) return name
  const real = new Uint8Array(name)
  real[0] = DELETED
  return real
}

export interface FatNode extends FileNode {
  readonly firstCluster: number
}

const MODE = { all: 0o755, readOnly: 0o555 } as const // as a mount with umask 022
const HIGH = 0x10000

/** The node of a record. @param hasHighWord of the cluster: FAT32; the others keep something else there */
export function parseNode(id: number, record: Uint8Array, hasHighWord: boolean): FatNode {
  const view = new DataView(record.buffer, record.byteOffset, RECORD_BYTES)
  const attributes = record[11]!
  const isUsed = record[0] !== END && record[0] !== DELETED && (attributes & ATTRIBUTE.label) === 0
  if (!isUsed) throw refuse('malformed', 'there is no file', { offset: id * RECORD_BYTES })
  const isDirectory = (attributes & ATTRIBUTE.directory) !== 0
  return {
    id,
    kind: isDirectory ? 'directory' : 'file',
    mode: (attributes & ATTRIBUTE.readOnly) !== 0 && !isDirectory ? MODE.readOnly : MODE.all,
    uid: 0,
    gid: 0,
    links: 1,
    bytes: isDirectory ? 0 : view.getUint32(28, true),
    modifiedNs: timeNs(view.getUint16(24, true), view.getUint16(22, true)),
    changedNs: null,
    firstCluster: view.getUint16(26, true) + (hasHighWord ? view.getUint16(20, true) * HIGH : 0),
  }
}

/** Local time, of a zone that nobody kept: taken for UTC. Null where it is no time. */
function timeNs(date: number, time: number): bigint | null {
  const [year, month, day] = [1980 + (date >>> 9), (date >>> 5) & 0xf, date & 0x1f]
  const [hour, minute, second] = [time >>> 11, (time >>> 5) & 0x3f, (time & 0x1f) * 2]
  if (month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59) return null
  return BigInt(Date.UTC(year, month - 1, day, hour, minute, second)) * 1_000_000n
}
