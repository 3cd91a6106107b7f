import type { BlockSource } from '../../block/block-source.ts'

/** A kind of file system: a reader of volumes. It writes nothing, and follows nothing out of its volume. */
export interface FileSystemDriver {
  /** As `blkid` says: `ext4` covers ext2 and ext3. */
  readonly name: string
  /**
   * Opens the file system on `volume`, which is a partition, a logical volume or a whole disk. The volume stays the caller's.
   * @returns undefined where there is none of this kind, whatever else there is
   * @throws ServiceError `invalid-image` where there is one that is damaged; `unsupported` where it uses what is not known here: a
   *   feature flag that is not understood is refused, never passed over
   */
  open(volume: BlockSource): Promise<FileSystem | undefined>
}

/**
 * The files of one volume. Nodes are told apart by `id`, a number that means something to the file system alone.
 * Every method may throw `invalid-image` or `unsupported` where what it reads is damaged; what does not depend on that can still be read.
 */
export interface FileSystem {
  /** `TYPE` of `blkid`: ext2, ext3, ext4, xfs, btrfs, vfat, exfat, ntfs, iso9660, squashfs, erofs. */
  readonly type: string
  /** As `blkid` prints them; empty: none. */
  readonly label: string
  readonly uuid: string
  /** Bytes of the smallest unit that files are given. */
  readonly blockBytes: number
  /** Of the file system, which may be smaller than its volume. */
  readonly totalBytes: number
  /** What nothing uses; null where it cannot be told without reading everything. */
  readonly freeBytes: number | null
  /** What is odd about it, a sentence each: that it was not unmounted, and how that was dealt with. */
  readonly notes: readonly string[]
  readonly root: FileNode
  /** @throws ServiceError `invalid-image` where there is no such node */
  node(id: number): Promise<FileNode>
  /** The entries of a directory in its own order, without `.` and `..`. Bounded by the bytes of the directory, however it is linked. */
  list(directory: FileNode): AsyncIterable<DirectoryEntry>
  /** The entry that goes by a name, by the file system's own rule of what is the same. Not slower than `list`. */
  find(directory: FileNode, name: string): Promise<DirectoryEntry | undefined>
  /** The bytes of a regular file, with its holes. Closing it closes nothing. */
  data(file: FileNode): Promise<BlockSource>
  /** What a symbolic link says, at most 4,096 bytes. */
  readLink(link: FileNode): Promise<string>
  /** Extended attributes by their whole names, `security.selinux`; at most 64 KiB each. Empty where the file system has none. */
  attributes(node: FileNode): Promise<ReadonlyMap<string, Uint8Array>>
  /**
   * The same file system as the mount options `subvol=` (a path from its top) and `subvolid=` show it; undefined where there is no such
   * subvolume. Only where a file system has subvolumes.
   */
  subvolume?(place: string | number): Promise<FileSystem | undefined>
}

export type NodeKind = 'file' | 'directory' | 'symlink' | 'character' | 'block' | 'fifo' | 'socket'

export interface FileNode {
  readonly id: number
  readonly kind: NodeKind
  /** Permissions, with set-user-id, set-group-id and sticky: 12 bits. What a mount gives by default where the file system keeps none. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** How many names it has; 1 where that is not kept. */
  readonly links: number
  /** Of a file or a symbolic link; of a directory whatever the file system says. */
  readonly bytes: number
  /** Nanoseconds since 1970, UTC; null where it is not kept. */
  readonly modifiedNs: bigint | null
  readonly changedNs: bigint | null
  /** Of a character or block device. */
  readonly device?: { readonly major: number; readonly minor: number }
}

export interface DirectoryEntry {
  /** See file-name.ts: what is not UTF-8 is kept. */
  readonly name: string
  readonly id: number
  /** Null where the directory does not say: the node does. */
  readonly kind: NodeKind | null
}
