import { ServiceError } from '../../../../base/errors.ts'
import { bytes, struct, u8, u16le, u64le } from '../../../../base/struct.ts'
import { KiB, MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'

/** Boot sector; little-endian. Source: the Linux-NTFS project, "NTFS Documentation", $Boot. */
const record = struct('NTFS boot sector', {
  oemName: bytes(3, 8),
  sectorBytes: u16le(11),
  clusterSectors: u8(13),
  sectors: u64le(40),
  mftCluster: u64le(48),
  mirrorCluster: u64le(56),
  recordSize: u8(64), // clusters; from 128 on a negative power of 2, in bytes
  indexBlockSize: u8(68), // the same
  serial: bytes(72, 8),
})
const SECTOR_BYTES = 512
const MAGIC = 'NTFS    '
const MAX_CLUSTER_BYTES = 2 * MiB // Windows' own limit
const MAX_BLOCK_BYTES = 64 * KiB

/** What met every limit. */
export interface BootSector {
  readonly clusterBytes: number
  readonly clusters: number
  readonly totalBytes: number
  readonly recordBytes: number
  readonly indexBlockBytes: number
  readonly mftCluster: number
  readonly mirrorCluster: number
  /** As blkid prints it: sixteen digits. */
  readonly uuid: string
}

export type Refusal = 'malformed' | 'truncated' | 'unknown-feature' | 'encrypted'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(reason === 'unknown-feature' || reason === 'encrypted' ? 'unsupported' : 'invalid-image', `NTFS: ${problem}`, {
    fileSystem: 'ntfs',
    reason,
    ...details,
  })

/** @returns undefined where there is no such file system @throws ServiceError `invalid-image` */
export async function readBootSector(volume: BlockSource): Promise<BootSector | undefined> {
  if (volume.size < SECTOR_BYTES) return undefined
  const sector = await volume.read(0, SECTOR_BYTES)
  if (Buffer.from(sector.subarray(3, 11)).toString('latin1') !== MAGIC) return undefined
  const raw = record.parse(sector)
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refuse('malformed', problem, { offset: 0 })
  }
  const { sectorBytes, sectors } = raw
  check([256, 512, 1024, 2048, 4096].includes(sectorBytes), `a sector has ${sectorBytes} bytes`)
  const clusterSectors = raw.clusterSectors > 128 ? 2 ** (256 - raw.clusterSectors) : raw.clusterSectors
  const clusterBytes = sectorBytes * clusterSectors
  check(isPowerOfTwo(clusterSectors) && clusterBytes <= MAX_CLUSTER_BYTES, `a cluster has ${clusterSectors} sectors`)
  const totalBytes = sectors * sectorBytes
  const clusters = Math.floor(totalBytes / clusterBytes)
  check(clusters > 0 && Number.isSafeInteger(totalBytes), `it has ${sectors} sectors`)
  const sizeOf = (field: number, what: string): number => {
    const size = field < 128 ? field * clusterBytes : 2 ** (256 - field)
    check(
      isPowerOfTwo(size) && size >= 256 && size <= MAX_BLOCK_BYTES,
      `${what} has ${size} bytes; it has 256 to ${MAX_BLOCK_BYTES}`,
    )
    return size
  }
  const recordBytes = sizeOf(raw.recordSize, 'a file record')
  const indexBlockBytes = sizeOf(raw.indexBlockSize, 'an index block')
  check(raw.mftCluster > 0 && raw.mftCluster < clusters, `$MFT is at cluster ${raw.mftCluster}, of ${clusters}`)
  const serial = Buffer.from(raw.serial).reverse().toString('hex').toUpperCase()
  const uuid = /^0+$/.test(serial) ? '' : serial
  const { mftCluster, mirrorCluster } = raw
  return { clusterBytes, clusters, totalBytes, recordBytes, indexBlockBytes, mftCluster, mirrorCluster, uuid }
}

const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value))
