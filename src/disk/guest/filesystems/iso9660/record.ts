import { refuse, type Tree, textOfUcs2 } from './descriptors.ts'
import { shortTimeNs } from './time.ts'

/** Directory record. Source: ECMA-119, section 9.1. */
const HEADER_BYTES = 33
export const FLAG = { directory: 0x02, associated: 0x04, goesOn: 0x80 } as const

export interface DirectoryRecord {
  /** Bytes from the start of the volume: of the record. */
  readonly offset: number
  readonly bytes: number
  /** Where its data begin, and how many there are. */
  readonly dataOffset: number
  readonly dataBytes: number
  readonly flags: number
  readonly modifiedNs: bigint | null
  readonly isInterleaved: boolean
  readonly id: Uint8Array
  /** What the standard leaves to the system: of Rock Ridge. */
  readonly systemUse: Uint8Array
}

/** @param block from the record on @throws ServiceError `invalid-image` */
export function parseRecord(block: Uint8Array, offset: number, { blockBytes }: Tree): DirectoryRecord {
  const length = block[0] ?? 0
  const bad = (problem: string) => refuse('malformed', `a directory record: ${problem}`, { offset })
  if (length <= HEADER_BYTES || length > block.length) throw bad(`its length is ${length}, of ${block.length} bytes`)
  const view = new DataView(block.buffer, block.byteOffset, length)
  const idBytes = view.getUint8(32)
  const idEnd = HEADER_BYTES + idBytes
  if (idBytes === 0 || idEnd > length) throw bad(`the length of its identifier is ${idBytes}, of ${length} bytes`)
  return {
    offset,
    bytes: length,
    dataOffset: (view.getUint32(2, true) + view.getUint8(1)) * blockBytes, // an extended attribute record comes first
    dataBytes: view.getUint32(10, true),
    flags: view.getUint8(25),
    modifiedNs: shortTimeNs(view, 18),
    isInterleaved: view.getUint8(26) !== 0 || view.getUint8(27) !== 0,
    id: block.subarray(HEADER_BYTES, idEnd),
    systemUse: block.subarray(Math.min(length, idEnd + (idBytes % 2 === 0 ? 1 : 0)), length),
  }
}

/** Of a directory itself, and of the one above. */
export const isDots = ({ id }: DirectoryRecord): boolean => id.length === 1 && id[0]! <= 1

/** As the kernel shows it without Rock Ridge: no version; of the primary tree in small letters, as no dot ends it. */
export function plainName({ id }: DirectoryRecord, { isJoliet }: Tree): string {
  if (isJoliet) return textOfUcs2(id).replace(/;1$/, '')
  const name = Array.from(id, (byte) => String.fromCharCode(byte)).join('')
  return name
    .replace(/;1$/, '')
    .replace(/\.$/, '')
    .replaceAll(';', '.')
    .replace(/[A-Z]+/g, (letters) => letters.toLowerCase())
}
