import { ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { ClusterRuns } from '../../block/cluster-runs.ts'
import { clustersWithData, plannedFile } from '../../block/planned-file.ts'
import {
  DESCRIPTOR_SECTOR,
  DESCRIPTOR_SECTORS,
  descriptorOf,
  directoryAt,
  GRAIN_BYTES,
  GRAIN_SECTORS,
  headerOf,
  MAX_FILE_SECTORS,
  shapeOf,
  TABLE_ENTRIES,
  TABLE_SECTORS,
} from './describe.ts'
import { SECTOR_BYTES } from './header.ts'

/**
 * The layout of the monolithicSparse files that we write, as VMware's and QEMU's:
 *
 *   header │ descriptor │ redundant directory, its tables │ directory, its tables │ grains, by their place on the disk
 *
 * All grain tables are there, as writers of such files expect, also those of holes; what is only zeros in them is said to be zeros.
 * A grain of the disk is in the file when an extent of kind `data` touches it. docs/formats/vmdk.md has the bytes.
 *
 * The file that would hold `disk`. Asks for all extents once, then answers any range.
 * @throws ServiceError `too-large` for a disk of more than 64 TiB, or with more than 2 TiB of data; `unsupported` for one of no bytes
 */
export async function wrapDisk(disk: BlockSource): Promise<BlockSource> {
  const grains = await clustersWithData(disk, GRAIN_BYTES, TABLE_ENTRIES)
  const shape = shapeOf(disk, grains, 'monolithicSparse')
  const directorySectors = Math.ceil((shape.tables * 4) / SECTOR_BYTES)
  const levelSectors = directorySectors + shape.tables * TABLE_SECTORS
  const redundantDirectory = DESCRIPTOR_SECTOR + DESCRIPTOR_SECTORS
  const directory = redundantDirectory + levelSectors
  const overhead = Math.ceil((directory + levelSectors) / GRAIN_SECTORS) * GRAIN_SECTORS
  const fileSectors = overhead + grains.clusters * GRAIN_SECTORS
  if (fileSectors > MAX_FILE_SECTORS) {
    throw new ServiceError('too-large', 'the disk has more data than a vmdk file can hold in one extent: 2 TiB is the limit', {
      diskBytes: disk.size,
      fileBytes: fileSectors * SECTOR_BYTES,
    })
  }
  const header = headerOf(shape, { redundantDirectory, directory: directoryAt(directory), overhead })
  const descriptor = descriptorOf(shape)
  const level = (sector: number) => [
    {
      offset: sector * SECTOR_BYTES,
      bytes: shape.tables * 4,
      fill: (part: Uint8Array, start: number) =>
        writeEntries(part, start, (index) => sector + directorySectors + index * TABLE_SECTORS),
    },
    {
      offset: (sector + directorySectors) * SECTOR_BYTES,
      bytes: shape.tables * TABLE_SECTORS * SECTOR_BYTES,
      fill: (part: Uint8Array, start: number) => writeEntries(part, start, (grain) => sectorOf(grain, grains, overhead)),
      used: (from: number, to: number) => usedTables(grains, from, to),
    },
  ]
  return plannedFile(disk, {
    size: fileSectors * SECTOR_BYTES,
    tables: [
      { offset: 0, bytes: header.length, fill: (part, start) => part.set(header.subarray(start, start + part.length)) },
      {
        offset: DESCRIPTOR_SECTOR * SECTOR_BYTES,
        bytes: descriptor.length,
        fill: (part, start) => part.set(descriptor.subarray(start, start + part.length)),
      },
      ...level(redundantDirectory),
      ...level(directory),
    ],
    clusters: { runs: grains, bytes: GRAIN_BYTES, offset: overhead * SECTOR_BYTES },
  })
}

/** The tables follow one another, so that the number of an entry among all of them is the number of its grain. */
function sectorOf(grain: number, grains: ClusterRuns, overhead: number): number {
  const rank = grains.rank(grain)
  return rank < 0 ? 0 : overhead + rank * GRAIN_SECTORS
}

/** Which bytes of all tables, of `[from, to)`, are of tables that have an entry. */
function* usedTables(grains: ClusterRuns, from: number, to: number): Generator<readonly [from: number, to: number]> {
  const tableBytes = TABLE_SECTORS * SECTOR_BYTES
  const [first, last] = [Math.floor(from / tableBytes), Math.ceil(to / tableBytes)]
  for (let index = first; index < last; index += 1) {
    if (grains.tableRank(index) < 0) continue
    const begin = index
    while (index + 1 < last && grains.tableRank(index + 1) >= 0) index += 1
    yield [Math.max(from, begin * tableBytes), Math.min(to, (index + 1) * tableBytes)]
  }
}

/** Writes entries of 4 bytes, little-endian. `part` may begin and end inside an entry. */
function writeEntries(part: Uint8Array, start: number, entryOf: (index: number) => number): void {
  const view = new DataView(part.buffer, part.byteOffset, part.length)
  const entry = new Uint8Array(4)
  const entryView = new DataView(entry.buffer)
  for (let index = Math.floor(start / 4); index * 4 < start + part.length; index += 1) {
    const at = index * 4 - start
    if (at >= 0 && at + 4 <= part.length) {
      view.setUint32(at, entryOf(index), true)
      continue
    }
    entryView.setUint32(0, entryOf(index), true)
    for (let byte = 0; byte < 4; byte += 1) if (at + byte >= 0 && at + byte < part.length) part[at + byte] = entry[byte]!
  }
}
