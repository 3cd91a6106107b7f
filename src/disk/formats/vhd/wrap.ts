import { createHash } from 'node:crypto'
import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { ClusterRuns } from '../../block/cluster-runs.ts'
import { clustersWithData, plannedFile, type Table } from '../../block/planned-file.ts'
import { buildFooter, DYNAMIC, FIXED, FOOTER_BYTES, isFooter, MAX_DISK_BYTES, SECTOR_BYTES } from './footer.ts'
import { bitmapBytesOf, buildDynamicHeader, DYNAMIC_HEADER_BYTES } from './header.ts'

/**
 * The layouts of the files that we write. docs/formats/vhd.md has the bytes.
 *
 *   dynamic   copy of the footer │ dynamic disk header │ block allocation table │ bitmap and block, by their place on the disk │ footer
 *   fixed     the disk │ footer
 *   azure     the disk, filled up to whole MiB │ footer
 */
const BLOCK_BYTES = 2 * MiB // the specification's default; Hyper-V reads no larger one
const BITMAP_BYTES = bitmapBytesOf(BLOCK_BYTES)
const TABLE_OFFSET = FOOTER_BYTES + DYNAMIC_HEADER_BYTES
const UNUSED = 0xffffffff

/** @throws ServiceError `too-large` for a disk of more than 2,040 GiB */
export async function wrapDynamic(disk: BlockSource): Promise<BlockSource> {
  const virtualBytes = sizeIn(disk, SECTOR_BYTES)
  const blocks = Math.ceil(virtualBytes / BLOCK_BYTES)
  const tableBytes = Math.ceil((blocks * 4) / SECTOR_BYTES) * SECTOR_BYTES
  const blocksOffset = TABLE_OFFSET + tableBytes
  const runs = await clustersWithData(disk, BLOCK_BYTES)
  const footerOffset = blocksOffset + runs.clusters * (BITMAP_BYTES + BLOCK_BYTES)
  const uniqueId = idOf('dynamic', virtualBytes, runs)
  const footer = buildFooter({ diskType: DYNAMIC, virtualBytes, headerOffset: FOOTER_BYTES, uniqueId })
  const sectorOf = (rank: number) => (rank < 0 ? UNUSED : (blocksOffset + rank * (BITMAP_BYTES + BLOCK_BYTES)) / SECTOR_BYTES)
  return plannedFile(disk, {
    size: footerOffset + FOOTER_BYTES,
    tables: [
      known(0, footer),
      known(FOOTER_BYTES, buildDynamicHeader(blocks, BLOCK_BYTES, TABLE_OFFSET)),
      {
        offset: TABLE_OFFSET,
        bytes: tableBytes,
        fill: (part, start) => fillEntries(part, start, (block) => sectorOf(runs.rank(block))),
      },
      known(footerOffset, footer),
    ],
    clusters: { runs, bytes: BLOCK_BYTES, offset: blocksOffset, head: { bytes: BITMAP_BYTES, fill: (part) => part.fill(0xff) } },
  })
}

/**
 * The disk as it is, filled up to a sector, and the footer.
 * @throws ServiceError `too-large` for a disk of more than 2,040 GiB; `unsupported` for one that begins with the footer of a VHD
 */
export const wrapFixed = (disk: BlockSource): Promise<BlockSource> => wrapPlain(disk, 'fixed', SECTOR_BYTES)

/** The same in whole MiB, which Azure asks for: "virtual size must be aligned to 1 MiB". */
export const wrapAzure = (disk: BlockSource): Promise<BlockSource> => wrapPlain(disk, 'azure', MiB)

async function wrapPlain(disk: BlockSource, subformat: string, unitBytes: number): Promise<BlockSource> {
  const virtualBytes = sizeIn(disk, unitBytes)
  await assertNoCopy(disk)
  const uniqueId = idOf(subformat, virtualBytes, await clustersWithData(disk, BLOCK_BYTES))
  const all = new ClusterRuns(virtualBytes / unitBytes, 1, 1)
  if (virtualBytes > 0) all.add(0, virtualBytes / unitBytes)
  all.seal()
  return plannedFile(disk, {
    size: virtualBytes + FOOTER_BYTES,
    tables: [known(virtualBytes, buildFooter({ diskType: FIXED, virtualBytes, uniqueId }))],
    clusters: { runs: all, bytes: unitBytes, offset: 0 },
  })
}

/** It would be the file's own copy of the footer: which of two disks is meant, each reader would decide for itself. */
async function assertNoCopy(disk: BlockSource): Promise<void> {
  if (!isFooter(await disk.read(0, Math.min(disk.size, FOOTER_BYTES)))) return
  throw new ServiceError(
    'unsupported',
    'the disk begins with the footer of a VHD file, and a fixed VHD of it would be taken for that file; make a dynamic one of it',
  )
}

function sizeIn(disk: BlockSource, unitBytes: number): number {
  const virtualBytes = Math.ceil(disk.size / unitBytes) * unitBytes
  if (virtualBytes <= MAX_DISK_BYTES) return virtualBytes
  throw new ServiceError('too-large', `a disk of ${disk.size} bytes does not fit a VHD file: 2,040 GiB is the limit`, {
    diskBytes: disk.size,
  })
}

const known = (offset: number, bytes: Uint8Array): Table => ({
  offset,
  bytes: bytes.length,
  fill: (part, start) => part.set(bytes.subarray(start, start + part.length)),
})

/** Writes entries of 4 bytes, big-endian. `part` may begin and end inside one. */
function fillEntries(part: Uint8Array, start: number, entryOf: (index: number) => number): void {
  const first = Math.floor(start / 4)
  const entries = new DataView(new ArrayBuffer((Math.ceil((start + part.length) / 4) - first) * 4))
  for (let at = 0; at < entries.byteLength; at += 4) entries.setUint32(at, entryOf(first + at / 4))
  const skip = start - first * 4
  part.set(new Uint8Array(entries.buffer, skip, part.length))
}

/** A UUID (version 8, RFC 9562) that follows from the layout, so that the same disk gives the same bytes. */
function idOf(subformat: string, virtualBytes: number, runs: ClusterRuns): Uint8Array {
  const hash = createHash('sha256').update(`imprint vhd ${subformat} ${virtualBytes}\n`)
  for (let rank = 0; rank < runs.clusters; ) {
    const { cluster, runEnd } = runs.clusterAt(rank)
    hash.update(`${cluster} ${runEnd}\n`)
    rank += runEnd - cluster
  }
  const id = hash.digest().subarray(0, 16)
  id[6] = (id[6]! & 0x0f) | 0x80
  id[8] = (id[8]! & 0x3f) | 0x80
  return id
}
