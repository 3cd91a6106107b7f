import { bytes, type Parsed, struct, u16le, u32le } from '../../../../base/struct.ts'
import type { FileNode, NodeKind } from '../file-system.ts'
import { has, INCOMPATIBLE, refuse, type Superblock } from './superblock.ts'

/** Inode; little-endian. Source: Linux Documentation/filesystems/ext4, "Index Nodes". */
const fields = {
  mode: u16le(0),
  uidLow: u16le(2),
  sizeLow: u32le(4),
  changed: u32le(12),
  modified: u32le(16),
  gidLow: u16le(24),
  links: u16le(26),
  sectorsLow: u32le(28), // of 512 bytes, or blocks where the flag says so
  flags: u32le(32),
  block: bytes(40, 60),
  attributesLow: u32le(104), // a block
  sizeHigh: u32le(108),
  sectorsHigh: u16le(116),
  attributesHigh: u16le(118),
  uidHigh: u16le(120),
  gidHigh: u16le(122),
}
const record = struct('ext4 inode', fields)
const EXTRA_AT = 128 // i_extra_isize; what lies before is in every inode
const CHANGED_EXTRA_AT = 132
const MODIFIED_EXTRA_AT = 136
const HIGH = 2 ** 32

export const FLAGS = {
  encrypted: 0x800,
  hugeFile: 0x40000,
  extents: 0x80000,
  attributeValue: 0x200000,
  inlineData: 0x10000000,
} as const
export const ROOT_INODE = 2

const kinds: Readonly<Record<number, NodeKind>> = {
  1: 'fifo',
  2: 'character',
  4: 'directory',
  6: 'block',
  8: 'file',
  10: 'symlink',
  12: 'socket',
}
/** Of a directory entry, with `filetype`. Source: "Linear (Classic) Directories". */
export const entryKinds: readonly (NodeKind | null)[] = [
  null,
  'file',
  'directory',
  'character',
  'block',
  'fifo',
  'socket',
  'symlink',
]

export interface Inode extends FileNode {
  readonly flags: number
  /** The 60 bytes that say where the data are, or are the data. */
  readonly block: Uint8Array
  /** Block of extended attributes; 0: none. */
  readonly attributesBlock: number
  /** What it takes of the volume, in bytes; with the block of attributes. */
  readonly takenBytes: number
  /** What follows the fields in the inode, attributes among it. */
  readonly tail: Uint8Array
}

/** @throws ServiceError `invalid-image` where it is not in use, or is none of the known kinds */
export function parseInode(id: number, input: Uint8Array, superblock: Superblock): Inode {
  const raw = record.parse(input)
  const kind = kinds[raw.mode >>> 12]
  if (kind === undefined)
    throw refuse('malformed', `inode ${id} is of no known kind: i_mode is 0${raw.mode.toString(8)}`, { inode: id })
  const isWide = kind === 'file' || (kind === 'directory' && has(superblock, INCOMPATIBLE.largeDirectories))
  const size = raw.sizeLow + (isWide ? raw.sizeHigh * HIGH : 0)
  if (!Number.isSafeInteger(size))
    throw refuse('malformed', `inode ${id} has ${size} bytes, which is 2^53 or more`, { inode: id })
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength)
  const extraBytes = input.length > EXTRA_AT + 4 ? view.getUint16(EXTRA_AT, true) : 0
  const fieldsEnd = EXTRA_AT + extraBytes
  if (fieldsEnd > input.length || extraBytes % 4 !== 0) {
    throw refuse('malformed', `i_extra_isize of inode ${id} is ${extraBytes}, of ${input.length - EXTRA_AT} bytes`, { inode: id })
  }
  const extra = (at: number) => (at + 4 <= fieldsEnd ? view.getUint32(at, true) : 0)
  const sectors = raw.sectorsLow + raw.sectorsHigh * HIGH
  return {
    id,
    kind,
    mode: raw.mode & 0o7777,
    uid: raw.uidLow + raw.uidHigh * 0x10000,
    gid: raw.gidLow + raw.gidHigh * 0x10000,
    links: raw.links,
    bytes: size,
    modifiedNs: timeNs(raw.modified, extra(MODIFIED_EXTRA_AT)),
    changedNs: timeNs(raw.changed, extra(CHANGED_EXTRA_AT)),
    ...(kind === 'character' || kind === 'block' ? { device: deviceOf(raw) } : {}),
    flags: raw.flags,
    block: raw.block,
    attributesBlock: raw.attributesLow + raw.attributesHigh * HIGH,
    takenBytes: sectors * ((raw.flags & FLAGS.hugeFile) !== 0 ? superblock.blockBytes : 512),
    tail: input.subarray(fieldsEnd),
  }
}

/** Seconds are signed; two bits more of them and the nanoseconds are in the extra word. Source: "Inode Timestamps". */
const timeNs = (seconds: number, extra: number): bigint =>
  (BigInt(seconds | 0) + BigInt(extra & 3) * 4_294_967_296n) * 1_000_000_000n + BigInt(extra >>> 2)

/** Two encodings of the kernel's: 8 bits each in the first word, or 12 and 20 in the second. */
function deviceOf({ block }: Parsed<typeof fields>): { major: number; minor: number } {
  const view = new DataView(block.buffer, block.byteOffset)
  const old = view.getUint32(0, true)
  if (old !== 0) return { major: (old >>> 8) & 0xff, minor: old & 0xff }
  const wide = view.getUint32(4, true)
  return { major: (wide >>> 8) & 0xfff, minor: (wide & 0xff) | ((wide >>> 12) & 0xfff00) }
}
