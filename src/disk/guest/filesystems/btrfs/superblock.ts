import { ServiceError } from '../../../../base/errors.ts'
import { bytes, type Parsed, struct, u8, u16le, u32le, u64le } from '../../../../base/struct.ts'
import { GiB, KiB, MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { CHECKSUM_TYPES, isIntact } from './checksum.ts'

/** Superblock; little-endian. Source: btrfs documentation, "On-disk format", "Superblock"; Linux include/uapi/linux/btrfs_tree.h. Positions are logical addresses where nothing else is said. */
const fields = {
  fsid: bytes(32, 16),
  position: u64le(48), // bytes of the volume
  flags: bytes(56, 8),
  magic: bytes(64, 8),
  generation: u64le(72),
  root: u64le(80),
  chunkRoot: u64le(88),
  logRoot: u64le(96), // 0: nothing was synced since the last commit
  totalBytes: u64le(112),
  usedBytes: u64le(120), // a copy of a block is not counted
  rootDirectory: u64le(128), // an inode of the tree of roots
  devices: u64le(136),
  sectorBytes: u32le(144),
  nodeBytes: u32le(148),
  systemChunkBytes: u32le(160),
  chunkRootGeneration: u64le(164),
  incompatible: bytes(188, 8),
  checksumType: u16le(196),
  rootLevel: u8(198),
  chunkRootLevel: u8(199),
  logRootLevel: u8(200),
  deviceId: u64le(201),
  deviceBytes: u64le(209),
  label: bytes(299, 256),
  metadataUuid: bytes(571, 16),
  systemChunks: bytes(811, 2048),
}
const record = struct('btrfs superblock', fields)
const SUPERBLOCK_BYTES = 4096
/** Section "Superblock": the copies after the first are there where the volume is large enough. */
const POSITIONS = [64 * KiB, 64 * MiB, 256 * GiB] as const
const MAGIC = '_BHRfS_M'

const INCOMPATIBLE = {
  mixedBackReferences: 1n << 0n,
  defaultSubvolume: 1n << 1n,
  mixedGroups: 1n << 2n,
  lzo: 1n << 3n,
  zstd: 1n << 4n,
  bigMetadata: 1n << 5n,
  extendedReferences: 1n << 6n,
  raid56: 1n << 7n,
  skinnyMetadata: 1n << 8n,
  noHoles: 1n << 9n,
  metadataUuid: 1n << 10n,
  raid1c34: 1n << 11n,
  simpleQuota: 1n << 16n,
} as const
const KNOWN_INCOMPATIBLE = Object.values(INCOMPATIBLE).reduce((all, flag) => all | flag, 0n)
/** What is known and not read; all others have no name. */
const unread: readonly (readonly [flag: bigint, name: string])[] = [
  [1n << 12n, 'zoned'],
  [1n << 13n, 'extent-tree-v2'],
  [1n << 14n, 'raid-stripe-tree'],
]

/** Linux fs/btrfs/accessors.h and uapi: the low ones are states, of which one is of interest. */
const FLAG_ERROR = 1n << 2n
const KNOWN_FLAGS = 0x3n | FLAG_ERROR | (1n << 32n) // written, being relocated; a seed
const FLAG_DUMPS = 0x6_0000_0000n // metadata without the data of files: btrfs-image

const MIN_SECTOR_BYTES = 4 * KiB
const MAX_NODE_BYTES = 64 * KiB
const MAX_SYSTEM_CHUNK_BYTES = 2048
export const MAX_LEVEL = 7

/** What met every limit. */
export interface Superblock {
  readonly raw: Parsed<typeof fields>
  /** What every node bears. */
  readonly metadataFsid: Uint8Array
  readonly hasErrors: boolean
  readonly hasDefaultSubvolume: boolean
  readonly notes: readonly string[]
}

export type Refusal = 'malformed' | 'truncated' | 'damaged' | 'unknown-feature' | 'missing-devices'
const UNSUPPORTED: readonly Refusal[] = ['unknown-feature', 'missing-devices']

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(UNSUPPORTED.includes(reason) ? 'unsupported' : 'invalid-image', `btrfs: ${problem}`, {
    fileSystem: 'btrfs',
    reason,
    ...details,
  })

/**
 * The superblock that holds: the first, or the newest of its copies where the first is damaged. Where the first has no magic there
 * is no btrfs, whatever lies at the places of the copies: they outlive what is made over them.
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function readSuperblock(volume: BlockSource): Promise<Superblock | undefined> {
  const [position, ...others] = POSITIONS
  const first = await bytesAt(volume, position)
  if (!first) return undefined
  let problem: ServiceError
  try {
    return parseSuperblock(first, position)
  } catch (error) {
    if (!(error instanceof ServiceError) || error.code === 'unsupported') throw error
    problem = error
  }
  let newest: Superblock | undefined
  for (const other of others) {
    const copy = await copyAt(volume, other)
    if (copy && (!newest || copy.raw.generation > newest.raw.generation)) newest = copy
  }
  if (!newest) throw problem
  const said = problem.message.replace(/^btrfs: /, '')
  return { ...newest, notes: [`its first superblock is damaged (${said}): that at byte ${newest.raw.position} was taken`] }
}

async function bytesAt(volume: BlockSource, position: number): Promise<Uint8Array | undefined> {
  if (volume.size < position + SUPERBLOCK_BYTES) return undefined
  const found = await volume.read(position, SUPERBLOCK_BYTES)
  const { offset, bytes: length } = fields.magic
  return Buffer.from(found.subarray(offset, offset + length)).toString('latin1') === MAGIC ? found : undefined
}

/** Undefined where it is as damaged as the first. */
async function copyAt(volume: BlockSource, position: number): Promise<Superblock | undefined> {
  try {
    const found = await bytesAt(volume, position)
    return found && parseSuperblock(found, position)
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'invalid-image') return undefined
    throw error
  }
}

function parseSuperblock(input: Uint8Array, position: number): Superblock {
  const check = (holds: boolean, problem: string, details: Record<string, number> = {}) => {
    if (!holds) throw refuse('malformed', problem, { offset: position, ...details })
  }
  const type = input[fields.checksumType.offset]! + input[fields.checksumType.offset + 1]! * 256
  if (!CHECKSUM_TYPES.includes(type)) throw refuse('unknown-feature', `csum_type is ${type}, which is not known here`)
  if (!isIntact(input, type)) throw refuse('damaged', `the checksum of the superblock is wrong`, { offset: position })
  const raw = record.parse(input)
  checkFeatures(wordOf(raw.incompatible), wordOf(raw.flags))
  check(raw.position === position, `bytenr is ${raw.position}, and the superblock at ${position}`)
  const { sectorBytes, nodeBytes, systemChunkBytes } = raw
  check(
    isPowerOfTwo(sectorBytes) && sectorBytes >= MIN_SECTOR_BYTES && sectorBytes <= MAX_NODE_BYTES,
    `sectorsize is ${sectorBytes}; it is a power of 2 from ${MIN_SECTOR_BYTES} to ${MAX_NODE_BYTES}`,
  )
  check(
    isPowerOfTwo(nodeBytes) && nodeBytes >= sectorBytes && nodeBytes <= MAX_NODE_BYTES,
    `nodesize is ${nodeBytes}; it is a power of 2 from a sector to ${MAX_NODE_BYTES}`,
  )
  check(
    systemChunkBytes > 0 && systemChunkBytes <= MAX_SYSTEM_CHUNK_BYTES,
    `sys_chunk_array_size is ${systemChunkBytes}; it is at most ${MAX_SYSTEM_CHUNK_BYTES}`,
  )
  for (const level of [raw.rootLevel, raw.chunkRootLevel, raw.logRootLevel]) {
    check(level <= MAX_LEVEL, `a tree has level ${level}; the highest is ${MAX_LEVEL}`)
  }
  check(raw.usedBytes <= raw.totalBytes, `bytes_used is ${raw.usedBytes}, and total_bytes ${raw.totalBytes}`)
  check(raw.devices >= 1, `num_devices is ${raw.devices}`)
  if (raw.devices > 1) {
    const missing = raw.devices - 1
    throw refuse(
      'missing-devices',
      `it is made of ${raw.devices} devices, of which ${missing} ${missing === 1 ? 'is' : 'are'} missing here`,
      {
        devices: raw.devices,
        missing,
      },
    )
  }
  const hasOwnUuid = (wordOf(raw.incompatible) & INCOMPATIBLE.metadataUuid) !== 0n
  return {
    raw,
    metadataFsid: hasOwnUuid ? raw.metadataUuid : raw.fsid,
    hasErrors: (wordOf(raw.flags) & FLAG_ERROR) !== 0n,
    hasDefaultSubvolume: (wordOf(raw.incompatible) & INCOMPATIBLE.defaultSubvolume) !== 0n,
    notes: [],
  }
}

/** Of what is compatible, or for reading, nothing changes where files are. */
function checkFeatures(incompatible: bigint, flags: bigint): void {
  for (const [flag, name] of unread) {
    if ((incompatible & flag) !== 0n) throw refuse('unknown-feature', `it has the feature ${name}, which is not read here`)
  }
  const unknown = incompatible & ~KNOWN_INCOMPATIBLE
  if (unknown !== 0n) throw refuse('unknown-feature', `incompat_flags has 0x${unknown.toString(16)}, which is not known here`)
  if ((flags & FLAG_DUMPS) !== 0n)
    throw refuse('unknown-feature', 'it is a dump of metadata: the data of its files are not in it')
  const odd = flags & ~KNOWN_FLAGS
  if (odd !== 0n)
    throw refuse('unknown-feature', `flags has 0x${odd.toString(16)}: a change of it is under way, or it is not known here`)
}

const wordOf = (field: Uint8Array): bigint => new DataView(field.buffer, field.byteOffset).getBigUint64(0, true)
const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value))
