import { isServiceError, type ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { checked } from '../../disk/block/checked.ts'
import { window } from '../../disk/filters/window.ts'
import {
  type Fact,
  formats,
  type InternalSnapshot,
  type Recognition,
  recognise,
  suggestedFormat,
} from '../../disk/formats/index.ts'
import { type Partition, type PartitionTable, readPartitions } from '../../disk/guest/partitions/list.ts'
import type { TransferState } from '../progress.ts'
import { type Allocation, allocationOf } from './allocation.ts'
import { formatWord } from './format-words.ts'
import { type DiskWish, driverOf, type OpenFile, openDiskIn } from './open-disk.ts'

/** Parts of the disk that its map is drawn in. */
export const MAP_PARTS = 64
/** Of a table of thousands the first are looked into. */
const MAX_LOOKED_INTO = 64

export interface Inspection {
  readonly fileBytes: number
  /** Null: it is not on this machine. */
  readonly allocatedBytes: number | null
  readonly recognition: Recognition
  /** Why it is not accepted; null: it is. */
  readonly refusal: ServiceError | null
  /** What its headers say, as far as they can be read. */
  readonly facts: readonly Fact[]
  /** Null where it is refused, or damaged. */
  readonly disk: InspectedDisk | null
}
export interface InspectedDisk {
  /** Glance `disk_format` of the file. */
  readonly format: string
  readonly virtualBytes: number
  readonly allocation: Allocation
  readonly snapshots: readonly InternalSnapshot[]
  readonly partitions: InspectedTable | null
  /** Signatures at the beginning of the disk, as `ext`. */
  readonly holds: readonly string[]
  readonly notes: readonly string[]
}
export interface InspectedTable extends Omit<PartitionTable, 'partitions'> {
  readonly partitions: readonly (Partition & { readonly holds: readonly string[] })[]
}

export interface InspectOptions {
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}

/**
 * Everything that can be said of a file without trusting it. A file that would be refused is told of, not thrown.
 * @throws ServiceError for what is no matter of the file's content
 */
export async function inspectFile(
  wish: DiskWish,
  openFile: OpenFile,
  { signal, onProgress }: InspectOptions,
): Promise<Inspection> {
  const file = await openFile(wish.source)
  await using opened = new AsyncDisposableStack()
  const whole = opened.adopt({ close: () => file.source.close() }, (it) => it.close())
  const recognition = await recognise(checked(file.source, 'file'))
  const facts = await factsOf(file.source, wish.from === undefined ? suggestedFormat(recognition) : formatWord(wish.from))
  const about = { fileBytes: file.source.size, allocatedBytes: file.allocatedBytes, recognition, facts }
  try {
    const { disk, format, notes } = await openDiskIn(file, wish, openFile, onProgress)
    whole.close = () => disk.close() // which closes the file
    const inspected: InspectedDisk = {
      format,
      virtualBytes: disk.size,
      allocation: await allocationOf(disk, MAP_PARTS, signal),
      snapshots: (await driverOf(format).snapshots?.(checked(file.source, 'file'))) ?? [],
      partitions: await inspectedTable(disk),
      holds: await contentOf(disk),
      notes,
    }
    return { ...about, refusal: null, disk: inspected }
  } catch (error) {
    if (isServiceError(error, 'invalid-image') || isServiceError(error, 'unsupported'))
      return { ...about, refusal: error, disk: null }
    throw error
  }
}

/** Also of a file that is refused: whose child it is, say. Empty where not even the headers hold. */
async function factsOf(file: BlockSource, format: string | null): Promise<readonly Fact[]> {
  const driver = formats.find(({ name }) => name === format)
  try {
    return (await driver?.facts?.(checked(file, 'file'))) ?? []
  } catch (error) {
    if (isServiceError(error) && error.code !== 'cancelled') return []
    throw error
  }
}

async function inspectedTable(disk: BlockSource): Promise<InspectedTable | null> {
  const table = await readPartitions(disk)
  if (!table) return null
  const partitions = []
  for (const [index, partition] of table.partitions.entries()) {
    const { offset, length } = partition
    const isInside = length > 0 && offset + length <= disk.size && index < MAX_LOOKED_INTO
    partitions.push({ ...partition, holds: isInside ? await contentOf(window(offset, length)(disk)) : [] })
  }
  return { ...table, partitions }
}

/** What lies at the beginning, by its name alone. */
async function contentOf(disk: BlockSource): Promise<readonly string[]> {
  const { found } = await recognise(checked(disk, 'disk'))
  return found.filter(({ kind }) => kind === 'content').map(({ name }) => name)
}
