import { nameOfBytes } from '../file-name.ts'
import type { Inode } from './inode.ts'
import { refuse } from './superblock.ts'

/** Source: Linux Documentation/filesystems/ext4, "Extended Attributes". */
const MAGIC = 0xea020000
const BLOCK_HEADER_BYTES = 32
const ENTRY_BYTES = 16
const MAX_VALUE_BYTES = 65_536
const prefixes: Readonly<Record<number, string>> = {
  0: '',
  1: 'user.',
  2: 'system.posix_acl_access',
  3: 'system.posix_acl_default',
  4: 'trusted.',
  6: 'security.',
  7: 'system.',
  8: 'system.richacl',
}
const ACL_INDEXES: readonly number[] = [2, 3]
/** What the kernel keeps for itself: of encryption, and the end of a small file that is in the inode. */
const INDEX_ENCRYPTION = 9
export const INLINE_DATA = 'system.data'

export interface Attribute {
  readonly name: string
  /** In the inode or its block. */
  readonly value?: Uint8Array
  /** An inode whose data it is, so many bytes of them. */
  readonly valueInode?: number
  readonly valueBytes: number
}

/** The attributes in what follows the fields of an inode; with that of inline data. @throws ServiceError `invalid-image` */
export function attributesInInode(inode: Inode): readonly Attribute[] {
  const { tail } = inode
  if (tail.length < 4 || viewOf(tail).getUint32(0, true) !== MAGIC) return []
  return attributesIn(tail.subarray(4), tail.subarray(4), inode)
}

/** The attributes in a block. @throws ServiceError `invalid-image` */
export function attributesInBlock(block: Uint8Array, inode: Inode): readonly Attribute[] {
  const view = viewOf(block)
  if (view.getUint32(0, true) !== MAGIC || view.getUint32(8, true) !== 1) {
    throw refuse('malformed', `the block of attributes of inode ${inode.id} has another h_magic or h_blocks`, { inode: inode.id })
  }
  return attributesIn(block.subarray(BLOCK_HEADER_BYTES), block, inode)
}

/** @param base what offsets of values count from */
function attributesIn(entries: Uint8Array, base: Uint8Array, { id }: Inode): readonly Attribute[] {
  const view = viewOf(entries)
  const found: Attribute[] = []
  for (let at = 0; at + 4 <= entries.length && view.getUint32(at, true) !== 0; ) {
    const bad = (problem: string) => refuse('malformed', `an extended attribute of inode ${id}: ${problem}`, { inode: id })
    if (at + ENTRY_BYTES > entries.length) throw bad('an entry that is cut off')
    const nameBytes = view.getUint8(at)
    const index = view.getUint8(at + 1)
    const valueOffset = view.getUint16(at + 2, true)
    const valueInode = view.getUint32(at + 4, true)
    const valueBytes = view.getUint32(at + 8, true)
    if (at + ENTRY_BYTES + nameBytes > entries.length) throw bad(`e_name_len is ${nameBytes}`)
    if (valueBytes > MAX_VALUE_BYTES) throw bad(`e_value_size is ${valueBytes}; it is at most ${MAX_VALUE_BYTES}`)
    const name = `${prefixes[index] ?? `unknown.${index}.`}${nameOfBytes(entries.subarray(at + ENTRY_BYTES, at + ENTRY_BYTES + nameBytes))}`
    at += ENTRY_BYTES + Math.ceil(nameBytes / 4) * 4
    if (index === INDEX_ENCRYPTION) continue
    if (valueInode !== 0) {
      found.push({ name, valueInode, valueBytes })
      continue
    }
    if (valueOffset + valueBytes > base.length) throw bad(`e_value_offs is ${valueOffset}, for ${valueBytes} bytes`)
    const stored = base.slice(valueOffset, valueOffset + valueBytes)
    const value = ACL_INDEXES.includes(index) ? accessList(stored, bad) : stored
    found.push({ name, value, valueBytes: value.length })
  }
  return found
}

const ACL_STORED_VERSION = 1
const ACL_SHOWN_VERSION = 2
const ACL_SHORT_BYTES = 4
const ACL_LONG_BYTES = 8
const ACL_WITH_ID: readonly number[] = [0x02, 0x08] // a named user, a named group
const ACL_NO_ID = 0xffffffff

/** An access list as getxattr(2) gives it: the stored one leaves out ids that mean nothing. Source: Linux fs/ext4/acl.h, posix_acl_xattr.h. */
function accessList(stored: Uint8Array, bad: (problem: string) => Error): Uint8Array {
  const view = viewOf(stored)
  if (stored.length < 4 || view.getUint32(0, true) !== ACL_STORED_VERSION) throw bad('an access list of an unknown version')
  const entries: [tag: number, permissions: number, id: number][] = []
  for (let at = 4; at < stored.length; ) {
    if (at + ACL_SHORT_BYTES > stored.length) throw bad('an access list that is cut off')
    const tag = view.getUint16(at, true)
    const isLong = ACL_WITH_ID.includes(tag)
    if (at + (isLong ? ACL_LONG_BYTES : ACL_SHORT_BYTES) > stored.length) throw bad('an access list that is cut off')
    entries.push([tag, view.getUint16(at + 2, true), isLong ? view.getUint32(at + 4, true) : ACL_NO_ID])
    at += isLong ? ACL_LONG_BYTES : ACL_SHORT_BYTES
  }
  const shown = new DataView(new ArrayBuffer(4 + entries.length * ACL_LONG_BYTES))
  shown.setUint32(0, ACL_SHOWN_VERSION, true)
  for (const [index, [tag, permissions, id]] of entries.entries()) {
    shown.setUint16(4 + index * ACL_LONG_BYTES, tag, true)
    shown.setUint16(6 + index * ACL_LONG_BYTES, permissions, true)
    shown.setUint32(8 + index * ACL_LONG_BYTES, id, true)
  }
  return new Uint8Array(shown.buffer)
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
