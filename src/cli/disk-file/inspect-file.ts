import { isServiceError, type ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { checked } from '../../disk/block/checked.ts'
import type { Appliance, Inside, Layer } from '../../disk/containers/index.ts'
import { window } from '../../disk/filters/window.ts'
import {
  type Fact,
  formats,
  type InternalSnapshot,
  type Recognition,
  recognise,
  suggestedFormat,
} from '../../disk/formats/index.ts'
import { type Anatomy, readAnatomy } from '../../disk/guest/anatomy.ts'
import type { Partition, PartitionTable } from '../../disk/guest/partitions/list.ts'
import type { TransferState } from '../progress.ts'
import { type Allocation, allocationOf } from './allocation.ts'
import { formatWord } from './format-words.ts'
import { type DiskWish, driverOf, memberWish, openDiskIn } from './open-disk.ts'
import type { OpenedFile, OpenFile } from './open-file.ts'

/** Parts of the disk that its map is drawn in. */
export const MAP_PARTS = 64
/** Of a table of thousands the first are looked into. */
const MAX_LOOKED_INTO = 64

export interface Inspection {
  readonly fileBytes: number
  /** Null: it is not on this machine. */
  readonly allocatedBytes: number | null
  /** What is around the file that was recognised, from the outside in. */
  readonly layers: readonly Layer[]
  /** The package that it is a disk of. */
  readonly appliance: Appliance | null
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
  /** What its partitions hold, and which systems. */
  readonly volumes: Anatomy['volumes']
  readonly systems: Anatomy['systems']
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
  let about: Omit<Inspection, 'refusal' | 'disk'> = {
    fileBytes: file.source.size,
    allocatedBytes: file.allocatedBytes,
    layers: [],
    appliance: null,
    ...(await recognised(file.source, wish.from)),
  }
  try {
    const inside = await insideOf(file, wish, whole)
    const { layers, appliance = null } = inside
    if (layers.length > 0) about = { ...about, layers, appliance, ...(await recognised(inside.file, wish.from)) }
    const { disk, format, notes } = await openDiskIn(inside, wish, openFile, onProgress)
    whole.close = () => disk.close() // which closes the file
    const { table, volumes, systems } = await readAnatomy(checked(disk, 'disk'), { signal })
    const inspected: InspectedDisk = {
      format,
      virtualBytes: disk.size,
      allocation: await allocationOf(disk, MAP_PARTS, signal),
      snapshots: (await driverOf(format).snapshots?.(checked(inside.file, 'file'))) ?? [],
      partitions: table && (await inspectedTable(disk, table)),
      holds: await contentOf(disk),
      volumes,
      systems,
      notes,
    }
    return { ...about, refusal: null, disk: inspected }
  } catch (error) {
    if (isServiceError(error, 'invalid-image') || isServiceError(error, 'unsupported'))
      return { ...about, refusal: error, disk: null }
    throw error
  }
}

/** What the bytes say, and the headers of the format that is meant. */
async function recognised(file: BlockSource, from: string | undefined): Promise<Pick<Inspection, 'recognition' | 'facts'>> {
  const recognition = await recognise(checked(file, 'file'))
  return { recognition, facts: await factsOf(file, from === undefined ? suggestedFormat(recognition) : formatWord(from)) }
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

async function insideOf(file: OpenedFile, wish: DiskWish, whole: { close: () => Promise<void> }): Promise<Inside> {
  whole.close = async () => {} // a failure closes it
  const inside = await file.inside(memberWish(wish))
  whole.close = () => inside.file.close()
  return inside
}

async function inspectedTable(disk: BlockSource, table: PartitionTable): Promise<InspectedTable> {
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
