import type { BlockSource } from '../../../block/block-source.ts'
import type { Segment } from '../../../block/mapped-disk.ts'
import { FLAGS, type Inode } from './inode.ts'
import { refuse, type Superblock } from './superblock.ts'

/** Source: Linux Documentation/filesystems/ext4, "The Contents of inode.i_block". */
const MAGIC = 0xf30a
const HEADER_BYTES = 12
const ENTRY_BYTES = 12
const MAX_DEPTH = 5
/** A length above it is of an extent that was never written: zeros. */
const MAX_WRITTEN = 0x8000
const HIGH = 2 ** 32
const DIRECT = 12
/** Blocks that a file can have. */
const MAX_LOGICAL = 2 ** 32

interface Run {
  /** In blocks; `start` of the file, as `end`. */
  readonly start: number
  readonly end: number
  /** Block of the volume; null: zeros. */
  readonly host: number | null
}

/** Where the bytes of a file are, `[offset, offset + length)` of it. @throws ServiceError `invalid-image` at the first that breaks the format */
export async function* segmentsOf(
  volume: BlockSource,
  superblock: Superblock,
  inode: Inode,
  offset: number,
  length: number,
): AsyncGenerator<Segment> {
  const { blockBytes } = superblock
  const end = offset + length
  const isTree = (inode.flags & FLAGS.extents) !== 0
  for (let at = offset; at < end; ) {
    const block = Math.floor(at / blockBytes)
    const last = Math.ceil(end / blockBytes)
    const run = isTree
      ? await extentAt(volume, superblock, inode, block, last)
      : await indirectAt(volume, superblock, inode, block, last)
    const stop = Math.min(end, run.end * blockBytes)
    if (run.host === null) yield { kind: 'hole', offset: at, length: stop - at }
    else {
      const hostOffset = run.host * blockBytes + (at - run.start * blockBytes)
      if (hostOffset + stop - at > volume.size) {
        throw refuse('truncated', `block ${run.host} of inode ${inode.id} lies beyond the end of the volume`, { inode: inode.id })
      }
      yield { kind: 'data', offset: at, length: stop - at, hostOffset }
    }
    at = stop
  }
}

/** What is at a block of the file, and how far that goes on. Goes down a tree once: each level is one lower than the one above, so none leads in a circle. */
async function extentAt(
  volume: BlockSource,
  superblock: Superblock,
  { id, block: root }: Inode,
  block: number,
  last: number,
): Promise<Run> {
  const bad = (problem: string) => refuse('malformed', `the extents of inode ${id}: ${problem}`, { inode: id })
  let node = root
  let bound = Math.max(last, block + 1) // where what is right of here begins
  let depth = -1
  for (;;) {
    const view = new DataView(node.buffer, node.byteOffset, node.byteLength)
    const entries = view.getUint16(2, true)
    const own = view.getUint16(6, true)
    if (view.getUint16(0, true) !== MAGIC) throw bad('a node without its magic')
    if (entries > view.getUint16(4, true) || HEADER_BYTES + entries * ENTRY_BYTES > node.length)
      throw bad(`${entries} entries in a node`)
    if (depth < 0 ? own > MAX_DEPTH : own !== depth - 1)
      throw bad(`a node at depth ${own}, below one at ${depth < 0 ? 'the root' : depth}`)
    depth = own
    const index = lastNotAbove(view, entries, block)
    const at = HEADER_BYTES + index * ENTRY_BYTES
    if (index + 1 < entries) {
      const next = view.getUint32(at + ENTRY_BYTES, true)
      if (next <= block) throw bad('entries that do not ascend')
      bound = Math.min(bound, next)
    }
    if (index < 0) return { start: block, end: bound, host: null }
    if (depth === 0) return leafRun(view, at, block, bound, superblock, bad)
    const child = view.getUint32(at + 4, true) + view.getUint16(at + 8, true) * HIGH
    node = await readBlock(volume, superblock, child, `a node of the extents of inode ${id}`)
  }
}

function leafRun(
  view: DataView,
  at: number,
  block: number,
  bound: number,
  { blocks }: Superblock,
  bad: (problem: string) => Error,
): Run {
  const start = view.getUint32(at, true)
  const field = view.getUint16(at + 4, true)
  const length = field > MAX_WRITTEN ? field - MAX_WRITTEN : field
  const host = view.getUint16(at + 6, true) * HIGH + view.getUint32(at + 8, true)
  if (length === 0) throw bad(`an extent of no blocks, for block ${start}`)
  if (host === 0 || host + length > blocks) throw bad(`blocks ${host} to ${host + length}, of ${blocks}, for block ${start}`)
  if (block >= start + length) return { start: block, end: bound, host: null }
  const end = Math.min(bound, start + length)
  return field > MAX_WRITTEN ? { start: block, end, host: null } : { start, end, host }
}

/** The last entry that begins at `block` or before it, or −1. Both kinds of entry begin with the block of the file. */
function lastNotAbove(view: DataView, entries: number, block: number): number {
  let [low, high] = [0, entries]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (view.getUint32(HEADER_BYTES + middle * ENTRY_BYTES, true) <= block) low = middle + 1
    else high = middle
  }
  return low - 1
}

/** The older way: twelve blocks, then tables of blocks, of tables, and of tables of tables. Source: "Direct/Indirect Block Addressing". */
async function indirectAt(
  volume: BlockSource,
  superblock: Superblock,
  { id, block: root }: Inode,
  block: number,
  last: number,
): Promise<Run> {
  const { blockBytes, blocks } = superblock
  const perTable = blockBytes / 4
  const view = new DataView(root.buffer, root.byteOffset, root.byteLength)
  const runIn = (table: DataView, first: number, index: number, count: number): Run => {
    const host = table.getUint32(index * 4, true)
    if (host >= blocks) throw refuse('malformed', `block ${block} of inode ${id} is block ${host}, of ${blocks}`, { inode: id })
    let end = index + 1
    const most = Math.min(count, last - first)
    while (end < most && table.getUint32(end * 4, true) === (host === 0 ? 0 : host + end - index)) end += 1
    if (host + end - index > blocks)
      throw refuse('malformed', `blocks of inode ${id} go on beyond block ${blocks}`, { inode: id })
    return { start: first + index, end: first + end, host: host === 0 ? null : host }
  }
  if (block < DIRECT) return runIn(view, 0, block, DIRECT)

  let [level, first, span] = [1, DIRECT, perTable]
  while (level < 3 && block >= first + span) {
    first += span
    span *= perTable
    level += 1
  }
  if (block >= first + span || block >= MAX_LOGICAL) {
    throw refuse('malformed', `inode ${id} has more bytes than tables of blocks can map`, { inode: id })
  }
  let host = view.getUint32((DIRECT + level - 1) * 4, true)
  for (; level > 0; level -= 1) {
    if (host === 0) return { start: first, end: first + span, host: null }
    const bytes = await readBlock(volume, superblock, host, `a table of the blocks of inode ${id}`)
    const table = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    span /= perTable
    const index = Math.floor((block - first) / span)
    if (level === 1) return runIn(table, first, index, perTable)
    first += index * span
    host = table.getUint32(index * 4, true)
  }
  throw refuse('malformed', `the tables of the blocks of inode ${id} do not end`, { inode: id })
}

/** @throws ServiceError `invalid-image` where it is none of the file system's, or cut off */
export async function readBlock(
  volume: BlockSource,
  { blockBytes, blocks, raw }: Superblock,
  block: number,
  what: string,
): Promise<Uint8Array> {
  if (block < raw.firstDataBlock || block >= blocks || block === 0) {
    throw refuse('malformed', `${what} is at block ${block}, of ${blocks}`, { block })
  }
  const offset = block * blockBytes
  if (offset + blockBytes > volume.size) throw refuse('truncated', `${what} lies beyond the end of the volume`, { block, offset })
  return volume.read(offset, blockBytes)
}
