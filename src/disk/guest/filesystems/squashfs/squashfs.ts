import type { BlockSource } from '../../../block/block-source.ts'
import { nameOfBytes } from '../file-name.ts'
import type { DirectoryEntry, FileNode, FileSystem, FileSystemDriver } from '../file-system.ts'
import { attributesAt } from './attributes.ts'
import { DataBlocks } from './data.ts'
import { type Inode, kinds, readInode } from './inode.ts'
import { Metadata } from './metadata.ts'
import { readSuperblock, refuse, type Superblock, viewOf } from './superblock.ts'

/** squashfs 4.0. An id is where the inode is. Source: Linux Documentation/filesystems/squashfs.rst. */
export const squashfs: FileSystemDriver = {
  name: 'squashfs',
  async open(volume) {
    const superblock = await readSuperblock(volume)
    if (!superblock) return undefined
    return new SquashFiles(volume, superblock).opened(volume.size)
  },
}

const HEADER_BYTES = 12
const ENTRY_BYTES = 8
const MAX_ENTRIES = 256 // behind one header
const SLASH = 0x2f

class SquashFiles {
  readonly #superblock: Superblock
  readonly #metadata: Metadata
  readonly #data: DataBlocks

  constructor(volume: BlockSource, superblock: Superblock) {
    this.#superblock = superblock
    this.#metadata = new Metadata(volume, superblock)
    this.#data = new DataBlocks(volume, superblock, this.#metadata)
  }

  async opened(volumeBytes: number): Promise<FileSystem> {
    const { raw, blockBytes } = this.#superblock
    const root = await this.#inode(raw.rootInode)
    if (root.kind !== 'directory') throw refuse('malformed', 'the root is no directory')
    const { bytesUsed } = raw
    return {
      type: 'squashfs',
      label: '',
      uuid: '',
      blockBytes,
      totalBytes: bytesUsed,
      freeBytes: 0,
      notes: bytesUsed > volumeBytes ? [`it has ${bytesUsed} bytes, and its volume ${volumeBytes}: it was cut off`] : [],
      root,
      node: (id) => this.#inode(id),
      list: (directory) => this.#list(asInode(directory)),
      find: async (directory, name) => {
        for await (const entry of this.#list(asInode(directory))) if (entry.name === name) return entry
        return undefined
      },
      data: async (file) => {
        const inode = asInode(file)
        if (!inode.content) throw refuse('malformed', `inode ${inode.id} is no regular file`, { inode: inode.id })
        return this.#data.source(inode, inode.content)
      },
      readLink: async (link) => {
        const { id, target } = asInode(link)
        if (!target) throw refuse('malformed', `inode ${id} is no symbolic link`, { inode: id })
        return nameOfBytes(target)
      },
      attributes: async (node) => {
        const { attributes } = asInode(node)
        return attributes === null ? new Map() : attributesAt(this.#metadata, this.#superblock, attributes)
      },
    }
  }

  #inode(id: number): Promise<Inode> {
    return readInode(this.#metadata, this.#superblock, id)
  }

  async *#list({ id, entries }: Inode): AsyncGenerator<DirectoryEntry> {
    const bad = (problem: string) => refuse('malformed', `directory ${id}: ${problem}`, { inode: id })
    if (!entries) throw bad('it is none')
    const cursor = this.#metadata.cursor(entries.place, `directory ${id}`)
    for (let left = entries.bytes; left > 0; ) {
      if (left < HEADER_BYTES) throw bad('a header that is cut off')
      const header = viewOf(await cursor.take(HEADER_BYTES))
      left -= HEADER_BYTES
      const count = header.getUint32(0, true) + 1
      if (count > MAX_ENTRIES) throw bad(`count is ${count - 1}`)
      for (let index = 0; index < count; index += 1) {
        const view = viewOf(await cursor.take(ENTRY_BYTES))
        const nameBytes = view.getUint16(6, true) + 1
        left -= ENTRY_BYTES + nameBytes
        if (left < 0 || nameBytes > 256) throw bad(`size is ${nameBytes - 1}`)
        const name = await cursor.take(nameBytes)
        if (name.includes(0) || name.includes(SLASH)) throw bad('a name with a slash or a NUL in it')
        const inode = header.getUint32(4, true) * 0x10000 + view.getUint16(0, true)
        yield { name: nameOfBytes(name), id: inode, kind: kinds[view.getUint16(4, true)] ?? null }
      }
    }
  }
}

const asInode = (node: FileNode): Inode => node as Inode
