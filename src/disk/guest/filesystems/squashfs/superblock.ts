import { ServiceError } from '../../../../base/errors.ts'
import { type Parsed, struct, u16le, u32le, u64le } from '../../../../base/struct.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import type { Compression } from './unpack.ts'

/** Superblock of squashfs 4.0; little-endian. Source: Linux Documentation/filesystems/squashfs.rst; fs/squashfs/squashfs_fs.h. Places are in bytes. */
const fields = {
  magic: u32le(0),
  inodes: u32le(4),
  blockBytes: u32le(12),
  fragments: u32le(16),
  compression: u16le(20),
  logBlockBytes: u16le(22),
  ids: u16le(26),
  major: u16le(28),
  minor: u16le(30),
  rootInode: u64le(32), // of the inodes: block, and in its low 16 bits the byte in it
  bytesUsed: u64le(40),
  idTable: u64le(48),
}
const record = struct('squashfs superblock', fields)
const places = struct('squashfs superblock', { inodeTable: u64le(0), directoryTable: u64le(8) })
const ATTRIBUTE_TABLE_AT = 56
const PLACES_AT = 64
const FRAGMENT_TABLE_AT = 80
export const SUPERBLOCK_BYTES = 96
const MAGIC = 0x73717368 // "hsqs"
const [MIN_LOG_BLOCK, MAX_LOG_BLOCK] = [12, 20]
const NONE = 0xffff_ffff_ffff_ffffn

export interface Superblock {
  readonly raw: Parsed<typeof fields>
  readonly compression: Compression
  readonly blockBytes: number
  readonly inodeTable: number
  readonly directoryTable: number
  /** Null: there are none. */
  readonly fragmentTable: number | null
  readonly attributeTable: number | null
}

export type Refusal = 'malformed' | 'truncated' | 'unknown-feature' | 'too-many'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(reason === 'malformed' || reason === 'truncated' ? 'invalid-image' : 'unsupported', `squashfs: ${problem}`, {
    fileSystem: 'squashfs',
    reason,
    ...details,
  })

/** @returns undefined where there is no such file system @throws ServiceError `invalid-image` | `unsupported` */
export async function readSuperblock(volume: BlockSource): Promise<Superblock | undefined> {
  if (volume.size < SUPERBLOCK_BYTES) return undefined
  const input = await volume.read(0, SUPERBLOCK_BYTES)
  if (viewOf(input).getUint32(0, true) !== MAGIC) return undefined
  const raw = record.parse(input)
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refuse('malformed', problem, { offset: 0 })
  }
  if (raw.major !== 4 || raw.minor !== 0)
    throw refuse('unknown-feature', `s_major is ${raw.major}, and s_minor ${raw.minor}; 4.0 is read`)
  const { logBlockBytes, blockBytes, bytesUsed } = raw
  check(
    logBlockBytes >= MIN_LOG_BLOCK && logBlockBytes <= MAX_LOG_BLOCK && blockBytes === 2 ** logBlockBytes,
    `block_size is ${blockBytes}, and block_log ${logBlockBytes}`,
  )
  check(bytesUsed >= SUPERBLOCK_BYTES, `bytes_used is ${bytesUsed}`)
  const { inodeTable, directoryTable } = places.parse(input.subarray(PLACES_AT))
  const tableAt = (at: number, what: string): number | null => {
    const place = viewOf(input).getBigUint64(at, true)
    if (place === NONE) return null
    check(place >= SUPERBLOCK_BYTES && place < BigInt(bytesUsed), `${what} is ${place}, of ${bytesUsed} bytes`)
    return Number(place)
  }
  check(
    inodeTable >= SUPERBLOCK_BYTES && inodeTable < directoryTable && directoryTable < bytesUsed,
    `inode_table_start is ${inodeTable}, directory_table_start ${directoryTable}`,
  )
  check(
    raw.idTable > directoryTable && raw.idTable < bytesUsed && raw.ids > 0,
    `id_table_start is ${raw.idTable}, with ${raw.ids} ids`,
  )
  return {
    raw,
    compression: compressionOf(raw.compression),
    blockBytes,
    inodeTable,
    directoryTable,
    fragmentTable: raw.fragments === 0 ? null : tableAt(FRAGMENT_TABLE_AT, 'fragment_table_start'),
    attributeTable: tableAt(ATTRIBUTE_TABLE_AT, 'xattr_id_table_start'),
  }
}

/** Source: fs/squashfs/squashfs_fs.h, ZLIB_COMPRESSION and the others. */
const compressions: Readonly<Record<number, Compression>> = { 1: 'zlib', 3: 'lzo', 4: 'xz', 5: 'lz4', 6: 'zstd' }
const LZMA = 2 // which Linux never unpacked

function compressionOf(number: number): Compression {
  const known = compressions[number]
  if (known === undefined)
    throw refuse('unknown-feature', `its compression is ${number === LZMA ? 'lzma' : number}, which is not unpacked here`)
  return known
}

export const viewOf = (input: Uint8Array): DataView => new DataView(input.buffer, input.byteOffset, input.byteLength)
