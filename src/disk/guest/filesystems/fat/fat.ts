import { isServiceError } from '../../../../base/errors.ts'
import { KiB, MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { LinkedClusters, type LinkTable } from '../../../block/linked-clusters.ts'
import { mappedDisk, type Segment } from '../../../block/mapped-disk.ts'
import type { DirectoryEntry, FileNode, FileSystem, FileSystemDriver } from '../file-system.ts'
import { type BootSector, readBootSector, refuse } from './boot-sector.ts'
import { textOf437 } from './code-page.ts'
import { DirectoryReader, type Entry, type FatNode, parseNode, RECORD_BYTES } from './directory.ts'
import { countFree, FIRST_CLUSTER, fileTable, numbersOf } from './table.ts'

/**
 * FAT12, FAT16 and FAT32 with long names. Times are local ones of an unknown zone, and shown as if it were UTC; that of the last change
 * of a node is not kept. Source: Microsoft, "FAT32 File System Specification" 1.03 (fatgen103).
 */
export const fat: FileSystemDriver = {
  name: 'vfat',
  async open(volume) {
    const boot = await readBootSector(volume)
    return boot && new FatFiles(volume, boot).opened()
  },
}

const ROOT_ID = 0 // the boot sector is there, so no record is
const MAX_DIRECTORY_BYTES = 2 * MiB // 65,536 records: "FAT Directory Structure"
const READ_BYTES = 64 * KiB
const INFO = { bytes: 512, lead: 0x41615252, structure: 0x61417272, structureAt: 484, freeAt: 488 } as const
const UNNAMED = 'NO NAME'

class FatFiles {
  readonly #volume: BlockSource
  readonly #boot: BootSector
  readonly #table: LinkTable
  readonly #root: FatNode

  constructor(volume: BlockSource, boot: BootSector) {
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
    }
  }

  async opened(): Promise<FileSystem> {
    const { clusterBytes, totalBytes, serial, notes } = this.#boot
    const { isClean, hasFaults } = await this.#state()
    const odd = [...notes]
    if (!isClean) odd.push('it was not unmounted: run fsck.fat')
    if (hasFaults) odd.push('its disk had faults when it was used: run fsck.fat')
    return {
      type: 'vfat',
      label: await this.#label(),
      uuid: serial === 0 ? '' : uuidOf(serial),
      blockBytes: clusterBytes,
      totalBytes,
      freeBytes: await this.#freeBytes(isClean),
      notes: odd,
      root: this.#root,
      node: (id) => this.#node(id),
      list: (directory) => this.#list(asFat(directory)),
      find: (directory, name) => this.#find(asFat(directory), name),
      data: async (file) => this.#data(asFat(file)),
      readLink: async ({ id }) => {
        throw refuse('malformed', 'there are no symbolic links', { offset: id * RECORD_BYTES })
      },
      attributes: async () => new Map(),
    }
  }

  /** The two highest bits of the number of cluster 1. Source: "FAT Data Structure", ClnShutBitMask. FAT12 has none. */
  async #state(): Promise<{ isClean: boolean; hasFaults: boolean }> {
    const { kind, isMounted } = this.#boot
    if (kind === 12) return { isClean: !isMounted, hasFaults: false }
    const value = (await numbersOf(this.#volume, this.#boot)(1)).at(1)
    const [clean, faultless] = kind === 16 ? [0x8000, 0x4000] : [0x08000000, 0x04000000]
    return { isClean: !isMounted && (value & clean) !== 0, hasFaults: (value & faultless) === 0 }
  }

  /** Of FAT32 what FSInfo says, which is right where it was unmounted. */
  async #freeBytes(isClean: boolean): Promise<number | null> {
    const { kind, clusters, clusterBytes, infoOffset } = this.#boot
    if (kind !== 32) return countFree(this.#volume, this.#boot)
    if (!isClean || infoOffset === 0 || infoOffset + INFO.bytes > this.#volume.size) return null
    const bytes = await this.#volume.read(infoOffset, INFO.bytes)
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const free = view.getUint32(INFO.freeAt, true)
    const isInfo = view.getUint32(0, true) === INFO.lead && view.getUint32(INFO.structureAt, true) === INFO.structure
    return isInfo && free <= clusters ? free * clusterBytes : null
  }

  /** The entry of the root that is a label; where there is none, the boot sector's. It is among the first, where it is. */
  async #label(): Promise<string> {
    const reader = new DirectoryReader()
    try {
      for await (const _ of this.#entries(this.#root, reader)) if (reader.label) break
    } catch (error) {
      if (!isServiceError(error)) throw error // a root that is damaged says so when it is listed
    }
    const stored = reader.label ?? this.#boot.label
    const label = stored ? textOf437(stored).replace(/[ \0]+$/, '') : ''
    return reader.label === undefined && label === UNNAMED ? '' : label
  }

  async #node(id: number): Promise<FatNode> {
    if (id === ROOT_ID) return this.#root
    const { kind, clustersOffset, rootOffset, rootBytes, clusters, clusterBytes } = this.#boot
    const offset = id * RECORD_BYTES
    const inRoot = offset >= rootOffset && offset < rootOffset + rootBytes
    const inClusters = offset >= clustersOffset && offset < clustersOffset + clusters * clusterBytes
    if (!Number.isSafeInteger(offset) || !(inRoot || inClusters)) throw refuse('malformed', `there is no file ${id}`)
    return parseNode(id, await this.#read(offset, RECORD_BYTES, 'a record of a directory'), kind === 32)
  }

  async *#list(directory: FatNode): AsyncGenerator<DirectoryEntry> {
    const reader = new DirectoryReader()
    for await (const { name, id, isDirectory } of this.#entries(directory, reader)) {
      yield { name, id, kind: isDirectory ? 'directory' : 'file' }
    }
    if (reader.damage) throw reader.damage
  }

  /** By either name, in any case; dots at the end do not count: as the kernel's vfat. */
  async #find(directory: FatNode, name: string): Promise<DirectoryEntry | undefined> {
    const wanted = folded(name)
    for await (const entry of this.#entries(directory, new DirectoryReader())) {
      if (folded(entry.name) !== wanted && folded(entry.shortName) !== wanted) continue
      return { name: entry.name, id: entry.id, kind: entry.isDirectory ? 'directory' : 'file' }
    }
    return undefined
  }

  async *#entries(directory: FatNode, reader: DirectoryReader): AsyncGenerator<Entry> {
    if (directory.kind !== 'directory') throw refuse('malformed', 'it is no directory', { offset: directory.id * RECORD_BYTES })
    const { rootOffset, rootBytes } = this.#boot
    if (directory === this.#root && rootBytes > 0) {
      const bytes = await this.#read(rootOffset, rootBytes, 'the root')
      yield* reader.entriesIn(bytes, rootOffset / RECORD_BYTES)
      return
    }
    for await (const { hostOffset, length } of this.#directoryRuns(directory)) {
      for (let at = 0; at < length; at += READ_BYTES) {
        const bytes = await this.#read(hostOffset + at, Math.min(READ_BYTES, length - at), 'a directory')
        yield* reader.entriesIn(bytes, (hostOffset + at) / RECORD_BYTES)
        if (reader.hasEnded) return
      }
    }
  }

  /** A directory has no size: its chain ends it, or a record. */
  async *#directoryRuns(directory: FatNode): AsyncGenerator<{ hostOffset: number; length: number }> {
    const { clusterBytes, rootCluster } = this.#boot
    const isRoot = directory === this.#root
    if (!isRoot && directory.firstCluster === rootCluster)
      throw refuse('malformed', 'a directory that is the root', { offset: directory.id * RECORD_BYTES })
    const chain = new LinkedClusters(this.#table, directory.firstCluster)
    const most = Math.ceil(MAX_DIRECTORY_BYTES / clusterBytes)
    const wanted = Math.ceil(READ_BYTES / clusterBytes)
    for (let index = 0; ; ) {
      const run = await chain.runAt(index, wanted)
      if (!run) return
      if (index >= most) throw refuse('malformed', `a directory of more than ${MAX_DIRECTORY_BYTES} bytes`)
      yield { hostOffset: this.#offsetOf(run.cluster), length: run.count * clusterBytes }
      index += run.count
    }
  }

  #data(file: FatNode): BlockSource {
    if (file.kind !== 'file') throw refuse('malformed', 'it is no regular file', { offset: file.id * RECORD_BYTES })
    const { clusterBytes, clusters } = this.#boot
    if (file.bytes > clusters * clusterBytes)
      throw refuse('malformed', `a file of ${file.bytes} bytes, where all clusters have ${clusters * clusterBytes}`)
    const chain = file.bytes === 0 ? undefined : new LinkedClusters(this.#table, file.firstCluster)
    const { close: _, ...disk } = mappedDisk(this.#volume, {
      size: file.bytes,
      segments: (offset, length) => this.#segments(chain, offset, length),
    })
    return { ...disk, close: async () => {} }
  }

  async *#segments(chain: LinkedClusters | undefined, offset: number, length: number): AsyncGenerator<Segment> {
    const { clusterBytes } = this.#boot
    const end = offset + length
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / clusterBytes)
      const run = await chain?.runAt(index, Math.ceil(end / clusterBytes) - index)
      if (!run) throw refuse('malformed', `a chain of ${index} clusters, for a file that has byte ${at}`)
      const stop = Math.min(end, (run.index + run.count) * clusterBytes)
      const hostOffset = this.#offsetOf(run.cluster) + (at - run.index * clusterBytes)
      if (hostOffset + stop - at > this.#volume.size)
        throw refuse('truncated', `cluster ${run.cluster} lies beyond the end of the volume`, { offset: hostOffset })
      yield { kind: 'data', offset: at, length: stop - at, hostOffset }
      at = stop
    }
  }

  #offsetOf(cluster: number): number {
    return this.#boot.clustersOffset + (cluster - FIRST_CLUSTER) * this.#boot.clusterBytes
  }

  async #read(offset: number, length: number, what: string): Promise<Uint8Array> {
    if (offset + length > this.#volume.size) throw refuse('truncated', `${what} lies beyond the end of the volume`, { offset })
    return this.#volume.read(offset, length)
  }
}

const asFat = (node: FileNode): FatNode => node as FatNode

const folded = (name: string): string => name.replace(/\.+$/, '').toUpperCase()

/** As blkid prints it: `ABCD-1234`. */
function uuidOf(serial: number): string {
  const hex = serial.toString(16).toUpperCase().padStart(8, '0')
  return `${hex.slice(0, 4)}-${hex.slice(4)}`
}
