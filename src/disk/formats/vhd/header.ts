import { ServiceError } from '../../../base/errors.ts'
import { bytes, struct, u32be, u64be } from '../../../base/struct.ts'
import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { OpenOptions } from '../format-driver.ts'
import {
  checksumOf,
  DIFFERENCING,
  FIXED,
  FOOTER_BYTES,
  FORMAT_VERSION,
  footerIn,
  hasCookie,
  isFooter,
  parseFooter,
  refuse,
  SECTOR_BYTES,
  type VhdFooter,
} from './footer.ts'

/** Big-endian. Source: Microsoft's specification, "Dynamic Disk Header Format". Names and locators of a parent are never read. */
const dynamicHeader = struct('vhd dynamic disk header', {
  cookie: bytes(0, 8),
  dataOffsetHigh: u32be(8), // all ones: specification, "currently unused"
  dataOffsetLow: u32be(12),
  tableOffset: u64be(16),
  version: u32be(24),
  tableEntries: u32be(28),
  blockBytes: u32be(32),
  checksum: u32be(36),
})
export const DYNAMIC_HEADER_BYTES = 1024
const DYNAMIC_COOKIE = 'cxsparse'
const CHECKSUM_AT = 36
const MAX_BLOCK_BYTES = 256 * MiB // Hyper-V writes 2 MiB; bounds the bitmap of a block at 64 KiB
/** Blocks that the disk may need: 32 MiB of table, and 2,040 GiB in blocks of 256 KiB. Bounds what an audit holds. */
const MAX_BLOCKS = 2 ** 23

export type Vhd = FixedVhd | SparseVhd

export interface FixedVhd {
  readonly kind: 'fixed'
  readonly footer: VhdFooter
  /** Where the footer at the end of the file begins: the disk lies before it. */
  readonly footerOffset: number
}
export interface SparseVhd {
  readonly kind: 'dynamic' | 'differencing'
  readonly footer: VhdFooter
  /** Where the footer at the end of the file begins: all blocks lie before it. */
  readonly footerOffset: number
  readonly headerOffset: number
  readonly tableOffset: number
  /** Entries that the table has, and how many of them the disk needs; 4 bytes each. */
  readonly tableEntries: number
  readonly blocks: number
  readonly blockBytes: number
  /** Of the bitmap that stands before each block: a bit for a sector, in whole sectors. */
  readonly bitmapBytes: number
}

/**
 * Reads and checks footers and dynamic disk header, and whether what was given fits them.
 * @throws ServiceError `invalid-image` | `unsupported`, saying what is wrong and the limit
 */
export async function readVhd(file: BlockSource, given: OpenOptions = {}): Promise<Vhd> {
  const vhd = await readLayout(file)
  if (given.snapshot !== undefined) {
    throw new ServiceError('not-found', `vhd: the file has no snapshot "${given.snapshot}": the format has none`)
  }
  if (vhd.kind === 'differencing' && !given.parent) {
    throw refuse(
      'external-reference',
      'the disk is the child of another file, and references to other files are never followed; name its parent, or merge it into it',
    )
  }
  if (vhd.kind !== 'differencing' && given.parent) {
    throw refuse('malformed', `a parent is given, but the disk is ${vhd.kind}: it stands alone`)
  }
  return vhd
}

/** @throws ServiceError `invalid-image` | `unsupported`, but for a parent that is not given */
export async function readLayout(file: BlockSource): Promise<Vhd> {
  const edge = Math.min(FOOTER_BYTES, file.size)
  const [head, tail] = await Promise.all([file.read(0, edge), file.read(file.size - edge, edge)])
  const end = footerIn(tail)
  const footerOffset = file.size - (end?.length ?? 0)
  if (!hasCookie(head) || footerOffset === 0) {
    if (!end) throw refuse('malformed', 'there is no footer, neither at the end of the file nor a copy at its start')
    return fixedLayout(parseFooter(end, footerOffset), footerOffset)
  }
  if (end && !isFooter(head)) {
    /** A disk may begin with any bytes. Of a dynamic one the file ends with another type, and its copy at the start is damaged. */
    const last = parseFooter(end, footerOffset)
    if (last.diskType === FIXED) return fixedLayout(last, footerOffset)
  }
  const copy = parseFooter(head, 0)
  if (copy.diskType === FIXED) {
    throw refuse('malformed', 'the footer at the start of the file says that the disk is fixed; those have one at the end only')
  }
  if (!end)
    throw refuse('truncated', 'the footer at the end of the file is missing; is the upload complete?', { fileBytes: file.size })
  const last = parseFooter(end, footerOffset)
  for (const name of Object.keys(copy) as (keyof VhdFooter)[]) {
    if (name !== 'isSaved' && copy[name] !== last[name]) {
      throw refuse('malformed', 'the footers at the start and the end of the file contradict each other', { footerOffset })
    }
  }
  return sparseLayout(file, copy, footerOffset)
}

function fixedLayout(footer: VhdFooter, footerOffset: number): FixedVhd {
  if (footer.diskType !== FIXED) {
    throw refuse('malformed', 'the footer is not of a fixed disk, and its copy at the start of the file is missing')
  }
  if (footer.virtualBytes > footerOffset) {
    throw refuse('truncated', `the disk has ${footer.virtualBytes} bytes, and only ${footerOffset} come before the footer`, {
      virtualBytes: footer.virtualBytes,
      footerOffset,
    })
  }
  return { kind: 'fixed', footer, footerOffset }
}

async function sparseLayout(file: BlockSource, footer: VhdFooter, footerOffset: number): Promise<SparseVhd> {
  const { headerOffset, virtualBytes } = footer
  if (headerOffset === undefined || headerOffset < FOOTER_BYTES || headerOffset > footerOffset - DYNAMIC_HEADER_BYTES) {
    throw refuse('malformed', 'Data Offset does not lead to a dynamic disk header between the footers', {
      headerOffset: headerOffset ?? -1,
      footerOffset,
    })
  }
  const input = await file.read(headerOffset, DYNAMIC_HEADER_BYTES)
  const { cookie, version, tableOffset, tableEntries, blockBytes, checksum } = dynamicHeader.parse(input)
  if (Buffer.from(cookie).toString('latin1') !== DYNAMIC_COOKIE) {
    throw refuse('malformed', `the dynamic disk header at byte ${headerOffset} does not begin with "${DYNAMIC_COOKIE}"`, {
      headerOffset,
    })
  }
  if (checksumOf(input, CHECKSUM_AT) !== checksum) {
    throw refuse('malformed', `the checksum of the dynamic disk header at byte ${headerOffset} is wrong`, {
      headerOffset,
      checksum,
    })
  }
  if (version >>> 16 !== FORMAT_VERSION >>> 16) {
    throw refuse('unknown-feature', `the dynamic disk header has Header Version ${version >>> 16}; 1 is known`, { version })
  }
  if (blockBytes < SECTOR_BYTES || blockBytes > MAX_BLOCK_BYTES || !Number.isInteger(Math.log2(blockBytes))) {
    throw refuse('malformed', `Block Size is ${blockBytes}; it must be a power of 2 from 512 bytes to 256 MiB`, { blockBytes })
  }
  const blocks = Math.ceil(virtualBytes / blockBytes)
  if (tableEntries < blocks) {
    throw refuse('malformed', `Max Table Entries is ${tableEntries}, and the disk has ${blocks} blocks`, { tableEntries, blocks })
  }
  if (blocks > MAX_BLOCKS) {
    throw refuse('unknown-feature', `the disk has ${blocks} blocks; at most ${MAX_BLOCKS} are supported`, {
      blocks,
      max: MAX_BLOCKS,
    })
  }
  if (tableOffset < FOOTER_BYTES || tableEntries * 4 > footerOffset - tableOffset) {
    throw refuse('malformed', 'the block allocation table does not lie between the footers', {
      tableOffset,
      tableEntries,
      footerOffset,
    })
  }
  return {
    kind: footer.diskType === DIFFERENCING ? 'differencing' : 'dynamic',
    footer,
    footerOffset,
    headerOffset,
    tableOffset,
    tableEntries,
    blocks,
    blockBytes,
    bitmapBytes: bitmapBytesOf(blockBytes),
  }
}

export const bitmapBytesOf = (blockBytes: number): number =>
  Math.ceil(blockBytes / SECTOR_BYTES / 8 / SECTOR_BYTES) * SECTOR_BYTES

/** The header that we write. @param blocks entries of the table, which follows the header */
export function buildDynamicHeader(blocks: number, blockBytes: number, tableOffset: number): Uint8Array {
  const built = new Uint8Array(DYNAMIC_HEADER_BYTES)
  built.set(
    dynamicHeader.build({
      cookie: Buffer.from(DYNAMIC_COOKIE),
      dataOffsetHigh: 0xffffffff,
      dataOffsetLow: 0xffffffff,
      tableOffset,
      version: FORMAT_VERSION,
      tableEntries: blocks,
      blockBytes,
      checksum: 0,
    }),
  )
  new DataView(built.buffer).setUint32(CHECKSUM_AT, checksumOf(built, CHECKSUM_AT))
  return built
}
