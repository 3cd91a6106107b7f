import { promisify } from 'node:util'
import { deflate } from 'node:zlib'
import { ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { inOrder } from '../../block/in-order.ts'
import { clustersWithData } from '../../block/planned-file.ts'
import { isZero } from '../../block/zero.ts'
import type { PackOptions } from '../format-driver.ts'
import { grainMarker } from './compressed.ts'
import {
  descriptorOf,
  directoryAt,
  GRAIN_BYTES,
  GRAIN_SECTORS,
  headerOf,
  MAX_FILE_SECTORS,
  shapeOf,
  TABLE_BYTES,
  TABLE_ENTRIES,
  TABLE_SECTORS,
} from './describe.ts'
import { DIRECTORY_AT_END, MARKER_DIRECTORY, MARKER_FOOTER, MARKER_TABLE, marker, SECTOR_BYTES } from './header.ts'

const zip = promisify<Uint8Array, object, Uint8Array>(deflate)

/** Read, or being compressed on zlib's threads: 16 grains and what they became, 2 MiB. */
const MAX_GRAINS_UNDER_WAY = 16
const LEVEL = 6 // what QEMU and VMware's own tools use
/** zlib never makes more of a grain than this: 5 bytes for each 16 KiB, header and checksum. One buffer, one trip to a thread. */
const MAX_PACKED_BYTES = GRAIN_BYTES + 64
/** Header and descriptor, and where the first grain is. */
const OVERHEAD_SECTORS = 128

/**
 * The streamOptimized file that holds `disk`: header, descriptor, and for each 32 MiB of disk that have data their grains and then their
 * grain table; then the grain directory and the footer. Every part has a marker before it. Grains of zeros are left out.
 * @throws ServiceError `too-large` for a disk of more than 64 TiB, or when the file reaches 2 TiB; `unsupported` for a disk of no bytes.
 *   Errors of `disk` pass through; `options.signal` ends it with its reason
 */
export async function* packDisk(disk: BlockSource, options: PackOptions = {}): AsyncGenerator<Uint8Array> {
  const runs = await clustersWithData(disk, GRAIN_BYTES)
  const shape = shapeOf(disk, runs, 'streamOptimized')
  const places = { redundantDirectory: 0, overhead: OVERHEAD_SECTORS }
  const head = new Uint8Array(OVERHEAD_SECTORS * SECTOR_BYTES)
  head.set(headerOf(shape, { ...places, directory: DIRECTORY_AT_END }))
  head.set(descriptorOf(shape), SECTOR_BYTES)
  yield head

  let sector = OVERHEAD_SECTORS
  const directory = new Uint8Array(Math.ceil((shape.tables * 4) / SECTOR_BYTES) * SECTOR_BYTES)
  const directoryView = new DataView(directory.buffer)
  let table = new Uint8Array(TABLE_BYTES)
  let tableIndex = -1
  const endTable = (): Uint8Array | undefined => {
    if (tableIndex < 0) return undefined
    directoryView.setUint32(tableIndex * 4, sector + 1, true)
    sector += 1 + TABLE_SECTORS
    return afterMarker(MARKER_TABLE, table)
  }
  for await (const packed of inOrder(numbersOf(runs), MAX_GRAINS_UNDER_WAY, (grain) => packedGrain(disk, grain))) {
    options.signal?.throwIfAborted()
    if (!packed) continue
    const { grain, bytes } = packed
    const index = Math.floor(grain / TABLE_ENTRIES)
    if (index !== tableIndex) {
      const last = endTable()
      if (last) yield last
      tableIndex = index
      table = new Uint8Array(TABLE_BYTES)
    }
    new DataView(table.buffer).setUint32((grain % TABLE_ENTRIES) * 4, sector, true)
    sector += bytes.length / SECTOR_BYTES
    if (sector + 2 + TABLE_SECTORS > MAX_FILE_SECTORS) {
      throw new ServiceError('too-large', 'the disk has more data than a vmdk file can hold in one extent: 2 TiB is the limit', {
        diskBytes: disk.size,
      })
    }
    yield bytes
  }
  const last = endTable()
  if (last) yield last
  yield afterMarker(MARKER_DIRECTORY, directory)
  yield afterMarker(MARKER_FOOTER, headerOf(shape, { ...places, directory: directoryAt(sector + 1) }))
  yield new Uint8Array(SECTOR_BYTES) // the end-of-stream marker is all zeros
}

/** @param metadata  whole sectors */
function afterMarker(
  type: typeof MARKER_TABLE | typeof MARKER_DIRECTORY | typeof MARKER_FOOTER,
  metadata: Uint8Array,
): Uint8Array {
  const both = new Uint8Array(SECTOR_BYTES + metadata.length)
  both.set(marker.build({ value: metadata.length / SECTOR_BYTES, size: 0, type }))
  both.set(metadata, SECTOR_BYTES)
  return both
}

interface PackedGrain {
  /** Its number on the disk. */
  readonly grain: number
  /** Marker and zlib stream, filled up to whole sectors. */
  readonly bytes: Uint8Array
}

function* numbersOf(runs: Awaited<ReturnType<typeof clustersWithData>>): Generator<number> {
  for (let rank = 0; rank < runs.clusters; ) {
    const { cluster, runEnd } = runs.clusterAt(rank)
    for (let grain = cluster; grain < runEnd; grain += 1) yield grain
    rank += runEnd - cluster
  }
}

/** Undefined: it holds nothing but zeros. */
async function packedGrain(disk: BlockSource, grain: number): Promise<PackedGrain | undefined> {
  const offset = grain * GRAIN_BYTES
  const inDisk = await disk.read(offset, Math.min(GRAIN_BYTES, disk.size - offset))
  if (isZero(inDisk)) return undefined
  const sectorsBytes = Math.ceil(inDisk.length / SECTOR_BYTES) * SECTOR_BYTES
  const plain = sectorsBytes === inDisk.length ? inDisk : Buffer.concat([inDisk, new Uint8Array(sectorsBytes - inDisk.length)])
  const stream = await zip(plain, { level: LEVEL, chunkSize: MAX_PACKED_BYTES })
  const used = grainMarker.bytes + stream.length
  const bytes = new Uint8Array(Math.ceil(used / SECTOR_BYTES) * SECTOR_BYTES)
  bytes.set(grainMarker.build({ lba: grain * GRAIN_SECTORS, bytes: stream.length }))
  bytes.set(stream, grainMarker.bytes)
  return { grain, bytes }
}
