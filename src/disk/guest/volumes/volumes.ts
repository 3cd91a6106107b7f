import { ServiceError } from '../../../base/errors.ts'
import { type BlockSource, stack } from '../../block/block-source.ts'
import { window } from '../../filters/window.ts'
import type { FileSystem } from '../filesystems/file-system.ts'
import { openFileSystem } from '../filesystems/index.ts'
import { type Partition, type PartitionTable, readPartitions } from '../partitions/list.ts'
import { type FoundVolume, groupIn, logicalVolumesOf } from './lvm/logical-volumes.ts'
import { readPhysicalVolume } from './lvm/metadata.ts'
import { recogniseOther } from './other-content.ts'

/** A part of a disk that may hold a file system. */
export interface Volume {
  /** For people: `partition 1`, `disk`; of a logical volume `group/volume`. */
  readonly name: string
  /** On the disk, in bytes; null where it is not one stretch of it. */
  readonly offset: number | null
  readonly bytes: number
  /** Null where it is none. */
  readonly partition: Partition | null
  readonly content: VolumeContent
  /** Null where it cannot be read. Who has the disk closes it. */
  readonly data: BlockSource | null
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
/** Of LVM: each has a description of its group, which is kept until all are known. */
const MAX_PHYSICAL = 16
/** Of an MBR: it holds other partitions. */
const containers: readonly string[] = ['0x05', '0x0f', '0x85']

/** What a disk is divided into and what each part holds. The disk stays the caller's; closing it ends everything here. A volume that is damaged says so and hides no other. */
export async function readLayout(disk: BlockSource): Promise<DiskLayout> {
  const table = await readPartitions(disk)
  const physical: FoundVolume[] = []
  if (!table) {
    const whole: Volume = {
      name: 'disk',
      offset: 0,
      bytes: disk.size,
      partition: null,
      content: await contentOf(disk, physical),
      data: disk,
    }
    return { table, volumes: [whole, ...(await logicalOf(physical, MAX_VOLUMES - 1))] }
  }
  const volumes: Volume[] = []
  for (const partition of table.partitions) {
    const { number, offset } = partition
    const bytes = Math.min(partition.length, disk.size - offset)
    if (containers.includes(partition.type) || bytes <= 0 || volumes.length >= MAX_VOLUMES) continue
    const data = stack(disk, [window(offset, bytes)])
    const content = await contentOf(data, physical)
    volumes.push({ name: `partition ${number}`, offset, bytes, partition, content, data })
  }
  return { table, volumes: [...volumes, ...(await logicalOf(physical, MAX_VOLUMES - volumes.length))] }
}

/** The volumes that LVM makes of the physical ones that were found. */
async function logicalOf(physical: readonly FoundVolume[], most: number): Promise<Volume[]> {
  const volumes: Volume[] = []
  for (const { name, bytes, source } of logicalVolumesOf(physical).slice(0, most)) {
    const data = source instanceof ServiceError ? null : source
    const content: VolumeContent =
      source instanceof ServiceError ? { kind: 'damaged', error: source } : await contentOf(source, [])
    volumes.push({ name, offset: null, bytes, partition: null, content, data })
  }
  return volumes
}

/** @param physical is given the volume where it is one of LVM's */
async function contentOf(volume: BlockSource, physical: FoundVolume[]): Promise<VolumeContent> {
  try {
    const member = await lvmMember(volume, physical)
    if (member?.kind === 'other') return member
    const files = await openFileSystem(volume)
    if (files) return { kind: 'files', files }
    return (await recogniseOther(volume)) ?? member ?? { kind: 'unknown' }
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error
    return { kind: 'damaged', error }
  }
}

/** Damage is not the last word: a label may be left of what was there before. */
async function lvmMember(volume: BlockSource, physical: FoundVolume[]): Promise<VolumeContent | undefined> {
  try {
    const found = await readPhysicalVolume(volume)
    if (!found) return undefined
    if (physical.length >= MAX_PHYSICAL) {
      const problem = `LVM2: more than ${MAX_PHYSICAL} physical volumes on one disk are not read`
      return { kind: 'damaged', error: new ServiceError('unsupported', problem, { reason: 'unknown-feature' }) }
    }
    physical.push({ physical: found, source: volume })
    if (found.problem) return { kind: 'damaged', error: found.problem }
    const [group] = found.description ? groupIn(found.description) : []
    const note = group === undefined ? 'it is a physical volume of LVM' : `it is a physical volume of the volume group ${group}`
    return { kind: 'other', type: 'LVM2_member', label: '', uuid: found.uuid, note }
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error
    return { kind: 'damaged', error }
  }
}
