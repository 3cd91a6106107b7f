import { createHash } from 'node:crypto'
import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { ClusterRuns } from '../../block/cluster-runs.ts'
import { clustersWithData, plannedFile } from '../../block/planned-file.ts'
import { FREE } from './disk.ts'
import {
  DYNAMIC,
  HEADER_BYTES,
  header,
  LOGICAL_GEOMETRY_SECTOR_AT,
  MAX_BLOCKS,
  SECTOR_BYTES,
  SIGNATURE,
  STATIC,
  VERSION,
} from './header.ts'

/**
 * The layout of the files that we write, in blocks of 1 MiB: header │ block map │ blocks, by their place on the disk. The map and the
 * blocks begin at whole MiB, as VirtualBox has them. docs/formats/vdi.md has the bytes.
 */
const BLOCK_BYTES = 1 * MiB // the only size that QEMU reads
const MAP_OFFSET = 1 * MiB
const FILE_INFO = '<<< Imprint Virtual Disk Image >>>\n'

/** Blocks that data touch. @throws ServiceError `too-large` for a disk of more than 64 TiB */
export async function wrapDynamic(disk: BlockSource): Promise<BlockSource> {
  assertFits(disk)
  const runs = await clustersWithData(disk, BLOCK_BYTES)
  return planned(disk, DYNAMIC, runs, runs)
}

/** All blocks, of which the file has what the disk has. @throws ServiceError `too-large` for a disk of more than 64 TiB */
export async function wrapStatic(disk: BlockSource): Promise<BlockSource> {
  assertFits(disk)
  const blocks = Math.ceil(disk.size / BLOCK_BYTES)
  const all = new ClusterRuns(blocks, 1, 1)
  if (blocks > 0) all.add(0, blocks)
  all.seal()
  return planned(disk, STATIC, all, await clustersWithData(disk, BLOCK_BYTES))
}

function assertFits(disk: BlockSource): void {
  if (disk.size <= MAX_BLOCKS * BLOCK_BYTES) return
  throw new ServiceError('too-large', `a disk of ${disk.size} bytes does not fit a VDI file: 64 TiB is the limit`, {
    diskBytes: disk.size,
  })
}

/** @param runs in the file @param withData among them: what ids are made of */
function planned(
  disk: BlockSource,
  imageType: typeof DYNAMIC | typeof STATIC,
  runs: ClusterRuns,
  withData: ClusterRuns,
): BlockSource {
  const virtualBytes = Math.ceil(disk.size / SECTOR_BYTES) * SECTOR_BYTES
  const blocks = Math.ceil(virtualBytes / BLOCK_BYTES)
  const dataOffset = Math.ceil((MAP_OFFSET + blocks * 4) / MiB) * MiB
  const built = headerOf({
    imageType,
    virtualBytes,
    blocks,
    dataOffset,
    blocksAllocated: runs.clusters,
    ids: idsOf(imageType, virtualBytes, withData),
  })
  return plannedFile(disk, {
    size: dataOffset + runs.clusters * BLOCK_BYTES,
    tables: [
      { offset: 0, bytes: built.length, fill: (part, start) => part.set(built.subarray(start, start + part.length)) },
      { offset: MAP_OFFSET, bytes: blocks * 4, fill: (part, start) => fillEntries(part, start, runs) },
    ],
    clusters: { runs, bytes: BLOCK_BYTES, offset: dataOffset },
  })
}

interface HeaderFacts {
  readonly imageType: number
  readonly virtualBytes: number
  readonly blocks: number
  readonly blocksAllocated: number
  readonly dataOffset: number
  readonly ids: { readonly createId: Uint8Array; readonly modifyId: Uint8Array }
}

function headerOf({ ids, ...facts }: HeaderFacts): Uint8Array {
  const fileInfo = new Uint8Array(64)
  fileInfo.set(Buffer.from(FILE_INFO))
  const built = new Uint8Array(SECTOR_BYTES)
  built.set(
    header.build({
      fileInfo,
      signature: SIGNATURE,
      version: VERSION,
      headerBytes: HEADER_BYTES,
      flags: 0,
      comment: new Uint8Array(256),
      blockMapOffset: MAP_OFFSET,
      sectorBytes: SECTOR_BYTES,
      blockBytes: BLOCK_BYTES,
      blockExtraBytes: 0,
      linkId: new Uint8Array(16),
      parentModifyId: new Uint8Array(16),
      ...facts,
      ...ids,
    }),
  )
  new DataView(built.buffer).setUint32(LOGICAL_GEOMETRY_SECTOR_AT, SECTOR_BYTES, true)
  return built
}

/** Writes entries of 4 bytes, little-endian: the rank of a block among those in the file. `part` may begin and end inside one. */
function fillEntries(part: Uint8Array, start: number, runs: ClusterRuns): void {
  const first = Math.floor(start / 4)
  const entries = new DataView(new ArrayBuffer((Math.ceil((start + part.length) / 4) - first) * 4))
  for (let at = 0; at < entries.byteLength; at += 4) {
    const rank = runs.rank(first + at / 4)
    entries.setUint32(at, rank < 0 ? FREE : rank, true)
  }
  part.set(new Uint8Array(entries.buffer, start - first * 4, part.length))
}

/** Two UUIDs (version 8, RFC 9562, in the byte order of VirtualBox) that follow from the layout, so that the same disk gives the same bytes. */
function idsOf(imageType: number, virtualBytes: number, runs: ClusterRuns): HeaderFacts['ids'] {
  const hash = createHash('sha256').update(`imprint vdi ${imageType} ${virtualBytes}\n`)
  for (let rank = 0; rank < runs.clusters; ) {
    const { cluster, runEnd } = runs.clusterAt(rank)
    hash.update(`${cluster} ${runEnd}\n`)
    rank += runEnd - cluster
  }
  const digest = hash.digest()
  const idAt = (start: number) => {
    const id = digest.subarray(start, start + 16)
    id[7] = (id[7]! & 0x0f) | 0x80
    id[8] = (id[8]! & 0x3f) | 0x80
    return id
  }
  return { createId: idAt(0), modifyId: idAt(16) }
}
