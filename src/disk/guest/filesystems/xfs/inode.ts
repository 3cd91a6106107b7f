import { type Parsed, struct, u8, u16be, u32be } from '../../../../base/struct.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import type { FileNode, NodeKind } from '../file-system.ts'
import { has, INCOMPATIBLE, offsetOf, refuse, type Superblock, viewOf } from './superblock.ts'

/** Inode, its core; big-endian. Source: "XFS Algorithms & Data Structures", "On-disk Inode"; Linux fs/xfs/libxfs/xfs_format.h, struct xfs_dinode. */
const fields = {
  magic: u16be(0),
  mode: u16be(2),
  version: u8(4),
  format: u8(5),
  oldLinks: u16be(6), // in version 1
  uid: u32be(8),
  gid: u32be(12),
  links: u32be(16),
  extents: u32be(76), // of the data; of the attributes where the inode can have more
  attributeExtents: u16be(80),
  forkOffset: u8(82), // of the attributes, in 8 bytes from the end of the core; 0: none
  attributeFormat: u8(83),
  flags: u16be(90),
}
const record = struct('XFS inode', fields)
const MAGIC = 0x494e // "IN"
const MANY_EXTENTS_AT = 24
const MODIFIED_AT = 40
const CHANGED_AT = 48
const SIZE_AT = 56
const OLD_CORE_BYTES = 100
const FLAGS2_AT = 120
const OWN_NUMBER_AT = 152
const CORE_BYTES = 176 // of version 3
const FLAG = { realtime: 0x1 } as const
const FLAG2 = { bigTimes: 0x8, manyExtents: 0x10 } as const
/** Seconds before 1970 at which wide times begin. */
const BIG_TIME_EPOCH = 2n ** 31n
const MAX_ATTRIBUTE_EXTENTS = 2 ** 32 - 1
const MAX_EXTENTS = 2 ** 48 - 1

const kinds: Readonly<Record<number, NodeKind>> = {
  1: 'fifo',
  2: 'character',
  4: 'directory',
  6: 'block',
  8: 'file',
  10: 'symlink',
  12: 'socket',
}

/** Where a fork of an inode is: in it, in extents that it lists, or in a tree of them. */
export type ForkFormat = 'device' | 'local' | 'extents' | 'tree'
const formats: readonly (ForkFormat | undefined)[] = ['device', 'local', 'extents', 'tree']

export interface Fork {
  readonly format: ForkFormat
  /** What the inode holds of it: data, extents, or the root of a tree. */
  readonly bytes: Uint8Array
  readonly extents: number
}

export interface Inode extends FileNode {
  readonly data: Fork
  readonly attributes: Fork | null
  /** Its data are on the realtime device. */
  readonly isRealtime: boolean
}

/** @throws ServiceError `invalid-image` where there is no such inode */
export async function readInode(volume: BlockSource, superblock: Superblock, id: number): Promise<Inode> {
  const none = () => refuse('malformed', `there is no inode ${id}`, { inode: id })
  if (!Number.isSafeInteger(id) || id <= 0) throw none()
  const { raw, inodeBytes } = superblock
  const inBlock = id % raw.inodesPerBlock
  const block = BigInt((id - inBlock) / raw.inodesPerBlock)
  const offset = offsetOf(superblock, volume, block, 1, `inode ${id}`)
  const input = await volume.read(offset + inBlock * inodeBytes, inodeBytes)
  return parseInode(id, new Uint8Array(input), superblock) // nodes are kept for longer than pages
}

/** @throws ServiceError `invalid-image` where it is not in use, is another, or is none of the known kinds */
export function parseInode(id: number, input: Uint8Array, superblock: Superblock): Inode {
  const raw = record.parse(input)
  const view = viewOf(input)
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refuse('malformed', `inode ${id}: ${problem}`, { inode: id })
  }
  check(raw.magic === MAGIC, 'it has not the magic of one')
  check(superblock.version === 5 ? raw.version === 3 : raw.version === 1 || raw.version === 2, `di_version is ${raw.version}`)
  const isThird = raw.version === 3
  check(
    !isThird || view.getBigUint64(OWN_NUMBER_AT) === BigInt(id),
    `di_ino is ${isThird ? view.getBigUint64(OWN_NUMBER_AT) : 0}`,
  )
  const kind = kinds[raw.mode >>> 12]
  if (raw.mode === 0 || kind === undefined)
    throw refuse(
      'malformed',
      `inode ${id} is ${raw.mode === 0 ? 'free' : `of no known kind: di_mode is 0${raw.mode.toString(8)}`}`,
      { inode: id },
    )
  const size = view.getBigUint64(SIZE_AT)
  check(size <= BigInt(Number.MAX_SAFE_INTEGER), `di_size is ${size}, which is 2^53 or more`)
  const flags2 = isThird ? view.getBigUint64(FLAGS2_AT) : 0n
  const isBigTime = (flags2 & BigInt(FLAG2.bigTimes)) !== 0n
  const dataFormat = formats[raw.format]
  if (dataFormat === undefined) throw refuse('malformed', `di_format of inode ${id} is ${raw.format}`, { inode: id })
  const forks = forksOf(id, input, raw, superblock, (flags2 & BigInt(FLAG2.manyExtents)) !== 0n)
  const isDevice = kind === 'character' || kind === 'block'
  return {
    id,
    kind,
    mode: raw.mode & 0o7777,
    uid: raw.uid,
    gid: raw.gid,
    links: raw.version === 1 ? raw.oldLinks : raw.links,
    bytes: Number(size),
    modifiedNs: timeNs(view, MODIFIED_AT, isBigTime),
    changedNs: timeNs(view, CHANGED_AT, isBigTime),
    ...(isDevice ? { device: deviceOf(forks.data.bytes) } : {}),
    ...forks,
    isRealtime: (raw.flags & FLAG.realtime) !== 0,
  }
}

function forksOf(
  id: number,
  input: Uint8Array,
  raw: Parsed<typeof fields>,
  superblock: Superblock,
  isMany: boolean,
): { data: Fork; attributes: Fork | null } {
  const bad = (problem: string) => refuse('malformed', `inode ${id}: ${problem}`, { inode: id })
  if (isMany && !has(superblock, INCOMPATIBLE.manyExtents)) throw bad('di_flags2 has NREXT64, and the file system has it not')
  const rest = input.subarray(raw.version === 3 ? CORE_BYTES : OLD_CORE_BYTES)
  const start = raw.forkOffset * 8
  if (start >= rest.length) throw bad(`di_forkoff is ${raw.forkOffset}, and there are ${rest.length} bytes`)
  const count = isMany ? viewOf(input).getBigUint64(MANY_EXTENTS_AT) : BigInt(raw.extents)
  if (count > BigInt(MAX_EXTENTS)) throw bad(`di_big_nextents is ${count}; it is at most 2^48 - 1`)
  const fork = (field: number, bytes: Uint8Array, extents: number, word: string): Fork => {
    const format = formats[field]
    if (format === undefined) throw bad(`${word} is ${field}`)
    if (format === 'extents' && extents * 16 > bytes.length) throw bad(`${extents} extents in ${bytes.length} bytes`)
    return { format, bytes, extents }
  }
  const data = fork(raw.format, start === 0 ? rest : rest.subarray(0, start), Number(count), 'di_format')
  if (start === 0) return { data, attributes: null }
  const extents = isMany ? raw.extents : raw.attributeExtents
  if (extents > MAX_ATTRIBUTE_EXTENTS) throw bad(`di_anextents is ${extents}`)
  return { data, attributes: fork(raw.attributeFormat, rest.subarray(start), extents, 'di_aformat') }
}

/** Signed seconds and nanoseconds, or nanoseconds since December 1901. Source: "Timestamps". */
function timeNs(view: DataView, at: number, isBig: boolean): bigint {
  if (isBig) return view.getBigUint64(at) - BIG_TIME_EPOCH * 1_000_000_000n
  return BigInt(view.getInt32(at)) * 1_000_000_000n + BigInt(view.getInt32(at + 4))
}

/** As IRIX wrote it: 14 bits, and 18. Source: the kernel's sysv_major and sysv_minor. */
function deviceOf(bytes: Uint8Array): { major: number; minor: number } {
  const number = viewOf(bytes).getUint32(0)
  return { major: (number >>> 18) & 0x3fff, minor: number & 0x3ffff }
}
