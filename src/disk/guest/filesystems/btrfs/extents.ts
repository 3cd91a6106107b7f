import type { BlockSource } from '../../../block/block-source.ts'
import { ByteLru } from '../../../block/byte-lru.ts'
import type { Segment } from '../../../block/mapped-disk.ts'
import type { ChunkMap } from './chunks.ts'
import { COMPRESSION, MAX_PACKED_BYTES, MAX_UNPACKED_BYTES, unpack } from './compression.ts'
import type { Inode } from './inode.ts'
import { itemKey, TYPES } from './keys.ts'
import type { Item } from './node.ts'
import { refuse, type Superblock } from './superblock.ts'
import type { TreeRoot, Trees } from './trees.ts'

/** Where the data of files are. Source: btrfs documentation, "On-disk format", "EXTENT_DATA"; Linux include/uapi/linux/btrfs_tree.h. */
const HEADER_BYTES = 21
const COMPRESSION_AT = 16
const ENCRYPTION_AT = 17
const OTHER_ENCODING_AT = 18
const KIND_AT = 20
const KIND = { inline: 0, regular: 1, preallocated: 2 } as const
const REGULAR_BYTES = 53
const HIGH = 2 ** 32
/** Of what was unpacked: pieces of an extent are read one after the other. */
const MAX_KEPT_BYTES = 1024 * 1024

/** A stretch of a file. */
interface Extent {
  /** Bytes of the file. */
  readonly start: number
  readonly end: number
  readonly kind: number
  readonly compression: number
  /** Of an inline extent. */
  readonly inline: Uint8Array
  /** Bytes when it is unpacked. */
  readonly unpackedBytes: number
  /** Logical; 0: a hole. */
  readonly address: number
  readonly storedBytes: number
  /** Where the stretch begins in the extent, unpacked. */
  readonly from: number
}

export class FileExtents {
  readonly #volume: BlockSource
  readonly #superblock: Superblock
  readonly #trees: Trees
  readonly #chunks: ChunkMap
  readonly #unpacked = new ByteLru(MAX_KEPT_BYTES)

  constructor(volume: BlockSource, superblock: Superblock, trees: Trees, chunks: ChunkMap) {
    this.#volume = volume
    this.#superblock = superblock
    this.#trees = trees
    this.#chunks = chunks
  }

  /** Where the bytes of a file are, `[offset, offset + length)` of it. @throws ServiceError `invalid-image` at the first that breaks the format */
  async *segments(root: TreeRoot, { inode }: Inode, offset: number, length: number): AsyncGenerator<Segment> {
    const end = offset + length
    const before = await this.#trees.floor(root, itemKey(inode, TYPES.extentData, offset))
    const first = before?.object === inode && before.type === TYPES.extentData ? before.offset : offset
    let at = offset
    let last = 0
    for await (const item of this.#trees.from(root, itemKey(inode, TYPES.extentData, first))) {
      if (at >= end || item.object !== inode || item.type !== TYPES.extentData || item.offset >= end) break
      const extent = parseExtent(item, this.#superblock.raw.sectorBytes)
      if (extent.start < last) throw refuse('malformed', `extents of inode ${inode} overlap at byte ${extent.start}`, { inode })
      last = extent.end
      if (extent.end <= at) continue
      if (extent.start > at) yield { kind: 'hole', offset: at, length: extent.start - at }
      const start = Math.max(at, extent.start)
      at = Math.min(end, extent.end)
      yield await this.#segment(extent, inode, start, at - start)
    }
    if (at < end) yield { kind: 'hole', offset: at, length: end - at }
  }

  /** @param offset of the file, as `length`: a part of the extent */
  async #segment(extent: Extent, inode: number, offset: number, length: number): Promise<Segment> {
    const from = extent.from + offset - extent.start
    if (extent.kind === KIND.inline) {
      return { kind: 'packed', offset, length, load: async () => part(await this.#inlineBytes(extent, inode), from, length) }
    }
    if (extent.address === 0) return { kind: 'hole', offset, length }
    if (extent.kind === KIND.preallocated) return { kind: 'zero', offset, length }
    if (extent.compression !== COMPRESSION.none) {
      return { kind: 'packed', offset, length, load: async () => part(await this.#unpackedBytes(extent, inode), from, length) }
    }
    return { kind: 'data', offset, length, hostOffset: await this.#place(extent.address + from, length, inode) }
  }

  /** On the volume, all of it inside. */
  async #place(address: number, length: number, inode: number): Promise<number> {
    const [hostOffset = 0] = await this.#chunks.locate(address, length)
    if (hostOffset + length > this.#volume.size) {
      throw refuse('truncated', `bytes of inode ${inode} lie beyond the end of the volume`, { inode, offset: hostOffset })
    }
    return hostOffset
  }

  async #inlineBytes({ inline, compression, unpackedBytes }: Extent, inode: number): Promise<Uint8Array> {
    if (compression === COMPRESSION.none) return inline
    return (await unpack(inline, compression, this.#limits(unpackedBytes))) ?? damaged(inode, 0)
  }

  /** Its address and its kind name what is unpacked: addresses are of sectors, and kinds are few. */
  #unpackedBytes({ address, storedBytes, compression, unpackedBytes }: Extent, inode: number): Promise<Uint8Array> {
    return this.#unpacked.get(address + compression, async () => {
      const packed = await this.#volume.read(await this.#place(address, storedBytes, inode), storedBytes)
      const unpacked = (await unpack(packed, compression, this.#limits(MAX_UNPACKED_BYTES))) ?? damaged(inode, address)
      if (unpacked.length + this.#superblock.raw.sectorBytes <= unpackedBytes) damaged(inode, address)
      return unpacked
    })
  }

  #limits(maxBytes: number) {
    return { sectorBytes: this.#superblock.raw.sectorBytes, maxBytes }
  }
}

function damaged(inode: number, address: number): never {
  throw refuse('damaged', `a packed extent of inode ${inode} cannot be unpacked`, { inode, address })
}

/** With zeros where there is no more: a stream ends with the file, and the extent with its sector. */
function part(bytes: Uint8Array, from: number, length: number): Uint8Array {
  if (from + length <= bytes.length) return bytes.subarray(from, from + length)
  const answer = new Uint8Array(length)
  answer.set(bytes.subarray(Math.min(from, bytes.length)))
  return answer
}

function parseExtent({ object: inode, offset: start, data }: Item, sectorBytes: number): Extent {
  const bad = (problem: string) =>
    refuse('malformed', `the extent of inode ${inode} at byte ${start}: ${problem}`, { inode, fileOffset: start })
  if (data.length < HEADER_BYTES) throw bad(`it has ${data.length} bytes`)
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const word = (at: number) => view.getUint32(at + 4, true) * HIGH + view.getUint32(at, true)
  const [kind, compression, unpackedBytes] = [view.getUint8(KIND_AT), view.getUint8(COMPRESSION_AT), word(8)]
  if (kind > KIND.preallocated) throw bad(`its type is ${kind}`)
  if (compression > COMPRESSION.zstd) throw bad(`its compression is ${compression}`)
  if (view.getUint8(ENCRYPTION_AT) !== 0 || view.getUint16(OTHER_ENCODING_AT, true) !== 0)
    throw bad('it is encrypted, or encoded')
  const isPacked = compression !== COMPRESSION.none
  if (kind === KIND.inline) {
    const inline = data.subarray(HEADER_BYTES)
    if (start !== 0) throw bad('it is inline')
    if (unpackedBytes > sectorBytes || (!isPacked && unpackedBytes !== inline.length)) {
      throw bad(`ram_bytes is ${unpackedBytes}, and ${inline.length} are there`)
    }
    return { start, end: sectorBytes, kind, compression, inline, unpackedBytes, address: 0, storedBytes: inline.length, from: 0 }
  }
  if (data.length < REGULAR_BYTES) throw bad(`it has ${data.length} bytes`)
  const [address, storedBytes, from, bytes] = [word(21), word(29), word(37), word(45)]
  const extent = {
    start,
    end: start + bytes,
    kind,
    compression,
    inline: data.subarray(data.length),
    unpackedBytes,
    address,
    storedBytes,
    from,
  }
  if (start % sectorBytes !== 0 || bytes === 0 || bytes % sectorBytes !== 0) throw bad(`num_bytes is ${bytes}`)
  if (!Number.isSafeInteger(extent.end)) throw bad('it ends at 2^53 or beyond')
  if (address === 0) return extent
  if (address % sectorBytes !== 0 || storedBytes % sectorBytes !== 0 || from % sectorBytes !== 0) {
    throw bad(`disk_bytenr is ${address}, disk_num_bytes ${storedBytes}, offset ${from}`)
  }
  if (from + bytes > unpackedBytes) throw bad(`offset is ${from} and num_bytes ${bytes}, and ram_bytes ${unpackedBytes}`)
  if (!Number.isSafeInteger(address + from + bytes)) throw bad('it lies at 2^53 or beyond')
  if (isPacked && (unpackedBytes > MAX_UNPACKED_BYTES || storedBytes > MAX_PACKED_BYTES || storedBytes === 0)) {
    throw bad(`ram_bytes is ${unpackedBytes}, and disk_num_bytes ${storedBytes}; an extent packs at most ${MAX_UNPACKED_BYTES}`)
  }
  return extent
}
