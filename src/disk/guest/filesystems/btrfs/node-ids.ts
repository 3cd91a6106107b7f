import type { Inode } from './inode.ts'
import { refuse } from './superblock.ts'

/**
 * A node is an inode of a subvolume: its id is both numbers in one, below 2^53. An inode has 32 bits of it, the subvolume the 20 above the
 * 33rd, which says that the number is no inode but a subvolume that is not entered there (below). Numbers only ever grow in btrfs: it
 * would take 4 thousand million files to leave that, or a million subvolumes; such a node is refused by itself.
 */
const INODES = 2 ** 32
const SLOTS = 2 ** 33
const SUBVOLUMES = 2 ** 20

/** @throws ServiceError `unsupported` for numbers that are too large */
export function idOf(subvolume: number, inode: number): number {
  if (inode >= INODES || subvolume >= SUBVOLUMES) {
    const problem = `inode ${inode} of subvolume ${subvolume}: below ${INODES} and ${SUBVOLUMES} are read here`
    throw refuse('unknown-feature', problem, { inode, subvolume })
  }
  return subvolume * SLOTS + inode
}

/** @throws ServiceError `invalid-image` for what is no id */
export function partsOf(id: number): { subvolume: number; inode: number; isEmpty: boolean } {
  if (!Number.isSafeInteger(id) || id < 0) throw refuse('malformed', `there is no node ${id}`)
  const slot = id % SLOTS
  return { subvolume: Math.floor(id / SLOTS), inode: slot % INODES, isEmpty: slot >= INODES }
}

/** What is known of their owners; those that were listed first are forgotten first, and root's then. */
const MAX_KEPT = 4096
const EMPTY_INODE = 2 // BTRFS_EMPTY_SUBVOL_DIR_OBJECTID
const MODE = 0o755

/**
 * A snapshot has entries for the subvolumes in what it is of, but those stay where they were: the kernel shows an empty directory, which
 * belongs to whom the directory belongs that it is in. Source: Linux fs/btrfs/inode.c, new_simple_dir.
 */
export class EmptyDirectories {
  readonly #owners = new Map<number, Pick<Inode, 'uid' | 'gid'>>()

  /** @returns its id */
  add({ subvolume, uid, gid }: Inode, target: number): number {
    const id = idOf(subvolume, target) + INODES
    this.#owners.delete(id)
    this.#owners.set(id, { uid, gid })
    for (const oldest of this.#owners.keys()) {
      if (this.#owners.size <= MAX_KEPT) break
      this.#owners.delete(oldest)
    }
    return id
  }

  has(id: number): boolean {
    return partsOf(id).isEmpty
  }

  get(id: number): Inode {
    const { uid, gid } = this.#owners.get(id) ?? { uid: 0, gid: 0 }
    const { subvolume } = partsOf(id)
    return {
      id,
      subvolume,
      inode: EMPTY_INODE,
      kind: 'directory',
      mode: MODE,
      uid,
      gid,
      links: 1,
      bytes: 0,
      modifiedNs: null,
      changedNs: null,
    }
  }
}
