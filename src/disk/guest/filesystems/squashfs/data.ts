import { MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { ByteLru } from '../../../block/byte-lru.ts'
import { mappedDisk, type Segment } from '../../../block/mapped-disk.ts'
import type { Content, Inode } from './inode.ts'
import type { Metadata, Place } from './metadata.ts'
import { refuse, type Superblock, viewOf } from './superblock.ts'
import { unpack } from './unpack.ts'

/** Source: Linux Documentation/filesystems/squashfs.rst, "Data blocks and fragments". */
const NOT_PACKED = 0x1000000
const SIZE_MASK = 0xffffff
const FRAGMENT_BYTES = 16
/** Sizes are read so many at a time, and where the next begin is kept. */
const SIZES_AT_A_TIME = 512
const MAX_KEPT_BYTES = 4 * MiB

interface Mark {
  readonly sizes: Place
  /** Of the block whose size is there. */
  readonly start: number
}

/** Reads what files hold. */
export class DataBlocks {
  readonly #volume: BlockSource
  readonly #superblock: Superblock
  readonly #metadata: Metadata
  readonly #blocks = new ByteLru(MAX_KEPT_BYTES)

  constructor(volume: BlockSource, superblock: Superblock, metadata: Metadata) {
    this.#volume = volume
    this.#superblock = superblock
    this.#metadata = metadata
  }

  /** Closing it closes nothing. */
  source(inode: Inode, content: Content): BlockSource {
    const marks: Mark[] = [{ sizes: content.sizes, start: content.start }]
    const { close: _, ...disk } = mappedDisk(this.#volume, {
      size: inode.bytes,
      segments: (offset, length) => this.#segments(inode, content, marks, offset, length),
    })
    return { ...disk, close: async () => {} }
  }

  async *#segments(
    { id, bytes }: Inode,
    { blocks, fragment }: Content,
    marks: Mark[],
    offset: number,
    length: number,
  ): AsyncGenerator<Segment> {
    const { blockBytes } = this.#superblock
    const end = offset + length
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / blockBytes)
      if (block >= blocks) {
        if (!fragment) throw refuse('malformed', `inode ${id} has more bytes than blocks`, { inode: id })
        const from = at - blocks * blockBytes
        yield { kind: 'packed', offset: at, length: end - at, load: () => this.#fragment(id, fragment, from, end - at) }
        return
      }
      const group = Math.floor(block / SIZES_AT_A_TIME)
      const sizes = await this.#sizes(id, blocks, marks, group)
      let start = marks[group]!.start
      for (let index = group * SIZES_AT_A_TIME; index - group * SIZES_AT_A_TIME < sizes.byteLength / 4 && at < end; index += 1) {
        const size = sizes.getUint32((index - group * SIZES_AT_A_TIME) * 4, true)
        const stop = Math.min(end, (index + 1) * blockBytes)
        if (index >= block) {
          const has = Math.min(blockBytes, bytes - index * blockBytes)
          yield this.#segment(id, start, size, { at, stop, from: at - index * blockBytes, has })
          at = stop
        }
        start += size & SIZE_MASK
      }
    }
  }

  #segment(id: number, start: number, size: number, part: { at: number; stop: number; from: number; has: number }): Segment {
    const [offset, length] = [part.at, part.stop - part.at]
    if ((size & SIZE_MASK) === 0) return { kind: 'hole', offset, length }
    this.#check(id, start, size)
    if ((size & NOT_PACKED) === 0)
      return { kind: 'packed', offset, length, load: () => this.#part(id, start, size, part.from, length) }
    if ((size & SIZE_MASK) < part.has)
      throw refuse('malformed', `a block of inode ${id} has ${size & SIZE_MASK} bytes, and not ${part.has}`, { inode: id })
    return { kind: 'data', offset, length, hostOffset: start + part.from }
  }

  #check(id: number, start: number, size: number): void {
    const { blockBytes, raw } = this.#superblock
    const count = size & SIZE_MASK
    if (size > (NOT_PACKED | SIZE_MASK) || count > blockBytes)
      throw refuse('malformed', `a block of inode ${id} has 0x${size.toString(16)} bytes`, { inode: id })
    if (start + count > raw.bytesUsed)
      throw refuse('malformed', `a block of inode ${id} is at ${start}, beyond bytes_used`, { inode: id })
    if (start + count > this.#volume.size)
      throw refuse('truncated', `a block of inode ${id} lies beyond the end of the volume`, { inode: id })
  }

  /** Bytes of a block; those before are what other readers of it want as well. */
  async #part(id: number, start: number, size: number, from: number, length: number): Promise<Uint8Array> {
    const whole = await this.#blocks.get(start, async () => {
      const input = await this.#volume.read(start, size & SIZE_MASK)
      if ((size & NOT_PACKED) !== 0) return new Uint8Array(input)
      const unpacked = await unpack(input, this.#superblock.compression, this.#superblock.blockBytes)
      if (!unpacked) throw refuse('malformed', `the block of inode ${id} at ${start} cannot be unpacked`, { inode: id })
      return unpacked
    })
    if (from + length > whole.length) throw refuse('malformed', `a block of inode ${id} has ${whole.length} bytes`, { inode: id })
    return whole.subarray(from, from + length)
  }

  async #fragment(
    id: number,
    { index, offset }: NonNullable<Content['fragment']>,
    from: number,
    length: number,
  ): Promise<Uint8Array> {
    const { raw, fragmentTable } = this.#superblock
    if (fragmentTable === null || index >= raw.fragments)
      throw refuse('malformed', `inode ${id} is in fragment ${index}, of ${raw.fragments}`, { inode: id })
    const view = viewOf(await this.#metadata.entry(fragmentTable, index, FRAGMENT_BYTES, 'the table of fragments'))
    const start = view.getBigUint64(0, true)
    if (start > BigInt(raw.bytesUsed)) throw refuse('malformed', `fragment ${index} is at ${start}`, { inode: id })
    const size = view.getUint32(8, true)
    this.#check(id, Number(start), size)
    return this.#part(id, Number(start), size, offset + from, length)
  }

  /** The sizes of a group of blocks; the groups before it are read once, for their sum. */
  async #sizes(id: number, blocks: number, marks: Mark[], group: number): Promise<DataView> {
    for (let index = Math.min(group, marks.length - 1); ; index += 1) {
      const { sizes, start } = marks[index]!
      const cursor = this.#metadata.cursor(sizes, `the blocks of inode ${id}`)
      const view = viewOf(await cursor.take(Math.min(SIZES_AT_A_TIME, blocks - index * SIZES_AT_A_TIME) * 4))
      let next = start
      for (let at = 0; at < view.byteLength; at += 4) next += view.getUint32(at, true) & SIZE_MASK
      if (index + 1 === marks.length) marks.push({ sizes: cursor.place, start: next })
      if (index === group) return view
    }
  }
}
