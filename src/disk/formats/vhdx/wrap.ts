import { createHash } from 'node:crypto'
import { ServiceError } from '../../../base/errors.ts'
import { GiB, MiB, TiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { ClusterRuns } from '../../block/cluster-runs.ts'
import { clustersWithData, plannedFile, type Table } from '../../block/planned-file.ts'
import { blockOf, ENTRY_BYTES, FULLY_PRESENT, isBitmapEntry } from './bat.ts'
import {
  checksumOf,
  FILE_SIGNATURE,
  HEADER_BYTES,
  HEADER_OFFSETS,
  HEADER_SECTION_BYTES,
  HEADER_SIGNATURE,
  header,
  MAX_VIRTUAL_BYTES,
  REGION_TABLE_OFFSETS,
} from './header.ts'
import {
  BAT_REGION,
  batEntriesOf,
  chunkRatioOf,
  FILE_PARAMETERS,
  fileParameters,
  ITEM_IS_REQUIRED,
  ITEM_IS_VIRTUAL_DISK,
  LEAVE_BLOCKS_ALLOCATED,
  LOGICAL_SECTOR_SIZE,
  METADATA_ENTRIES_OFFSET,
  METADATA_REGION,
  METADATA_SIGNATURE,
  metadataEntry,
  metadataHeader,
  PHYSICAL_SECTOR_SIZE,
  REGION_ENTRIES_OFFSET,
  REGION_SIGNATURE,
  regionEntry,
  sectorSize,
  TABLE_BYTES,
  ENTRY_BYTES as TABLE_ENTRY_BYTES,
  tableHeader,
  VIRTUAL_DISK_ID,
  VIRTUAL_DISK_SIZE,
  virtualDiskSize,
} from './layout.ts'

/**
 * The layout of the files that we write, each part at a multiple of 1 MiB:
 *
 *   header section │ log, empty │ metadata │ BAT │ payload blocks, by their place on the disk
 *
 * A block of the disk is in a dynamic file when an extent of kind `data` touches it; in a fixed one, all are. docs/formats/vhdx.md
 * has the bytes.
 */
const CREATOR = 'Imprint'
const LOGICAL_SECTOR_BYTES = 512
const PHYSICAL_SECTOR_BYTES = 4096 // as Hyper-V has it: guests align to it
const LOG_OFFSET = HEADER_SECTION_BYTES
const LOG_BYTES = MiB
const METADATA_OFFSET = LOG_OFFSET + LOG_BYTES
const METADATA_BYTES = MiB
const BAT_OFFSET = METADATA_OFFSET + METADATA_BYTES

/** As QEMU chooses it; Hyper-V takes 32 MiB for all. Small blocks keep what is stored small, large ones keep the table small. */
function blockBytesFor(virtualBytes: number): number {
  if (virtualBytes > 32 * TiB) return 64 * MiB
  if (virtualBytes > 100 * GiB) return 32 * MiB
  if (virtualBytes > GiB) return 16 * MiB
  return 8 * MiB
}

interface Plan {
  readonly kind: 'dynamic' | 'fixed'
  readonly virtualBytes: number
  readonly blockBytes: number
  readonly chunkRatio: number
  readonly batEntries: number
  readonly batBytes: number
  /** Of the first payload block, in the file. */
  readonly dataOffset: number
  /** Payload blocks that are in the file. */
  readonly runs: ClusterRuns
}

/**
 * The VHDX file that would hold `disk`. A dynamic one asks for all extents once; then both answer any range.
 * @throws ServiceError `too-large` for a disk of more than 64 TiB
 */
export const wrapDynamic = (disk: BlockSource): Promise<BlockSource> => wrapped(disk, 'dynamic')
export const wrapFixed = (disk: BlockSource): Promise<BlockSource> => wrapped(disk, 'fixed')

async function wrapped(disk: BlockSource, kind: Plan['kind']): Promise<BlockSource> {
  const plan = await planned(disk, kind)
  const { runs, blockBytes, dataOffset } = plan
  return plannedFile(disk, {
    size: dataOffset + runs.clusters * blockBytes,
    tables: [
      ...fixedTables(plan),
      { offset: BAT_OFFSET, bytes: plan.batEntries * ENTRY_BYTES, fill: (part, start) => writeBat(part, start, plan) },
    ],
    clusters: { runs, bytes: blockBytes, offset: dataOffset },
  })
}

async function planned(disk: BlockSource, kind: Plan['kind']): Promise<Plan> {
  const virtualBytes = Math.ceil(disk.size / LOGICAL_SECTOR_BYTES) * LOGICAL_SECTOR_BYTES
  if (virtualBytes > MAX_VIRTUAL_BYTES) {
    throw new ServiceError('too-large', `a disk of ${disk.size} bytes does not fit a vhdx file: 64 TiB is the limit`, {
      diskBytes: disk.size,
    })
  }
  const blockBytes = blockBytesFor(virtualBytes)
  const blocks = Math.ceil(virtualBytes / blockBytes)
  const chunkRatio = chunkRatioOf(blockBytes, LOGICAL_SECTOR_BYTES)
  const batEntries = batEntriesOf(blocks, chunkRatio, false)
  const batBytes = Math.max(MiB, Math.ceil((batEntries * ENTRY_BYTES) / MiB) * MiB)
  const runs = kind === 'dynamic' ? await clustersWithData(disk, blockBytes) : allOf(blocks)
  return { kind, virtualBytes, blockBytes, chunkRatio, batEntries, batBytes, dataOffset: BAT_OFFSET + batBytes, runs }
}

function allOf(blocks: number): ClusterRuns {
  const runs = new ClusterRuns(blocks, 1, 1)
  if (blocks > 0) runs.add(0, blocks)
  runs.seal()
  return runs
}

/** Header section and metadata: a few KiB of them are not zero, and are kept. */
function fixedTables(plan: Plan): Table[] {
  const guids = guidsOf(plan)
  const identifier = Buffer.alloc(8 + CREATOR.length * 2)
  identifier.write(FILE_SIGNATURE, 'latin1')
  identifier.write(CREATOR, 8, 'utf16le')
  const regions = regionTable(plan)
  return [
    kept(0, identifier),
    ...HEADER_OFFSETS.map((offset, index) => kept(offset, headerImage(index + 1, guids))),
    ...REGION_TABLE_OFFSETS.map((offset) => kept(offset, regions)),
    ...metadataTables(plan, guids.disk),
  ]
}

const kept = (offset: number, bytes: Uint8Array): Table => ({
  offset,
  bytes: bytes.length,
  fill: (part, start) => part.set(bytes.subarray(start, start + part.length)),
})

/** Sets the checksum, which is in the same place in all structures. */
function summed(structure: Uint8Array): Uint8Array {
  new DataView(structure.buffer, structure.byteOffset).setUint32(4, checksumOf(structure), true)
  return structure
}

interface Guids {
  readonly file: Uint8Array
  readonly data: Uint8Array
  readonly disk: Uint8Array
}

/** From what the layout follows from, so that the same disk gives the same bytes. RFC 9562, version 8: a UUID of one's own making. */
function guidsOf({ kind, virtualBytes, runs }: Plan): Guids {
  const hash = createHash('sha256').update(`imprint vhdx ${kind} ${virtualBytes}`)
  for (let rank = 0; rank < runs.clusters; ) {
    const { cluster, runEnd } = runs.clusterAt(rank)
    hash.update(` ${cluster}-${runEnd}`)
    rank += runEnd - cluster
  }
  const seed = hash.digest('hex')
  const guid = (use: string) => {
    const made = createHash('sha256').update(`${seed} ${use}`).digest().subarray(0, 16)
    made[7] = (made[7]! & 0x0f) | 0x80 // the version, in the high byte of a 16-bit word that is little-endian here
    made[8] = (made[8]! & 0x3f) | 0x80
    return made
  }
  return { file: guid('file'), data: guid('data'), disk: guid('disk') }
}

function headerImage(sequence: number, { file, data }: Guids): Uint8Array {
  const image = new Uint8Array(HEADER_BYTES)
  image.set(
    header.build({
      signature: HEADER_SIGNATURE,
      checksum: 0,
      sequence,
      fileWriteGuid: file,
      dataWriteGuid: data,
      logGuid: new Uint8Array(16),
      logVersion: 0,
      version: 1,
      logBytes: LOG_BYTES,
      logOffset: LOG_OFFSET,
    }),
  )
  return summed(image)
}

function regionTable({ batBytes }: Plan): Uint8Array {
  const table = new Uint8Array(TABLE_BYTES)
  const regions = [
    { guid: BAT_REGION, offset: BAT_OFFSET, length: batBytes },
    { guid: METADATA_REGION, offset: METADATA_OFFSET, length: METADATA_BYTES },
  ]
  table.set(tableHeader.build({ signature: REGION_SIGNATURE, checksum: 0, entries: regions.length }))
  for (const [index, { guid, offset, length }] of regions.entries()) {
    const entry = regionEntry.build({ guid: Buffer.from(guid, 'hex'), offset, length, required: 1 })
    table.set(entry, REGION_ENTRIES_OFFSET + index * TABLE_ENTRY_BYTES)
  }
  return summed(table)
}

/** The table, and the items one after another behind its 64 KiB. */
function metadataTables({ kind, virtualBytes, blockBytes }: Plan, diskGuid: Uint8Array): Table[] {
  const ofDisk = ITEM_IS_VIRTUAL_DISK | ITEM_IS_REQUIRED
  const parameters = fileParameters.build({ blockBytes, flags: kind === 'fixed' ? LEAVE_BLOCKS_ALLOCATED : 0 })
  const items = [
    { guid: FILE_PARAMETERS, flags: ITEM_IS_REQUIRED, value: parameters },
    { guid: VIRTUAL_DISK_SIZE, flags: ofDisk, value: virtualDiskSize.build({ virtualBytes }) },
    { guid: VIRTUAL_DISK_ID, flags: ofDisk, value: diskGuid },
    { guid: LOGICAL_SECTOR_SIZE, flags: ofDisk, value: sectorSize.build({ sectorBytes: LOGICAL_SECTOR_BYTES }) },
    { guid: PHYSICAL_SECTOR_SIZE, flags: ofDisk, value: sectorSize.build({ sectorBytes: PHYSICAL_SECTOR_BYTES }) },
  ]
  const table = new Uint8Array(METADATA_ENTRIES_OFFSET + items.length * TABLE_ENTRY_BYTES)
  const values: Uint8Array[] = []
  table.set(metadataHeader.build({ signature: Buffer.from(METADATA_SIGNATURE, 'latin1'), entries: items.length }))
  let offset = TABLE_BYTES
  for (const [index, { guid, flags, value }] of items.entries()) {
    const entry = metadataEntry.build({ guid: Buffer.from(guid, 'hex'), offset, length: value.length, flags })
    table.set(entry, METADATA_ENTRIES_OFFSET + index * TABLE_ENTRY_BYTES)
    values.push(value)
    offset += value.length
  }
  return [kept(METADATA_OFFSET, table), kept(METADATA_OFFSET + TABLE_BYTES, Buffer.concat(values))]
}

/** `part` stands for the bytes of the table from `start` on, and may begin and end inside an entry. */
function writeBat(part: Uint8Array, start: number, plan: Plan): void {
  const entry = new Uint8Array(ENTRY_BYTES)
  const view = new DataView(entry.buffer)
  const last = Math.ceil((start + part.length) / ENTRY_BYTES)
  for (let index = Math.floor(start / ENTRY_BYTES); index < last; index += 1) {
    const rank = isBitmapEntry(index, plan) ? -1 : plan.runs.rank(blockOf(index, plan))
    if (rank < 0) continue
    view.setBigUint64(0, BigInt(plan.dataOffset + rank * plan.blockBytes) | BigInt(FULLY_PRESENT), true)
    const at = index * ENTRY_BYTES - start
    const from = Math.max(0, -at)
    part.set(entry.subarray(from, Math.min(ENTRY_BYTES, part.length - at)), at + from)
  }
}
