import { nameOfUnits } from '../file-name.ts'
import { refuse } from './boot-sector.ts'

/** File records and the attributes in them; little-endian. Source: the Linux-NTFS project, "NTFS Documentation", FILE Record and Attributes. */
export const TYPE = {
  standardInformation: 0x10,
  attributeList: 0x20,
  fileName: 0x30,
  volumeName: 0x60,
  volumeInformation: 0x70,
  data: 0x80,
  indexRoot: 0x90,
  indexAllocation: 0xa0,
  reparsePoint: 0xc0,
} as const
export const ATTRIBUTE = { compression: 0xff, encrypted: 0x4000, sparse: 0x8000 } as const
const RECORD = { inUse: 1, directory: 2 } as const
const END = 0xffffffff
const STRIDE = 512 // of update sequences, whatever a sector has
const MIN_ATTRIBUTE_BYTES = 24
const MIN_NON_RESIDENT_BYTES = 64
const HIGH = 2 ** 32
const NUMBER_BITS = 2 ** 48

interface AttributeHead {
  readonly type: number
  readonly name: string
  readonly flags: number
  readonly instance: number
}
export interface ResidentAttribute extends AttributeHead {
  readonly isResident: true
  readonly value: Uint8Array
}
export interface NonResidentAttribute extends AttributeHead {
  readonly isResident: false
  /** Clusters of the attribute that these runs are of. */
  readonly firstVcn: number
  readonly endVcn: number
  /** Of the whole attribute, where `firstVcn` is 0. */
  readonly dataBytes: number
  readonly writtenBytes: number
  readonly unitClusters: number
  /** Runs as they are stored. */
  readonly mapping: Uint8Array
}
export type Attribute = ResidentAttribute | NonResidentAttribute

export interface MftRecord {
  readonly number: number
  readonly sequence: number
  readonly links: number
  readonly isDirectory: boolean
  /** Of the record that this one adds to; 0: it is the first of its file. */
  readonly base: number
  readonly attributes: readonly Attribute[]
}

/** A 64-bit number. @throws ServiceError `invalid-image` from 2^53 on */
export function u64(view: DataView, at: number): number {
  const value = view.getUint32(at, true) + view.getUint32(at + 4, true) * HIGH
  if (!Number.isSafeInteger(value)) throw refuse('malformed', `a number of ${value}, which is 2^53 or more`)
  return value
}

/** A reference is 48 bits of a record's number, and 16 of its sequence. */
export const referenceAt = (view: DataView, at: number): { number: number; sequence: number } => ({
  number: view.getUint32(at, true) + view.getUint16(at + 4, true) * HIGH,
  sequence: view.getUint16(at + 6, true),
})

/**
 * A record or index block as it was before its update sequence went into its sectors; a copy.
 * @throws ServiceError `invalid-image` for another magic, and where a sector was not written with the others
 */
export function restored(block: Uint8Array, magic: 'FILE' | 'INDX' | 'RSTR', what: string): Uint8Array {
  if (Buffer.from(block.subarray(0, 4)).toString('latin1') !== magic)
    throw refuse('malformed', `${what} does not begin with ${magic}`)
  const made = Uint8Array.from(block) // a Buffer's slice is no copy
  const view = viewOf(made)
  const start = view.getUint16(4, true)
  const count = view.getUint16(6, true)
  const sectors = Math.ceil(made.length / STRIDE)
  if (count !== sectors + 1 || start < 8 || start % 2 !== 0 || start + count * 2 > made.length)
    throw refuse('malformed', `the update sequence of ${what} has ${count} numbers at ${start}`)
  const number = view.getUint16(start, true)
  for (let sector = 0; sector < sectors; sector += 1) {
    const at = Math.min(made.length, (sector + 1) * STRIDE) - 2
    if (view.getUint16(at, true) !== number) throw refuse('malformed', `sector ${sector} of ${what} is of another write`)
    view.setUint16(at, view.getUint16(start + 2 + sector * 2, true), true)
  }
  return made
}

/** @throws ServiceError `invalid-image` where it is not in use, or breaks the format */
export function parseRecord(block: Uint8Array, number: number): MftRecord {
  const bad = (problem: string) => refuse('malformed', `file record ${number}: ${problem}`, { record: number })
  const made = restored(block, 'FILE', `file record ${number}`)
  const view = viewOf(made)
  const flags = view.getUint16(22, true)
  if ((flags & RECORD.inUse) === 0) throw bad('it is not in use')
  const end = Math.min(view.getUint32(24, true), made.length)
  const attributes: Attribute[] = []
  for (let at = view.getUint16(20, true); ; ) {
    if (at % 8 !== 0 || at < 42 || at + 4 > end) throw bad(`an attribute at ${at}, of ${end} bytes`)
    if (view.getUint32(at, true) === END) break
    const length = at + 8 <= end ? view.getUint32(at + 4, true) : 0
    if (length < MIN_ATTRIBUTE_BYTES || length % 8 !== 0 || at + length > end)
      throw bad(`an attribute of ${length} bytes at ${at}`)
    attributes.push(parseAttribute(made.subarray(at, at + length), bad))
    at += length
  }
  return {
    number,
    sequence: view.getUint16(16, true),
    links: view.getUint16(18, true),
    isDirectory: (flags & RECORD.directory) !== 0,
    base: view.getBigUint64(32, true) === 0n ? 0 : referenceAt(view, 32).number % NUMBER_BITS,
    attributes,
  }
}

function parseAttribute(made: Uint8Array, bad: (problem: string) => Error): Attribute {
  const view = viewOf(made)
  const type = view.getUint32(0, true)
  const nameAt = view.getUint16(10, true)
  const nameBytes = view.getUint8(9) * 2
  if (nameAt + nameBytes > made.length)
    throw bad(`an attribute whose name ends at ${nameAt + nameBytes}, of ${made.length} bytes`)
  const name = nameBytes === 0 ? '' : nameOfUnits(unitsAt(view, nameAt, nameBytes / 2))
  const head = { type, name, flags: view.getUint16(12, true), instance: view.getUint16(14, true) }
  if (view.getUint8(8) === 0) {
    const bytes = view.getUint32(16, true)
    const at = view.getUint16(20, true)
    if (at < MIN_ATTRIBUTE_BYTES - 8 || at + bytes > made.length)
      throw bad(`a value of ${bytes} bytes at ${at}, of ${made.length}`)
    return { ...head, isResident: true, value: made.subarray(at, at + bytes) }
  }
  if (made.length < MIN_NON_RESIDENT_BYTES) throw bad(`an attribute of ${made.length} bytes that is not resident`)
  const mappingAt = view.getUint16(32, true)
  if (mappingAt < MIN_NON_RESIDENT_BYTES || mappingAt > made.length) throw bad(`runs at ${mappingAt}, of ${made.length} bytes`)
  const firstVcn = u64(view, 16)
  const lastVcn = view.getBigInt64(24, true) // −1: none
  if (lastVcn < BigInt(firstVcn) - 1n || lastVcn >= 1n << 53n) throw bad(`clusters ${firstVcn} to ${lastVcn} of an attribute`)
  const unit = view.getUint8(34)
  if (unit > 16) throw bad(`a compression unit of 2^${unit} clusters`)
  const isFirst = firstVcn === 0
  const [dataBytes, writtenBytes] = isFirst ? [u64(view, 48), u64(view, 56)] : [0, 0]
  const unitClusters = unit === 0 ? 0 : 2 ** unit
  const mapping = made.subarray(mappingAt)
  return { ...head, isResident: false, firstVcn, endVcn: Number(lastVcn) + 1, dataBytes, writtenBytes, unitClusters, mapping }
}

export function unitsAt(view: DataView, at: number, count: number): Uint16Array {
  const units = new Uint16Array(count)
  for (let index = 0; index < count; index += 1) units[index] = view.getUint16(at + index * 2, true)
  return units
}

export const viewOf = (input: Uint8Array): DataView => new DataView(input.buffer, input.byteOffset, input.byteLength)
