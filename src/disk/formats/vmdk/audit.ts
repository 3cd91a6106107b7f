import { KiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { DataFinder } from '../../block/data-in-file.ts'
import { inOrder } from '../../block/in-order.ts'
import { UsedUnits } from '../../block/used-units.ts'
import type { OpenOptions } from '../format-driver.ts'
import { GrainCaches, GrainMap, grainBeyondEnd, readDirectory, tableSectors, tablesInOrder } from './grains.ts'
import { refuse, SECTOR_BYTES, type SparseHeader, ZEROED } from './header.ts'
import { readLayout } from './layout.ts'

/** Places of compressed grains that are compared with one another, 4 bytes each. Where they ascend, any number is. */
const MAX_COMPARED_GRAINS = 2 ** 23
/** Deflate can make no more of a byte. zlib's technical notes, "Maximum Compression Factor". */
const MAX_DEFLATE_RATIO = 1032
const TABLES_AT_A_TIME = 16

/** Walks all grain tables, of every extent. @throws ServiceError `invalid-image` | `unsupported` */
export async function auditFile(file: BlockSource, given?: OpenOptions): Promise<readonly string[]> {
  const { extents } = await readLayout(file, given)
  const warnings: string[] = []
  for (const extent of extents) {
    if (extent.kind !== 'sparse') continue
    await auditExtent(extent.file, extent.header)
    if (extent.header.unclean) warnings.push('vmdk: an extent was not closed cleanly; it is read as it is')
  }
  return [...new Set(warnings)]
}

async function auditExtent(file: BlockSource, h: SparseHeader): Promise<void> {
  const map = await mapOf(file, h, h.directoryOffset)
  const copy = h.redundantDirectoryOffset > 0 ? await mapOf(file, h, h.redundantDirectoryOffset) : undefined
  const metadata = [new Metadata(h, map.directory, h.directoryOffset)]
  if (copy) metadata.push(new Metadata(h, copy.directory, h.redundantDirectoryOffset))
  const grains = h.compressed ? new CompressedGrains(file.size, h) : new PlainGrains(file.size, h)
  for await (const { index, table, other } of tables(map, copy)) {
    if (other && !areEqual(table, other)) {
      throw refuse(
        'malformed',
        `grain table ${index} and its redundant copy contradict each other; try "vmware-vdiskmanager -R"`,
        { index },
      )
    }
    const start = index * h.tableEntries * h.grainBytes
    const count = Math.min(h.tableEntries, Math.ceil((h.virtualBytes - start) / h.grainBytes))
    for (let entry = 0; entry < count; entry += 1) {
      const sector = table.getUint32(entry * 4, true)
      if (sector === 0 || (sector === ZEROED && h.zeroGrains)) continue
      const [diskOffset, sectors] = [start + entry * h.grainBytes, h.compressed ? 1 : h.grainBytes / SECTOR_BYTES]
      if (metadata.some((each) => each.touches(sector, sector + sectors)))
        throw overlap(`the grain for byte ${diskOffset}`, sector)
      grains.take(sector, diskOffset)
    }
  }
  grains.check()
}

async function mapOf(file: BlockSource, h: SparseHeader, directoryOffset: number): Promise<GrainMap> {
  return new GrainMap(file, h, await readDirectory(file, h, directoryOffset), 0, new GrainCaches())
}

interface TablePair {
  readonly index: number
  readonly table: DataView
  /** Of the redundant directory, where there is one. */
  readonly other: DataView | undefined
}

/** Grain tables, some of them read ahead, but for those that the file has no data for. They do not overlap, so all of them together are no longer than the file. */
const tables = (map: GrainMap, copy: GrainMap | undefined): AsyncGenerator<TablePair> =>
  inOrder(tableIndices(map, copy), TABLES_AT_A_TIME, async (index) => {
    const [table, other] = await Promise.all([map.table(index), copy?.table(index)])
    return { index, table, other }
  })

async function* tableIndices({ file, header, directory }: GrainMap, copy: GrainMap | undefined): AsyncGenerator<number> {
  const [finder, inCopy] = [new DataFinder(file), new DataFinder(file)]
  const bytes = header.tableEntries * 4
  for (const [index, sector] of directory.entries()) {
    const other = copy?.directory[index]
    if (other !== undefined && (other === 0) !== (sector === 0)) {
      throw refuse('malformed', `grain directory entry ${index} and its redundant copy contradict each other`, { index })
    }
    if (sector === 0) continue
    const hasData =
      (await finder.hasData(sector * SECTOR_BYTES, bytes)) ||
      (other !== undefined && (await inCopy.hasData(other * SECTOR_BYTES, bytes)))
    if (hasData) yield index
  }
}

function areEqual(a: DataView, b: DataView): boolean {
  const bytes = (view: DataView) => Buffer.from(view.buffer, view.byteOffset, view.byteLength)
  return bytes(a).equals(bytes(b))
}

/** Where header, descriptor, directory and tables are. */
class Metadata {
  /** All but the tables; the end of each is not included. */
  readonly #runs: readonly (readonly [from: number, to: number])[]
  readonly #tables: Uint32Array
  readonly #tableSectors: number
  /** No sector from this on is of it. */
  readonly #end: number

  /** @throws ServiceError `invalid-image` when two parts of it share a sector */
  constructor(h: SparseHeader, directory: Uint32Array, directoryOffset: number) {
    const run = (offset: number, bytes: number) => [offset / SECTOR_BYTES, Math.ceil((offset + bytes) / SECTOR_BYTES)] as const
    this.#tables = tablesInOrder(directory)
    this.#tableSectors = tableSectors(h)
    this.#runs = [run(0, SECTOR_BYTES), run(h.descriptorOffset, h.descriptorBytes), run(directoryOffset, h.directoryEntries * 4)]
      .filter(([from, to]) => to > from)
      .sort((a, b) => a[0] - b[0])
    this.#end = Math.max(...this.#runs.map(([, to]) => to), (this.#tables.at(-1) ?? 0) + this.#tableSectors)
    for (const [index, [from, to]] of this.#runs.entries()) {
      const isShared = (index > 0 && from < this.#runs[index - 1]![1]) || this.#hasTable(from, to)
      if (isShared) throw overlap('the metadata', from)
    }
  }

  /** Whether some of it is in `[from, to)`. */
  touches(from: number, to: number): boolean {
    if (from >= this.#end) return false
    return this.#runs.some((run) => run[0] < to && from < run[1]) || this.#hasTable(from, to)
  }

  #hasTable(from: number, to: number): boolean {
    let [low, high] = [0, this.#tables.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#tables[middle]! + this.#tableSectors <= from) low = middle + 1
      else high = middle
    }
    return low < this.#tables.length && this.#tables[low]! < to
  }
}

const overlap = (what: string, sector: number) =>
  refuse('overlap', `${what} at sector ${sector} uses a part of the file that is in use already`, { sector })

/**
 * Which grains' worth of the file are in use: one bit for each, 64 MiB for 2 TiB of the smallest grains. All known writers align
 * grains to one another; where they do, no sector can be used twice unseen. Where they do not, no grain can begin
 * within another's grain's worth, so that what is used twice is never more than the file.
 */
class PlainGrains {
  readonly #fileBytes: number
  readonly #header: SparseHeader
  readonly #units: UsedUnits
  /** Where grains begin within a grain's worth. */
  #phase = -1

  constructor(fileBytes: number, h: SparseHeader) {
    this.#fileBytes = fileBytes
    this.#header = h
    const usableBytes = Math.min(fileBytes, 2 ** 32 * SECTOR_BYTES) // what an entry can name
    this.#units = new UsedUnits(Math.ceil(usableBytes / h.grainBytes) + 2)
  }

  take(sector: number, diskOffset: number): void {
    const { grainBytes, virtualBytes } = this.#header
    const grainSectors = grainBytes / SECTOR_BYTES
    if (this.#phase < 0) this.#phase = sector % grainSectors
    const neededBytes = Math.min(grainBytes, virtualBytes - diskOffset)
    if (sector * SECTOR_BYTES + neededBytes > this.#fileBytes) throw grainBeyondEnd(diskOffset, sector, this.#fileBytes)
    const unit = Math.floor((sector - this.#phase) / grainSectors) + 1
    if (this.#units.take(unit, 1) >= 0) throw overlap(`the grain for byte ${diskOffset}`, sector)
  }

  check(): void {}
}

/** Their lengths are in their markers, which are data; what is compared is where they begin. */
class CompressedGrains {
  readonly #fileBytes: number
  readonly #grainBytes: number
  #count = 0
  #last = -1
  #ascend = true
  #sectors = new Uint32Array((4 * KiB) / 4)

  constructor(fileBytes: number, h: SparseHeader) {
    this.#fileBytes = fileBytes
    this.#grainBytes = h.grainBytes
  }

  take(sector: number, diskOffset: number): void {
    if ((sector + 1) * SECTOR_BYTES > this.#fileBytes) throw grainBeyondEnd(diskOffset, sector, this.#fileBytes)
    if (sector <= this.#last) this.#ascend = false
    this.#last = sector
    if (this.#count < MAX_COMPARED_GRAINS) {
      if (this.#count === this.#sectors.length) {
        const longer = new Uint32Array(this.#sectors.length * 2)
        longer.set(this.#sectors)
        this.#sectors = longer
      }
      this.#sectors[this.#count] = sector
    }
    this.#count += 1
  }

  /** @throws ServiceError `invalid-image` when the same bytes are used for more than one grain */
  check(): void {
    const sectors = this.#ascend ? [] : this.#sectors.subarray(0, Math.min(this.#count, MAX_COMPARED_GRAINS)).sort()
    const isTwice = sectors.some((sector, index) => index > 0 && sector === sectors[index - 1])
    const leastBytes = Math.floor(this.#grainBytes / MAX_DEFLATE_RATIO)
    if (!isTwice && this.#count * leastBytes <= this.#fileBytes) return
    throw refuse('amplification', 'the same compressed bytes are used for more than one grain of the disk', {
      compressedGrains: this.#count,
      fileBytes: this.#fileBytes,
    })
  }
}
