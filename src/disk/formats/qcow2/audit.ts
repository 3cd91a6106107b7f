import type { ServiceError } from '../../../base/errors.ts'
import { KiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { DataFinder, tableParts } from '../../block/data-in-file.ts'
import { inOrder } from '../../block/in-order.ts'
import type { OpenOptions } from '../format-driver.ts'
import { Claims } from './claims.ts'
import { type Qcow2Header, readHeader, refuse } from './header.ts'
import { headerOfSnapshot, snapshotsOf } from './snapshots.ts'
import { l1Entries, segmentsOf } from './tables.ts'

/** Offsets of compressed clusters that are compared with one another, 16 bytes each. More of them are held to a ratio only. */
const MAX_COMPARED_CLUSTERS = 2 ** 21
/** Deflate can make no more of a byte. zlib's technical notes, "Maximum Compression Factor". */
const MAX_DEFLATE_RATIO = 1032
/** A zstd block of one repeated byte: 4 bytes stand for 128 KiB. RFC 8878, section 3.1.1.2. */
const MAX_ZSTD_BLOCK_BYTES = 128 * KiB
const MIN_ZSTD_BLOCK_BYTES = 4
const TABLES_AT_A_TIME = 16
const L1_PART_BYTES = 256 * KiB

/**
 * Walks all tables, those of internal snapshots as well: an L2 table that several of them share is walked once, so the cost is
 * in proportion to the tables of the file that it has data for. @throws ServiceError `invalid-image` | `unsupported`
 */
export async function auditFile(file: BlockSource, given?: OpenOptions): Promise<readonly string[]> {
  const h = await readHeader(file, given?.parent ? 'given' : 'none')
  const audit = new Audit(file, h)
  audit.takeOnly(0, h.clusterBytes, 'the header')
  audit.takeOnly(h.refcountTableOffset, h.refcountTableClusters * h.clusterBytes, 'the refcount table')
  await audit.walk(h, 'the L1 table')
  let tableEnd = h.snapshotsOffset
  let index = 0
  for await (const snapshot of snapshotsOf(file, h)) {
    await audit.walk(headerOfSnapshot(h, snapshot), `the L1 table of snapshot ${index}`)
    tableEnd = snapshot.entryEnd
    index += 1
  }
  audit.takeOnly(h.snapshotsOffset, tableEnd - h.snapshotsOffset, 'the snapshot table')
  audit.compressed.check()

  const warnings: string[] = []
  if (h.dirty) warnings.push('qcow2: the file was not closed cleanly; its refcounts may be stale, the disk is read as it is')
  if (h.snapshots > 0) {
    warnings.push(
      `qcow2: ${h.snapshots} internal snapshots are kept in the file, but only the active disk is used unless one is asked for`,
    )
  }
  if (audit.isCutOff) warnings.push('qcow2: the file ends inside its last cluster; what is missing reads as zeros')
  return warnings
}

class Audit {
  readonly compressed: CompressedClusters
  /** A data cluster ends behind the end of the file. */
  isCutOff = false
  readonly #file: BlockSource
  readonly #claims: Claims
  readonly #finder: DataFinder

  constructor(file: BlockSource, h: Qcow2Header) {
    this.#file = file
    this.#claims = new Claims(file.size, h)
    this.#finder = new DataFinder(file)
    this.compressed = new CompressedClusters(file.size, h)
  }

  takeOnly(offset: number, length: number, what: string): void {
    this.#claims.take(offset, length, { kind: 'only', what })
  }

  /** The tables of one disk, as far as they were not those of another. */
  async walk(h: Qcow2Header, l1Name: string): Promise<void> {
    this.takeOnly(h.l1TableOffset, h.l1Entries * 8, l1Name)
    const l1 = { offset: h.l1TableOffset, bytes: h.l1NeededEntries * 8, entryBytes: 8, partBytes: L1_PART_BYTES }
    /** Those of this disk all at once, so that none of them can be data of it. */
    const newTables: (readonly [index: number, offset: number])[] = []
    for await (const { bytes, first } of tableParts(this.#file, l1)) {
      for (const [index, offset] of l1Entries(bytes, first, h, this.#file.size)) {
        const isNew = offset > 0 && this.#claims.take(offset, h.clusterBytes, { kind: 'table', place: index })
        if (isNew) newTables.push([index, offset])
      }
    }
    /** They do not overlap, so all of them together are no longer than the file. */
    const load = async ([index, offset]: (typeof newTables)[number]) => ({
      table: await this.#file.read(offset, h.clusterBytes),
      index,
    })
    const tables = inOrder(this.#withData(newTables, h), TABLES_AT_A_TIME, load)
    for await (const { table, index } of tables) this.#auditTable(table, index, h)
  }

  /** A table that the file has no data for is empty. */
  async *#withData(tables: Iterable<readonly [index: number, offset: number]>, { clusterBytes }: Qcow2Header) {
    for (const table of tables) if (await this.#finder.hasData(table[1], clusterBytes)) yield table
  }

  #auditTable(table: Uint8Array, l1Index: number, h: Qcow2Header): void {
    const fileBytes = this.#file.size
    const tableSpan = h.clusterBytes * h.l2Entries
    const start = l1Index * tableSpan
    /** A table is shared with disks that may be larger. */
    const stop = h.snapshots > 0 ? start + tableSpan : Math.min(start + tableSpan, h.virtualBytes)
    let claimedUpTo = 0
    /** Sees clusters beyond the end as they are, not as the zeros that a reader would get. */
    for (const { kind, offset, length, hostOffset } of segmentsOf(table, h, Number.MAX_SAFE_INTEGER, start, start, stop)) {
      if (kind === 'compressed') {
        if (hostOffset >= fileBytes) throw beyondEnd(offset, hostOffset, fileBytes)
        this.compressed.add(hostOffset, offset)
      }
      if (kind !== 'data' || offset < claimedUpTo) continue
      if (hostOffset >= fileBytes) throw beyondEnd(offset, hostOffset, fileBytes)
      if (hostOffset + length > fileBytes) this.isCutOff = true
      const inCluster = offset % h.clusterBytes
      const place = (offset - inCluster) / h.clusterBytes
      this.#claims.take(hostOffset - inCluster, h.clusterBytes, { kind: 'data', place, diskOffset: offset })
      claimedUpTo = offset - inCluster + h.clusterBytes // subclusters share one claim
    }
  }
}

const beyondEnd = (diskOffset: number, hostOffset: number, fileBytes: number): ServiceError =>
  refuse(
    'truncated',
    `the data for byte ${diskOffset} of the disk lie beyond the end of the file, which has ${fileBytes} bytes; is the upload complete?`,
    { diskOffset, hostOffset, fileBytes },
  )

/**
 * Compressed clusters share sectors, so what is compared is where they begin. Two of one beginning are one cluster of the disk at two
 * moments, or a trick. They are compared each time that there are twice as many, so that a file of nothing but tricks costs little.
 */
class CompressedClusters {
  readonly #fileBytes: number
  readonly #h: Qcow2Header
  #count = 0
  #hosts = new Float64Array(1024)
  #disks = new Float64Array(1024)

  constructor(fileBytes: number, h: Qcow2Header) {
    this.#fileBytes = fileBytes
    this.#h = h
  }

  /** @throws ServiceError as `check` */
  add(hostOffset: number, diskOffset: number): void {
    if (this.#count < MAX_COMPARED_CLUSTERS) {
      if (this.#count === this.#hosts.length) {
        this.check()
        this.#hosts = longer(this.#hosts)
        this.#disks = longer(this.#disks)
      }
      this.#hosts[this.#count] = hostOffset
      this.#disks[this.#count] = diskOffset
    }
    this.#count += 1
  }

  /** @throws ServiceError `invalid-image` when the same bytes are used for more than one cluster */
  check(): void {
    const [fileBytes, h] = [this.#fileBytes, this.#h]
    const leastBytes =
      h.compression === 'zlib'
        ? Math.floor(h.clusterBytes / MAX_DEFLATE_RATIO)
        : Math.ceil(h.clusterBytes / MAX_ZSTD_BLOCK_BYTES) * MIN_ZSTD_BLOCK_BYTES
    const moments = 1 + h.snapshots
    if (this.#count * leastBytes <= fileBytes * moments && !this.#isOneTwice()) return
    throw refuse('amplification', 'the same compressed bytes are used for more than one cluster of the disk', {
      compressedClusters: this.#count,
      fileBytes,
    })
  }

  #isOneTwice(): boolean {
    const compared = Math.min(this.#count, MAX_COMPARED_CLUSTERS)
    const sorted = this.#hosts.slice(0, compared).sort()
    if (!sorted.some((offset, index) => index > 0 && offset === sorted[index - 1])) return false
    const [hosts, disks] = [this.#hosts, this.#disks]
    const order = Uint32Array.from({ length: compared }, (_, index) => index).sort((a, b) => hosts[a]! - hosts[b]!)
    return order.some((at, index) => {
      const before = order[index - 1]
      return before !== undefined && hosts[before] === hosts[at] && disks[before] !== disks[at]
    })
  }
}

function longer(array: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const copy = new Float64Array(array.length * 2)
  copy.set(array)
  return copy
}
