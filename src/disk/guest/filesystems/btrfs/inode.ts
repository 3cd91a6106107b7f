import { struct, u32le, u64le } from '../../../../base/struct.ts'
import type { FileNode, NodeKind } from '../file-system.ts'
import { refuse } from './superblock.ts'

/** Inode; little-endian. Source: btrfs documentation, "On-disk format", "INODE_ITEM"; Linux include/uapi/linux/btrfs_tree.h. */
const record = struct('btrfs inode', {
  bytes: u64le(16),
  links: u32le(40),
  uid: u32le(44),
  gid: u32le(48),
  mode: u32le(52),
  device: u64le(56),
})
const CHANGED_AT = 124
const MODIFIED_AT = 136
export const INODE_BYTES = 160
const MINORS = 2 ** 20

const kinds: Readonly<Record<number, NodeKind>> = {
  1: 'fifo',
  2: 'character',
  4: 'directory',
  6: 'block',
  8: 'file',
  10: 'symlink',
  12: 'socket',
}

export interface Inode extends FileNode {
  /** The number of its subvolume, and its own in that. */
  readonly subvolume: number
  readonly inode: number
}

/** @throws ServiceError `invalid-image` where it is none of the known kinds */
export function parseInode(id: number, subvolume: number, inode: number, data: Uint8Array): Inode {
  const bad = (problem: string) =>
    refuse('malformed', `inode ${inode} of subvolume ${subvolume}: ${problem}`, { inode, subvolume })
  if (data.length < INODE_BYTES) throw bad(`it has ${data.length} bytes, of ${INODE_BYTES}`)
  const raw = record.parse(data)
  const kind = kinds[Math.floor(raw.mode / 0x1000)]
  if (kind === undefined) throw bad(`it is of no known kind: its mode is 0${raw.mode.toString(8)}`)
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  return {
    id,
    subvolume,
    inode,
    kind,
    mode: raw.mode & 0o7777,
    uid: raw.uid,
    gid: raw.gid,
    links: raw.links,
    bytes: raw.bytes,
    modifiedNs: timeNs(view, MODIFIED_AT),
    changedNs: timeNs(view, CHANGED_AT),
    ...(kind === 'character' || kind === 'block'
      ? { device: { major: Math.floor(raw.device / MINORS), minor: raw.device % MINORS } }
      : {}),
  }
}

const timeNs = (view: DataView, at: number): bigint =>
  view.getBigInt64(at, true) * 1_000_000_000n + BigInt(view.getUint32(at + 8, true))
