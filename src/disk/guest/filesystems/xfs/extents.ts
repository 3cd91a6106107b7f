import type { BlockSource } from '../../../block/block-source.ts'
import { mappedDisk, type Segment } from '../../../block/mapped-disk.ts'
import type { Fork, Inode } from './inode.ts'
import { offsetOf, refuse, type Superblock, viewOf } from './superblock.ts'

/** Source: "XFS Algorithms & Data Structures", "Data Extents". */
const EXTENT_BYTES = 16
const ROOT_HEADER_BYTES = 4
const KEY_BYTES = 8
const MAGIC = { 4: 0x424d4150, 5: 0x424d4133 } as const // "BMAP", "BMA3"
const HEADER_BYTES = { 4: 24, 5: 72 } as const
/** Of trees over 2^54 blocks with at least two entries a node; none in use is higher than 5. */
const MAX_LEVEL = 54

/** Extents that lie together, and up to where nothing else is. Positions are in blocks of the fork. */
interface Leaf {
  readonly view: DataView
  /** Of the first extent. */
  readonly at: number
  readonly count: number
  /** Before it no other leaf begins. */
  readonly end: number
}

interface Extent {
  readonly start: number
  readonly blocks: number
  readonly host: bigint
  /** Given, but never written: zeros. */
  readonly isUnwritten: boolean
}

/** One bit, 54 of the block of the file, 52 of the block of the file system, 21 of how many. Section "Extent List". */
function extentAt(view: DataView, at: number): Extent {
  const high = view.getBigUint64(at)
  const low = view.getBigUint64(at + 8)
  return {
    isUnwritten: high >> 63n !== 0n,
    start: Number((high >> 9n) & 0x3f_ffff_ffff_ffffn),
    host: ((high & 0x1ffn) << 43n) | (low >> 21n),
    blocks: Number(low & 0x1f_ffffn),
  }
}

const startAt = (view: DataView, at: number): number => Number((view.getBigUint64(at) >> 9n) & 0x3f_ffff_ffff_ffffn)

/** Reads where the bytes of forks are. */
export class Extents {
  readonly #volume: BlockSource
  readonly #superblock: Superblock

  constructor(volume: BlockSource, superblock: Superblock) {
    this.#volume = volume
    this.#superblock = superblock
  }

  /** A fork as bytes, with its holes. Closing it closes nothing. */
  source(inode: Inode, fork: Fork, size: number): BlockSource {
    const { close: _, ...disk } = mappedDisk(this.#volume, {
      size,
      segments: (offset, length) => this.#segments(inode, fork, offset, length),
    })
    return { ...disk, close: async () => {} }
  }

  /** @throws ServiceError `invalid-image` at the first that breaks the format */
  async *#segments(inode: Inode, fork: Fork, offset: number, length: number): AsyncGenerator<Segment> {
    const { blockBytes } = this.#superblock
    const end = offset + length
    for (let at = offset; at < end; ) {
      const leaf = await this.#leaf(inode, fork, Math.floor(at / blockBytes))
      const leafEnd = Math.min(end, leaf.end * blockBytes)
      for (let index = lastNotAbove(leaf, Math.floor(at / blockBytes)); at < leafEnd; index += 1) {
        const next = index + 1 < leaf.count ? startAt(leaf.view, leaf.at + (index + 1) * EXTENT_BYTES) * blockBytes : leafEnd
        const stop = Math.min(leafEnd, next)
        if (index >= 0) {
          const extent = extentAt(leaf.view, leaf.at + index * EXTENT_BYTES)
          if (next <= extent.start * blockBytes)
            throw refuse('malformed', `the extents of inode ${inode.id} do not ascend`, { inode: inode.id })
          if (extent.blocks === 0) throw refuse('malformed', `an extent of inode ${inode.id} has no blocks`, { inode: inode.id })
          const extentEnd = Math.min(stop, (extent.start + extent.blocks) * blockBytes)
          if (extentEnd > at) {
            yield this.#segment(inode, extent, at, extentEnd - at)
            at = extentEnd
          }
        }
        if (stop > at) {
          yield { kind: 'hole', offset: at, length: stop - at }
          at = stop
        }
      }
    }
  }

  #segment({ id }: Inode, extent: Extent, offset: number, length: number): Segment {
    const { blockBytes } = this.#superblock
    const what = `what inode ${id} has at its block ${extent.start}`
    const host = offsetOf(this.#superblock, this.#volume, extent.host, extent.blocks, what)
    if (extent.isUnwritten) return { kind: 'zero', offset, length }
    return { kind: 'data', offset, length, hostOffset: host + offset - extent.start * blockBytes }
  }

  /** The extents among which the one of a block is, or would be. Goes down a tree once: each level is one lower than the one above, so none leads in a circle. */
  async #leaf({ id }: Inode, fork: Fork, block: number): Promise<Leaf> {
    const bad = (problem: string) => refuse('malformed', `the extents of inode ${id}: ${problem}`, { inode: id })
    if (fork.format === 'extents') return { view: viewOf(fork.bytes), at: 0, count: fork.extents, end: Number.POSITIVE_INFINITY }
    if (fork.format !== 'tree') throw bad('it has none')
    const { version, blockBytes } = this.#superblock
    let view = viewOf(fork.bytes)
    let [header, end, above] = [ROOT_HEADER_BYTES, Number.POSITIVE_INFINITY, MAX_LEVEL + 1]
    let level = view.getUint16(0)
    let count = view.getUint16(2)
    if (level === 0) throw bad('bb_level of the root is 0')
    for (;;) {
      if (header === ROOT_HEADER_BYTES ? level >= above : level !== above - 1)
        throw bad(`bb_level is ${level}, below one of ${above}`)
      const room = Math.floor((view.byteLength - header) / EXTENT_BYTES)
      if (count > room || count === 0) throw bad(`bb_numrecs is ${count}, with room for ${room}`)
      if (level === 0) return { view, at: header, count, end }
      const index = Math.max(0, lastKeyNotAbove(view, header, count, block))
      if (index + 1 < count) {
        const next = Number(view.getBigUint64(header + (index + 1) * KEY_BYTES))
        if (next <= block) throw bad('keys that do not ascend')
        end = Math.min(end, next)
      }
      const child = view.getBigUint64(header + room * KEY_BYTES + index * KEY_BYTES)
      const offset = offsetOf(this.#superblock, this.#volume, child, 1, `a node of the extents of inode ${id}`)
      view = viewOf(await this.#volume.read(offset, blockBytes))
      if (view.getUint32(0) !== MAGIC[version]) throw bad('a node without its magic')
      ;[above, level, count, header] = [level, view.getUint16(4), view.getUint16(6), HEADER_BYTES[version]]
    }
  }
}

/** The last extent that begins at `block` or before it, or −1. */
function lastNotAbove({ view, at, count }: Leaf, block: number): number {
  let [low, high] = [0, count]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (startAt(view, at + middle * EXTENT_BYTES) <= block) low = middle + 1
    else high = middle
  }
  return low - 1
}

function lastKeyNotAbove(view: DataView, at: number, count: number, block: number): number {
  const key = BigInt(block)
  let [low, high] = [0, count]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (view.getBigUint64(at + middle * KEY_BYTES) <= key) low = middle + 1
    else high = middle
  }
  return low - 1
}
