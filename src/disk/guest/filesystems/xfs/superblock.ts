import { ServiceError } from '../../../../base/errors.ts'
import { bytes, type Parsed, struct, u8, u16be, u32be, u64be } from '../../../../base/struct.ts'
import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'

/** Superblock of XFS; big-endian. Source: "XFS Algorithms & Data Structures", 3rd edition, "Superblocks"; Linux fs/xfs/libxfs/xfs_format.h. */
const fields = {
  magic: u32be(0),
  blockBytes: u32be(4),
  blocks: u64be(8),
  uuid: bytes(32, 16),
  logStart: bytes(48, 8), // a block number of the file system; 0: the log is on another device
  rootInode: bytes(56, 8),
  groupBlocks: u32be(84),
  groups: u32be(88),
  logBlocks: u32be(96),
  version: u16be(100), // its low 4 bits; the others are features
  sectorBytes: u16be(102),
  inodeBytes: u16be(104),
  inodesPerBlock: u16be(106),
  label: bytes(108, 12),
  logBlockBytes: u8(120), // log2, as the next four
  logSectorBytes: u8(121),
  logInodeBytes: u8(122),
  logInodesPerBlock: u8(123),
  logGroupBlocks: u8(124), // rounded up
  inProgress: u8(126),
  freeBlocks: bytes(144, 8),
  sharedVersion: u8(179),
  logDirectoryBlocks: u8(192),
  features2: u32be(200),
  badFeatures2: u32be(204),
  incompatible: u32be(216), // in version 5
}
const record = struct('XFS superblock', fields)
const MAGIC = 0x58465342 // "XFSB"

/** Of `version`, of `features2` (with morebits), and the incompatible ones of version 5. */
const FEATURE = { shared: 0x200, directories2: 0x2000, caseless: 0x4000, moreBits: 0x8000 } as const
const FEATURE2 = { fileType: 0x200 } as const
export const INCOMPATIBLE = {
  fileType: 0x1,
  sparseInodes: 0x2,
  metaUuid: 0x4,
  bigTimes: 0x8,
  needsRepair: 0x10,
  manyExtents: 0x20,
  exchangeRange: 0x40,
  parents: 0x80,
} as const
const KNOWN_INCOMPATIBLE = Object.values(INCOMPATIBLE).reduce((all, flag) => all | flag, 0)
const MAX_BLOCK_BYTES = 64 * KiB
const MAX_SECTOR_BYTES = 32 * KiB
const [MIN_INODE_BYTES, MAX_INODE_BYTES] = [256, 2048]
const MIN_GROUP_BLOCKS = 64 // XFS_MIN_AG_BLOCKS
const MAX_GROUP_BYTES = 2 ** 40 // XFS_AG_MAX_BYTES
const MAX_LABEL_BYTES = 12

/** What met every limit. Counts are of blocks where nothing else is said. */
export interface Superblock {
  readonly raw: Parsed<typeof fields>
  /** 4, or 5 with checksums and headers that say whose a block is. */
  readonly version: 4 | 5
  readonly blockBytes: number
  readonly blocks: number
  readonly groups: number
  readonly groupBlocks: number
  readonly inodeBytes: number
  readonly directoryBlockBytes: number
  readonly rootInode: number
  /** Entries of directories say of what kind they are. */
  readonly hasKinds: boolean
  /** Names that differ in the case of letters are the same. */
  readonly isCaseless: boolean
  readonly freeBlocks: number | null
  readonly logStart: bigint
}

export type Refusal = 'malformed' | 'truncated' | 'unknown-feature' | 'realtime' | 'too-many'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(reason === 'malformed' || reason === 'truncated' ? 'invalid-image' : 'unsupported', `xfs: ${problem}`, {
    fileSystem: 'xfs',
    reason,
    ...details,
  })

/** @returns undefined where there is no such file system @throws ServiceError `invalid-image` | `unsupported` */
export async function readSuperblock(volume: BlockSource): Promise<Superblock | undefined> {
  if (volume.size < record.bytes) return undefined
  const input = await volume.read(0, record.bytes)
  if (viewOf(input).getUint32(0) !== MAGIC) return undefined
  const raw = record.parse(input)
  const check = (holds: boolean, problem: string, details: Record<string, number> = {}) => {
    if (!holds) throw refuse('malformed', problem, { offset: 0, ...details })
  }
  const version = raw.version & 0xf
  if (version !== 4 && version !== 5) throw refuse('unknown-feature', `sb_versionnum is ${version}; 4 and 5 are read`)
  checkFeatures(raw, version)
  check(raw.inProgress === 0, 'sb_inprogress is set: mkfs or xfs_copy did not end')
  const { blockBytes, inodeBytes, groupBlocks, groups, blocks } = raw
  check(
    isPowerOfTwo(blockBytes) && blockBytes >= 512 && blockBytes <= MAX_BLOCK_BYTES && blockBytes === 2 ** raw.logBlockBytes,
    `sb_blocksize is ${blockBytes}, and sb_blocklog ${raw.logBlockBytes}`,
  )
  check(
    raw.sectorBytes === 2 ** raw.logSectorBytes &&
      raw.sectorBytes >= 512 &&
      raw.sectorBytes <= Math.min(MAX_SECTOR_BYTES, blockBytes),
    `sb_sectsize is ${raw.sectorBytes}, and sb_sectlog ${raw.logSectorBytes}`,
  )
  check(
    inodeBytes === 2 ** raw.logInodeBytes && inodeBytes >= MIN_INODE_BYTES && inodeBytes <= Math.min(MAX_INODE_BYTES, blockBytes),
    `sb_inodesize is ${inodeBytes}, and sb_inodelog ${raw.logInodeBytes}`,
  )
  check(
    raw.inodesPerBlock === blockBytes / inodeBytes && raw.logInodesPerBlock === raw.logBlockBytes - raw.logInodeBytes,
    `sb_inopblock is ${raw.inodesPerBlock}, and sb_inopblog ${raw.logInodesPerBlock}`,
  )
  check(groupBlocks >= MIN_GROUP_BLOCKS && groupBlocks * blockBytes <= MAX_GROUP_BYTES, `sb_agblocks is ${groupBlocks}`)
  check(
    raw.logGroupBlocks === Math.ceil(Math.log2(groupBlocks)),
    `sb_agblklog is ${raw.logGroupBlocks}, and sb_agblocks ${groupBlocks}`,
  )
  check(Number.isSafeInteger(blocks * blockBytes), `sb_dblocks is ${blocks}, which makes 2^53 bytes or more`)
  check(
    groups >= 1 && blocks > (groups - 1) * groupBlocks && blocks <= groups * groupBlocks,
    `sb_agcount is ${groups}, of ${groupBlocks} blocks each, and sb_dblocks ${blocks}`,
  )
  const directoryBlockBytes = blockBytes * 2 ** raw.logDirectoryBlocks
  check(directoryBlockBytes <= MAX_BLOCK_BYTES, `sb_dirblklog is ${raw.logDirectoryBlocks}`)
  const freeBlocks = viewOf(raw.freeBlocks).getBigUint64(0)
  return {
    raw,
    version,
    blockBytes,
    blocks,
    groups,
    groupBlocks,
    inodeBytes,
    directoryBlockBytes,
    rootInode: Number(viewOf(raw.rootInode).getBigUint64(0)), // node() finds whether there is such a one
    hasKinds: version === 5 || (moreOf(raw) & FEATURE2.fileType) !== 0,
    isCaseless: (raw.version & FEATURE.caseless) !== 0,
    freeBlocks: freeBlocks <= BigInt(blocks) ? Number(freeBlocks) : null,
    logStart: viewOf(raw.logStart).getBigUint64(0),
  }
}

function checkFeatures(raw: Parsed<typeof fields>, version: 4 | 5): void {
  if (version === 5) {
    const unknown = (raw.incompatible & ~KNOWN_INCOMPATIBLE) >>> 0
    if (unknown === 0) return
    throw refuse('unknown-feature', `sb_features_incompat has 0x${unknown.toString(16)}, which is not known here`, {
      featuresIncompatible: unknown,
    })
  }
  if ((raw.version & FEATURE.directories2) === 0)
    throw refuse('unknown-feature', 'its directories are of version 1, which Linux never had')
  if ((raw.version & FEATURE.shared) !== 0 || raw.sharedVersion !== 0)
    throw refuse('unknown-feature', `sb_shared_vn is ${raw.sharedVersion}; none is known`)
}

/** An old kernel wrote them in another place. Source: xfs_sb_has_mismatched_features2. */
const moreOf = (raw: Parsed<typeof fields>): number =>
  (raw.version & FEATURE.moreBits) === 0 ? 0 : raw.features2 | raw.badFeatures2

export const has = ({ raw, version }: Superblock, feature: number): boolean => version === 5 && (raw.incompatible & feature) !== 0

const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value))

export const labelOf = ({ raw }: Superblock): Uint8Array => {
  const end = raw.label.indexOf(0)
  return raw.label.subarray(0, end < 0 ? MAX_LABEL_BYTES : end)
}

/** Blocks of a group: the last may have fewer. */
const blocksOf = ({ groups, groupBlocks, blocks }: Superblock, group: number): number =>
  group === groups - 1 ? blocks - group * groupBlocks : groupBlocks

/**
 * Where blocks lie in the volume, in bytes. A block's number is that of its group, and below it `sb_agblklog` bits of the block in the group.
 * @throws ServiceError `invalid-image` where they are none of the file system's, or cut off
 */
export function offsetOf(superblock: Superblock, volume: BlockSource, block: bigint, count: number, what: string): number {
  const { raw, groups, groupBlocks, blockBytes } = superblock
  const shift = BigInt(raw.logGroupBlocks)
  const group = Number(block >> shift)
  const inGroup = Number(block & ((1n << shift) - 1n))
  if (group >= groups || inGroup + count > blocksOf(superblock, group)) {
    throw refuse('malformed', `${what} is at block ${inGroup} of group ${group}, ${count} of them: there are none`, {
      group,
      block: inGroup,
    })
  }
  const offset = (group * groupBlocks + inGroup) * blockBytes
  if (offset + count * blockBytes > volume.size)
    throw refuse('truncated', `${what} lies beyond the end of the volume`, { offset })
  return offset
}

export const viewOf = (input: Uint8Array): DataView => new DataView(input.buffer, input.byteOffset, input.byteLength)
