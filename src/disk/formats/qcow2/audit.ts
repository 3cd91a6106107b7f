import { ServiceError } from '../../../base/errors.ts'
import { KiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checkSnapshots, type Qcow2Header, readHeader, refuse } from './header.ts'
import { readL1, segmentsOf } from './tables.ts'

/** One bit for each cluster of the file: 256 MiB at most, of which memory is used where the file has clusters. */
const MAX_CLAIMABLE_CLUSTERS = 2 ** 31
/** Offsets of compressed clusters that are compared with one another, 8 bytes each. More of them are held to a ratio only. */
const MAX_COMPARED_CLUSTERS = 2 ** 21
/** Deflate can make no more of a byte. zlib's technical notes, "Maximum Compression Factor". */
const MAX_DEFLATE_RATIO = 1032
/** A zstd block of one repeated byte: 4 bytes stand for 128 KiB. RFC 8878, section 3.1.1.2. */
const MAX_ZSTD_BLOCK_BYTES = 128 * KiB
const MIN_ZSTD_BLOCK_BYTES = 4
const TABLES_AT_A_TIME = 16

/** Walks all tables of the active disk. @throws ServiceError `invalid-image` | `unsupported` */
export async function auditFile(file: BlockSource): Promise<readonly string[]> {
  const h = await readHeader(file)
  await checkSnapshots(file, h)
  const claims = new Claims(file.size, h)
  claims.take(0, h.clusterBytes, 'the header')
  claims.take(h.l1TableOffset, h.l1Entries * 8, 'the L1 table')
  claims.take(h.refcountTableOffset, h.refcountTableClusters * h.clusterBytes, 'the refcount table')

  const l1 = await readL1(file, h)
  for (const offset of l1) if (offset > 0) claims.take(offset, h.clusterBytes, 'an L2 table')
  const compressed = new CompressedClusters()
  let cutOff = 0
  for await (const { table, index } of tables(file, h, l1)) {
    cutOff += auditTable(table, index, h, file.size, claims, compressed)
  }
  compressed.check(file.size, h)

  const warnings: string[] = []
  if (h.dirty) warnings.push('qcow2: the file was not closed cleanly; its refcounts may be stale, the disk is read as it is')
  if (h.snapshots > 0)
    warnings.push(`qcow2: ${h.snapshots} internal snapshots are kept in the file, but only the active disk is used`)
  if (cutOff > 0) warnings.push('qcow2: the file ends inside its last cluster; what is missing reads as zeros')
  return warnings
}

/** L2 tables, some of them read ahead. They do not overlap, so all of them together are no longer than the file. */
async function* tables(file: BlockSource, h: Qcow2Header, l1: Float64Array) {
  const ahead: Promise<{ table: Uint8Array; index: number }>[] = []
  for (const [index, offset] of l1.entries()) {
    if (offset === 0) continue
    const load = file.read(offset, h.clusterBytes).then((table) => ({ table, index }))
    load.catch(() => {}) // awaited below; until then a failure must not count as unhandled
    ahead.push(load)
    if (ahead.length >= TABLES_AT_A_TIME) yield await ahead.shift()!
  }
  for (const load of ahead) yield await load
}

/** @returns 1 where a data cluster of this table is cut off by the end of the file, else 0 */
function auditTable(
  table: Uint8Array,
  l1Index: number,
  h: Qcow2Header,
  fileBytes: number,
  claims: Claims,
  compressed: CompressedClusters,
): number {
  const tableSpan = h.clusterBytes * h.l2Entries
  const start = l1Index * tableSpan
  const stop = Math.min(start + tableSpan, h.virtualBytes)
  let cutOff = 0
  let claimedUpTo = 0
  /** Sees clusters beyond the end as they are, not as the zeros that a reader would get. */
  for (const { kind, offset, length, hostOffset } of segmentsOf(table, h, Number.MAX_SAFE_INTEGER, start, start, stop)) {
    if (kind === 'compressed') {
      if (hostOffset >= fileBytes) throw beyondEnd(offset, hostOffset, fileBytes)
      compressed.add(hostOffset)
    }
    if (kind !== 'data' || offset < claimedUpTo) continue
    if (hostOffset >= fileBytes) throw beyondEnd(offset, hostOffset, fileBytes)
    if (hostOffset + length > fileBytes) cutOff = 1
    const inCluster = offset % h.clusterBytes
    claims.take(hostOffset - inCluster, h.clusterBytes, `the data for byte ${offset} of the disk`)
    claimedUpTo = offset - inCluster + h.clusterBytes // subclusters share one claim
  }
  return cutOff
}

const beyondEnd = (diskOffset: number, hostOffset: number, fileBytes: number): ServiceError =>
  refuse(
    'truncated',
    `the data for byte ${diskOffset} of the disk lie beyond the end of the file, which has ${fileBytes} bytes; is the upload complete?`,
    { diskOffset, hostOffset, fileBytes },
  )

/** Which clusters of the file are in use. A cluster used twice is a trick to make little file into much disk, or damage. */
class Claims {
  readonly #clusterBytes: number
  readonly #bits: Uint8Array

  constructor(fileBytes: number, h: Qcow2Header) {
    const clusters = Math.ceil(fileBytes / h.clusterBytes)
    if (clusters > MAX_CLAIMABLE_CLUSTERS) {
      throw new ServiceError(
        'too-large',
        `qcow2: the file has ${clusters} clusters; at most ${MAX_CLAIMABLE_CLUSTERS} can be checked`,
        {
          clusters,
        },
      )
    }
    this.#clusterBytes = h.clusterBytes
    this.#bits = new Uint8Array(Math.ceil(clusters / 8))
  }

  /** @param offset at a cluster's start. What lies beyond the end of the file is not claimed. */
  take(offset: number, length: number, what: string): void {
    const first = offset / this.#clusterBytes
    const last = Math.min(first + Math.ceil(length / this.#clusterBytes), this.#bits.length * 8)
    for (let cluster = first; cluster < last; cluster += 1) {
      const at = Math.floor(cluster / 8)
      const bit = 1 << (cluster % 8)
      if (this.#bits[at]! & bit) {
        throw refuse('overlap', `${what} uses a cluster of the file that is in use already; try "qemu-img check -r all"`, {
          hostOffset: cluster * this.#clusterBytes,
        })
      }
      this.#bits[at]! |= bit
    }
  }
}

/** Compressed clusters share sectors, so what is compared is where they begin. */
class CompressedClusters {
  #count = 0
  #offsets = new Float64Array(1024)

  add(hostOffset: number): void {
    const { length } = this.#offsets
    if (this.#count < MAX_COMPARED_CLUSTERS) {
      if (this.#count === length) {
        const longer = new Float64Array(length * 2)
        longer.set(this.#offsets)
        this.#offsets = longer
      }
      this.#offsets[this.#count] = hostOffset
    }
    this.#count += 1
  }

  /** @throws ServiceError `invalid-image` when the same bytes are used for more than one cluster */
  check(fileBytes: number, h: Qcow2Header): void {
    const offsets = this.#offsets.subarray(0, Math.min(this.#count, MAX_COMPARED_CLUSTERS)).sort()
    const twice = offsets.find((offset, index) => index > 0 && offset === offsets[index - 1])
    const leastBytes =
      h.compression === 'zlib'
        ? Math.floor(h.clusterBytes / MAX_DEFLATE_RATIO)
        : Math.ceil(h.clusterBytes / MAX_ZSTD_BLOCK_BYTES) * MIN_ZSTD_BLOCK_BYTES
    if (twice === undefined && this.#count * leastBytes <= fileBytes) return
    throw refuse('amplification', 'the same compressed bytes are used for more than one cluster of the disk', {
      compressedClusters: this.#count,
      fileBytes,
    })
  }
}
