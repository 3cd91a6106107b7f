import { type NamedItem, namedIn } from './directory.ts'
import { INODE_BYTES } from './inode.ts'
import { TYPES } from './keys.ts'
import type { Item } from './node.ts'
import { refuse } from './superblock.ts'

/** Items as bytes, as replaying a log makes them of others. */
export const INODE = { generation: 0, size: 16, links: 40, mode: 52 } as const
export const KIND = { directory: 4, file: 8 } as const
const ENTRY_BYTES = 30
const REFERENCE_BYTES = 10
const HIGH = 2 ** 32
/** Of a mode's upper four bits, what an entry says. */
const entryKinds: Readonly<Record<number, number>> = { 8: 1, 4: 2, 2: 3, 6: 4, 1: 5, 12: 6, 10: 7 }

/** An entry that leads to an inode. */
export function entryOf(inode: number, item: Uint8Array, name: Uint8Array): Uint8Array {
  const made = Buffer.alloc(ENTRY_BYTES + name.length)
  const view = viewOf(made)
  setWord(view, 0, inode)
  made[8] = TYPES.inode
  view.setUint16(27, name.length, true)
  made[29] = entryKinds[kindOf(item)] ?? 0
  made.set(name, ENTRY_BYTES)
  return made
}

/** Null where none is left. */
export function withoutNames(item: Item, isGone: (entry: NamedItem) => boolean): Uint8Array | null {
  const left: Uint8Array[] = []
  let at = 0
  for (const entry of namedIn(item)) {
    const bytes = ENTRY_BYTES + entry.name.length + entry.value.length
    if (!isGone(entry)) left.push(item.data.subarray(at, at + bytes))
    at += bytes
  }
  return left.length === 0 ? null : Buffer.concat(left)
}

export function referenceOf(index: number, name: Uint8Array): Uint8Array {
  const made = Buffer.alloc(REFERENCE_BYTES + name.length)
  setWord(viewOf(made), 0, index)
  viewOf(made).setUint16(8, name.length, true)
  made.set(name, REFERENCE_BYTES)
  return made
}

/** Where the bytes of a file that an extent has end. @param unit of an inline one */
export function extentEnd({ object, offset, data }: Item, unit: number): number {
  const view = viewOf(data)
  const isInline = data[20] === 0
  if (data.length < (isInline ? 21 : 53)) throw refuse('malformed', `an extent of inode ${object} is cut off`, { inode: object })
  return offset + (isInline ? Math.ceil(wordAt(view, 8) / unit) * unit : wordAt(view, 45))
}

/** Another part of the same extent. @param skip bytes that it begins later */
export function resized(data: Uint8Array, skip: number, bytes: number): Uint8Array {
  const made = data.slice()
  const view = viewOf(made)
  if (wordAt(view, 21) !== 0) setWord(view, 37, wordAt(view, 37) + skip)
  setWord(view, 45, bytes)
  return made
}

export const kindOf = (inode: Uint8Array): number => inodeView(inode).getUint32(INODE.mode, true) >>> 12
/** @throws ServiceError `invalid-image` where it is cut off */
export function inodeView(inode: Uint8Array): DataView {
  if (inode.length < INODE_BYTES) throw refuse('malformed', `an inode has ${inode.length} bytes, of ${INODE_BYTES}`)
  return viewOf(inode)
}
/** Bytes as a text that can be compared. */
export const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1')
export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
export const wordAt = (view: DataView, at: number): number => view.getUint32(at + 4, true) * HIGH + view.getUint32(at, true)
export const setWord = (view: DataView, at: number, value: number): void => view.setBigUint64(at, BigInt(value), true)
