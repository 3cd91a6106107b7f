import { ServiceError } from '../../../../base/errors.ts'
import { bytes, type Parsed, struct, u8, u16le, u32le } from '../../../../base/struct.ts'
import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'

/** Superblock of ext2, ext3 and ext4; little-endian. Source: Linux Documentation/filesystems/ext4, "Super Block". Counts are of blocks where nothing else is said. */
const fields = {
  inodes: u32le(0),
  blocksLow: u32le(4),
  freeBlocksLow: u32le(12),
  firstDataBlock: u32le(20),
  logBlockBytes: u32le(24), // 2 ^ (10 + it)
  blocksPerGroup: u32le(32),
  inodesPerGroup: u32le(40),
  magic: u16le(56),
  state: u16le(58),
  revision: u32le(76),
  inodeBytes: u16le(88),
  compatible: u32le(92),
  incompatible: u32le(96),
  readOnly: u32le(100),
  uuid: bytes(104, 16),
  label: bytes(120, 16),
  journalInode: u32le(224),
  journalDevice: u32le(228),
  descriptorBytes: u16le(254),
  firstMetaGroup: u32le(260),
  blocksHigh: u32le(336),
  freeBlocksHigh: u32le(344),
  backupGroups: bytes(588, 8), // with sparse_super2
  checksumSeed: u32le(624),
  encodingFlags: u8(1023), // to the record's end, of 1,024 bytes
}
const record = struct('ext4 superblock', fields)
export const SUPERBLOCK_OFFSET = KiB
const MAGIC = 0xef53

/** Compatible, incompatible, and read-only compatible features that change where things are. */
export const COMPATIBLE = { hasJournal: 0x4, sparseSuper2: 0x200 } as const
export const INCOMPATIBLE = {
  fileType: 0x2,
  recover: 0x4,
  journalDevice: 0x8,
  metaGroups: 0x10,
  extents: 0x40,
  bits64: 0x80,
  multipleMount: 0x100,
  flexibleGroups: 0x200,
  attributeInodes: 0x400,
  checksumSeed: 0x2000,
  largeDirectories: 0x4000,
  inlineData: 0x8000,
  encryption: 0x10000,
  caseFolding: 0x20000,
} as const
const READ_ONLY = { sparseSuper: 0x1 } as const
/** Journals of their own device hold no files. */
const KNOWN_INCOMPATIBLE = Object.values(INCOMPATIBLE).reduce((all, flag) => all | flag, 0) & ~INCOMPATIBLE.journalDevice
const MAX_LOG_BLOCK_BYTES = 6 // 64 KiB, the kernel's own limit
const OLD_INODE_BYTES = 128 // revision 0 has no other
const OLD_DESCRIPTOR_BYTES = 32
const HIGH = 2 ** 32
const STATE_CLEAN = 1
const STATE_ERRORS = 2

/** What met every limit. */
export interface Superblock {
  readonly raw: Parsed<typeof fields>
  readonly type: 'ext2' | 'ext3' | 'ext4'
  readonly blockBytes: number
  readonly blocks: number
  readonly freeBlocks: number
  readonly groups: number
  readonly inodeBytes: number
  readonly descriptorBytes: number
  readonly isClean: boolean
  readonly hasErrors: boolean
}

export type Refusal = 'malformed' | 'truncated' | 'unknown-feature' | 'encrypted'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(reason === 'unknown-feature' || reason === 'encrypted' ? 'unsupported' : 'invalid-image', `ext4: ${problem}`, {
    fileSystem: 'ext4',
    reason,
    ...details,
  })

export const has = ({ raw }: Superblock, feature: number): boolean => (raw.incompatible & feature) !== 0

/** @returns undefined where there is no such file system @throws ServiceError `invalid-image` | `unsupported` */
export async function readSuperblock(volume: BlockSource): Promise<Superblock | undefined> {
  if (volume.size < SUPERBLOCK_OFFSET + record.bytes) return undefined
  const raw = record.parse(await volume.read(SUPERBLOCK_OFFSET, record.bytes))
  if (raw.magic !== MAGIC) return undefined
  const check = (holds: boolean, problem: string, details: Record<string, number> = {}) => {
    if (!holds) throw refuse('malformed', problem, { offset: SUPERBLOCK_OFFSET, ...details })
  }
  check(raw.revision <= 1, `s_rev_level is ${raw.revision}; 0 and 1 are known`)
  const incompatible = raw.revision === 0 ? 0 : raw.incompatible
  const unknown = (incompatible & ~KNOWN_INCOMPATIBLE) >>> 0
  if (unknown !== 0) {
    throw refuse('unknown-feature', `s_feature_incompat has 0x${unknown.toString(16)}, which is not known here`, {
      featuresIncompatible: unknown,
    })
  }
  check(
    raw.logBlockBytes <= MAX_LOG_BLOCK_BYTES,
    `s_log_block_size is ${raw.logBlockBytes}; it is at most ${MAX_LOG_BLOCK_BYTES}`,
  )
  const blockBytes = KiB * 2 ** raw.logBlockBytes
  const is64 = (incompatible & INCOMPATIBLE.bits64) !== 0
  const blocks = raw.blocksLow + (is64 ? raw.blocksHigh * HIGH : 0)
  check(Number.isSafeInteger(blocks * blockBytes), `s_blocks_count is ${blocks}, which makes 2^53 bytes or more`)
  check(
    raw.firstDataBlock === (blockBytes === KiB ? 1 : 0) || raw.firstDataBlock === 0,
    `s_first_data_block is ${raw.firstDataBlock}`,
  )
  check(blocks > raw.firstDataBlock, `s_blocks_count is ${blocks}`)
  const { blocksPerGroup, inodesPerGroup } = raw
  check(blocksPerGroup >= 8 && blocksPerGroup <= blockBytes * 8 * 65_536, `s_blocks_per_group is ${blocksPerGroup}`) // bigalloc: 2^16 blocks a bit
  check(inodesPerGroup >= 1 && inodesPerGroup <= blockBytes * 8, `s_inodes_per_group is ${inodesPerGroup}`)
  const inodeBytes = raw.revision === 0 ? OLD_INODE_BYTES : raw.inodeBytes
  check(
    isPowerOfTwo(inodeBytes) && inodeBytes >= OLD_INODE_BYTES && inodeBytes <= blockBytes,
    `s_inode_size is ${inodeBytes}; it is a power of 2 from 128 to a block`,
  )
  const descriptorBytes = is64 ? raw.descriptorBytes : OLD_DESCRIPTOR_BYTES
  check(
    isPowerOfTwo(descriptorBytes) && descriptorBytes >= (is64 ? 64 : OLD_DESCRIPTOR_BYTES) && descriptorBytes <= KiB,
    `s_desc_size is ${descriptorBytes}`,
  )
  const groups = Math.ceil((blocks - raw.firstDataBlock) / blocksPerGroup)
  check(
    raw.inodes >= 1 && raw.inodes <= groups * inodesPerGroup,
    `s_inodes_count is ${raw.inodes}, and ${groups} groups have ${inodesPerGroup} each`,
  )
  return {
    raw: { ...raw, incompatible },
    type: typeOf(raw.compatible, incompatible, raw.readOnly),
    blockBytes,
    blocks,
    freeBlocks: raw.freeBlocksLow + (is64 ? raw.freeBlocksHigh * HIGH : 0),
    groups,
    inodeBytes,
    descriptorBytes,
    isClean: (raw.state & STATE_CLEAN) !== 0,
    hasErrors: (raw.state & STATE_ERRORS) !== 0,
  }
}

const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value))

/** As libblkid tells them apart: what ext3 does not have makes it ext4, a journal ext3. */
function typeOf(compatible: number, incompatible: number, readOnly: number): Superblock['type'] {
  const ofExt3 = INCOMPATIBLE.fileType | INCOMPATIBLE.recover | INCOMPATIBLE.metaGroups
  if ((incompatible & ~ofExt3) !== 0 || (readOnly & ~0x7) !== 0) return 'ext4'
  return (compatible & COMPATIBLE.hasJournal) !== 0 ? 'ext3' : 'ext2'
}

/** The block that holds a group's descriptor, of those blocks the `index`th. Source: "Meta Block Groups", and the kernel's ext4_bg_has_super. */
export function descriptorBlock(superblock: Superblock, index: number): number {
  const { raw, blockBytes, descriptorBytes } = superblock
  const first = blockBytes === KiB && raw.firstDataBlock === 0 ? 1 : raw.firstDataBlock // where the superblock is
  if (!has(superblock, INCOMPATIBLE.metaGroups) || index < raw.firstMetaGroup) return first + index + 1
  const group = index * (blockBytes / descriptorBytes)
  const isFirstOfSmall = blockBytes === KiB && group === 0 && raw.firstDataBlock === 0
  return group * raw.blocksPerGroup + raw.firstDataBlock + (hasSuperblock(raw, group) ? 1 : 0) + (isFirstOfSmall ? 1 : 0)
}

function hasSuperblock(raw: Parsed<typeof fields>, group: number): boolean {
  if (group === 0) return true
  if ((raw.compatible & COMPATIBLE.sparseSuper2) !== 0) {
    const view = new DataView(raw.backupGroups.buffer, raw.backupGroups.byteOffset)
    return view.getUint32(0, true) === group || view.getUint32(4, true) === group
  }
  if (group === 1 || (raw.readOnly & READ_ONLY.sparseSuper) === 0) return true
  if (group % 2 === 0) return false
  return [3, 5, 7].some((base) => isPowerOf(base, group))
}

function isPowerOf(base: number, value: number): boolean {
  let power = base
  while (power < value) power *= base
  return power === value
}
