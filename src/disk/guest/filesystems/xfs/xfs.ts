import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { bytesOfName, nameOfBytes } from '../file-name.ts'
import type { DirectoryEntry, FileNode, FileSystem, FileSystemDriver } from '../file-system.ts'
import { attributesInBlocks, attributesInInode, forkBytes } from './attributes.ts'
import { entriesInBlock, entriesInInode, folded, MAX_DATA_BYTES } from './directory.ts'
import { Extents } from './extents.ts'
import { type Inode, readInode } from './inode.ts'
import { replayed } from './log-replay.ts'
import { has, INCOMPATIBLE, labelOf, readSuperblock, refuse, type Superblock, viewOf } from './superblock.ts'

/**
 * XFS of versions 4 and 5. A log that was not replayed is read as if it were. Ids are inode numbers, which are below 2^53 where the volume has fewer bytes. Checksums of metadata are
 * not verified: the store's digests vouch for the bytes. Source: "XFS Algorithms & Data Structures", 3rd edition.
 */
export const xfs: FileSystemDriver = {
  name: 'xfs',
  async open(volume) {
    const found = await readSuperblock(volume)
    if (!found) return undefined
    const { volume: recovered, notes, isClean } = await replayed(volume, found)
    const superblock = recovered === volume ? found : ((await readSuperblock(recovered)) ?? found)
    const files = new XfsFiles(recovered, isClean ? superblock : { ...superblock, freeBlocks: null }) // counted anew when mounted
    return files.opened([...notes, ...oddities(superblock, volume.size)])
  },
}

function oddities(superblock: Superblock, volumeBytes: number): string[] {
  const notes: string[] = []
  const { blocks, blockBytes } = superblock
  if (has(superblock, INCOMPATIBLE.needsRepair)) notes.push('a repair of it did not end: run xfs_repair')
  if (blocks * blockBytes > volumeBytes)
    notes.push(`it has ${blocks * blockBytes} bytes, and its volume ${volumeBytes}: it was cut off`)
  return notes
}

const MAX_LINK_BYTES = 1024 // XFS_SYMLINK_MAXLEN
/** Blocks of it: a byte each at the worst. */
const MAX_LINK_SOURCE_BYTES = (MAX_LINK_BYTES + 1) * 64 * KiB
const LINK_MAGIC = 0x58534c4d // "XSLM"
const LINK_HEADER_BYTES = 56
const LINK_OWNER_AT = 32

class XfsFiles {
  readonly #volume: BlockSource
  readonly #superblock: Superblock
  readonly #extents: Extents

  constructor(volume: BlockSource, superblock: Superblock) {
    this.#volume = volume
    this.#superblock = superblock
    this.#extents = new Extents(volume, superblock)
  }

  async opened(notes: readonly string[]): Promise<FileSystem> {
    const { raw, blockBytes, blocks, freeBlocks, rootInode } = this.#superblock
    const root = await this.#inode(rootInode)
    if (root.kind !== 'directory') throw refuse('malformed', 'the root is no directory', { inode: rootInode })
    return {
      type: 'xfs',
      label: nameOfBytes(labelOf(this.#superblock)),
      uuid: uuidOf(raw.uuid),
      blockBytes,
      totalBytes: blocks * blockBytes,
      freeBytes: freeBlocks === null ? null : freeBlocks * blockBytes,
      notes,
      root,
      node: (id) => this.#inode(id),
      list: (directory) => this.#list(asInode(directory)),
      find: (directory, name) => this.#find(asInode(directory), name),
      data: async (file) => this.#data(asInode(file)),
      readLink: (link) => this.#readLink(asInode(link)),
      attributes: (node) => this.#attributes(asInode(node)),
    }
  }

  #inode(id: number): Promise<Inode> {
    return readInode(this.#volume, this.#superblock, id)
  }

  async *#list(directory: Inode): AsyncGenerator<DirectoryEntry> {
    const { id, kind, data, bytes } = directory
    if (kind !== 'directory') throw refuse('malformed', `inode ${id} is no directory`, { inode: id })
    if (data.format === 'local') {
      yield* entriesInInode(directory, this.#superblock)
      return
    }
    const { blocks, blockBytes, directoryBlockBytes } = this.#superblock
    if (bytes > MAX_DATA_BYTES || bytes > blocks * blockBytes || bytes % directoryBlockBytes !== 0)
      throw refuse('malformed', `directory ${id} has ${bytes} bytes`, { inode: id })
    const source = this.#extents.source(directory, data, bytes)
    let at = 0
    for await (const { kind: what, offset, length } of source.extents(0, bytes)) {
      if (what !== 'data') continue
      at = Math.max(at, Math.floor(offset / directoryBlockBytes) * directoryBlockBytes)
      for (; at < offset + length; at += directoryBlockBytes) {
        yield* entriesInBlock(await source.read(at, directoryBlockBytes), directory, this.#superblock)
      }
    }
  }

  async #find(directory: Inode, name: string): Promise<DirectoryEntry | undefined> {
    let same: DirectoryEntry | undefined
    const wanted = this.#superblock.isCaseless ? folded(bytesOfName(name)) : undefined
    for await (const entry of this.#list(directory)) {
      if (entry.name === name) return entry
      if (wanted && !same && Buffer.compare(folded(bytesOfName(entry.name)), wanted) === 0) same = entry
    }
    return same
  }

  #data(file: Inode): BlockSource {
    const { id, kind, data, bytes, isRealtime } = file
    if (kind !== 'file') throw refuse('malformed', `inode ${id} is no regular file`, { inode: id })
    if (isRealtime)
      throw refuse('realtime', `the data of inode ${id} are on the realtime device, which is another`, { inode: id })
    if (data.format === 'extents' || data.format === 'tree') return this.#extents.source(file, data, bytes)
    throw refuse('malformed', `di_format of the file ${id} is neither extents nor btree`, { inode: id })
  }

  async #readLink(link: Inode): Promise<string> {
    const { id, kind, data, bytes } = link
    const bad = (problem: string) => refuse('malformed', `the symbolic link ${id} ${problem}`, { inode: id })
    if (kind !== 'symlink') throw refuse('malformed', `inode ${id} is no symbolic link`, { inode: id })
    if (bytes === 0 || bytes > MAX_LINK_BYTES) throw bad(`has ${bytes} bytes`)
    if (data.format === 'local') {
      if (bytes > data.bytes.length) throw bad(`has ${bytes} bytes, with room for ${data.bytes.length}`)
      return nameOfBytes(data.bytes.subarray(0, bytes))
    }
    const source = this.#extents.source(link, data, MAX_LINK_SOURCE_BYTES)
    if (this.#superblock.version === 4) return nameOfBytes(await source.read(0, bytes))
    return nameOfBytes(await this.#remoteLink(link, source))
  }

  /** In version 5 each extent of it begins with a header. Section "Extent Symbolic Links". */
  async #remoteLink({ id, bytes }: Inode, source: BlockSource): Promise<Uint8Array> {
    const { blockBytes } = this.#superblock
    const parts: Uint8Array[] = []
    let at = 0
    for (let left = bytes; left > 0; ) {
      const view = viewOf(await source.read(at, LINK_HEADER_BYTES))
      const here = view.getUint32(8)
      const isOwn = view.getUint32(0) === LINK_MAGIC && view.getBigUint64(LINK_OWNER_AT) === BigInt(id)
      if (!isOwn || view.getUint32(4) !== bytes - left || here === 0 || here > left)
        throw refuse('malformed', `the symbolic link ${id} has a block that is none of its own`, { inode: id })
      parts.push(await source.read(at + LINK_HEADER_BYTES, here))
      at += Math.ceil((LINK_HEADER_BYTES + here) / blockBytes) * blockBytes
      left -= here
    }
    return Buffer.concat(parts)
  }

  async #attributes(inode: Inode): Promise<ReadonlyMap<string, Uint8Array>> {
    const { id, attributes } = inode
    if (!attributes) return new Map()
    if (attributes.format === 'local') return attributesInInode(id, attributes.bytes)
    if (attributes.format === 'extents' && attributes.extents === 0) return new Map()
    return attributesInBlocks(inode, this.#extents.source(inode, attributes, forkBytes(this.#superblock)), this.#superblock)
  }
}

const asInode = (node: FileNode): Inode => node as Inode

function uuidOf(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}
