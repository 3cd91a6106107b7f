import { ServiceError } from '../../../base/errors.ts'
import { type BlockSource, stack } from '../../block/block-source.ts'
import { window } from '../../filters/window.ts'
import type { FileSystem } from '../filesystems/file-system.ts'
import { openFileSystem } from '../filesystems/index.ts'
import { type Partition, type PartitionTable, readPartitions } from '../partitions/list.ts'
import { recogniseOther } from './other-content.ts'

/** A part of a disk that may hold a file system. */
export interface Volume {
  /** For people: `partition 1`, `disk`. */
  readonly name: string
  /** On the disk, in bytes; null where it is not one stretch of it. */
  readonly offset: number | null
  readonly bytes: number
  /** Null where it is none. */
  readonly partition: Partition | null
  readonly content: VolumeContent
}
export type VolumeContent =
  | { readonly kind: 'files'; readonly files: FileSystem }
  /** Recognised, and not opened. */
  | OtherContent
  /** A file system that cannot be read, and why. */
  | { readonly kind: 'damaged'; readonly error: ServiceError }
  /** Nothing that is known. */
  | { readonly kind: 'unknown' }
export interface OtherContent {
  readonly kind: 'other'
  /** `TYPE` of `blkid`: swap, crypto_LUKS, LVM2_member, linux_raid_member, BitLocker … */
  readonly type: string
  readonly label: string
  readonly uuid: string
  /** What it means for whoever wants to look inside; empty: nothing. */
  readonly note: string
}

export interface DiskLayout {
  /** Undefined: the disk is not divided. */
  readonly table: PartitionTable | undefined
  readonly volumes: readonly Volume[]
}

/** Each is opened; a table of thousands is an attack. */
const MAX_VOLUMES = 128
/** Of an MBR: it holds other partitions. */
const containers: readonly string[] = ['0x05', '0x0f', '0x85']

/** What a disk is divided into and what each part holds. The disk stays the caller's; closing it ends everything here. A volume that is damaged says so and hides no other. */
export async function readLayout(disk: BlockSource): Promise<DiskLayout> {
  const table = await readPartitions(disk)
  if (!table)
    return { table, volumes: [{ name: 'disk', offset: 0, bytes: disk.size, partition: null, content: await contentOf(disk) }] }
  const volumes: Volume[] = []
  for (const partition of table.partitions) {
    const { number, offset } = partition
    const bytes = Math.min(partition.length, disk.size - offset)
    if (containers.includes(partition.type) || bytes <= 0 || volumes.length >= MAX_VOLUMES) continue
    const content = await contentOf(stack(disk, [window(offset, bytes)]))
    volumes.push({ name: `partition ${number}`, offset, bytes, partition, content })
  }
  return { table, volumes }
}

async function contentOf(volume: BlockSource): Promise<VolumeContent> {
  try {
    const files = await openFileSystem(volume)
    if (files) return { kind: 'files', files }
    return (await recogniseOther(volume)) ?? { kind: 'unknown' }
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error
    return { kind: 'damaged', error }
  }
}
