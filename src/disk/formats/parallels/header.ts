import { ServiceError } from '../../../base/errors.ts'
import { bytes, struct, u32le, u64le } from '../../../base/struct.ts'
import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { OpenOptions } from '../format-driver.ts'

/** Header of a Parallels expandable image, little-endian. Source: QEMU docs/interop/parallels, section "Header". */
const header = struct('ploop header', {
  magic: bytes(0, 16),
  version: u32le(16),
  blockSectors: u32le(28), // "tracks": cluster size, in sectors
  batEntries: u32le(32),
  diskSectors: u64le(36),
  inUse: u32le(44),
  dataSector: u32le(48), // where the data area begins; 0: behind the BAT
})
export const BAT_OFFSET = 64
const MAGIC_OLD = 'WithoutFreeSpace' // the BAT counts in sectors
const MAGIC_EXTENDED = 'WithouFreSpacExt' // the BAT counts in clusters
const VERSION = 2
const IN_USE = 0x746f6e59
export const SECTOR_BYTES = 512
const MAX_BLOCK_SECTORS = Math.floor((2 ** 31 - 1) / 513) // QEMU's own limit, some 2 GiB
const MAX_BAT_BYTES = 512 * MiB // QEMU's own limit. It is read in parts, and lies in the file

/** What a reader must know of a header that met every limit. */
export interface ParallelsHeader {
  readonly virtualBytes: number
  readonly blockBytes: number
  readonly batEntries: number
  /** How many bytes 1 in an entry stands for. */
  readonly unitBytes: number
  /** No block begins before. */
  readonly dataOffset: number
  /** The file was not closed, or is open elsewhere. */
  readonly isInUse: boolean
}

type Refusal = 'malformed' | 'truncated' | 'unknown-feature' | 'overlap' | 'no-snapshots'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(reason === 'no-snapshots' ? 'unsupported' : 'invalid-image', `ploop: ${problem}`, {
    format: 'ploop',
    reason,
    ...details,
  })

/** @throws ServiceError `invalid-image` | `unsupported`, saying what is wrong and the limit */
export async function readHeader(file: BlockSource, { parent, snapshot }: OpenOptions): Promise<ParallelsHeader> {
  if (snapshot !== undefined) throw refuse('no-snapshots', 'snapshots of such disks are files of their own')
  if (parent) throw refuse('malformed', 'a parent is given, but nothing in the file says that it is a difference')
  const h = header.parse(await file.read(0, Math.min(file.size, header.bytes)))
  const check = (holds: boolean, problem: string, details: Record<string, number> = {}) => {
    if (!holds) throw refuse('malformed', problem, details)
  }
  const magic = Buffer.from(h.magic).toString('latin1')
  check(magic === MAGIC_OLD || magic === MAGIC_EXTENDED, 'wrong magic: this is no Parallels disk')
  const { version, blockSectors, batEntries, diskSectors, dataSector } = h
  check(version === VERSION, `unknown version ${version}; ${VERSION} is known`, { version })
  const isBlockSize = blockSectors > 0 && blockSectors <= MAX_BLOCK_SECTORS
  check(isBlockSize, `tracks is ${blockSectors}; a cluster has 1 to ${MAX_BLOCK_SECTORS} sectors`, { blockSectors })
  check(batEntries * 4 <= MAX_BAT_BYTES, `nb_bat_entries is ${batEntries}; at most ${MAX_BAT_BYTES / 4}`, { batEntries })
  const batEnd = BAT_OFFSET + batEntries * 4
  if (batEnd > file.size) throw beyondEnd('the BAT', BAT_OFFSET, batEntries * 4, file.size)
  const isOld = magic === MAGIC_OLD
  check(!isOld || diskSectors < 2 ** 32, 'nb_sectors uses more than 32 bits', { diskSectors })
  check(
    diskSectors <= batEntries * blockSectors,
    `the BAT is too small for the disk: ${batEntries} entries for ${diskSectors} sectors`,
    {
      batEntries,
      diskSectors,
    },
  )
  const virtualBytes = diskSectors * SECTOR_BYTES
  check(Number.isSafeInteger(virtualBytes), 'the disk has 2^53 bytes or more', { diskSectors })
  const firstFree = Math.ceil(batEnd / SECTOR_BYTES) * SECTOR_BYTES
  const dataOffset = dataSector * SECTOR_BYTES
  check(dataSector === 0 || dataOffset >= firstFree, 'data_off lies in the BAT', { dataSector })
  return {
    virtualBytes,
    blockBytes: blockSectors * SECTOR_BYTES,
    batEntries,
    unitBytes: isOld ? SECTOR_BYTES : blockSectors * SECTOR_BYTES,
    dataOffset: Math.max(dataOffset, firstFree),
    isInUse: h.inUse === IN_USE,
  }
}

export const beyondEnd = (what: string, offset: number, length: number, fileBytes: number): ServiceError =>
  refuse('truncated', `${what} lies beyond the end of the file, which has ${fileBytes} bytes; is the upload complete?`, {
    offset,
    length,
    fileBytes,
  })
