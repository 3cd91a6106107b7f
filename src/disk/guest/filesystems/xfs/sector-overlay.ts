import type { BlockSource } from '../../../block/block-source.ts'
import { refuse } from './superblock.ts'

const SECTOR_BYTES = 512
/** Sectors that differ from the volume; 32 MiB of them. */
const MAX_SECTORS = 65_536

/** A volume with some of its sectors changed, in memory. */
export class SectorOverlay {
  readonly #volume: BlockSource
  readonly #sectors = new Map<number, Uint8Array>()

  constructor(volume: BlockSource) {
    this.#volume = volume
  }

  /** @throws ServiceError `invalid-image` for bytes beyond the volume; `unsupported` where too much is changed */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    this.#check(offset, bytes.length)
    const end = offset + bytes.length
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / SECTOR_BYTES)
      const inSector = at - index * SECTOR_BYTES
      const count = Math.min(SECTOR_BYTES - inSector, end - at)
      const sector = await this.#changeable(index)
      sector.set(bytes.subarray(at - offset, at - offset + count), inSector)
      at += count
    }
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    this.#check(offset, length)
    return this.#with(offset, await this.#volume.read(offset, length))
  }

  /** The volume as it is now and will be. Closing it closes the volume. */
  source(): BlockSource {
    const volume = this.#volume
    if (this.#sectors.size === 0) return volume
    return {
      size: volume.size,
      read: async (offset, length) => this.#with(offset, await volume.read(offset, length)),
      async *extents(offset, length) {
        if (length > 0) yield { offset, length, kind: 'data' }
      },
      close: () => volume.close(),
    }
  }

  #with(offset: number, read: Uint8Array): Uint8Array {
    let answer = read
    const last = Math.floor((offset + read.length - 1) / SECTOR_BYTES)
    for (let index = Math.floor(offset / SECTOR_BYTES); index <= last; index += 1) {
      const sector = this.#sectors.get(index)
      if (!sector) continue
      if (answer === read) answer = new Uint8Array(read) // others may have it
      const at = index * SECTOR_BYTES - offset
      const from = Math.max(0, -at)
      answer.set(sector.subarray(from, Math.min(SECTOR_BYTES, read.length - at)), Math.max(0, at))
    }
    return answer
  }

  async #changeable(index: number): Promise<Uint8Array> {
    const known = this.#sectors.get(index)
    if (known) return known
    if (this.#sectors.size >= MAX_SECTORS) throw refuse('too-many', `the log changes more than ${MAX_SECTORS} sectors`)
    const offset = index * SECTOR_BYTES
    const sector = new Uint8Array(await this.#volume.read(offset, Math.min(SECTOR_BYTES, this.#volume.size - offset)))
    this.#sectors.set(index, sector)
    return sector
  }

  #check(offset: number, length: number): void {
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + length > this.#volume.size)
      throw refuse('malformed', `the log changes ${length} bytes at ${offset}, beyond the end of the volume`)
  }
}
