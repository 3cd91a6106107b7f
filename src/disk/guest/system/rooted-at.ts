import type { FileNode, FileSystem } from '../filesystems/file-system.ts'

/** The same file system with another directory as its root: a subvolume that is mounted alone. */
export const rootedAt = (files: FileSystem, root: FileNode): FileSystem => ({ ...files, root })
