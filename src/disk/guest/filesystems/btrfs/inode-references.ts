import { TYPES } from './keys.ts'
import type { Item } from './node.ts'
import { refuse } from './superblock.ts'

/** The names of an inode. Source: btrfs documentation, "On-disk format", "INODE_REF", "INODE_EXTREF". */
const PLAIN_BYTES = 10 // index, length of the name; the key has the directory
const EXTENDED_BYTES = 18 // directory, index, length of the name
const HIGH = 2 ** 32

export interface InodeReference {
  /** The directory that has the name. */
  readonly parent: number
  readonly index: number
  readonly name: Uint8Array
}

interface Placed extends InodeReference {
  readonly start: number
  readonly end: number
}

/** @throws ServiceError `invalid-image` where one is cut off */
export function referencesIn({ object, type, offset, data }: Item): readonly Placed[] {
  const isPlain = type === TYPES.inodeReference
  const headerBytes = isPlain ? PLAIN_BYTES : EXTENDED_BYTES
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const word = (at: number) => view.getUint32(at + 4, true) * HIGH + view.getUint32(at, true)
  const found: Placed[] = []
  for (let at = 0; at < data.length; ) {
    const nameAt = at + headerBytes
    const end = nameAt + (nameAt <= data.length ? view.getUint16(nameAt - 2, true) : Number.POSITIVE_INFINITY)
    if (end > data.length || end === nameAt) throw refuse('malformed', `a name of inode ${object} is cut off`, { inode: object })
    const [parent, index] = isPlain ? [offset, word(at)] : [word(at), word(at + 8)]
    found.push({ parent, index, name: data.subarray(nameAt, end), start: at, end })
    at = end
  }
  return found
}

/** Null where it was the only one. */
export function withoutReference({ data }: Item, { start, end }: { start: number; end: number }): Uint8Array | null {
  if (end - start === data.length) return null
  return Buffer.concat([data.subarray(0, start), data.subarray(end)])
}
