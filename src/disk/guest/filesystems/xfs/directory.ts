import { nameOfBytes } from '../file-name.ts'
import type { DirectoryEntry, NodeKind } from '../file-system.ts'
import type { Inode } from './inode.ts'
import { refuse, type Superblock, viewOf } from './superblock.ts'

/** Source: "XFS Algorithms & Data Structures", "Directories". Names are in an inode or in data blocks; all else is there to find them faster. */
const MAGICS = {
  4: { data: 0x58443244, block: 0x58443242 }, // "XD2D", "XD2B"
  5: { data: 0x58444433, block: 0x58444233 }, // "XDD3", "XDB3"
} as const
const HEADER_BYTES = { 4: 16, 5: 64 } as const
const OWNER_AT = 40
const ALIGN_BYTES = 8
const FREE_TAG = 0xffff
const TAIL_BYTES = 8
const LEAF_ENTRY_BYTES = 8
const SLASH = 0x2f
const DOT = 0x2e
const kinds: readonly (NodeKind | null)[] = [
  null,
  'file',
  'directory',
  'character',
  'block',
  'fifo',
  'socket',
  'symlink',
  'character', // a whiteout
]
/** Where what helps to find names begins in a directory. */
export const MAX_DATA_BYTES = 2 ** 35

/** The entries that are in the inode. Section "Short Form Directories". @throws ServiceError `invalid-image` */
export function* entriesInInode({ id, bytes, data }: Inode, superblock: Superblock): Generator<DirectoryEntry> {
  const bad = (problem: string) => refuse('malformed', `directory ${id}, in its inode: ${problem}`, { inode: id })
  if (bytes > data.bytes.length || bytes < 6) throw bad(`di_size is ${bytes}, with room for ${data.bytes.length}`)
  const input = data.bytes.subarray(0, bytes)
  const view = viewOf(input)
  const isWide = view.getUint8(1) > 0
  const numberBytes = isWide ? 8 : 4
  const count = view.getUint8(0)
  const kindBytes = superblock.hasKinds ? 1 : 0
  let at = 2 + numberBytes
  for (let index = 0; index < count; index += 1) {
    const nameBytes = at < bytes ? view.getUint8(at) : 0
    const numberAt = at + 3 + nameBytes + kindBytes
    if (numberAt + numberBytes > bytes) throw bad(`entry ${index} of ${count} is cut off`)
    const name = input.subarray(at + 3, at + 3 + nameBytes)
    const number = isWide ? view.getBigUint64(numberAt) : BigInt(view.getUint32(numberAt))
    const kind = kindBytes === 1 ? (kinds[view.getUint8(numberAt - 1)] ?? null) : null
    yield entryOf(name, number, kind, bad)
    at = numberAt + numberBytes
  }
}

/** The entries in one data block. Section "Block Directories". @throws ServiceError `invalid-image` at the first that breaks the format */
export function* entriesInBlock(input: Uint8Array, { id }: Inode, superblock: Superblock): Generator<DirectoryEntry> {
  const { version, hasKinds } = superblock
  const view = viewOf(input)
  const magic = view.getUint32(0)
  const magics = MAGICS[version]
  if (magic !== magics.data && magic !== magics.block) {
    throw refuse('malformed', `directory ${id} has a block whose magic is 0x${magic.toString(16)}`, { inode: id })
  }
  if (version === 5 && view.getBigUint64(OWNER_AT) !== BigInt(id)) {
    throw refuse('malformed', `directory ${id} has a block of inode ${view.getBigUint64(OWNER_AT)}`, { inode: id })
  }
  const end = magic === magics.block ? input.length - TAIL_BYTES - tailEntries(view, id) * LEAF_ENTRY_BYTES : input.length
  for (let at: number = HEADER_BYTES[version]; at < end; ) {
    const bad = (problem: string) => refuse('malformed', `directory ${id}, byte ${at} of a block: ${problem}`, { inode: id })
    if (at + ALIGN_BYTES > end) throw bad('an entry that is cut off')
    if (view.getUint16(at) === FREE_TAG) {
      const free = view.getUint16(at + 2)
      if (free < ALIGN_BYTES || free % ALIGN_BYTES !== 0 || at + free > end) throw bad(`length is ${free}`)
      at += free
      continue
    }
    const nameBytes = at + 9 <= end ? view.getUint8(at + 8) : 0
    const kindAt = at + 9 + nameBytes
    const recordBytes = Math.ceil((9 + nameBytes + (hasKinds ? 1 : 0) + 2) / ALIGN_BYTES) * ALIGN_BYTES
    if (at + recordBytes > end) throw bad(`namelen is ${nameBytes}`)
    const name = input.subarray(at + 9, kindAt)
    if (!isDots(name)) yield entryOf(name, view.getBigUint64(at), hasKinds ? (kinds[view.getUint8(kindAt)] ?? null) : null, bad)
    at += recordBytes
  }
}

function tailEntries(view: DataView, id: number): number {
  const count = view.getUint32(view.byteLength - TAIL_BYTES)
  if (count * LEAF_ENTRY_BYTES + TAIL_BYTES > view.byteLength)
    throw refuse('malformed', `directory ${id}: count of its block's tail is ${count}`, { inode: id })
  return count
}

function entryOf(name: Uint8Array, number: bigint, kind: NodeKind | null, bad: (problem: string) => Error): DirectoryEntry {
  if (name.length === 0 || name.includes(0) || name.includes(SLASH))
    throw bad('a name that is empty, or has a slash or a NUL in it')
  if (number > BigInt(Number.MAX_SAFE_INTEGER)) throw bad(`inumber is ${number}`)
  return { name: nameOfBytes(name), id: Number(number), kind }
}

const isDots = (name: Uint8Array): boolean => name.length > 0 && name.length <= 2 && name.every((byte) => byte === DOT)

/** With letters of ASCII and of Latin-1 as small ones: what the kernel takes as the same. Source: Linux fs/xfs/libxfs/xfs_dir2.h, xfs_ascii_ci_need_xfrm. */
export const folded = (name: Uint8Array): Uint8Array => name.map((byte) => (isCapital(byte) ? byte + 0x20 : byte))

const isCapital = (byte: number): boolean =>
  (byte >= 0x41 && byte <= 0x5a) || (byte >= 0xc0 && byte <= 0xd6) || (byte >= 0xd8 && byte <= 0xde)
