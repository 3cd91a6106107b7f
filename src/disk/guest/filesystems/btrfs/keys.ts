import type { Key } from './node.ts'

/** What items are. Source: Linux include/uapi/linux/btrfs_tree.h. */
export const TYPES = {
  inode: 1,
  inodeReference: 12,
  extendedReference: 13,
  attribute: 24,
  directoryLogIndex: 72, // of a log: a range of entries that it has all of
  directoryItem: 84, // by the hash of its name
  directoryIndex: 96, // in the order of making
  extentData: 108,
  root: 132,
  rootBackReference: 144,
  rootReference: 156,
  blockGroup: 192,
  chunk: 228,
} as const

/** The trees that are found by a number. */
export const TREE = { extents: 2, files: 5, blockGroups: 11 } as const

export const itemKey = (object: number, type: number, offset: number): Key => ({ object, type, offset })
