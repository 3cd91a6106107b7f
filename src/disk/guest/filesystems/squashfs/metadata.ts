import { KiB, MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { ByteLru } from '../../../block/byte-lru.ts'
import { refuse, type Superblock, viewOf } from './superblock.ts'
import { unpack } from './unpack.ts'

/** Source: Linux Documentation/filesystems/squashfs.rst, "Squashfs Filesystem Design", "Metadata": blocks of 8 KiB, each packed or not. */
export const METADATA_BYTES = 8 * KiB
const HEADER_BYTES = 2
const NOT_PACKED = 0x8000
const MAX_KEPT_BYTES = 2 * MiB

/** A place in a row of blocks: where a block is, in bytes of the volume, and a byte of what it holds. */
export interface Place {
  readonly block: number
  readonly byte: number
}

export class Metadata {
  readonly #volume: BlockSource
  readonly #superblock: Superblock
  readonly #blocks = new ByteLru(MAX_KEPT_BYTES)

  constructor(volume: BlockSource, superblock: Superblock) {
    this.#volume = volume
    this.#superblock = superblock
  }

  /** Reads on from a place; the blocks follow each other. */
  cursor(place: Place, what: string): Cursor {
    return new Cursor(this, place, what)
  }

  /** A number of a reference: its low 16 bits are the byte. */
  static place(table: number, reference: number): Place {
    const byte = reference % 0x10000
    return { block: table + (reference - byte) / 0x10000, byte }
  }

  /** `length` bytes of a table that is found by a list of its blocks. @param list  where the list is */
  async entry(list: number, index: number, length: number, what: string): Promise<Uint8Array> {
    const perBlock = METADATA_BYTES / length
    const pointer = viewOf(await this.raw(list + Math.floor(index / perBlock) * 8, 8, what)).getBigUint64(0, true)
    if (pointer > BigInt(this.#superblock.raw.bytesUsed)) throw refuse('malformed', `${what} is at ${pointer}`)
    return this.cursor({ block: Number(pointer), byte: (index % perBlock) * length }, what).take(length)
  }

  /** What a block holds, and where the next is. @throws ServiceError `invalid-image` */
  async block(at: number, what: string): Promise<{ bytes: Uint8Array; next: number }> {
    const head = viewOf(await this.raw(at, HEADER_BYTES, what)).getUint16(0, true)
    const length = head % NOT_PACKED || NOT_PACKED
    const next = at + HEADER_BYTES + length
    const bytes = await this.#blocks.get(at, async () => {
      const input = await this.raw(at + HEADER_BYTES, length, what)
      if ((head & NOT_PACKED) !== 0) {
        if (length > METADATA_BYTES) throw refuse('malformed', `${what}: a block of ${length} bytes at ${at}`, { offset: at })
        return new Uint8Array(input)
      }
      const unpacked = await unpack(input, this.#superblock.compression, METADATA_BYTES)
      if (!unpacked) throw refuse('malformed', `${what}: the block at ${at} cannot be unpacked`, { offset: at })
      return unpacked
    })
    return { bytes, next }
  }

  async raw(at: number, length: number, what: string): Promise<Uint8Array> {
    if (at + length > this.#superblock.raw.bytesUsed)
      throw refuse('malformed', `${what} is at ${at}, beyond bytes_used`, { offset: at })
    if (at + length > this.#volume.size) throw refuse('truncated', `${what} lies beyond the end of the volume`, { offset: at })
    return this.#volume.read(at, length)
  }
}

export class Cursor {
  readonly #metadata: Metadata
  readonly #what: string
  #block: number
  #byte: number

  constructor(metadata: Metadata, { block, byte }: Place, what: string) {
    this.#metadata = metadata
    this.#what = what
    this.#block = block
    this.#byte = byte
  }

  get place(): Place {
    return { block: this.#block, byte: this.#byte }
  }

  /** The next bytes; a copy. @throws ServiceError `invalid-image` where the blocks end before */
  async take(length: number): Promise<Uint8Array> {
    const answer = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      const { bytes, next } = await this.#metadata.block(this.#block, this.#what)
      if (this.#byte > bytes.length)
        throw refuse('malformed', `${this.#what}: it begins at byte ${this.#byte} of a block of ${bytes.length}`)
      const part = bytes.subarray(this.#byte, this.#byte + length - done)
      answer.set(part, done)
      done += part.length
      this.#byte += part.length
      if (this.#byte < bytes.length) continue
      if (bytes.length < METADATA_BYTES && done < length)
        throw refuse('malformed', `${this.#what}: there is more than the last block has`)
      this.#block = next
      this.#byte = 0
    }
    return answer
  }
}
