import { bytes, struct, u8, u32le, u64le } from '../../../../base/struct.ts'
import type { Changes } from './changes.ts'
import { hashOfName, namedIn } from './directory.ts'
import { INODE_BYTES } from './inode.ts'
import { itemKey, TREE, TYPES } from './keys.ts'
import { refuse, type Superblock } from './superblock.ts'
import type { TreeRoot, Trees } from './trees.ts'

/** The roots of trees. Source: btrfs documentation, "On-disk format", "ROOT_ITEM", "ROOT_REF"; Linux include/uapi/linux/btrfs_tree.h. */
const record = struct('btrfs root', {
  generation: u64le(INODE_BYTES),
  rootDirectory: u64le(168),
  address: u64le(176),
  references: u32le(216), // 0: it is being deleted
  level: u8(238),
})
const referenceRecord = struct('btrfs reference of a root', { directory: u64le(0), nameBytes: bytes(16, 2) })
const REFERENCE_BYTES = 18
const FIRST_FREE_OBJECT = 256
/** Looked up last. */
const MAX_KEPT = 256
const DEFAULT_NAME = Buffer.from('default')

export interface Subvolume extends TreeRoot {
  readonly number: number
  /** The inode that is its root. */
  readonly rootDirectory: number
}

export const isSubvolume = (number: number): boolean => number === TREE.files || number >= FIRST_FREE_OBJECT

export class Subvolumes {
  readonly #trees: Trees
  readonly #superblock: Superblock
  readonly #changes: ReadonlyMap<number, Changes>
  readonly #kept = new Map<number, Subvolume>()

  constructor(trees: Trees, superblock: Superblock, changes: ReadonlyMap<number, Changes> = new Map()) {
    this.#trees = trees
    this.#superblock = superblock
    this.#changes = changes
  }

  /** The tree of a number, a subvolume or another; undefined where there is none, or it is being deleted. @throws ServiceError `invalid-image` */
  async find(number: number): Promise<Subvolume | undefined> {
    const known = this.#kept.get(number)
    if (known) return known
    const item = await this.#trees.floor(this.#root, itemKey(number, TYPES.root, Number.POSITIVE_INFINITY))
    if (item?.object !== number || item.type !== TYPES.root) return undefined
    const { generation, rootDirectory, address, references, level } = record.parse(item.data)
    if (references === 0) return undefined
    const changes = this.#changes.get(number)
    const found = { number, address, level, generation, rootDirectory, ...(changes ? { changes } : {}) }
    this.#kept.set(number, found)
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= MAX_KEPT) break
      this.#kept.delete(oldest)
    }
    return found
  }

  /** @throws ServiceError `invalid-image` where there is none */
  async get(number: number): Promise<Subvolume> {
    return (await this.find(number)) ?? absent(number)
  }

  /** Whether a directory's entry leads to a subvolume: those of a snapshot's directories stay where they were. */
  async isEntered(parent: number, directory: number, name: Uint8Array, number: number): Promise<boolean> {
    const item = await this.#trees.find(this.#root, itemKey(parent, TYPES.rootReference, number))
    if (!item) return false
    const reference = referenceRecord.parse(item.data)
    const known = item.data.subarray(REFERENCE_BYTES, REFERENCE_BYTES + reference.nameBytes[0]! + reference.nameBytes[1]! * 256)
    return reference.directory === directory && Buffer.compare(known, name) === 0
  }

  /** What a mount shows that names no subvolume. */
  async default(): Promise<number> {
    const { hasDefaultSubvolume, raw } = this.#superblock
    const item = await this.#trees.find(this.#root, itemKey(raw.rootDirectory, TYPES.directoryItem, hashOfName(DEFAULT_NAME)))
    for (const entry of item ? namedIn(item) : []) {
      if (Buffer.compare(entry.name, DEFAULT_NAME) !== 0) continue
      if (entry.type !== TYPES.root || !isSubvolume(entry.object)) {
        throw refuse('malformed', `the default subvolume is ${entry.object}, of type ${entry.type}`)
      }
      return entry.object
    }
    if (hasDefaultSubvolume) throw refuse('malformed', 'it has a default subvolume, and does not say which')
    return TREE.files
  }

  get #root(): TreeRoot {
    const { root, rootLevel, generation } = this.#superblock.raw
    return { address: root, level: rootLevel, generation }
  }
}

function absent(number: number): never {
  throw refuse('malformed', `there is no subvolume ${number}`, { subvolume: number })
}
