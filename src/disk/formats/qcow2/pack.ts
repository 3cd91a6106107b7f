import { promisify } from 'node:util'
import { deflateRaw, zstdCompress } from 'node:zlib'
import { ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { inOrder } from '../../block/in-order.ts'
import { isZero } from '../../block/zero.ts'
import type { PackOptions } from '../format-driver.ts'
import { type FileEnd, GrowingFile, writeOffset } from './growing-file.ts'
import { CLUSTER_BYTES, COPIED_HIGH, headerCluster, L2_ENTRIES, l1EntriesFor } from './written-header.ts'

/**
 * The layout of compressed files: header, then clusters of the disk in its order, each L2 table behind the clusters that it maps, each
 * refcount block behind the clusters that it counts; at the end the L1 table, the last refcount blocks and the refcount table. So all that
 * is known late is in the first cluster alone, and memory does not grow with the disk but for the L1 table: 16 KiB a TiB.
 */
const deflate = promisify<Uint8Array, object, Uint8Array>(deflateRaw)
const zstd = promisify<Uint8Array, object, Uint8Array>(zstdCompress)

/** Clusters that are read together, and how many such pieces are under way: 1.5 MiB of the disk, so that others get their turn on zlib's threads. */
const PIECE_CLUSTERS = 8
const PIECES_AT_A_TIME = 3
/** A compressed cluster must save this much: a plain one is read ten times as fast. */
const LEAST_SAVED_BYTES = 4096
const ROOM_BYTES = CLUSTER_BYTES + 1024 // for the worst result: one trip to a thread is enough
const COMPRESSED_HIGH = 0x40000000 // bit 62
const SECTORS_SHIFT = 54 - 32 // specification: x = 62 − (cluster_bits − 8); of the entry's high word
const ZERO_LOW = 1

export type Compression = 'zlib' | 'zstd'

/** QEMU inflates with a window of 4 KiB. zstd that knows the size of its input sets up smaller tables: 2.5 times as fast. */
const compress: Record<Compression, (cluster: Uint8Array) => Promise<Uint8Array>> = {
  zlib: (cluster) => deflate(cluster, { windowBits: 12, memLevel: 9, chunkSize: ROOM_BYTES }),
  zstd: (cluster) => zstd(cluster, { pledgedSrcSize: CLUSTER_BYTES, chunkSize: ROOM_BYTES }),
}

/**
 * The compressed qcow2 file that holds `disk`, from front to back, in pieces of 64 KiB. Where the target can be rewritten the header is
 * made last; else everything is compressed twice, as the header says how long the file will be. The bytes are the same.
 * @throws ServiceError `too-large` for a disk of more than 2 PiB
 */
export async function* packDisk(
  disk: BlockSource,
  compression: Compression,
  options: PackOptions = {},
): AsyncGenerator<Uint8Array> {
  const { signal, rewrite } = options
  const sizes = l1EntriesFor(disk.size)
  if (rewrite) {
    yield new Uint8Array(CLUSTER_BYTES)
    const end = yield* body(disk, compression, signal)
    await rewrite(0, headerCluster({ ...sizes, ...end, compression }))
    return
  }
  const planned = await endOf(body(disk, compression, signal))
  yield headerCluster({ ...sizes, ...planned, compression })
  const end = yield* body(disk, compression, signal)
  if (end.l1Start === planned.l1Start && end.refcountTableStart === planned.refcountTableStart) return
  throw new ServiceError('corrupt', 'qcow2: the disk changed while it was being compressed', { diskBytes: disk.size })
}

async function endOf(file: AsyncGenerator<Uint8Array, FileEnd>): Promise<FileEnd> {
  for (;;) {
    const step = await file.next()
    if (step.done) return step.value
  }
}

/** All clusters but the first. */
async function* body(
  disk: BlockSource,
  compression: Compression,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, FileEnd> {
  const file = new GrowingFile(1)
  const l1 = new Uint8Array(Math.ceil((l1EntriesFor(disk.size).l1Entries * 8) / CLUSTER_BYTES) * CLUSTER_BYTES)
  const l1View = new DataView(l1.buffer)
  let table = new DataView(new ArrayBuffer(CLUSTER_BYTES))
  let tableIndex = -1
  const placeTable = () => {
    if (tableIndex >= 0) writeOffset(l1View, tableIndex * 8, file.place(new Uint8Array(table.buffer)), COPIED_HIGH)
  }
  for await (const piece of inOrder(piecesOf(disk), PIECES_AT_A_TIME, (each) => packed(disk, each, compression))) {
    signal?.throwIfAborted()
    for (const { cluster, kind, bytes } of piece) {
      const index = Math.floor(cluster / L2_ENTRIES)
      if (index !== tableIndex) {
        placeTable()
        table = new DataView(new ArrayBuffer(CLUSTER_BYTES))
        tableIndex = index
      }
      const at = (cluster % L2_ENTRIES) * 8
      if (kind === 'zero') table.setUint32(at + 4, ZERO_LOW)
      else if (kind === 'plain') writeOffset(table, at, file.place(bytes), COPIED_HIGH)
      else writeCompressed(table, at, file.append(bytes), bytes.length)
      yield* file.ready()
    }
  }
  placeTable()
  const end = file.finish(Array.from({ length: l1.length / CLUSTER_BYTES }, (_, index) => clusterOf(l1, index)))
  yield* file.ready()
  return end
}

const clusterOf = (bytes: Uint8Array, index: number): Uint8Array =>
  bytes.subarray(index * CLUSTER_BYTES, (index + 1) * CLUSTER_BYTES)

/** Specification, "Compressed Clusters Descriptor": the offset, and in how many further sectors the bytes go on. */
function writeCompressed(table: DataView, at: number, offset: number, length: number): void {
  const sectors = Math.floor((offset + length - 1) / 512) - Math.floor(offset / 512)
  writeOffset(table, at, offset, (COMPRESSED_HIGH | (sectors << SECTORS_SHIFT)) >>> 0)
}

interface Piece {
  /** Clusters of the disk, one after another. */
  readonly first: number
  readonly count: number
}

/** The clusters that data touch, each once. */
async function* piecesOf(disk: BlockSource): AsyncGenerator<Piece> {
  let reached = 0
  for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
    if (kind !== 'data') continue
    const end = Math.ceil((offset + length) / CLUSTER_BYTES)
    for (let first = Math.max(reached, Math.floor(offset / CLUSTER_BYTES)); first < end; ) {
      const count = Math.min(PIECE_CLUSTERS, end - first)
      yield { first, count }
      first += count
    }
    reached = Math.max(reached, end)
  }
}

interface Packed {
  readonly cluster: number
  readonly kind: 'zero' | 'plain' | 'compressed'
  readonly bytes: Uint8Array
}

async function packed(disk: BlockSource, { first, count }: Piece, compression: Compression): Promise<readonly Packed[]> {
  const start = first * CLUSTER_BYTES
  const bytes = await disk.read(start, Math.min(count * CLUSTER_BYTES, disk.size - start))
  return Promise.all(
    Array.from({ length: count }, async (_, index): Promise<Packed> => {
      const cluster = first + index
      const part = wholeCluster(clusterOf(bytes, index))
      if (isZero(part)) return { cluster, kind: 'zero', bytes: part }
      const small = await compress[compression](part)
      const helps = small.length <= CLUSTER_BYTES - LEAST_SAVED_BYTES
      return helps ? { cluster, kind: 'compressed', bytes: small } : { cluster, kind: 'plain', bytes: part }
    }),
  )
}

/** The last one of the disk may be cut off: zeros. */
function wholeCluster(part: Uint8Array): Uint8Array {
  if (part.length === CLUSTER_BYTES) return part
  const whole = new Uint8Array(CLUSTER_BYTES)
  whole.set(part)
  return whole
}
