import { isServiceError } from '../../../../base/errors.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { Log, SECTOR_BYTES } from './log.ts'
import { loggedInode, placeOf } from './log-inode.ts'
import { type LogItem, transactionsIn } from './log-items.ts'
import { SectorOverlay } from './sector-overlay.ts'
import { refuse, type Superblock, viewOf } from './superblock.ts'

/** Kinds of items. Source: Linux fs/xfs/libxfs/xfs_log_format.h, "Log item types". */
const TYPE = { first: 0x1236, inode: 0x123b, buffer: 0x123c, last: 0x124f } as const
/** What is begun in one transaction and ended in another, of those that change what files hold: mappings, attributes, exchanges. */
const BEGINS: readonly number[] = [0x1244, 0x1246, 0x1248]
const ENDS: readonly number[] = [0x1245, 0x1247, 0x1249]
const INTENT_ID_AT = 8
const BUFFER = { inodes: 0x1, cancel: 0x2, quotas: 0x1c } as const
const BUFFER_MAP_AT = 20
const CHUNK_BYTES = 128

export interface Replay {
  /** The volume as it will be when the kernel has replayed the log. */
  readonly volume: BlockSource
  readonly notes: readonly string[]
  readonly isClean: boolean
}

const bad = (problem: string) => refuse('malformed', `the log: ${problem}`)

/** The volume with the transactions that its log has and that are whole, in memory. A log that cannot be read is said to be so. */
export async function replayed(volume: BlockSource, superblock: Superblock): Promise<Replay> {
  if (superblock.logStart === 0n) {
    return { volume, isClean: false, notes: ['its log is on another device: what was written last may be missing'] }
  }
  try {
    const log = new Log(volume, superblock)
    const { isClean, tail, head } = await log.state()
    if (isClean) return { volume, notes: [], isClean }
    const replay = new Replayer(volume, superblock)
    let transactions = 0
    for await (const items of transactionsIn(log, tail, head)) replay.noteCancelled(items)
    for await (const items of transactionsIn(log, tail, head)) {
      await replay.apply(items)
      transactions += 1
    }
    const notes = [
      `it was not unmounted: ${transactions} transaction${transactions === 1 ? '' : 's'} of its log ${transactions === 1 ? 'is' : 'are'} read as if replayed`,
    ]
    if (replay.unfinished > 0)
      notes.push(`${replay.unfinished} changes that its log begins are not ended in it: what they would do is missing`)
    return { volume: replay.overlay.source(), notes, isClean }
  } catch (error) {
    if (!isServiceError(error)) throw error
    const notes = [`it was not unmounted, and its log is not read: what was written last may be missing (${error.message})`]
    return { volume, notes, isClean: false }
  }
}

/** Two passes, as the kernel: blocks that were freed, which are anything now, must not be written to. */
class Replayer {
  readonly overlay: SectorOverlay
  readonly #superblock: Superblock
  /** By place and length of a buffer: how often it was freed from here on. */
  readonly #cancelled = new Map<string, number>()
  readonly #begun = new Set<string>()

  constructor(volume: BlockSource, superblock: Superblock) {
    this.overlay = new SectorOverlay(volume)
    this.#superblock = superblock
  }

  get unfinished(): number {
    return this.#begun.size
  }

  noteCancelled(items: readonly LogItem[]): void {
    for (const { type, regions } of items) {
      if (type < TYPE.first || type > TYPE.last)
        throw refuse('unknown-feature', `the log: an item of kind 0x${type.toString(16)}`)
      if (type !== TYPE.buffer) continue
      const { flags, key } = bufferOf(regions[0]!)
      if ((flags & BUFFER.cancel) !== 0) this.#cancelled.set(key, (this.#cancelled.get(key) ?? 0) + 1)
    }
  }

  /** Buffers first, then inodes, then what is freed. Source: xlog_recover_reorder_trans. */
  async apply(items: readonly LogItem[]): Promise<void> {
    const freed: string[] = []
    for (const { type, regions } of items) {
      if (type !== TYPE.buffer) continue
      const buffer = bufferOf(regions[0]!)
      if ((buffer.flags & BUFFER.cancel) !== 0) freed.push(buffer.key)
      // of inodes' own blocks it is the list of the deleted alone; the inodes are logged as such
      else if ((buffer.flags & (BUFFER.inodes | BUFFER.quotas)) === 0 && !this.#cancelled.has(buffer.key))
        await this.#writeBuffer(buffer, regions)
    }
    for (const { type, regions } of items) {
      if (type === TYPE.inode) await this.#writeInode(regions)
      else if (BEGINS.includes(type)) this.#begun.add(intentOf(type, regions))
      else if (ENDS.includes(type)) this.#begun.delete(intentOf(type - 1, regions))
    }
    for (const key of freed) {
      const left = (this.#cancelled.get(key) ?? 0) - 1
      if (left > 0) this.#cancelled.set(key, left)
      else this.#cancelled.delete(key)
    }
  }

  /** A bit for each 128 bytes; what they are now follows in regions, which may be cut at the ends of pages. */
  async #writeBuffer({ offset, bytes, map }: LoggedBuffer, regions: readonly Uint8Array[]): Promise<void> {
    const isSet = (bit: number) => (map.getUint32((bit >>> 5) * 4, true) & (1 << (bit & 31))) !== 0
    const bits = map.byteLength * 8
    let bit = 0
    for (const region of regions.slice(1)) {
      while (bit < bits && !isSet(bit)) bit += 1
      let end = bit
      while (end < bits && isSet(end) && (end - bit) * CHUNK_BYTES < region.length) end += 1
      const count = (end - bit) * CHUNK_BYTES
      if (count === 0 || bit * CHUNK_BYTES + count > bytes) throw bad(`a buffer of ${bytes} bytes is changed beyond its end`)
      await this.overlay.write(offset + bit * CHUNK_BYTES, region.subarray(0, count))
      bit = end
    }
  }

  async #writeInode(regions: readonly Uint8Array[]): Promise<void> {
    const place = placeOf(regions[0]!)
    if (this.#cancelled.has(`${place.sector}+${place.sectors}`)) return
    const { inodeBytes } = this.#superblock
    const offset = place.sector * SECTOR_BYTES + place.offset
    const before = await this.overlay.read(offset, inodeBytes)
    await this.overlay.write(offset, loggedInode(before, place, regions, this.#superblock))
  }
}

interface LoggedBuffer {
  readonly flags: number
  readonly key: string
  readonly offset: number
  readonly bytes: number
  readonly map: DataView
}

/** Source: Linux fs/xfs/libxfs/xfs_log_format.h, struct xfs_buf_log_format. */
function bufferOf(region: Uint8Array): LoggedBuffer {
  if (region.length < BUFFER_MAP_AT) throw bad('a buffer without its place')
  const view = viewOf(region)
  const sector = Number(view.getBigInt64(8, true))
  const sectors = view.getUint16(6, true)
  const words = view.getUint32(16, true)
  if (BUFFER_MAP_AT + words * 4 > region.length) throw bad(`blf_map_size is ${words}`)
  return {
    flags: view.getUint16(4, true),
    key: `${sector}+${sectors}`,
    offset: sector * SECTOR_BYTES,
    bytes: sectors * SECTOR_BYTES,
    map: viewOf(region.subarray(BUFFER_MAP_AT, BUFFER_MAP_AT + words * 4)),
  }
}

function intentOf(type: number, [region]: readonly Uint8Array[]): string {
  if (!region || region.length < INTENT_ID_AT + 8) throw bad('an intent without its id')
  return `${type}:${viewOf(region).getBigUint64(INTENT_ID_AT, true)}`
}
