import { crc32c } from '../../../../base/crc32c.ts'
import { bytes, struct, u32be } from '../../../../base/struct.ts'
import { GiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { mappedDisk, type Segment } from '../../../block/mapped-disk.ts'
import { refuse, type Superblock } from './superblock.ts'

/** The journal, JBD2; big-endian. Source: Linux Documentation/filesystems/ext4, "Journal (jbd2)". */
const record = struct('jbd2 superblock', {
  magic: u32be(0),
  blockType: u32be(4),
  blockBytes: u32be(12),
  blocks: u32be(16),
  first: u32be(20),
  sequence: u32be(24),
  start: u32be(28), // 0: empty
  incompatible: u32be(40),
  uuid: bytes(48, 16),
  fastCommitBlocks: u32be(84),
})
const MAGIC = 0xc03b3998
const TYPE = { descriptor: 1, commit: 2, superblock: 4, revoke: 5 } as const
const FEATURE = { bits64: 2, checksums2: 8, checksums3: 0x10, fastCommit: 0x20 } as const
const KNOWN_FEATURES = 0x3f
const TAG = { escaped: 1, sameUuid: 2, last: 8 } as const
const HEADER_BYTES = 12
const UUID_BYTES = 16
const CHECKSUM_AT = 16 // h_chksum[0] of a commit block
const DEFAULT_FAST_COMMIT_BLOCKS = 256
const MAX_JOURNAL_BYTES = 16 * GiB // bounds the map below: 4 million blocks of 4 KiB
const HIGH = 2 ** 32

/** Where a block of the volume is in the journal. */
interface Logged {
  /** Of the journal's file. */
  readonly block: number
  /** Its first four bytes are the magic, which the journal left out. */
  readonly isEscaped: boolean
}

export interface Replay {
  /** The volume as it will be when the kernel has replayed the journal. */
  readonly volume: BlockSource
  readonly notes: readonly string[]
}

/**
 * The volume with the transactions that its journal has and that are whole, in memory; nothing is copied but the places.
 * @param journal  the journal's file
 * @throws ServiceError `invalid-image` | `unsupported` for a journal that cannot be read
 */
export async function replayed(volume: BlockSource, journal: BlockSource, superblock: Superblock): Promise<Replay> {
  const { blockBytes, blocks } = superblock
  if (journal.size < Math.max(blockBytes, record.bytes)) throw refuse('malformed', `the journal has ${journal.size} bytes`)
  const raw = record.parse(await journal.read(0, record.bytes))
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refuse('malformed', `the journal: ${problem}`)
  }
  check(raw.magic === MAGIC && raw.blockType <= TYPE.superblock, 'no superblock at its beginning')
  check(raw.blockBytes === blockBytes, `s_blocksize is ${raw.blockBytes}, and that of the file system ${blockBytes}`)
  check(raw.blocks * blockBytes <= journal.size && raw.blocks * blockBytes <= MAX_JOURNAL_BYTES, `s_maxlen is ${raw.blocks}`)
  // its version 1 has no features, and zeros there
  if ((raw.incompatible & ~KNOWN_FEATURES) !== 0) {
    throw refuse('unknown-feature', `the journal's s_feature_incompat is 0x${raw.incompatible.toString(16)}`)
  }
  const has = (feature: number) => (raw.incompatible & feature) !== 0
  const fastBlocks = has(FEATURE.fastCommit) ? raw.fastCommitBlocks || DEFAULT_FAST_COMMIT_BLOCKS : 0
  const end = raw.blocks - fastBlocks
  check(raw.first >= 1 && raw.first < end, `s_first is ${raw.first}, of ${end}`)
  if (raw.start === 0) return { volume, notes: [] }
  check(raw.start >= raw.first && raw.start < end, `s_start is ${raw.start}, of ${end}`)

  const isChecked = has(FEATURE.checksums2) || has(FEATURE.checksums3)
  const seed = ~crc32c(raw.uuid, ~0xffffffff >>> 0) >>> 0
  const tagBytes = has(FEATURE.checksums3) ? 16 : 8 + (has(FEATURE.bits64) ? 4 : 0) + (has(FEATURE.checksums2) ? 2 : 0)
  const tailBytes = isChecked ? 4 : 0
  const logged = new Map<number, Logged>()
  const next = (block: number, count = 1) => raw.first + ((block - raw.first + count) % (end - raw.first))
  let [at, sequence, seen, transactions] = [raw.start, raw.sequence, 0, 0]
  let pending: { readonly blocks: [number, Logged][]; readonly revoked: number[] } = { blocks: [], revoked: [] }
  while (seen < end - raw.first) {
    const block = await journal.read(at * blockBytes, blockBytes)
    const view = new DataView(block.buffer, block.byteOffset, block.byteLength)
    if (view.getUint32(0) !== MAGIC || view.getUint32(8) !== sequence) break
    const type = view.getUint32(4)
    if (type === TYPE.descriptor) {
      const tags = tagsIn(view, tagBytes, tailBytes, { is64: has(FEATURE.bits64), isThird: has(FEATURE.checksums3) })
      for (const [index, { target, isEscaped }] of tags.entries()) {
        if (target < blocks) pending.blocks.push([target, { block: next(at, index + 1), isEscaped }])
      }
      seen += tags.length + 1
      at = next(at, tags.length + 1)
    } else if (type === TYPE.revoke) {
      pending.revoked.push(...revokedIn(view, has(FEATURE.bits64), tailBytes))
      seen += 1
      at = next(at)
    } else if (type === TYPE.commit) {
      if (isChecked && commitChecksum(block, seed) !== view.getUint32(CHECKSUM_AT)) break
      for (const target of pending.revoked) logged.delete(target) // what is logged in the same transaction is later than its revocation
      for (const [target, place] of pending.blocks) logged.set(target, place)
      pending = { blocks: [], revoked: [] }
      transactions += 1
      sequence = (sequence + 1) % HIGH
      seen += 1
      at = next(at)
    } else break
  }
  const notes = [
    `it was not unmounted: ${transactions} transaction${transactions === 1 ? '' : 's'} of its journal ${transactions === 1 ? 'is' : 'are'} read as if replayed`,
  ]
  if (fastBlocks > 0 && (await hasFastCommits(journal, end, fastBlocks, blockBytes))) {
    notes.push('its journal has fast commits, which are not read: what was written last may be missing')
  }
  return { volume: logged.size === 0 ? volume : overlaid(volume, journal, logged, blockBytes), notes }
}

interface Target {
  readonly target: number
  readonly isEscaped: boolean
}

/** Section "Descriptor Block". */
function tagsIn(
  view: DataView,
  tagBytes: number,
  tailBytes: number,
  { is64, isThird }: { is64: boolean; isThird: boolean },
): Target[] {
  const tags: Target[] = []
  const end = view.byteLength - tailBytes
  for (let at = HEADER_BYTES; at + tagBytes <= end; ) {
    const flags = isThird ? view.getUint32(at + 4) : view.getUint16(at + 6)
    const high = is64 ? view.getUint32(at + 8) : 0
    tags.push({ target: high * HIGH + view.getUint32(at), isEscaped: (flags & TAG.escaped) !== 0 })
    if ((flags & TAG.last) !== 0) return tags
    at += tagBytes + ((flags & TAG.sameUuid) === 0 ? UUID_BYTES : 0)
  }
  return tags
}

/** Section "Revocation Block". */
function revokedIn(view: DataView, is64: boolean, tailBytes: number): number[] {
  const revoked: number[] = []
  const size = is64 ? 8 : 4
  const end = Math.min(view.getUint32(HEADER_BYTES), view.byteLength - tailBytes)
  for (let at = HEADER_BYTES + 4; at + size <= end; at += size) {
    revoked.push(is64 ? view.getUint32(at) * HIGH + view.getUint32(at + 4) : view.getUint32(at))
  }
  return revoked
}

/** Over the whole block with the checksum itself as zeros. */
function commitChecksum(block: Uint8Array, seed: number): number {
  const zeroed = new Uint8Array(block) // slice() of a Buffer copies nothing
  zeroed.fill(0, CHECKSUM_AT, CHECKSUM_AT + 4)
  return ~crc32c(zeroed, ~seed >>> 0) >>> 0
}

const FAST_COMMIT_HEAD_TAG = 10 // little-endian, as everything in that area

async function hasFastCommits(journal: BlockSource, at: number, blocks: number, blockBytes: number): Promise<boolean> {
  if ((at + blocks) * blockBytes > journal.size) return false
  const first = await journal.read(at * blockBytes, 2)
  return first[0] === FAST_COMMIT_HEAD_TAG && first[1] === 0
}

/** Blocks that are in the journal are read from there. */
function overlaid(
  volume: BlockSource,
  journal: BlockSource,
  logged: ReadonlyMap<number, Logged>,
  blockBytes: number,
): BlockSource {
  const changed = Float64Array.from(logged.keys()).sort()
  const firstFrom = (block: number): number => {
    let [low, high] = [0, changed.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if (changed[middle]! < block) low = middle + 1
      else high = middle
    }
    return low
  }
  function* segments(offset: number, length: number): Generator<Segment> {
    const end = offset + length
    let at = offset
    for (let index = firstFrom(Math.floor(offset / blockBytes)); at < end; index += 1) {
      const block = changed[index]
      const start = block === undefined ? end : Math.min(end, block * blockBytes)
      if (start > at) yield { kind: 'data', offset: at, length: start - at, hostOffset: at }
      at = Math.max(at, start)
      if (block === undefined || at >= end) return
      const stop = Math.min(end, (block + 1) * blockBytes)
      const place = logged.get(block)!
      const inBlock = at - block * blockBytes
      const hostOffset = place.block * blockBytes + inBlock
      const count = stop - at
      if (!place.isEscaped) yield { kind: 'data', offset: at, length: count, hostOffset, file: journal }
      else
        yield {
          kind: 'packed',
          offset: at,
          length: count,
          load: () => unescaped(journal, place.block * blockBytes, inBlock, count),
        }
      at = stop
    }
  }
  return mappedDisk(volume, { size: volume.size, segments })
}

async function unescaped(journal: BlockSource, blockAt: number, start: number, length: number): Promise<Uint8Array> {
  const whole = new Uint8Array(await journal.read(blockAt, start + length))
  new DataView(whole.buffer).setUint32(0, MAGIC)
  return whole.subarray(start)
}
