import { ServiceError } from '../../../base/errors.ts'
import { bytes, struct, u32le, u64le } from '../../../base/struct.ts'
import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { OpenOptions } from '../format-driver.ts'

/** VDI header, version 1.1; little-endian. Source: VirtualBox, VDICore.h, VDIPREHEADER and VDIHEADER1PLUS, whose names messages use. */
export const header = struct('vdi header', {
  fileInfo: bytes(0, 64), // text for people
  signature: u32le(0x40),
  version: u32le(0x44),
  headerBytes: u32le(0x48), // from this field on
  imageType: u32le(0x4c),
  flags: u32le(0x50),
  comment: bytes(0x54, 256),
  blockMapOffset: u32le(0x154), // offBlocks
  dataOffset: u32le(0x158), // offData
  sectorBytes: u32le(0x168), // of the old geometry, the rest of which is not used
  virtualBytes: u64le(0x170), // cbDisk
  blockBytes: u32le(0x178), // cbBlock
  blockExtraBytes: u32le(0x17c), // cbBlockExtra
  blocks: u32le(0x180), // cBlocks
  blocksAllocated: u32le(0x184), // cBlocksAllocated
  createId: bytes(0x188, 16),
  modifyId: bytes(0x198, 16),
  linkId: bytes(0x1a8, 16), // uuidLinkage: what created the parent
  parentModifyId: bytes(0x1b8, 16),
})
/** What VirtualBox adds in 1.1: a second geometry. */
export const LOGICAL_GEOMETRY_SECTOR_AT = 0x1d4
/** Of VDIHEADER1PLUS, counted from 0x48. */
export const HEADER_BYTES = 400
export const SIGNATURE = 0xbeda107f
export const VERSION = 0x00010001
export const DYNAMIC = 1
export const STATIC = 2
const UNDO = 3
const DIFFERENCING = 4
export const SECTOR_BYTES = 512
const MIN_BLOCK_BYTES = 4 * KiB
const MAX_BLOCK_BYTES = 64 * MiB // VirtualBox and QEMU write 1 MiB
/** 64 TiB in blocks of 1 MiB: 256 MiB of map in the file, and 8 MiB of memory for an audit. */
export const MAX_BLOCKS = 2 ** 26

/** Why a file was refused: stable words for clients, in `details.reason`. */
export type Refusal = 'malformed' | 'truncated' | 'external-reference' | 'unknown-feature' | 'overlap'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(reason === 'unknown-feature' ? 'unsupported' : 'invalid-image', `vdi: ${problem}`, {
    format: 'vdi',
    reason,
    ...details,
  })

/** What a reader must know of a header that met every limit. */
export interface VdiHeader {
  readonly kind: 'dynamic' | 'static' | 'differencing'
  readonly virtualBytes: number
  readonly blockBytes: number
  /** Entries of the block map, 4 bytes each; the disk may need fewer. */
  readonly blocks: number
  readonly blocksAllocated: number
  readonly blockMapOffset: number
  readonly dataOffset: number
}

/**
 * Reads and checks the header, and whether what was given fits it.
 * @throws ServiceError `invalid-image` | `unsupported`, saying what is wrong and the limit
 */
export async function readHeader(file: BlockSource, given: OpenOptions = {}): Promise<VdiHeader> {
  const parsed = parseHeader(await file.read(0, Math.min(file.size, header.bytes)), file.size)
  if (given.snapshot !== undefined) {
    throw new ServiceError('not-found', `vdi: the file has no snapshot "${given.snapshot}": the format has none`)
  }
  if (parsed.kind === 'differencing' && !given.parent) {
    throw refuse(
      'external-reference',
      'the disk is the child of another file, and references to other files are never followed; name its parent, or clone it to a full one',
    )
  }
  if (parsed.kind !== 'differencing' && given.parent) {
    throw refuse('malformed', `a parent is given, but the disk is ${parsed.kind}: it stands alone`)
  }
  return parsed
}

/** @param bytes the start of the file, at least 456 bytes of it where the file has them */
export function parseHeader(bytes: Uint8Array, fileBytes: number): VdiHeader {
  const h = header.parse(bytes)
  const check = (holds: boolean, problem: string, details: Record<string, number> = {}) => {
    if (!holds) throw refuse('malformed', problem, details)
  }
  check(h.signature === SIGNATURE, 'wrong signature: this is no vdi file')
  if (h.version !== VERSION) {
    throw refuse('unknown-feature', `the version is ${h.version >>> 16}.${h.version & 0xffff}; 1.1 is known`, {
      version: h.version,
    })
  }
  const { blockBytes, blocks, blocksAllocated, blockMapOffset, dataOffset } = h
  const kind = kindOf(h)
  if (h.sectorBytes !== SECTOR_BYTES || h.blockExtraBytes !== 0) {
    throw refuse(
      'unknown-feature',
      `sectors of ${h.sectorBytes} bytes, blocks with cbBlockExtra ${h.blockExtraBytes}: 512 and 0 are known`,
      {
        sectorBytes: h.sectorBytes,
        blockExtraBytes: h.blockExtraBytes,
      },
    )
  }
  check(
    blockBytes >= MIN_BLOCK_BYTES && blockBytes <= MAX_BLOCK_BYTES && Number.isInteger(Math.log2(blockBytes)),
    `cbBlock is ${blockBytes}; it must be a power of 2 from 4 KiB to 64 MiB`,
    { blockBytes },
  )
  const virtualBytes = Math.ceil(h.virtualBytes / SECTOR_BYTES) * SECTOR_BYTES // VBoxManage convertfromraw leaves odd sizes
  check(virtualBytes <= blocks * blockBytes, `cBlocks is ${blocks}: too few blocks for the disk`, { blocks, virtualBytes })
  if (blocks > MAX_BLOCKS) {
    throw refuse('unknown-feature', `the disk has ${blocks} blocks; at most ${MAX_BLOCKS} are supported`, {
      blocks,
      max: MAX_BLOCKS,
    })
  }
  check(blocksAllocated <= blocks, `cBlocksAllocated is ${blocksAllocated}, of ${blocks} blocks`, { blocksAllocated, blocks })
  check(blockMapOffset % SECTOR_BYTES === 0 && blockMapOffset >= SECTOR_BYTES, 'offBlocks is not at a sector after the header', {
    blockMapOffset,
  })
  check(dataOffset % SECTOR_BYTES === 0, 'offData is not at a sector', { dataOffset })
  check(blockMapOffset + blocks * 4 <= dataOffset, 'the block map reaches beyond offData, where the blocks begin', {
    blockMapOffset,
    dataOffset,
  })
  if (blocks > 0 && blockMapOffset + blocks * 4 > fileBytes) {
    throw refuse(
      'truncated',
      `the block map lies beyond the end of the file, which has ${fileBytes} bytes; is the upload complete?`,
      {
        blockMapOffset,
        fileBytes,
      },
    )
  }
  return { kind, virtualBytes, blockBytes, blocks, blocksAllocated, blockMapOffset, dataOffset }
}

interface KindFields {
  readonly imageType: number
  readonly linkId: Uint8Array
  readonly parentModifyId: Uint8Array
}
function kindOf({ imageType, linkId, parentModifyId }: KindFields): VdiHeader['kind'] {
  const isLinked = linkId.some((byte) => byte !== 0)
  if (imageType === UNDO || imageType === DIFFERENCING) {
    if (!isLinked)
      throw refuse('malformed', `the image type is ${imageType}, the child of another, and uuidLinkage names none`, { imageType })
    return 'differencing'
  }
  if (imageType !== DYNAMIC && imageType !== STATIC) {
    throw refuse('malformed', `the image type is ${imageType}; 1 to 4 are known`, { imageType })
  }
  if (isLinked || parentModifyId.some((byte) => byte !== 0)) {
    throw refuse('external-reference', `the image type is ${imageType}, complete in itself, and yet its uuids name a parent`, {
      imageType,
    })
  }
  return imageType === STATIC ? 'static' : 'dynamic'
}
