import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { ByteLru } from '../../../block/byte-lru.ts'
import { mappedDisk } from '../../../block/mapped-disk.ts'
import { bytesSource } from '../../../block/memory-source.ts'
import { nameOfBytes } from '../file-name.ts'
import type { DirectoryEntry, FileNode, FileSystem, FileSystemDriver } from '../file-system.ts'
import { type Attribute, attributesInBlock, attributesInInode, INLINE_DATA } from './attributes.ts'
import { entriesIn } from './directory.ts'
import { readBlock, segmentsOf } from './extents.ts'
import { FLAGS, type Inode, parseInode, ROOT_INODE } from './inode.ts'
import { replayed } from './journal.ts'
import { COMPATIBLE, descriptorBlock, has, INCOMPATIBLE, readSuperblock, refuse, type Superblock } from './superblock.ts'

/**
 * ext2, ext3 and ext4. A journal that was not replayed is read as if it were. Checksums of metadata are not verified: the store's
 * digests vouch for the bytes. Source: Linux Documentation/filesystems/ext4.
 */
export const ext4: FileSystemDriver = {
  name: 'ext4',
  async open(volume) {
    const found = await readSuperblock(volume)
    if (!found) return undefined
    const { volume: recovered, notes } = await withJournal(volume, found)
    const superblock = recovered === volume ? found : ((await readSuperblock(recovered)) ?? found)
    const files = new Ext4Files(recovered, superblock)
    return files.opened([...notes, ...oddities(superblock, volume.size)])
  },
}

async function withJournal(
  volume: BlockSource,
  superblock: Superblock,
): Promise<{ volume: BlockSource; notes: readonly string[] }> {
  if (!has(superblock, INCOMPATIBLE.recover)) return { volume, notes: [] }
  const { compatible, journalInode } = superblock.raw
  if ((compatible & COMPATIBLE.hasJournal) === 0 || journalInode === 0) {
    return { volume, notes: ['it was not unmounted, and its journal is on another device: what was written last may be missing'] }
  }
  const files = new Ext4Files(volume, superblock)
  return replayed(volume, await files.journal(journalInode), superblock)
}

function oddities({ isClean, hasErrors, blocks, blockBytes, raw }: Superblock, volumeBytes: number): string[] {
  const notes: string[] = []
  if (!isClean && (raw.compatible & COMPATIBLE.hasJournal) === 0)
    notes.push('it was not unmounted, and has no journal: run e2fsck')
  if (hasErrors) notes.push('the kernel found errors in it: run e2fsck')
  if (blocks * blockBytes > volumeBytes)
    notes.push(`it has ${blocks * blockBytes} bytes, and its volume ${volumeBytes}: it was cut off`)
  return notes
}

const MAX_LINK_BYTES = 4 * KiB // PATH_MAX
const FAST_LINK_BYTES = 60
const INLINE_BYTES = 60
const INLINE_PARENT_BYTES = 4
/** Of a table of inodes that are parsed often: a directory's children lie together. */
const MAX_DESCRIPTOR_BYTES = 256 * KiB
const HIGH = 2 ** 32
const DESCRIPTOR_TABLE_LOW = 8
const DESCRIPTOR_TABLE_HIGH = 40

class Ext4Files {
  readonly #volume: BlockSource
  readonly #superblock: Superblock
  readonly #descriptors = new ByteLru(MAX_DESCRIPTOR_BYTES)

  constructor(volume: BlockSource, superblock: Superblock) {
    this.#volume = volume
    this.#superblock = superblock
  }

  async opened(notes: readonly string[]): Promise<FileSystem> {
    const { raw, type, blockBytes, blocks, freeBlocks } = this.#superblock
    const root = await this.#inode(ROOT_INODE)
    if (root.kind !== 'directory') throw refuse('malformed', 'the root is no directory', { inode: ROOT_INODE })
    return {
      type,
      label: nameOfBytes(cString(raw.label)),
      uuid: uuidOf(raw.uuid),
      blockBytes,
      totalBytes: blocks * blockBytes,
      freeBytes: freeBlocks <= blocks ? freeBlocks * blockBytes : null,
      notes,
      root,
      node: (id) => this.#inode(id),
      list: (directory) => this.#list(asInode(directory)),
      find: (directory, name) => this.#find(asInode(directory), name),
      data: (file) => this.#data(asInode(file)),
      readLink: (link) => this.#readLink(asInode(link)),
      attributes: (node) => this.#attributes(asInode(node)),
    }
  }

  async journal(id: number): Promise<BlockSource> {
    const inode = await this.#inode(id)
    if (inode.kind !== 'file') throw refuse('malformed', 'the journal is no file', { inode: id })
    return this.#data(inode)
  }

  async #inode(id: number): Promise<Inode> {
    const { raw, inodeBytes, blockBytes, descriptorBytes, blocks } = this.#superblock
    if (!Number.isInteger(id) || id < 1 || id > raw.inodes)
      throw refuse('malformed', `there is no inode ${id}, of ${raw.inodes}`, { inode: id })
    const group = Math.floor((id - 1) / raw.inodesPerGroup)
    const perBlock = blockBytes / descriptorBytes
    const index = Math.floor(group / perBlock)
    const descriptors = await this.#descriptors.get(index, () =>
      readBlock(this.#volume, this.#superblock, descriptorBlock(this.#superblock, index), `the descriptor of group ${group}`),
    )
    const view = new DataView(descriptors.buffer, descriptors.byteOffset, descriptors.byteLength)
    const at = (group % perBlock) * descriptorBytes
    const isWide = descriptorBytes >= DESCRIPTOR_TABLE_HIGH + 4
    const table =
      view.getUint32(at + DESCRIPTOR_TABLE_LOW, true) + (isWide ? view.getUint32(at + DESCRIPTOR_TABLE_HIGH, true) * HIGH : 0)
    const inGroup = (id - 1) % raw.inodesPerGroup
    const tableBlocks = Math.ceil((raw.inodesPerGroup * inodeBytes) / blockBytes)
    if (table <= raw.firstDataBlock || table + tableBlocks > blocks) {
      throw refuse('malformed', `the inodes of group ${group} are at block ${table}, of ${blocks}`, { group })
    }
    const offset = table * blockBytes + inGroup * inodeBytes
    if (offset + inodeBytes > this.#volume.size)
      throw refuse('truncated', `inode ${id} lies beyond the end of the volume`, { inode: id })
    return parseInode(id, await this.#volume.read(offset, inodeBytes), this.#superblock)
  }

  async *#list(directory: Inode): AsyncGenerator<DirectoryEntry> {
    if (directory.kind !== 'directory')
      throw refuse('malformed', `inode ${directory.id} is no directory`, { inode: directory.id })
    if ((directory.flags & FLAGS.encrypted) !== 0) throw encrypted(directory)
    if ((directory.flags & FLAGS.inlineData) !== 0) {
      const { head, rest } = this.#inline(directory)
      yield* entriesIn(head.subarray(INLINE_PARENT_BYTES), directory, this.#superblock)
      yield* entriesIn(rest, directory, this.#superblock)
      return
    }
    const { blockBytes } = this.#superblock
    const data = this.#mapped(directory)
    for await (const { kind, offset, length } of data.extents(0, data.size)) {
      if (kind !== 'data') continue
      for (let at = offset; at < offset + length; at += blockBytes) {
        yield* entriesIn(await data.read(at, Math.min(blockBytes, data.size - at)), directory, this.#superblock)
      }
    }
  }

  async #find(directory: Inode, name: string): Promise<DirectoryEntry | undefined> {
    for await (const entry of this.#list(directory)) if (entry.name === name) return entry
    return undefined
  }

  async #data(file: Inode): Promise<BlockSource> {
    if (file.kind !== 'file') throw refuse('malformed', `inode ${file.id} is no regular file`, { inode: file.id })
    if ((file.flags & FLAGS.encrypted) !== 0) throw encrypted(file)
    if ((file.flags & FLAGS.inlineData) !== 0) return bytesSource(this.#inlineBytes(file))
    return this.#mapped(file)
  }

  async #readLink(link: Inode): Promise<string> {
    if (link.kind !== 'symlink') throw refuse('malformed', `inode ${link.id} is no symbolic link`, { inode: link.id })
    if ((link.flags & FLAGS.encrypted) !== 0) throw encrypted(link)
    if (link.bytes > MAX_LINK_BYTES)
      throw refuse('malformed', `the symbolic link ${link.id} has ${link.bytes} bytes`, { inode: link.id })
    if ((link.flags & FLAGS.inlineData) !== 0) return nameOfBytes(cString(this.#inlineBytes(link)))
    const ofAttributes = link.attributesBlock === 0 ? 0 : this.#superblock.blockBytes
    const isFast =
      link.bytes < FAST_LINK_BYTES &&
      (link.takenBytes - ofAttributes <= 0 || ((link.flags & FLAGS.extents) === 0 && link.takenBytes === 0))
    if (isFast) return nameOfBytes(cString(link.block.subarray(0, link.bytes)))
    return nameOfBytes(cString(await this.#mapped(link).read(0, link.bytes)))
  }

  async #attributes(inode: Inode): Promise<ReadonlyMap<string, Uint8Array>> {
    const all: Attribute[] = [...attributesInInode(inode)]
    if (inode.attributesBlock !== 0) {
      const what = `the attributes of inode ${inode.id}`
      all.push(...attributesInBlock(await readBlock(this.#volume, this.#superblock, inode.attributesBlock, what), inode))
    }
    const found = new Map<string, Uint8Array>()
    for (const { name, value, valueInode, valueBytes } of all) {
      if (name === INLINE_DATA) continue
      found.set(name, value ?? (await this.#attributeOfInode(valueInode!, valueBytes)))
    }
    return found
  }

  async #attributeOfInode(id: number, bytes: number): Promise<Uint8Array> {
    const inode = await this.#inode(id)
    if ((inode.flags & FLAGS.attributeValue) === 0 || inode.bytes !== bytes) {
      throw refuse('malformed', `inode ${id} is said to be an attribute of ${bytes} bytes`, { inode: id })
    }
    return this.#mapped(inode).read(0, bytes)
  }

  /** What is in the inode: its beginning, and what is in an attribute. */
  #inline(inode: Inode): { head: Uint8Array; rest: Uint8Array } {
    const rest = attributesInInode(inode).find(({ name }) => name === INLINE_DATA)
    if (!rest?.value)
      throw refuse('malformed', `inode ${inode.id} has its data in itself, but no attribute for them`, { inode: inode.id })
    return { head: inode.block, rest: rest.value }
  }

  #inlineBytes(inode: Inode): Uint8Array {
    const { head, rest } = this.#inline(inode)
    if (inode.bytes > INLINE_BYTES + rest.length) {
      throw refuse('malformed', `inode ${inode.id} has ${inode.bytes} bytes, and room for ${INLINE_BYTES + rest.length}`, {
        inode: inode.id,
      })
    }
    return Buffer.concat([head, rest]).subarray(0, inode.bytes)
  }

  #mapped(inode: Inode): BlockSource {
    const { close: _, ...disk } = mappedDisk(this.#volume, {
      size: inode.bytes,
      segments: (offset, length) => segmentsOf(this.#volume, this.#superblock, inode, offset, length),
    })
    return { ...disk, close: async () => {} }
  }
}

const asInode = (node: FileNode): Inode => node as Inode

const encrypted = ({ id }: Inode) => refuse('encrypted', `inode ${id} is encrypted`, { inode: id })

function cString(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0)
  return end < 0 ? bytes : bytes.subarray(0, end)
}

function uuidOf(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex')
  if (/^0*$/.test(hex)) return ''
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}
