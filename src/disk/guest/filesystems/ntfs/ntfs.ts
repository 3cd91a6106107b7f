import { isServiceError } from '../../../../base/errors.ts'
import { KiB, MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { nameOfUnits, unitsOfName } from '../file-name.ts'
import type { DirectoryEntry, FileNode, FileSystem, FileSystemDriver, NodeKind } from '../file-system.ts'
import { type BootSector, readBootSector, refuse } from './boot-sector.ts'
import { compareNames, DOS_NAMES, type IndexEntry, isSameName, type NameIndex, nameIndex, textOf } from './directory.ts'
import { INTERIX, interixOf } from './interix.ts'
import { isCleanLog } from './log-file.ts'
import { Mft } from './mft.ts'
import { type Attribute, type MftRecord, TYPE, unitsAt, viewOf } from './record.ts'
import { parseReparse, type Reparse } from './reparse.ts'
import { openStream } from './stream.ts'

/**
 * NTFS 1.2 to 3.1. Its journal is not replayed: where it should be, a note says so. Streams beside a file's data are attributes,
 * `user.NAME`: the first 256 of those that have 64 KiB or less. Access lists are not shown as permissions. Source: the Linux-NTFS project, "NTFS Documentation".
 */
export const ntfs: FileSystemDriver = {
  name: 'ntfs',
  async open(volume) {
    const boot = await readBootSector(volume)
    if (!boot) return undefined
    return new NtfsFiles(volume, boot, await Mft.open(volume, boot)).opened()
  },
}

const RECORD = { logFile: 2, volume: 3, root: 5, bitmap: 6, capitals: 10, firstOfUsers: 16 } as const
const FLAG = { system: 0x4, reparse: 0x400, directory: 0x10000000 } as const
const versions: readonly string[] = ['1.2', '3.0', '3.1']
const VOLUME_DIRTY = 1
const INDEX = '$I30'
const MODE = 0o777 // as ntfs-3g gives without a map of users
const MAX_STREAM_BYTES = 64 * KiB
const MAX_STREAMS = 256
const MAX_VALUE_BYTES = 64 * KiB // of attributes that are read whole
const MAX_BITMAP_BYTES = MiB
const CAPITALS = 65_536
const SEQUENCES = 2 ** 16
const MAX_RECORD = 2 ** 37
const EPOCH = 116_444_736_000_000_000n // 1970, since 1601 in 100 ns

interface NtfsNode extends FileNode {
  readonly record: MftRecord
  readonly reparse: Reparse
}

/** A node's id is the number of its record and, below that, its sequence: an entry that is older than what is there now leads nowhere. */
class NtfsFiles {
  readonly #volume: BlockSource
  readonly #boot: BootSector
  readonly #mft: Mft
  #capitals: Promise<Uint16Array> | undefined

  constructor(volume: BlockSource, boot: BootSector, mft: Mft) {
    this.#volume = volume
    this.#boot = boot
    this.#mft = mft
  }

  async opened(): Promise<FileSystem> {
    const { clusterBytes, totalBytes, uuid } = this.#boot
    const { label, notes } = await this.#volumeFacts()
    const root = await this.#node(RECORD.root * SEQUENCES)
    if (root.kind !== 'directory') throw refuse('malformed', 'the root is no directory', { record: RECORD.root })
    return {
      type: 'ntfs',
      label,
      uuid,
      blockBytes: clusterBytes,
      totalBytes,
      freeBytes: await this.#freeBytes(),
      notes: [...this.#mft.notes, ...notes],
      root,
      node: (id) => this.#node(id),
      list: (directory) => this.#list(asNtfs(directory)),
      find: (directory, name) => this.#find(asNtfs(directory), name),
      data: (file) => this.#data(asNtfs(file)),
      readLink: async (link) => this.#readLink(asNtfs(link)),
      attributes: (node) => this.#attributes(asNtfs(node)),
    }
  }

  /** Where $Volume is damaged the files can still be read, and a note says so. */
  async #volumeFacts(): Promise<{ label: string; notes: readonly string[] }> {
    const notes: string[] = []
    let label = ''
    try {
      const { name, isDirty } = await this.#volumeRecord()
      label = name
      if (isDirty) notes.push('it is marked as dirty: run chkdsk')
    } catch (error) {
      if (!isServiceError(error, 'invalid-image')) throw error
      notes.push(`$Volume cannot be read (${error.message}): run chkdsk`)
    }
    if (!(await this.#isLogClean()))
      notes.push('it was not unmounted, and its journal ($LogFile) is not replayed: what was written last may be missing')
    const { totalBytes } = this.#boot
    if (totalBytes > this.#volume.size)
      notes.push(`it has ${totalBytes} bytes, and its volume ${this.#volume.size}: it was cut off`)
    return { label, notes }
  }

  /** Source: "NTFS Documentation", $Volume. */
  async #volumeRecord(): Promise<{ name: string; isDirty: boolean }> {
    const record = await this.#mft.record(RECORD.volume)
    const information = await this.#value(record, TYPE.volumeInformation)
    if (!information || information.length < 12) throw refuse('malformed', '$Volume has no $VOLUME_INFORMATION')
    const view = viewOf(information)
    const version = `${view.getUint8(8)}.${view.getUint8(9)}`
    if (!versions.includes(version)) throw refuse('unknown-feature', `version ${version}; ${versions.join(', ')} are known`)
    const stored = (await this.#value(record, TYPE.volumeName)) ?? new Uint8Array(0)
    const name = nameOfUnits(unitsAt(viewOf(stored), 0, stored.length >>> 1))
    return { name, isDirty: (view.getUint16(10, true) & VOLUME_DIRTY) !== 0 }
  }

  async #isLogClean(): Promise<boolean> {
    try {
      return await isCleanLog(await this.#open(await this.#mft.record(RECORD.logFile), TYPE.data))
    } catch (error) {
      if (isServiceError(error)) return false
      throw error
    }
  }

  async #freeBytes(): Promise<number | null> {
    const { clusters, clusterBytes } = this.#boot
    const bytes = Math.ceil(clusters / 8)
    if (bytes > MAX_BITMAP_BYTES) return null
    try {
      const bitmap = await this.#open(await this.#mft.record(RECORD.bitmap), TYPE.data)
      if (bitmap.size < bytes) return null
      const bits = await bitmap.read(0, bytes)
      let used = 0
      for (let at = 0; at < bytes; at += 1)
        used += BITS[at * 8 + 8 <= clusters ? bits[at]! : bits[at]! & ((1 << (clusters % 8)) - 1)]!
      return (clusters - used) * clusterBytes
    } catch (error) {
      if (isServiceError(error)) return null
      throw error
    }
  }

  async #node(id: number): Promise<NtfsNode> {
    const [number, sequence] = [Math.floor(id / SEQUENCES), id % SEQUENCES]
    const record = await this.#mft.record(number)
    if (sequence !== 0 && record.sequence !== sequence)
      throw refuse('malformed', `file record ${number} is of another file by now`, { record: number })
    if (record.base !== 0) throw refuse('malformed', `file record ${number} is a part of another`, { record: number })
    const standard = await this.#value(record, TYPE.standardInformation)
    if (!standard || standard.length < 36)
      throw refuse('malformed', `file record ${number} has no $STANDARD_INFORMATION`, { record: number })
    const view = viewOf(standard)
    const flags = view.getUint32(32, true)
    const data = record.isDirectory ? undefined : await this.#mft.stream(record, TYPE.data)
    const bytes = data ? sizeOf(data.first) : 0
    const reparse = await this.#reparse(record, flags, bytes)
    const kind = reparse.kind ?? (record.isDirectory ? 'directory' : 'file')
    const device = (kind === 'character' || kind === 'block') && reparse.device ? { device: reparse.device } : {}
    const dosNames = record.attributes.filter(
      (each) => each.type === TYPE.fileName && each.isResident && each.value[65] === DOS_NAMES,
    )
    return {
      id: number * SEQUENCES + record.sequence,
      kind,
      mode: MODE,
      uid: 0,
      gid: 0,
      links: Math.max(1, record.links - dosNames.length),
      bytes: reparse.target === undefined ? bytes : Buffer.byteLength(reparse.target),
      modifiedNs: timeNs(view, 8),
      changedNs: timeNs(view, 16),
      ...device,
      record,
      reparse,
    }
  }

  /** What makes a file something else: a reparse point, or what Interix and ntfs-3g keep as a small file of the system. */
  async #reparse(record: MftRecord, flags: number, bytes: number): Promise<Reparse> {
    if ((flags & FLAG.reparse) !== 0) {
      const value = await this.#value(record, TYPE.reparsePoint)
      if (value) return parseReparse(value)
    }
    if ((flags & FLAG.system) === 0 || record.isDirectory || bytes < INTERIX.minBytes || bytes > INTERIX.maxBytes) return {}
    try {
      return interixOf(await (await this.#open(record, TYPE.data)).read(0, bytes))
    } catch (error) {
      if (isServiceError(error)) return {} // whoever reads the file learns why
      throw error
    }
  }

  async *#list(directory: NtfsNode): AsyncGenerator<DirectoryEntry> {
    let damage: unknown
    const isRoot = directory.record.number === RECORD.root
    for await (const entry of (await this.#index(directory)).all()) {
      if (entry.namespace === DOS_NAMES || (isRoot && entry.record < RECORD.firstOfUsers)) continue
      const name = textOf(entry)
      if (isPossible(name) && entry.record < MAX_RECORD) yield shown(entry, name)
      else damage ??= refuse('malformed', `an entry with the name ${JSON.stringify(name)} for file record ${entry.record}`)
    }
    if (damage) throw damage
  }

  /** By the volume's own table of capitals; one that is the same in every letter goes before the others. DOS names count, and so do files of the system. */
  async #find(directory: NtfsNode, name: string): Promise<DirectoryEntry | undefined> {
    if (!isPossible(name)) return undefined
    const wanted = unitsOfName(name)
    const capitals = await this.#capitalsOf()
    let found: DirectoryEntry | undefined
    for await (const entry of (await this.#index(directory)).way((units) => compareNames(wanted, units, capitals))) {
      if (!isSameName(wanted, entry.units, capitals) || entry.record >= MAX_RECORD) continue
      const text = textOf(entry)
      if (text === name) return shown(entry, text)
      if (isPossible(text)) found ??= shown(entry, text)
    }
    return found
  }

  async #index({ kind, record }: NtfsNode): Promise<NameIndex> {
    if (kind !== 'directory') throw refuse('malformed', `file record ${record.number} is no directory`, { record: record.number })
    const root = await this.#value(record, TYPE.indexRoot, INDEX)
    if (!root) throw refuse('malformed', `the directory in file record ${record.number} has no index`, { record: record.number })
    const allocation = await this.#mft.stream(record, TYPE.indexAllocation, INDEX)
    const blocks = allocation && openStream(this.#volume, this.#boot, allocation)
    return nameIndex(root, blocks, this.#boot, record.number)
  }

  /** $UpCase; where that is damaged, capitals as Unicode has them. */
  #capitalsOf(): Promise<Uint16Array> {
    this.#capitals ??= (async () => {
      try {
        const source = await this.#open(await this.#mft.record(RECORD.capitals), TYPE.data)
        if (source.size === CAPITALS * 2) return unitsAt(viewOf(await source.read(0, CAPITALS * 2)), 0, CAPITALS)
      } catch (error) {
        if (!isServiceError(error)) throw error
      }
      return Uint16Array.from({ length: CAPITALS }, (_, unit) => {
        const upper = String.fromCharCode(unit).toUpperCase()
        return upper.length === 1 ? upper.charCodeAt(0) : unit
      })
    })()
    return this.#capitals
  }

  async #data({ kind, record, reparse }: NtfsNode): Promise<BlockSource> {
    if (kind !== 'file') throw refuse('malformed', `file record ${record.number} is no regular file`, { record: record.number })
    if (reparse.refusal !== undefined) throw refuse('unknown-feature', reparse.refusal, { record: record.number })
    return this.#open(record, TYPE.data)
  }

  #readLink({ record, reparse }: NtfsNode): string {
    if (reparse.target === undefined)
      throw refuse('malformed', `file record ${record.number} is no symbolic link`, { record: record.number })
    return reparse.target
  }

  async #attributes({ record }: NtfsNode): Promise<ReadonlyMap<string, Uint8Array>> {
    const found = new Map<string, Uint8Array>()
    for (const name of (await this.#mft.names(record, TYPE.data)).slice(0, MAX_STREAMS)) {
      if (name === '') continue
      const source = await this.#open(record, TYPE.data, name)
      if (source.size <= MAX_STREAM_BYTES) found.set(`user.${name}`, await source.read(0, source.size))
    }
    return found
  }

  /** A stream; one that is not there has no bytes. */
  async #open(record: MftRecord, type: number, name = ''): Promise<BlockSource> {
    const stream = await this.#mft.stream(record, type, name)
    if (!stream)
      throw refuse('malformed', `file record ${record.number} has no attribute of type 0x${type.toString(16)}`, {
        record: record.number,
      })
    return openStream(this.#volume, this.#boot, stream)
  }

  async #value(record: MftRecord, type: number, name = ''): Promise<Uint8Array | undefined> {
    const stream = await this.#mft.stream(record, type, name)
    if (!stream) return undefined
    const source = openStream(this.#volume, this.#boot, stream)
    if (source.size > MAX_VALUE_BYTES)
      throw refuse('malformed', `an attribute of ${source.size} bytes`, { record: record.number })
    return source.read(0, source.size)
  }
}

const asNtfs = (node: FileNode): NtfsNode => node as NtfsNode
const BITS = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length)
const isPossible = (name: string): boolean => name !== '' && name !== '.' && name !== '..' && !/[/\0]/.test(name)
const sizeOf = (first: Attribute): number => (first.isResident ? first.value.length : first.dataBytes)

/** A link is known by its node alone. */
function shown({ record, sequence, flags }: IndexEntry, name: string): DirectoryEntry {
  const isSpecial = (flags & (FLAG.reparse | FLAG.system)) !== 0
  const kind: NodeKind | null = isSpecial ? null : (flags & FLAG.directory) !== 0 ? 'directory' : 'file'
  return { name, id: record * SEQUENCES + sequence, kind }
}

const timeNs = (view: DataView, at: number): bigint | null => {
  const time = view.getBigUint64(at, true)
  return time === 0n ? null : (time - EPOCH) * 100n
}
