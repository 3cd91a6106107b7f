import { refuse, type Superblock, viewOf } from './superblock.ts'

/** An inode in the log: its core in the byte order of the machine, and what is new of its forks. Source: Linux fs/xfs/libxfs/xfs_log_format.h, struct xfs_inode_log_format, struct xfs_log_dinode. */
const FIELD = {
  data: 0x2,
  dataExtents: 0x4,
  dataTree: 0x8,
  device: 0x10,
  attributes: 0x40,
  attributeExtents: 0x80,
  attributeTree: 0x100,
} as const
const ANY_DATA = FIELD.data | FIELD.dataExtents | FIELD.dataTree
const ANY_ATTRIBUTES = FIELD.attributes | FIELD.attributeExtents | FIELD.attributeTree
const [PLACE_BYTES, OLD_PLACE_BYTES] = [56, 52] // machines of 32 bits leave a padding out
const [CORE_BYTES, OLD_CORE_BYTES, OLD_LOGGED_BYTES] = [176, 100, 96]
const MAGIC = 0x494e
const FLAGS2_AT = 120
const FLAG2 = { bigTimes: 0x8n, manyExtents: 0x10n } as const
const FORK_OFFSET_AT = 82
const TREE_HEADER_BYTES = { 4: 24, 5: 72 } as const // of a block; the root has the same in memory
const ROOT_HEADER_BYTES = 4

/** Numbers of the core by place and bytes; what is not here is kept as it is on disk: the list of the deleted, checksum, log's position. */
const numbers: readonly (readonly [at: number, bytes: 2 | 4 | 8])[] = [
  [0, 2],
  [2, 2],
  [8, 4],
  [12, 4],
  [16, 4],
  [20, 2],
  [22, 2],
  [56, 8],
  [64, 8],
  [72, 4],
  [76, 4],
  [80, 2],
  [84, 4],
  [88, 2],
  [90, 2],
  [92, 4],
]
const numbersOfThird: typeof numbers = [
  [104, 8],
  [FLAGS2_AT, 8],
  [128, 4],
  [152, 8],
]
const MANY_EXTENTS_AT = 24
const TIMES_AT = [32, 40, 48]
const CREATED_AT = 144
const UUID_AT = 160

export interface InodePlace {
  readonly fields: number
  readonly device: number
  /** Of the buffer that the inode is in: 512 bytes each. */
  readonly sector: number
  readonly sectors: number
  /** Of the inode in it, in bytes. */
  readonly offset: number
}

const bad = (problem: string) => refuse('malformed', `the log: ${problem}`)

export function placeOf(region: Uint8Array): InodePlace {
  if (region.length !== PLACE_BYTES && region.length !== OLD_PLACE_BYTES) throw bad(`an inode's item of ${region.length} bytes`)
  const view = viewOf(region)
  const at = region.length === PLACE_BYTES ? 16 : 12
  return {
    fields: view.getUint32(4, true),
    device: view.getUint32(at + 8, true),
    sector: Number(view.getBigInt64(at + 24, true)),
    sectors: view.getInt32(at + 32, true),
    offset: view.getInt32(at + 36, true),
  }
}

/** The inode as it is on disk after an item of the log. Source: Linux fs/xfs/xfs_inode_item_recover.c. @throws ServiceError `invalid-image` */
export function loggedInode(
  before: Uint8Array,
  { fields, device }: InodePlace,
  [, core, ...forks]: readonly Uint8Array[],
  { version }: Superblock,
): Uint8Array {
  const isThird = version === 5
  if (!core || core.length < (isThird ? CORE_BYTES : OLD_LOGGED_BYTES)) throw bad('an inode without its core')
  const after = new Uint8Array(before)
  writeCore(viewOf(after), viewOf(core), isThird)
  const start = isThird ? CORE_BYTES : OLD_CORE_BYTES
  const attributesAt = start + after[FORK_OFFSET_AT]! * 8
  if (attributesAt > after.length) throw bad(`di_forkoff is ${after[FORK_OFFSET_AT]}`)
  const ofData = after.subarray(start, attributesAt === start ? after.length : attributesAt)
  if ((fields & FIELD.device) !== 0) viewOf(ofData).setUint32(0, device)
  const next = forks.values()
  const write = (fork: Uint8Array, isTree: boolean) => {
    const { value: region } = next.next()
    if (!region) throw bad('an inode without what is new of it')
    if (isTree) writeRoot(fork, region, TREE_HEADER_BYTES[version])
    else if (region.length > fork.length) throw bad(`a fork of ${region.length} bytes, with room for ${fork.length}`)
    else fork.set(region)
  }
  if ((fields & ANY_DATA) !== 0) write(ofData, (fields & FIELD.dataTree) !== 0)
  if ((fields & ANY_ATTRIBUTES) !== 0) write(after.subarray(attributesAt), (fields & FIELD.attributeTree) !== 0)
  return after
}

function writeCore(to: DataView, from: DataView, isThird: boolean): void {
  if (from.getUint16(0, true) !== MAGIC) throw bad('an inode without its magic')
  const copy = (at: number, bytes: 2 | 4 | 8) => {
    if (bytes === 2) to.setUint16(at, from.getUint16(at, true))
    else if (bytes === 4) to.setUint32(at, from.getUint32(at, true))
    else to.setBigUint64(at, from.getBigUint64(at, true))
  }
  for (const at of [4, 5, FORK_OFFSET_AT, FORK_OFFSET_AT + 1]) to.setUint8(at, from.getUint8(at))
  for (const [at, bytes] of numbers) copy(at, bytes)
  to.setUint16(6, 0)
  const flags2 = isThird ? from.getBigUint64(FLAGS2_AT, true) : 0n
  if ((flags2 & FLAG2.manyExtents) !== 0n) copy(MANY_EXTENTS_AT, 8)
  else to.setBigUint64(MANY_EXTENTS_AT, 0n)
  const time = (at: number) => {
    if ((flags2 & FLAG2.bigTimes) !== 0n) copy(at, 8)
    else for (const each of [at, at + 4]) copy(each, 4)
  }
  for (const at of TIMES_AT) time(at)
  if (!isThird) return
  for (const [at, bytes] of numbersOfThird) copy(at, bytes)
  time(CREATED_AT)
  for (let at = UUID_AT; at < CORE_BYTES; at += 1) to.setUint8(at, from.getUint8(at))
}

/** The root of a tree is logged as it is in memory, with the head of a block and room for other numbers of entries. Source: xfs_bmbt_to_bmdr. */
function writeRoot(fork: Uint8Array, region: Uint8Array, headerBytes: number): void {
  const [room, has] = [Math.floor((fork.length - ROOT_HEADER_BYTES) / 16), Math.floor((region.length - headerBytes) / 16)]
  const count = has > 0 ? viewOf(region).getUint16(6) : 0
  if (count > has || count > room) throw bad(`a root of ${count} entries, with room for ${Math.min(has, room)}`)
  fork.set(region.subarray(4, 8)) // level and number of entries
  fork.set(region.subarray(headerBytes, headerBytes + count * 8), ROOT_HEADER_BYTES)
  const pointersAt = headerBytes + has * 8
  fork.set(region.subarray(pointersAt, pointersAt + count * 8), ROOT_HEADER_BYTES + room * 8)
}
