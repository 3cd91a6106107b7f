import type { FileNode, NodeKind } from '../file-system.ts'
import { type Cursor, Metadata, type Place } from './metadata.ts'
import { refuse, type Superblock, viewOf } from './superblock.ts'

/** Inodes; little-endian. Source: Linux fs/squashfs/squashfs_fs.h, struct squashfs_base_inode and those after it. */
const BASE_BYTES = 16
/** By type, from 1; 7 more are the same with more fields. */
export const kinds: readonly (NodeKind | undefined)[] = [
  undefined,
  'directory',
  'file',
  'symlink',
  'block',
  'character',
  'fifo',
  'socket',
]
const EXTENDED = 7
const NO_FRAGMENT = 0xffffffff
const NO_ATTRIBUTES = 0xffffffff
const MAX_LINK_BYTES = 4096
const ID_BYTES = 4

export interface Inode extends FileNode {
  /** Of its attributes in their table; null: none. */
  readonly attributes: number | null
  /** Of a directory: its entries, so many bytes from here. */
  readonly entries?: { readonly place: Place; readonly bytes: number }
  /** Of a file. */
  readonly content?: Content
  /** Of a symbolic link. */
  readonly target?: Uint8Array
}

export interface Content {
  /** Of its first block, in bytes of the volume. */
  readonly start: number
  /** The sizes of its blocks follow here, 4 bytes each. */
  readonly sizes: Place
  readonly blocks: number
  /** What of it is in a block that it shares. */
  readonly fragment: { readonly index: number; readonly offset: number } | null
}

/** @param id  where it is: of its block in the table, 2^16 times, and the byte in it @throws ServiceError `invalid-image` */
export async function readInode(metadata: Metadata, superblock: Superblock, id: number): Promise<Inode> {
  const { inodeTable, directoryTable } = superblock
  const place = Metadata.place(inodeTable, id)
  if (!Number.isSafeInteger(id) || id < 0 || place.block >= directoryTable)
    throw refuse('malformed', `there is no inode at ${id}`, { inode: id })
  const cursor = metadata.cursor(place, `inode ${id}`)
  const base = viewOf(await cursor.take(BASE_BYTES))
  const type = base.getUint16(0, true)
  const isExtended = type > EXTENDED
  const kind = kinds[isExtended ? type - EXTENDED : type]
  if (kind === undefined) throw refuse('malformed', `inode ${id} is of type ${type}`, { inode: id })
  const modifiedNs = BigInt(base.getUint32(8, true)) * 1_000_000_000n
  const common = {
    id,
    kind,
    mode: base.getUint16(2, true) & 0o7777,
    uid: await idOf(metadata, superblock, base.getUint16(4, true)),
    gid: await idOf(metadata, superblock, base.getUint16(6, true)),
    modifiedNs,
    changedNs: modifiedNs, // there is no other
  }
  if (kind === 'directory') return { ...common, ...(await directory(cursor, superblock, isExtended)) }
  if (kind === 'file') return { ...common, ...(await file(cursor, superblock, isExtended, id)) }
  if (kind === 'symlink') return { ...common, ...(await symbolicLink(cursor, isExtended, id)) }
  const isDevice = kind === 'block' || kind === 'character'
  const view = viewOf(await cursor.take(4 + (isDevice ? 4 : 0) + (isExtended ? 4 : 0)))
  return {
    ...common,
    bytes: 0,
    links: view.getUint32(0, true),
    attributes: isExtended ? attributesOf(view.getUint32(isDevice ? 8 : 4, true)) : null,
    ...(isDevice ? { device: deviceOf(view.getUint32(4, true)) } : {}),
  }
}

async function idOf(metadata: Metadata, { raw }: Superblock, index: number): Promise<number> {
  if (index >= raw.ids) throw refuse('malformed', `id ${index}, of ${raw.ids}`)
  return viewOf(await metadata.entry(raw.idTable, index, ID_BYTES, 'the table of ids')).getUint32(0, true)
}

type Own = Omit<Inode, 'id' | 'kind' | 'mode' | 'uid' | 'gid' | 'modifiedNs' | 'changedNs'>

async function directory(cursor: Cursor, { directoryTable }: Superblock, isExtended: boolean): Promise<Own> {
  const view = viewOf(await cursor.take(isExtended ? 24 : 16))
  const bytes = isExtended ? view.getUint32(4, true) : view.getUint16(8, true)
  return {
    bytes,
    links: view.getUint32(isExtended ? 0 : 4, true),
    attributes: isExtended ? attributesOf(view.getUint32(20, true)) : null,
    entries: {
      place: {
        block: directoryTable + view.getUint32(isExtended ? 8 : 0, true),
        byte: view.getUint16(isExtended ? 18 : 10, true),
      },
      bytes: Math.max(0, bytes - 3), // it counts `.` and `..`, which are not there
    },
  }
}

async function file(cursor: Cursor, { blockBytes }: Superblock, isExtended: boolean, id: number): Promise<Own> {
  const view = viewOf(await cursor.take(isExtended ? 40 : 16))
  const size = isExtended ? view.getBigUint64(8, true) : BigInt(view.getUint32(12, true))
  const start = isExtended ? view.getBigUint64(0, true) : BigInt(view.getUint32(0, true))
  if (size > BigInt(Number.MAX_SAFE_INTEGER) || start > BigInt(Number.MAX_SAFE_INTEGER))
    throw refuse('malformed', `inode ${id} has ${size} bytes, from ${start} on`, { inode: id })
  const bytes = Number(size)
  const fragment = view.getUint32(isExtended ? 28 : 4, true)
  const offset = view.getUint32(isExtended ? 32 : 8, true)
  const isWhole = fragment === NO_FRAGMENT
  return {
    bytes,
    links: isExtended ? view.getUint32(24, true) : 1,
    attributes: isExtended ? attributesOf(view.getUint32(36, true)) : null,
    content: {
      start: Number(start),
      sizes: cursor.place,
      blocks: isWhole ? Math.ceil(bytes / blockBytes) : Math.floor(bytes / blockBytes),
      fragment: isWhole ? null : { index: fragment, offset },
    },
  }
}

async function symbolicLink(cursor: Cursor, isExtended: boolean, id: number): Promise<Own> {
  const view = viewOf(await cursor.take(8))
  const bytes = view.getUint32(4, true)
  if (bytes > MAX_LINK_BYTES) throw refuse('malformed', `the symbolic link ${id} has ${bytes} bytes`, { inode: id })
  const target = await cursor.take(bytes)
  const attributes = isExtended ? attributesOf(viewOf(await cursor.take(4)).getUint32(0, true)) : null
  return { bytes, links: view.getUint32(0, true), attributes, target }
}

const attributesOf = (index: number): number | null => (index === NO_ATTRIBUTES ? null : index)

/** Source: the kernel's new_decode_dev. */
const deviceOf = (number: number): { major: number; minor: number } => ({
  major: (number >>> 8) & 0xfff,
  minor: (number & 0xff) | ((number >>> 12) & 0xfff00),
})
