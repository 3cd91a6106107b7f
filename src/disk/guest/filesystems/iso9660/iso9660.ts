import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { mappedDisk, type Segment } from '../../../block/mapped-disk.ts'
import type { DirectoryEntry, FileNode, FileSystem, FileSystemDriver, NodeKind } from '../file-system.ts'
import { type Descriptors, readDescriptors, refuse, type Tree } from './descriptors.ts'
import { type DirectoryRecord, FLAG, isDots, parseRecord, plainName } from './record.ts'
import { type RockRidge, rockRidge, skippedBytes } from './rock-ridge.ts'

/**
 * ISO 9660 with Rock Ridge or Joliet: Rock Ridge where it is there, else Joliet, as the kernel chooses. Files that zisofs packed are named
 * and not read. Source: ECMA-119.
 */
export const iso9660: FileSystemDriver = {
  name: 'iso9660',
  async open(volume) {
    const descriptors = await readDescriptors(volume)
    return descriptors && opened(volume, descriptors)
  },
}

async function opened(volume: BlockSource, { primary, joliet, label, uuid, hasUdf }: Descriptors): Promise<FileSystem> {
  const skipped = await skippedOf(volume, primary)
  const tree = skipped === undefined ? (joliet ?? primary) : primary
  const files = new IsoFiles(volume, tree, skipped)
  const totalBytes = primary.blocks * primary.blockBytes
  const notes: string[] = []
  if (hasUdf) notes.push('it is a disc of UDF as well, which is not read: it may have more files')
  if (totalBytes > volume.size) notes.push(`it has ${totalBytes} bytes, and its volume ${volume.size}: it was cut off`)
  return {
    type: 'iso9660',
    label,
    uuid,
    blockBytes: tree.blockBytes,
    totalBytes,
    freeBytes: 0,
    notes,
    root: await files.node(tree.rootOffset * 2 + 1),
    node: (id) => files.node(id),
    list: (directory) => files.list(asIso(directory)),
    find: (directory, name) => files.find(asIso(directory), name),
    data: async (file) => files.data(asIso(file)),
    readLink: async (link) => files.readLink(asIso(link)),
    attributes: async () => new Map(),
  }
}

async function skippedOf(volume: BlockSource, tree: Tree): Promise<number | undefined> {
  const block = await readBytes(volume, tree.rootOffset, MAX_RECORD_BYTES)
  return skippedBytes(volume, tree, parseRecord(block, tree.rootOffset, tree).systemUse)
}

const MAX_RECORD_BYTES = 255
const READ_BYTES = 64 * KiB
const SECTOR_BYTES = 2 * KiB // records do not go across; ECMA-119, section 6.8.1.1
const MAX_EXTENTS = 100 // of a file, 4 GiB each: the kernel's own limit
const DEFAULT_MODE = 0o555 // the kernel's
const kinds: Readonly<Record<number, NodeKind>> = {
  1: 'fifo',
  2: 'character',
  4: 'directory',
  6: 'block',
  8: 'file',
  10: 'symlink',
  12: 'socket',
}

interface IsoNode extends FileNode {
  readonly extents: readonly { readonly offset: number; readonly bytes: number }[]
  readonly target: string | undefined
  readonly refusal: string | undefined
}

/**
 * A node's id is twice the place of its record; of a directory, twice that of its first record, which is its own, and one more. So a
 * directory that is reached by two ways is the same, as when Rock Ridge moved it.
 */
class IsoFiles {
  readonly #volume: BlockSource
  readonly #tree: Tree
  /** Undefined: no Rock Ridge. */
  readonly #skipped: number | undefined

  constructor(volume: BlockSource, tree: Tree, skipped: number | undefined) {
    this.#volume = volume
    this.#tree = tree
    this.#skipped = skipped
  }

  async node(id: number): Promise<IsoNode> {
    const offset = Math.floor(id / 2)
    if (!Number.isSafeInteger(id) || offset <= 0 || offset >= this.#volume.size)
      throw refuse('malformed', `there is no file ${id}`)
    const isDirectory = id % 2 === 1
    const record = await this.#recordAt(offset)
    if (isDirectory && !(isDots(record) && record.id[0] === 0 && (record.flags & FLAG.directory) !== 0))
      throw refuse('malformed', 'a directory that does not begin with itself', { offset })
    const rock = await this.#rock(record)
    const kind = isDirectory ? 'directory' : kindOf(record, rock)
    const extents = kind === 'file' ? await this.#extents(record) : [{ offset, bytes: record.dataBytes }]
    const stored = extents.reduce((all, { bytes }) => all + bytes, 0)
    return {
      id,
      kind,
      mode: rock?.mode === undefined ? DEFAULT_MODE : rock.mode & 0o7777,
      uid: rock?.uid ?? 0,
      gid: rock?.gid ?? 0,
      links: rock?.links ?? 1,
      bytes: kind === 'symlink' ? Buffer.byteLength(rock?.target ?? '') : (rock?.packed?.bytes ?? stored),
      modifiedNs: rock?.modifiedNs === undefined ? record.modifiedNs : rock.modifiedNs,
      changedNs: rock?.changedNs ?? null,
      ...(kind === 'character' || kind === 'block' ? { device: rock?.device ?? { major: 0, minor: 0 } } : {}),
      extents,
      target: rock?.target,
      refusal: refusalOf(record, rock),
    }
  }

  async *list(directory: IsoNode): AsyncGenerator<DirectoryEntry> {
    if (directory.kind !== 'directory') throw refuse('malformed', 'it is no directory', { offset: Math.floor(directory.id / 2) })
    const [{ offset, bytes } = { offset: 0, bytes: 0 }] = directory.extents
    let damage: unknown
    let goesOn = false
    for (let at = 0; at < bytes; at += READ_BYTES) {
      const part = await readBytes(this.#volume, offset + at, Math.min(READ_BYTES, bytes - at))
      for (let sector = 0; sector < part.length; sector += SECTOR_BYTES) {
        const end = Math.min(part.length, sector + SECTOR_BYTES)
        for (let here = sector; here < end && part[here] !== 0; ) {
          let record: DirectoryRecord
          try {
            record = parseRecord(part.subarray(here, end), offset + at + here, this.#tree)
          } catch (error) {
            damage ??= error // the rest of the sector cannot be found; the next one can
            break
          }
          here += record.bytes
          const isSame = goesOn // another extent of the file before
          goesOn = (record.flags & FLAG.goesOn) !== 0
          if (isSame || isDots(record) || (record.flags & FLAG.associated) !== 0) continue
          const entry = await this.#entry(record).catch((error: unknown) => {
            damage ??= error
          })
          if (entry) yield entry
        }
      }
    }
    if (damage) throw damage
  }

  /** By Rock Ridge as it is; else in any case, as the kernel. */
  async find(directory: IsoNode, name: string): Promise<DirectoryEntry | undefined> {
    const folded = (text: string) => (this.#skipped === undefined ? text.replace(/\.+$/, '').toUpperCase() : text)
    const wanted = folded(name)
    for await (const entry of this.list(directory)) if (folded(entry.name) === wanted) return entry
    return undefined
  }

  data(file: IsoNode): BlockSource {
    const offset = Math.floor(file.id / 2)
    if (file.kind !== 'file') throw refuse('malformed', 'it is no regular file', { offset })
    if (file.refusal !== undefined) throw refuse('unknown-feature', file.refusal, { offset })
    const { close: _, ...disk } = mappedDisk(this.#volume, {
      size: file.bytes,
      segments: (from, length) => segmentsOf(file, from, length, this.#volume.size),
    })
    return { ...disk, close: async () => {} }
  }

  readLink({ id, kind, target }: IsoNode): string {
    if (kind !== 'symlink' || target === undefined)
      throw refuse('malformed', 'it is no symbolic link', { offset: Math.floor(id / 2) })
    return target
  }

  async #entry(record: DirectoryRecord): Promise<DirectoryEntry | undefined> {
    const rock = await this.#rock(record)
    if (rock?.isMoved) return undefined
    const name = rock?.name ?? plainName(record, this.#tree)
    if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name))
      throw refuse('malformed', `an entry with the name ${JSON.stringify(name)}`, { offset: record.offset })
    const moved = rock?.childBlock === undefined ? undefined : rock.childBlock * this.#tree.blockBytes
    const kind = moved === undefined ? kindOf(record, rock) : 'directory'
    return { name, id: kind === 'directory' ? (moved ?? record.dataOffset) * 2 + 1 : record.offset * 2, kind }
  }

  #rock({ systemUse }: DirectoryRecord): Promise<RockRidge> | undefined {
    return this.#skipped === undefined ? undefined : rockRidge(this.#volume, this.#tree, systemUse.subarray(this.#skipped))
  }

  /** One, or several that records one after the other give. */
  async #extents(first: DirectoryRecord): Promise<{ offset: number; bytes: number }[]> {
    const found = [{ offset: first.dataOffset, bytes: first.dataBytes }]
    for (let record = first; (record.flags & FLAG.goesOn) !== 0; ) {
      if (found.length >= MAX_EXTENTS)
        throw refuse('malformed', `a file of more than ${MAX_EXTENTS} extents`, { offset: first.offset })
      record = await this.#recordAfter(record)
      if (Buffer.compare(record.id, first.id) !== 0)
        throw refuse('malformed', 'a file whose next extent is of another', { offset: record.offset })
      found.push({ offset: record.dataOffset, bytes: record.dataBytes })
    }
    return found
  }

  async #recordAfter({ offset, bytes }: DirectoryRecord): Promise<DirectoryRecord> {
    const next = offset + bytes
    const sectorEnd = (Math.floor(offset / SECTOR_BYTES) + 1) * SECTOR_BYTES
    const isHere = next < sectorEnd && (await readBytes(this.#volume, next, 1))[0] !== 0
    return this.#recordAt(isHere ? next : sectorEnd)
  }

  async #recordAt(offset: number): Promise<DirectoryRecord> {
    const sectorEnd = (Math.floor(offset / SECTOR_BYTES) + 1) * SECTOR_BYTES
    const end = Math.min(sectorEnd, offset + MAX_RECORD_BYTES, this.#volume.size)
    return parseRecord(await readBytes(this.#volume, offset, end - offset), offset, this.#tree)
  }
}

const asIso = (node: FileNode): IsoNode => node as IsoNode

const kindOf = ({ flags }: DirectoryRecord, rock: RockRidge | undefined): NodeKind => {
  if ((flags & FLAG.directory) !== 0) return 'directory'
  const said = kinds[(rock?.mode ?? 0) >>> 12]
  return said === undefined || said === 'directory' ? 'file' : said
}

function refusalOf({ isInterleaved }: DirectoryRecord, rock: RockRidge | undefined): string | undefined {
  if (isInterleaved) return 'a file whose parts are interleaved'
  if (rock?.isSparse) return 'a file with holes (SF)'
  if (rock?.packed) return `a file that is packed (ZF, ${JSON.stringify(rock.packed.algorithm)})`
  return undefined
}

function* segmentsOf(file: IsoNode, from: number, length: number, volumeBytes: number): Generator<Segment> {
  let start = 0 // of the extent, in the file
  for (const { offset, bytes } of file.extents) {
    const [at, stop] = [Math.max(from, start), Math.min(from + length, start + bytes)]
    const hostOffset = offset + at - start
    if (at < stop) {
      if (hostOffset + stop - at > volumeBytes)
        throw refuse('truncated', 'an extent lies beyond the end of the volume', { offset: hostOffset })
      yield { kind: 'data', offset: at, length: stop - at, hostOffset }
    }
    start += bytes
  }
}

async function readBytes(volume: BlockSource, offset: number, length: number): Promise<Uint8Array> {
  if (offset + length > volume.size) throw refuse('truncated', 'a directory lies beyond the end of the volume', { offset })
  return volume.read(offset, length)
}
