import type { BlockSource } from '../../../block/block-source.ts'
import { nameOfBytes } from '../file-name.ts'
import { ACCESS_LISTS, accessList } from './acl.ts'
import type { Inode } from './inode.ts'
import { refuse, type Superblock, viewOf } from './superblock.ts'

/** Source: "XFS Algorithms & Data Structures", "Extended Attributes"; flags by Linux fs/xfs/libxfs/xfs_da_format.h. */
const FLAG = { local: 0x1, root: 0x2, secure: 0x4, parent: 0x8, incomplete: 0x80 } as const
const MAGICS = { 4: { node: 0xfebe, leaf: 0xfbee }, 5: { node: 0x3ebe, leaf: 0x3bee } } as const
const MAGIC_AT = 8
const HEAD = {
  4: { infoBytes: 12, nodeBytes: 16, leafBytes: 32 },
  5: { infoBytes: 56, nodeBytes: 64, leafBytes: 80 },
} as const
const OWNER_AT = 48
const LEAF_ENTRY_BYTES = 8
const REMOTE_MAGIC = 0x5841524d // "XARM"
const REMOTE_HEADER_BYTES = 56
const REMOTE_OWNER_AT = 32
const MAX_LEVEL = 5 // XFS_DA_NODE_MAXDEPTH
const MAX_VALUE_BYTES = 65_536
const MAX_TOTAL_BYTES = 2 ** 24 // of names and values; listxattr(2) has room for 64 KiB of names
const MAX_FORK_BLOCKS = 2 ** 32

type Found = Map<string, Uint8Array>

/** Attributes with the names that getxattr(2) knows. */
class Attributes {
  readonly found: Found = new Map()
  readonly #id: number
  #bytes = 0

  constructor(id: number) {
    this.#id = id
  }

  add(flags: number, name: Uint8Array, value: Uint8Array): void {
    const text = nameOfBytes(name)
    const space = (flags & FLAG.root) !== 0 ? 'trusted.' : (flags & FLAG.secure) !== 0 ? 'security.' : 'user.'
    this.#put(space + text, value)
    const shown = (flags & FLAG.root) !== 0 ? ACCESS_LISTS.get(text) : undefined
    if (shown !== undefined) this.#put(shown, accessList(value, this.bad))
  }

  #put(name: string, value: Uint8Array): void {
    this.#bytes += name.length + value.length
    if (this.#bytes > MAX_TOTAL_BYTES)
      throw refuse('too-many', `inode ${this.#id} has more than ${MAX_TOTAL_BYTES} bytes of attributes`, { inode: this.#id })
    this.found.set(name, new Uint8Array(value))
  }

  readonly bad = (problem: string) =>
    refuse('malformed', `an extended attribute of inode ${this.#id}: ${problem}`, { inode: this.#id })
}

const isHidden = (flags: number): boolean => (flags & (FLAG.parent | FLAG.incomplete)) !== 0

/** The attributes that are in the inode. Section "Short Form Attributes". @throws ServiceError `invalid-image` */
export function attributesInInode(id: number, input: Uint8Array): ReadonlyMap<string, Uint8Array> {
  const all = new Attributes(id)
  const view = viewOf(input)
  const total = input.length >= 4 ? view.getUint16(0) : 0
  if (total < 4 || total > input.length) throw all.bad(`totsize is ${total}, with room for ${input.length}`)
  const count = view.getUint8(2)
  let at = 4
  for (let index = 0; index < count; index += 1) {
    if (at + 3 > total) throw all.bad(`entry ${index} of ${count} is cut off`)
    const nameBytes = view.getUint8(at)
    const valueBytes = view.getUint8(at + 1)
    const flags = view.getUint8(at + 2)
    const valueAt = at + 3 + nameBytes
    if (valueAt + valueBytes > total) throw all.bad(`entry ${index} of ${count} is cut off`)
    if (!isHidden(flags)) all.add(flags, input.subarray(at + 3, valueAt), input.subarray(valueAt, valueAt + valueBytes))
    at = valueAt + valueBytes
  }
  return all.found
}

/**
 * The attributes in blocks: a leaf, or a tree of them whose leaves are a chain. Sections "Leaf Attributes" and "Node Attributes".
 * @param fork  the bytes of the attribute fork
 * @throws ServiceError `invalid-image` at the first that breaks the format
 */
export async function attributesInBlocks(
  inode: Inode,
  fork: BlockSource,
  superblock: Superblock,
): Promise<ReadonlyMap<string, Uint8Array>> {
  const all = new Attributes(inode.id)
  const { version } = superblock
  const read = (block: number) => readBlock(inode.id, fork, superblock, block)
  let view = await read(0)
  for (let above = MAX_LEVEL + 1; view.getUint16(MAGIC_AT) === MAGICS[version].node; ) {
    const { infoBytes, nodeBytes } = HEAD[version]
    const level = view.getUint16(infoBytes + 2)
    if (level >= above || level === 0) throw all.bad(`level is ${level}, below one of ${above}`)
    above = level
    view = await read(view.getUint32(nodeBytes + 4)) // the lowest
  }
  const seen = new Set<number>([0])
  for (;;) {
    if (view.getUint16(MAGIC_AT) !== MAGICS[version].leaf) throw all.bad('a leaf without its magic')
    await addLeaf(all, view, inode.id, fork, superblock)
    const next = view.getUint32(0)
    if (next === 0) return all.found
    if (seen.has(next)) throw all.bad(`the chain of leaves comes back to block ${next}`)
    if (seen.size > MAX_TOTAL_BYTES / superblock.blockBytes)
      throw refuse('too-many', `inode ${inode.id} has more than ${seen.size} leaves of attributes`, { inode: inode.id })
    seen.add(next)
    view = await read(next)
  }
}

async function addLeaf(all: Attributes, view: DataView, id: number, fork: BlockSource, superblock: Superblock): Promise<void> {
  const { infoBytes, leafBytes } = HEAD[superblock.version]
  const count = view.getUint16(infoBytes)
  const size = view.byteLength
  if (leafBytes + count * LEAF_ENTRY_BYTES > size) throw all.bad(`count of a leaf is ${count}`)
  const bytesAt = (at: number, length: number) => new Uint8Array(view.buffer, view.byteOffset + at, length)
  for (let index = 0; index < count; index += 1) {
    const entry = leafBytes + index * LEAF_ENTRY_BYTES
    const at = view.getUint16(entry + 4)
    const flags = view.getUint8(entry + 6)
    if (isHidden(flags)) continue
    const isLocal = (flags & FLAG.local) !== 0
    const nameAt = at + (isLocal ? 3 : 9)
    if (nameAt > size) throw all.bad(`nameidx is ${at}`)
    const nameBytes = view.getUint8(nameAt - 1)
    const valueBytes = isLocal ? view.getUint16(at) : view.getUint32(at + 4)
    if (nameAt + nameBytes + (isLocal ? valueBytes : 0) > size) throw all.bad(`a name of ${nameBytes} bytes at ${at}`)
    const value = isLocal
      ? bytesAt(nameAt + nameBytes, valueBytes)
      : await remoteValue(id, fork, superblock, view.getUint32(at), valueBytes)
    all.add(flags, bytesAt(nameAt, nameBytes), value)
  }
}

/** A value in blocks of its own, which in version 5 have headers. Section "Remote Attribute Values". */
async function remoteValue(
  id: number,
  fork: BlockSource,
  superblock: Superblock,
  first: number,
  bytes: number,
): Promise<Uint8Array> {
  const bad = (problem: string) => refuse('malformed', `an extended attribute of inode ${id}: ${problem}`, { inode: id })
  if (bytes > MAX_VALUE_BYTES) throw bad(`valuelen is ${bytes}; it is at most ${MAX_VALUE_BYTES}`)
  const { version, blockBytes } = superblock
  if (version === 4) return fork.read(first * blockBytes, bytes)
  const parts: Uint8Array[] = []
  for (let [block, left] = [first, bytes]; left > 0; block += 1) {
    const input = await fork.read(block * blockBytes, blockBytes)
    const view = viewOf(input)
    const here = view.getUint32(8)
    if (view.getUint32(0) !== REMOTE_MAGIC) throw bad(`block ${block} of its value has not the magic of one`)
    if (view.getBigUint64(REMOTE_OWNER_AT) !== BigInt(id) || view.getUint32(4) !== bytes - left)
      throw bad(`block ${block} is of another value`)
    if (here === 0 || here > left || here > blockBytes - REMOTE_HEADER_BYTES) throw bad(`rm_bytes is ${here}`)
    parts.push(input.subarray(REMOTE_HEADER_BYTES, REMOTE_HEADER_BYTES + here))
    left -= here
  }
  return Buffer.concat(parts)
}

async function readBlock(id: number, fork: BlockSource, { version, blockBytes }: Superblock, block: number): Promise<DataView> {
  const view = viewOf(await fork.read(block * blockBytes, blockBytes))
  if (version === 5 && view.getBigUint64(OWNER_AT) !== BigInt(id)) {
    throw refuse('malformed', `block ${block} of the attributes of inode ${id} is of inode ${view.getBigUint64(OWNER_AT)}`, {
      inode: id,
    })
  }
  return view
}

/** Of an attribute fork: block numbers in it are of 32 bits. */
export const forkBytes = ({ blockBytes }: Superblock): number => (MAX_FORK_BLOCKS + MAX_VALUE_BYTES / 512) * blockBytes
