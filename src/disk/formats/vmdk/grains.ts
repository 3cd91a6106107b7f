import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { ByteLru } from '../../block/byte-lru.ts'
import { joinedWith } from '../../block/joined.ts'
import type { Segment } from '../../block/mapped-disk.ts'
import { type CompressedGrain, grainMarker, readGrain } from './compressed.ts'
import { refuse, SECTOR_BYTES, type SparseHeader, ZEROED } from './header.ts'

/** What all extents of a disk keep together. */
export class GrainCaches {
  /** Of grain tables: maps 64 GiB with grains of 64 KiB. */
  readonly tables = new ByteLru(4 * MiB)
  /** Of unpacked grains, each at most 2 MiB: at least two stay, enough for a reader that goes through them in small steps. */
  readonly grains = new ByteLru(4 * MiB)
}

/** Grain tables that lie side by side are read together. */
const GROUP_TABLES = 16
/** Cache keys of one extent: above all sectors that an entry can name, and all numbers of tables. */
const KEYS_PER_EXTENT = 2 ** 32

/**
 * Reads a grain directory and holds its entries to the format: inside the file, and none sharing a sector with another, so that what
 * there is to walk is never more than the file.
 * @returns sectors of grain tables, 0 = none
 */
export async function readDirectory(file: BlockSource, h: SparseHeader, offset: number): Promise<Uint32Array> {
  const bytes = await file.read(offset, h.directoryEntries * 4)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const directory = new Uint32Array(h.directoryEntries)
  for (let index = 0; index < directory.length; index += 1) {
    const sector = view.getUint32(index * 4, true)
    if (sector === 0) continue
    if (sector * SECTOR_BYTES + h.tableEntries * 4 > file.size) {
      throw refuse(
        'truncated',
        `the grain table of grain directory entry ${index} lies beyond the end of the file; is the upload complete?`,
        {
          index,
          sector,
          fileBytes: file.size,
        },
      )
    }
    if (sector === ZEROED && h.zeroGrains) {
      throw refuse('malformed', `grain directory entry ${index} is 1, which is the descriptor's place`, { index })
    }
    directory[index] = sector
  }
  const tables = tablesInOrder(directory)
  const shared = tables.findIndex((sector, index) => index > 0 && sector - tables[index - 1]! < tableSectors(h))
  if (shared >= 0)
    throw refuse('overlap', `the grain table at sector ${tables[shared]} is in use twice`, { sector: tables[shared]! })
  return directory
}

/** The sectors of all grain tables, ascending. */
export const tablesInOrder = (directory: Uint32Array): Uint32Array => directory.filter((sector) => sector > 0).sort()
export const tableSectors = ({ tableEntries }: SparseHeader): number => Math.ceil((tableEntries * 4) / SECTOR_BYTES)

/** The grains of one sparse extent. Positions are those of the extent. Holds the grain directory: 4 bytes a table. */
export class GrainMap {
  readonly file: BlockSource
  readonly header: SparseHeader
  readonly directory: Uint32Array
  readonly #caches: GrainCaches
  readonly #keys: number

  /** @param number  of the extent in its disk */
  constructor(file: BlockSource, header: SparseHeader, directory: Uint32Array, number: number, caches: GrainCaches) {
    this.file = file
    this.header = header
    this.directory = directory
    this.#caches = caches
    this.#keys = number * KEYS_PER_EXTENT
  }

  /** What covers `[offset, offset + length)`: ascending, gap-free, clipped, joined where grains touch in the file too. */
  async *segments(offset: number, length: number): AsyncGenerator<Segment> {
    const { grainBytes, tableEntries } = this.header
    const span = grainBytes * tableEntries
    const end = offset + length
    let open: Segment | undefined
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / span)
      const stop = Math.min(end, (index + 1) * span)
      const segments =
        this.directory[index] === 0
          ? [{ kind: 'hole', offset: at, length: stop - at } as const]
          : this.#grains(await this.table(index), index * span, at, stop)
      for (const next of segments) {
        const joined: Segment | undefined = open && joinedWith(open, next)
        if (open && !joined) yield open
        open = joined ?? next
      }
      at = stop
    }
    if (open) yield open
  }

  /** A grain table that the directory has. @param index  of its directory entry */
  async table(index: number): Promise<DataView> {
    const first = index - (index % GROUP_TABLES)
    const last = Math.min(first + GROUP_TABLES, this.directory.length) - 1
    const sectors = tableSectors(this.header)
    const tableBytes = this.header.tableEntries * 4
    if (this.#areSideBySide(first, last, sectors)) {
      const length = (last - first) * sectors * SECTOR_BYTES + tableBytes
      const group = await this.#load(first, length, this.#keys + first * 2)
      return new DataView(group.buffer, group.byteOffset + (index - first) * sectors * SECTOR_BYTES, tableBytes)
    }
    const table = await this.#load(index, tableBytes, this.#keys + index * 2 + 1)
    return new DataView(table.buffer, table.byteOffset, tableBytes)
  }

  #areSideBySide(first: number, last: number, sectors: number): boolean {
    const start = this.directory[first]!
    if (start === 0) return false
    for (let index = first + 1; index <= last; index += 1) {
      if (this.directory[index] !== start + (index - first) * sectors) return false
    }
    return true
  }

  #load(index: number, length: number, key: number): Promise<Uint8Array> {
    return this.#caches.tables.get(key, () => this.file.read(this.directory[index]! * SECTOR_BYTES, length))
  }

  /** What the entries of a table say of `[from, to)`; entries that go on as the one before are one segment. */
  *#grains(table: DataView, tableStart: number, from: number, to: number): Generator<Segment> {
    const { grainBytes, compressed, zeroGrains } = this.header
    const entries = Math.ceil((to - tableStart) / grainBytes)
    for (let at = from; at < to; ) {
      const first = Math.floor((at - tableStart) / grainBytes)
      const sector = table.getUint32(first * 4, true)
      const kind = sector === 0 ? 'hole' : sector === ZEROED && zeroGrains ? 'zero' : compressed ? 'packed' : 'data'
      const step = kind === 'data' ? grainBytes / SECTOR_BYTES : 0
      let next = first + 1
      if (kind !== 'packed') {
        while (next < entries && table.getUint32(next * 4, true) === sector + (next - first) * step) next += 1
      }
      const grainStart = tableStart + first * grainBytes
      const [offset, length] = [at, Math.min(to, tableStart + next * grainBytes) - at]
      if (kind === 'packed') yield this.#packed(table, first, sector, grainStart, offset, length)
      else if (kind === 'data') yield this.#plain(sector, grainStart, offset, length)
      else yield { kind, offset, length }
      at = offset + length
    }
  }

  #plain(sector: number, grainStart: number, offset: number, length: number): Segment {
    const { grainBytes } = this.header
    const { size } = this.file
    const start = sector * SECTOR_BYTES
    const hostOffset = start + (offset - grainStart)
    if (hostOffset + length > size) {
      const inFile = Math.max(0, Math.floor((size - start) / grainBytes))
      throw grainBeyondEnd(grainStart + inFile * grainBytes, sector + (inFile * grainBytes) / SECTOR_BYTES, size)
    }
    return { kind: 'data', offset, length, hostOffset, file: this.file }
  }

  #packed(table: DataView, index: number, sector: number, grainStart: number, offset: number, length: number): Segment {
    const { grainBytes, virtualBytes } = this.header
    const grain: CompressedGrain = {
      sector,
      lba: grainStart / SECTOR_BYTES,
      grainBytes,
      neededBytes: Math.min(grainBytes, virtualBytes - grainStart),
      likelyBytes: likelyBytes(table, index, sector, grainBytes),
    }
    const load = async () => {
      const unpack = () => readGrain(this.file, grain)
      /** A whole grain will hardly be asked for again; a part means that its neighbours come next. */
      const whole = length === grain.neededBytes ? await unpack() : await this.#caches.grains.get(this.#keys + sector, unpack)
      return whole.subarray(offset - grainStart, offset - grainStart + length)
    }
    return { kind: 'packed', offset, length, load }
  }
}

export const grainBeyondEnd = (diskOffset: number, sector: number, fileBytes: number) =>
  refuse('truncated', `the grain for byte ${diskOffset} of its extent lies beyond the end of the file; is the upload complete?`, {
    diskOffset,
    sector,
    fileBytes,
  })

/** Streams are written in the order of the disk: a grain ends where the next one begins. Else a guess. */
function likelyBytes(table: DataView, index: number, sector: number, grainBytes: number): number {
  for (let at = (index + 1) * 4; at < table.byteLength; at += 4) {
    const next = table.getUint32(at, true)
    if (next <= ZEROED) continue
    const bytes = (next - sector) * SECTOR_BYTES
    if (bytes > 0 && bytes <= grainBytes + SECTOR_BYTES) return bytes
    break
  }
  return grainBytes + grainMarker.bytes
}
