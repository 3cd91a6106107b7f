import { isServiceError } from '../../../../base/errors.ts'
import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { mappedDisk } from '../../../block/mapped-disk.ts'
import { nameOfUnits } from '../file-name.ts'
import { type BootSector, refuse } from './boot-sector.ts'
import {
  type Attribute,
  type MftRecord,
  type NonResidentAttribute,
  parseRecord,
  referenceAt,
  TYPE,
  u64,
  unitsAt,
  viewOf,
} from './record.ts'
import { type Run, runAt, runsOf } from './runs.ts'
import { openStream, type Stream } from './stream.ts'

const MAX_LIST_BYTES = 256 * KiB // of an attribute list; Windows' own limit
const LIST_ENTRY_BYTES = 26
const MAX_MFT_RUNS = 262_144 // 10 MiB of memory; a table in more pieces is refused

/** Where an attribute, or a part of one, is. Source: the Linux-NTFS project, "NTFS Documentation", $ATTRIBUTE_LIST. */
interface ListEntry {
  readonly type: number
  readonly name: string
  readonly firstVcn: number
  readonly record: number
  readonly instance: number
}

/** The table of files. */
export class Mft {
  readonly #volume: BlockSource
  readonly #boot: BootSector
  readonly #runs: Run[] = []
  #table: BlockSource | undefined
  readonly notes: string[] = []

  private constructor(volume: BlockSource, boot: BootSector) {
    this.#volume = volume
    this.#boot = boot
  }

  /** @throws ServiceError `invalid-image` where neither its first record nor the copy of that can be read */
  static async open(volume: BlockSource, boot: BootSector): Promise<Mft> {
    const mft = new Mft(volume, boot)
    try {
      await mft.#load(boot.mftCluster)
    } catch (error) {
      if (!isServiceError(error)) throw error
      mft.#runs.length = 0
      await mft.#load(boot.mirrorCluster).catch(() => {
        throw error
      })
      mft.notes.push('the first record of $MFT is damaged: the copy in $MFTMirr was read, run chkdsk')
    }
    return mft
  }

  /** The table maps itself: each part of its runs must lie in what those before it map. */
  async #load(cluster: number): Promise<void> {
    const { clusterBytes, recordBytes, clusters } = this.#boot
    const offset = cluster * clusterBytes
    if (cluster >= clusters || offset + recordBytes > this.#volume.size)
      throw refuse('truncated', '$MFT lies beyond the end of the volume', { offset })
    const record = parseRecord(await this.#volume.read(offset, recordBytes), 0)
    const first = record.attributes.find(({ type, name }) => type === TYPE.data && name === '')
    if (!first || first.isResident || first.firstVcn !== 0) throw refuse('malformed', '$MFT has no data')
    const add = (part: NonResidentAttribute) => {
      const known = this.#runs.at(-1)
      if (part.firstVcn !== (known ? known.vcn + known.count : 0))
        throw refuse('malformed', `$MFT goes on at cluster ${part.firstVcn}`)
      this.#runs.push(...runsOf(part, this.#boot))
      if (this.#runs.length > MAX_MFT_RUNS) throw refuse('unknown-feature', `$MFT is in more than ${MAX_MFT_RUNS} pieces`)
    }
    add(first)
    const { close: _, ...table } = mappedDisk(this.#volume, {
      size: first.dataBytes,
      segments: (from, length) => this.#segments(from, length),
    })
    this.#table = { ...table, close: async () => {} }
    try {
      for (const entry of await this.#listed(record)) {
        if (entry.type !== TYPE.data || entry.name !== '' || entry.firstVcn === 0) continue
        add(await this.#part(record, entry))
      }
    } catch (error) {
      if (!isServiceError(error)) throw error
      this.notes.push(`a part of $MFT cannot be read, and so cannot the files in it (${error.message}): run chkdsk`)
    }
  }

  *#segments(offset: number, length: number) {
    const { clusterBytes } = this.#boot
    const end = offset + length
    for (let at = offset; at < end; ) {
      const run = runAt(this.#runs, Math.floor(at / clusterBytes))
      if (!run || run.lcn === null) throw refuse('malformed', `byte ${at} of $MFT is nowhere`)
      const stop = Math.min(end, (run.vcn + run.count) * clusterBytes)
      const hostOffset = (run.lcn - run.vcn) * clusterBytes + at
      if (hostOffset + stop - at > this.#volume.size)
        throw refuse('truncated', 'a part of $MFT lies beyond the end of the volume', { offset: hostOffset })
      yield { kind: 'data' as const, offset: at, length: stop - at, hostOffset }
      at = stop
    }
  }

  /** The record of that number. @throws ServiceError `invalid-image` where it is not in use or damaged */
  async record(number: number): Promise<MftRecord> {
    const { recordBytes } = this.#boot
    const table = this.#table!
    if (!(Number.isSafeInteger(number) && number >= 0 && (number + 1) * recordBytes <= table.size))
      throw refuse('malformed', `there is no file record ${number}`, { record: number })
    return parseRecord(await table.read(number * recordBytes, recordBytes), number)
  }

  /** An attribute of a file, wherever its parts are. */
  async stream(record: MftRecord, type: number, name = ''): Promise<Stream | undefined> {
    if (!hasList(record)) {
      const first = record.attributes.find((each) => each.type === type && each.name === name)
      return first && { first, others: [] }
    }
    const entries = (await this.#listed(record)).filter((each) => each.type === type && each.name === name)
    const [head, ...rest] = entries
    if (!head) return undefined
    for (const [index, { firstVcn }] of rest.entries()) {
      if (firstVcn <= entries[index]!.firstVcn)
        throw refuse('malformed', `the parts of an attribute of file record ${record.number} do not ascend`)
    }
    return {
      first: await this.#attribute(record, head),
      others: rest.map((entry) => ({ firstVcn: entry.firstVcn, load: () => this.#part(record, entry) })),
    }
  }

  /** Types and names of all attributes, each once. */
  async names(record: MftRecord, type: number): Promise<readonly string[]> {
    const all = hasList(record) ? await this.#listed(record) : record.attributes
    return [...new Set(all.flatMap((each) => (each.type === type ? [each.name] : [])))]
  }

  async #part(base: MftRecord, entry: ListEntry): Promise<NonResidentAttribute> {
    const found = await this.#attribute(base, entry)
    if (found.isResident || found.firstVcn !== entry.firstVcn)
      throw refuse('malformed', `a part of an attribute of file record ${base.number} is another one`, { record: entry.record })
    return found
  }

  async #attribute(base: MftRecord, { type, name, record, instance }: ListEntry): Promise<Attribute> {
    const holder = record === base.number ? base : await this.record(record)
    if (holder !== base && holder.base !== base.number)
      throw refuse('malformed', `file record ${record} does not belong to ${base.number}`, { record })
    const found = holder.attributes.find((each) => each.type === type && each.name === name && each.instance === instance)
    if (!found)
      throw refuse('malformed', `file record ${record} has no attribute ${instance} of type 0x${type.toString(16)}`, { record })
    return found
  }

  /** The attribute list of a record; none where it has none. It lies in the record itself, or in runs that do. */
  async #listed(record: MftRecord): Promise<readonly ListEntry[]> {
    const list = record.attributes.find(({ type }) => type === TYPE.attributeList)
    if (!list) return []
    const source = openStream(this.#volume, this.#boot, { first: list, others: [] })
    if (source.size > MAX_LIST_BYTES)
      throw refuse('malformed', `the attribute list of file record ${record.number} has ${source.size} bytes`)
    const bytes = await source.read(0, source.size)
    const view = viewOf(bytes)
    const found: ListEntry[] = []
    for (let at = 0; at + LIST_ENTRY_BYTES <= bytes.length; ) {
      const length = view.getUint16(at + 4, true)
      const nameAt = view.getUint8(at + 7)
      const units = view.getUint8(at + 6)
      if (length < LIST_ENTRY_BYTES || at + length > bytes.length || nameAt + units * 2 > length)
        throw refuse('malformed', `the attribute list of file record ${record.number}: an entry of ${length} bytes`)
      found.push({
        type: view.getUint32(at, true),
        name: units === 0 ? '' : nameOfUnits(unitsAt(view, at + nameAt, units)),
        firstVcn: u64(view, at + 8),
        record: referenceAt(view, at + 16).number,
        instance: view.getUint16(at + 24, true),
      })
      at += length
    }
    return found
  }
}

const hasList = ({ attributes }: MftRecord): boolean => attributes.some(({ type }) => type === TYPE.attributeList)
