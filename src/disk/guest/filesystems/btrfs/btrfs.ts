import { ServiceError } from '../../../../base/errors.ts'
import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { mappedDisk } from '../../../block/mapped-disk.ts'
import { bytesOfName, nameOfBytes } from '../file-name.ts'
import type { DirectoryEntry, FileNode, FileSystem, FileSystemDriver } from '../file-system.ts'
import type { Changes } from './changes.ts'
import { type ChunkMap, chunksOf, systemChunks } from './chunks.ts'
import { fileNameOf, hashOfName, type NamedItem, namedIn } from './directory.ts'
import { FileExtents } from './extents.ts'
import { freeBytesOf } from './free-space.ts'
import { type Inode, parseInode } from './inode.ts'
import { itemKey, TREE, TYPES } from './keys.ts'
import { replayedLog } from './log-replay.ts'
import { EmptyDirectories, idOf, partsOf } from './node-ids.ts'
import { isSubvolume, type Subvolume, Subvolumes } from './subvolumes.ts'
import { readSuperblock, refuse, type Superblock } from './superblock.ts'
import { Trees } from './trees.ts'

/**
 * btrfs on one device. The root is that of the default subvolume; other subvolumes are directories in it, as the kernel shows them.
 * The checksums of nodes are verified where they are crc32c or SHA-256, and a second copy is taken where the first is damaged; those of
 * data are not: the store's digests vouch for the bytes. Source: btrfs documentation, "On-disk format".
 */
export const btrfs: FileSystemDriver = {
  name: 'btrfs',
  async open(volume) {
    const superblock = await readSuperblock(volume)
    if (!superblock) return undefined
    const systemTrees = new Trees(volume, superblock, systemChunks(superblock).locate)
    const chunks = chunksOf(systemTrees, superblock)
    const trees = new Trees(volume, superblock, chunks.locate)
    const { changes, notes } = await withLog(superblock, trees)
    const subvolumes = new Subvolumes(trees, superblock, changes)
    const files = new BtrfsFiles(volume, superblock, trees, chunks, subvolumes)
    const freeBytes = await freeBytesOf(superblock, trees, chunks, subvolumes)
    return files.opened(await subvolumes.default(), { freeBytes, notes: [...oddities(superblock, volume.size), ...notes] })
  },
}

/** A log that cannot be replayed leaves what was committed, which is whole by itself. */
async function withLog(
  superblock: Superblock,
  trees: Trees,
): Promise<{ changes: ReadonlyMap<number, Changes>; notes: readonly string[] }> {
  if (superblock.raw.logRoot === 0) return { changes: new Map(), notes: [] }
  try {
    const changes = await replayedLog(superblock, trees, new Subvolumes(trees, superblock))
    const many = changes.size === 1 ? 'one subvolume' : `${changes.size} subvolumes`
    return { changes, notes: [`it was not unmounted: its log of what was synced last, of ${many}, is read as if replayed`] }
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error
    const why = error.message.replace(/^btrfs: /, '')
    return {
      changes: new Map(),
      notes: [
        `it was not unmounted, and its log of what was synced last could not be read (${why}): files that were just written may be missing or old`,
      ],
    }
  }
}

function oddities({ notes, hasErrors, raw }: Superblock, volumeBytes: number): string[] {
  const found = [...notes]
  if (hasErrors) found.push('the kernel found errors in it: run btrfs check')
  if (raw.totalBytes > volumeBytes) found.push(`it has ${raw.totalBytes} bytes, and its volume ${volumeBytes}: it was cut off`)
  return found
}

const MAX_LINK_BYTES = 4 * KiB // PATH_MAX

class BtrfsFiles {
  readonly #volume: BlockSource
  readonly #superblock: Superblock
  readonly #trees: Trees
  readonly #subvolumes: Subvolumes
  readonly #extents: FileExtents
  readonly #empty = new EmptyDirectories()

  constructor(volume: BlockSource, superblock: Superblock, trees: Trees, chunks: ChunkMap, subvolumes: Subvolumes) {
    this.#volume = volume
    this.#superblock = superblock
    this.#trees = trees
    this.#subvolumes = subvolumes
    this.#extents = new FileExtents(volume, superblock, trees, chunks)
  }

  async opened(subvolume: number, known: Pick<FileSystem, 'freeBytes' | 'notes'>): Promise<FileSystem> {
    const { raw } = this.#superblock
    return {
      ...known,
      type: 'btrfs',
      label: nameOfBytes(cString(raw.label)),
      uuid: uuidOf(raw.fsid),
      blockBytes: raw.sectorBytes,
      totalBytes: raw.totalBytes,
      root: await this.#rootOf(await this.#subvolumes.get(subvolume)),
      node: (id) => this.#node(id),
      list: (directory) => this.#list(asInode(directory)),
      find: (directory, name) => this.#find(asInode(directory), name),
      data: (file) => this.#data(asInode(file)),
      readLink: (link) => this.#readLink(asInode(link)),
      attributes: (node) => this.#attributes(asInode(node)),
      subvolume: async (place) => {
        const number = typeof place === 'number' ? await this.#existing(place) : await this.#subvolumeAt(place)
        return number === undefined ? undefined : this.opened(number, known)
      },
    }
  }

  async #existing(number: number): Promise<number | undefined> {
    return isSubvolume(number) && (await this.#subvolumes.find(number)) ? number : undefined
  }

  async #subvolumeAt(path: string): Promise<number | undefined> {
    let node: Inode = await this.#rootOf(await this.#subvolumes.get(TREE.files))
    for (const name of path.split('/').filter((part) => part !== '')) {
      const entry = node.kind === 'directory' ? await this.#find(node, name) : undefined
      if (!entry) return undefined
      node = await this.#node(entry.id)
    }
    const subvolume = await this.#subvolumes.get(node.subvolume)
    return node.inode === subvolume.rootDirectory ? subvolume.number : undefined
  }

  async #rootOf({ number, rootDirectory }: Subvolume): Promise<Inode> {
    const root = await this.#inode(number, rootDirectory)
    if (root.kind !== 'directory')
      throw refuse('malformed', `the root of subvolume ${number} is no directory`, { subvolume: number })
    return root
  }

  async #node(id: number): Promise<Inode> {
    const { subvolume, inode, isEmpty } = partsOf(id)
    return isEmpty ? this.#empty.get(id) : this.#inode(subvolume, inode)
  }

  async #inode(subvolume: number, inode: number): Promise<Inode> {
    const root = await this.#subvolumes.get(subvolume)
    const item = await this.#trees.find(root, itemKey(inode, TYPES.inode, 0))
    if (!item) throw refuse('malformed', `there is no inode ${inode} in subvolume ${subvolume}`, { inode, subvolume })
    return parseInode(idOf(subvolume, inode), subvolume, inode, item.data)
  }

  async *#list(directory: Inode): AsyncGenerator<DirectoryEntry> {
    if (this.#empty.has(directory.id)) return
    const root = await this.#treeOf(directory)
    for await (const item of this.#trees.from(root, itemKey(directory.inode, TYPES.directoryIndex, 0))) {
      if (item.object !== directory.inode || item.type !== TYPES.directoryIndex) return
      for (const entry of namedIn(item)) yield await this.#entry(directory, entry)
    }
  }

  async #find(directory: Inode, name: string): Promise<DirectoryEntry | undefined> {
    if (this.#empty.has(directory.id)) return undefined
    const wanted = bytesOfName(name)
    const root = await this.#treeOf(directory)
    const item = await this.#trees.find(root, itemKey(directory.inode, TYPES.directoryItem, hashOfName(wanted)))
    for (const entry of item ? namedIn(item) : []) {
      if (Buffer.compare(entry.name, wanted) === 0) return this.#entry(directory, entry)
    }
    return undefined
  }

  async #treeOf(directory: Inode): Promise<Subvolume> {
    if (directory.kind !== 'directory')
      throw refuse('malformed', `inode ${directory.inode} is no directory`, { inode: directory.inode })
    return this.#subvolumes.get(directory.subvolume)
  }

  async #entry(directory: Inode, entry: NamedItem): Promise<DirectoryEntry> {
    const name = fileNameOf(entry, directory.inode)
    if (entry.type === TYPES.inode) return { name, id: idOf(directory.subvolume, entry.object), kind: entry.kind }
    const bad = () =>
      refuse('malformed', `an entry of directory ${directory.inode} leads to ${entry.object}, of type ${entry.type}`)
    if (entry.type !== TYPES.root || !isSubvolume(entry.object)) throw bad()
    const isEntered = await this.#subvolumes.isEntered(directory.subvolume, directory.inode, entry.name, entry.object)
    const subvolume = isEntered ? await this.#subvolumes.find(entry.object) : undefined
    const id = subvolume ? idOf(subvolume.number, subvolume.rootDirectory) : this.#empty.add(directory, entry.object)
    return { name, id, kind: 'directory' }
  }

  async #data(file: Inode): Promise<BlockSource> {
    if (file.kind !== 'file') throw refuse('malformed', `inode ${file.inode} is no regular file`, { inode: file.inode })
    return this.#mapped(file)
  }

  async #readLink(link: Inode): Promise<string> {
    if (link.kind !== 'symlink') throw refuse('malformed', `inode ${link.inode} is no symbolic link`, { inode: link.inode })
    if (link.bytes > MAX_LINK_BYTES)
      throw refuse('malformed', `the symbolic link ${link.inode} has ${link.bytes} bytes`, { inode: link.inode })
    const data = await this.#mapped(link)
    return nameOfBytes(cString(await data.read(0, link.bytes)))
  }

  async #attributes(node: Inode): Promise<ReadonlyMap<string, Uint8Array>> {
    const found = new Map<string, Uint8Array>()
    if (this.#empty.has(node.id)) return found
    const root = await this.#subvolumes.get(node.subvolume)
    for await (const item of this.#trees.from(root, itemKey(node.inode, TYPES.attribute, 0))) {
      if (item.object !== node.inode || item.type !== TYPES.attribute) break
      for (const { name, value } of namedIn(item)) found.set(nameOfBytes(name), new Uint8Array(value))
    }
    return found
  }

  async #mapped(inode: Inode): Promise<BlockSource> {
    const root = await this.#subvolumes.get(inode.subvolume)
    const { close: _, ...disk } = mappedDisk(this.#volume, {
      size: inode.bytes,
      segments: (offset, length) => this.#extents.segments(root, inode, offset, length),
    })
    return { ...disk, close: async () => {} }
  }
}

const asInode = (node: FileNode): Inode => node as Inode

function cString(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0)
  return end < 0 ? bytes : bytes.subarray(0, end)
}

function uuidOf(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}
