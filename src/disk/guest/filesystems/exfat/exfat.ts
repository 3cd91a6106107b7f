import { isServiceError } from '../../../../base/errors.ts'
import { KiB, MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import type { LinkTable } from '../../../block/linked-clusters.ts'
import { unitsOfName } from '../file-name.ts'
import type { DirectoryEntry, FileNode, FileSystem, FileSystemDriver } from '../file-system.ts'
import { type BootRegion, FIRST_CLUSTER, readBootRegion, refuse } from './boot-region.ts'
import { type Allocation, fileSource, fileTable, offsetOf, runsOf } from './clusters.ts'
import {
  ENTRY,
  ENTRY_BYTES,
  EntryReader,
  type EntrySet,
  type ExfatNode,
  type FileEntry,
  nodeOf,
  parseFile,
  readVolumeEntry,
  type VolumeEntries,
} from './entries.ts'

/**
 * exFAT 1.x. Times without a zone are taken for UTC; that of the last change of a node is not kept.
 * Source: Microsoft, "exFAT file system specification".
 */
export const exfat: FileSystemDriver = {
  name: 'exfat',
  async open(volume) {
    const boot = await readBootRegion(volume)
    return boot && new ExfatFiles(volume, boot).opened()
  },
}

const ROOT_ID = 0 // no entry is there
const MAX_DIRECTORY_BYTES = 256 * MiB // section 7.4: 8,388,608 entries
const READ_BYTES = 64 * KiB
const MAX_BITMAP_BYTES = MiB // of 8 million clusters; a larger one is not counted
const UNITS = 65_536
const MAX_CAPITALS_BYTES = 2 * UNITS

/**
 * A node's id is twice the number of its first entry on the volume, and one more where the directory that it is in goes on with the next
 * cluster rather than as the table says.
 */
class ExfatFiles {
  readonly #volume: BlockSource
  readonly #boot: BootRegion
  readonly #table: LinkTable
  readonly #root: ExfatNode
  #entries: VolumeEntries = {}
  #capitals: Promise<Uint16Array> | undefined

  constructor(volume: BlockSource, boot: BootRegion) {
    this.#volume = volume
    this.#boot = boot
    this.#table = fileTable(volume, boot)
    this.#root = {
      id: ROOT_ID,
      kind: 'directory',
      mode: 0o755,
      uid: 0,
      gid: 0,
      links: 1,
      bytes: 0,
      modifiedNs: null,
      changedNs: null,
      firstCluster: boot.rootCluster,
      isContiguous: false,
      writtenBytes: 0,
    }
  }

  async opened(): Promise<FileSystem> {
    const { clusterBytes, totalBytes, serial, notes } = this.#boot
    this.#entries = await this.#volumeEntries()
    const odd = [...notes]
    if (!this.#entries.bitmap) odd.push('it has no allocation bitmap: run fsck.exfat')
    if (!this.#entries.capitals) odd.push('it has no up-case table: names are found as Unicode has capitals')
    return {
      type: 'exfat',
      label: this.#entries.label ?? '',
      uuid: serial === 0 ? '' : uuidOf(serial),
      blockBytes: clusterBytes,
      totalBytes,
      freeBytes: await this.#freeBytes(),
      notes: odd,
      root: this.#root,
      node: (id) => this.#node(id),
      list: (directory) => this.#list(asExfat(directory)),
      find: (directory, name) => this.#find(asExfat(directory), name),
      data: async (file) => this.#data(asExfat(file)),
      readLink: async () => {
        throw refuse('malformed', 'there are no symbolic links')
      },
      attributes: async () => new Map(),
    }
  }

  /** They are the first of the root, as a rule. */
  async #volumeEntries(): Promise<VolumeEntries> {
    const found: VolumeEntries = {}
    try {
      for await (const set of this.#sets(this.#root, new EntryReader())) {
        readVolumeEntry(set, this.#boot.activeTable, found)
        if (found.bitmap && found.capitals && (found.label !== undefined || set.bytes[0] === ENTRY.file)) break
      }
    } catch (error) {
      if (!isServiceError(error)) throw error // a root that is damaged says so when it is listed
    }
    return found
  }

  async #freeBytes(): Promise<number | null> {
    const { clusters, clusterBytes } = this.#boot
    const { bitmap } = this.#entries
    const bytes = Math.ceil(clusters / 8)
    if (!bitmap || bytes > MAX_BITMAP_BYTES || bitmap.bytes < bytes) return null
    try {
      const bits = await fileSource(this.#volume, this.#boot, this.#table, bitmap, bytes).read(0, bytes)
      let used = 0
      for (let at = 0; at < bytes; at += 1)
        used += BITS[at * 8 + 8 <= clusters ? bits[at]! : bits[at]! & ((1 << (clusters % 8)) - 1)]!
      return (clusters - used) * clusterBytes
    } catch (error) {
      if (isServiceError(error)) return null
      throw error
    }
  }

  async #node(id: number): Promise<ExfatNode> {
    if (id === ROOT_ID) return this.#root
    const { heapOffset, clusters, clusterBytes } = this.#boot
    const isContiguous = id % 2 === 1
    const offset = Math.floor(id / 2) * ENTRY_BYTES
    const inHeap = offset >= heapOffset && offset < heapOffset + clusters * clusterBytes
    if (!Number.isSafeInteger(id) || !inHeap) throw refuse('malformed', `there is no file ${id}`)
    return nodeOf(id, parseFile(await this.#setAt(offset, isContiguous)))
  }

  /** A set may go on in the next cluster of its directory. */
  async #setAt(offset: number, isContiguous: boolean): Promise<EntrySet> {
    const { heapOffset, clusterBytes } = this.#boot
    const head = await this.#read(offset, ENTRY_BYTES)
    const bytes = (1 + head[1]!) * ENTRY_BYTES
    const parts: Uint8Array[] = []
    let cluster = Math.floor((offset - heapOffset) / clusterBytes) + FIRST_CLUSTER
    for (let at = offset, left = bytes; left > 0; ) {
      const length = Math.min(left, offsetOf(this.#boot, cluster) + clusterBytes - at)
      parts.push(await this.#read(at, length))
      left -= length
      if (left === 0) break
      const next = isContiguous ? cluster + 1 : (await this.#table.window(cluster)).next(cluster)
      if (next === null || next < FIRST_CLUSTER || next >= this.#boot.clusters + FIRST_CLUSTER)
        throw refuse('malformed', 'a file without all of its entries', { offset })
      cluster = next
      at = offsetOf(this.#boot, cluster)
    }
    return { offset, bytes: Buffer.concat(parts) }
  }

  async *#list(directory: ExfatNode): AsyncGenerator<DirectoryEntry> {
    const reader = new EntryReader()
    for await (const [file, id] of this.#files(directory, reader)) yield shown(file, id)
    if (reader.damage) throw reader.damage
  }

  /** In any case, by the volume's own capitals. */
  async #find(directory: ExfatNode, name: string): Promise<DirectoryEntry | undefined> {
    const capitals = await this.#capitalsOf()
    const wanted = unitsOfName(name).map((unit) => capitals[unit]!)
    for await (const [file, id] of this.#files(directory, new EntryReader())) {
      const { units } = file
      if (units.length === wanted.length && units.every((unit, at) => capitals[unit] === wanted[at])) return shown(file, id)
    }
    return undefined
  }

  async *#files(directory: ExfatNode, reader: EntryReader): AsyncGenerator<readonly [file: FileEntry, id: number]> {
    const bit = directory.isContiguous ? 1 : 0
    for await (const set of this.#sets(directory, reader)) {
      if (set.bytes[0] !== ENTRY.file) continue
      let file: FileEntry
      try {
        file = parseFile(set)
      } catch (error) {
        if (!(error instanceof Error) || !isServiceError(error)) throw error
        reader.damage ??= error
        continue
      }
      yield [file, (set.offset / ENTRY_BYTES) * 2 + bit]
    }
  }

  async *#sets(directory: ExfatNode, reader: EntryReader): AsyncGenerator<EntrySet> {
    if (directory.kind !== 'directory') throw refuse('malformed', 'it is no directory')
    const { clusterBytes, rootCluster } = this.#boot
    const isRoot = directory === this.#root
    if (!isRoot && directory.firstCluster === rootCluster) throw refuse('malformed', 'a directory that is the root')
    if (directory.bytes > MAX_DIRECTORY_BYTES) throw refuse('malformed', `a directory of ${directory.bytes} bytes`)
    if (!isRoot && directory.bytes === 0) return
    const runs = runsOf(this.#boot, this.#table, { ...directory, bytes: isRoot ? null : directory.bytes })
    const most = (isRoot ? MAX_DIRECTORY_BYTES : directory.bytes) / clusterBytes
    for (let index = 0; index < most; ) {
      const run = await runs(index, Math.ceil(READ_BYTES / clusterBytes))
      if (!run) {
        if (isRoot) return
        throw refuse('malformed', `a chain of ${index} clusters, for a directory of ${directory.bytes} bytes`)
      }
      const length = Math.min(run.count, Math.ceil(most - index)) * clusterBytes
      for (let at = 0; at < length; at += READ_BYTES) {
        const offset = offsetOf(this.#boot, run.cluster) + at
        yield* reader.setsIn(await this.#read(offset, Math.min(READ_BYTES, length - at)), offset)
        if (reader.hasEnded) return
      }
      index += run.count
    }
  }

  #data(file: ExfatNode): BlockSource {
    if (file.kind !== 'file') throw refuse('malformed', 'it is no regular file')
    return fileSource(this.#volume, this.#boot, this.#table, file, file.bytes)
  }

  /** Where the table of capitals is damaged, those of Unicode. */
  #capitalsOf(): Promise<Uint16Array> {
    this.#capitals ??= (async () => {
      const { capitals } = this.#entries
      try {
        if (capitals && capitals.bytes <= MAX_CAPITALS_BYTES && capitals.bytes % 2 === 0)
          return expanded(
            await fileSource(this.#volume, this.#boot, this.#table, capitals, capitals.bytes).read(0, capitals.bytes),
          )
      } catch (error) {
        if (!isServiceError(error)) throw error
      }
      return Uint16Array.from({ length: UNITS }, (_, unit) => {
        const upper = String.fromCharCode(unit).toUpperCase()
        return upper.length === 1 ? upper.charCodeAt(0) : unit
      })
    })()
    return this.#capitals
  }

  async #read(offset: number, length: number): Promise<Uint8Array> {
    if (offset + length > this.#volume.size)
      throw refuse('truncated', 'a directory lies beyond the end of the volume', { offset })
    return this.#volume.read(offset, length)
  }
}

const asExfat = (node: FileNode): ExfatNode => node as ExfatNode & Allocation
const BITS = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length)

const shown = ({ name, isDirectory }: FileEntry, id: number): DirectoryEntry => ({
  name,
  id,
  kind: isDirectory ? 'directory' : 'file',
})

/** 0xffff and a number stand for so many that are their own capitals. Source: section 7.2.5. */
function expanded(table: Uint8Array): Uint16Array {
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  const capitals = Uint16Array.from({ length: UNITS }, (_, unit) => unit)
  let unit = 0
  for (let at = 0; at + 2 <= table.length && unit < UNITS; at += 2) {
    const value = view.getUint16(at, true)
    const isRun = value === 0xffff && at + 4 <= table.length && unit !== 0xffff
    if (isRun) {
      unit += view.getUint16(at + 2, true)
      at += 2
    } else {
      capitals[unit] = value
      unit += 1
    }
  }
  return capitals
}

/** As blkid prints it: `ABCD-1234`. */
function uuidOf(serial: number): string {
  const hex = serial.toString(16).toUpperCase().padStart(8, '0')
  return `${hex.slice(0, 4)}-${hex.slice(4)}`
}
