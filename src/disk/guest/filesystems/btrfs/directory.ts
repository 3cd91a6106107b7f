import { crc32c } from '../../../../base/crc32c.ts'
import { nameOfBytes } from '../file-name.ts'
import type { NodeKind } from '../file-system.ts'
import type { Item } from './node.ts'
import { refuse } from './superblock.ts'

/** What a directory and a list of attributes are made of. Source: btrfs documentation, "On-disk format", "DIR_ITEM", "XATTR_ITEM". */
const HEADER_BYTES = 30
const TYPE_AT = 8 // of the key that an entry leads to
const DATA_BYTES_AT = 25
const NAME_BYTES_AT = 27
const KIND_AT = 29
const MAX_NAME_BYTES = 255
const HIGH = 2 ** 32
const SLASH = 0x2f

const kinds: Readonly<Record<number, NodeKind>> = {
  1: 'file',
  2: 'directory',
  3: 'character',
  4: 'block',
  5: 'fifo',
  6: 'socket',
  7: 'symlink',
}

/** One of those that an item has: names of one hash share an item. */
export interface NamedItem {
  readonly name: Uint8Array
  /** The key that it leads to. */
  readonly object: number
  readonly type: number
  readonly kind: NodeKind | null
  /** The value of an attribute. */
  readonly value: Uint8Array
}

/** @throws ServiceError `invalid-image` at the first that breaks the format */
export function* namedIn({ object, data }: Item): Generator<NamedItem> {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  for (let at = 0; at < data.length; ) {
    const bad = (problem: string) => refuse('malformed', `a name in inode ${object}: ${problem}`, { inode: object })
    if (at + HEADER_BYTES > data.length) throw bad('an entry that is cut off')
    const valueBytes = view.getUint16(at + DATA_BYTES_AT, true)
    const nameBytes = view.getUint16(at + NAME_BYTES_AT, true)
    if (nameBytes === 0 || nameBytes > MAX_NAME_BYTES) throw bad(`name_len is ${nameBytes}; it is 1 to ${MAX_NAME_BYTES}`)
    if (at + HEADER_BYTES + nameBytes + valueBytes > data.length)
      throw bad(`name_len is ${nameBytes}, and data_len ${valueBytes}`)
    const nameAt = at + HEADER_BYTES
    at = nameAt + nameBytes + valueBytes
    const start = nameAt - HEADER_BYTES
    yield {
      name: data.subarray(nameAt, nameAt + nameBytes),
      object: view.getUint32(start + 4, true) * HIGH + view.getUint32(start, true),
      type: view.getUint8(start + TYPE_AT),
      kind: kinds[view.getUint8(start + KIND_AT)] ?? null,
      value: data.subarray(nameAt + nameBytes, at),
    }
  }
}

/** The name of an entry. @throws ServiceError `invalid-image` for one that a path cannot have */
export function fileNameOf({ name }: NamedItem, directory: number): string {
  const isDots = name.length <= 2 && name.every((byte) => byte === 0x2e)
  if (name.includes(0) || name.includes(SLASH) || isDots) {
    const problem = `directory ${directory} has a name with a slash or a NUL in it, or one that is only dots`
    throw refuse('malformed', problem, { inode: directory })
  }
  return nameOfBytes(name)
}

/** Where an item of a name lies. Source: the kernel's btrfs_name_hash: a CRC-32C that begins with −2 and is not inverted. */
export const hashOfName = (name: Uint8Array): number => ~crc32c(name, 1) >>> 0
